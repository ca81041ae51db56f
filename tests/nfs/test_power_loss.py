"""The power goes for real: a real kernel with ext4, its page cache and journal lost in the middle.

What publish reported is whole, `current` leads to whole files, the same verb again succeeds and
nothing is left over (the invariants of tests/crash). tests/crash/test_power_loss.py tries a model
of a disk at every operation; here the kernel has the last word, at moments drawn with a seed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from counts import Count
from nfs import needs
from nfs.guest import SHARED, Guest, lay_folder, remove_folder
from nfs.machine import MODULES
from nfs.solo import SoloRig
from nfs.waiting import until

pytestmark = pytest.mark.slow

SEED = 1
CUTS = {
    "publish-second-pack": 8,
    "publish-second-tree": 4,
    "publish-folding-pack": 4,
    "publish-repair-pack": 4,
    "deploy-copy-later-pack": 10,
    "deploy-link-later-tree": 4,
    "rollback-copy-pack": 4,
    "remove-pack": 2,
}
"""By scenario of tests/crash/scenarios.py."""


def test_ext4_is_cut_off_at_any_moment(solo: SoloRig, count: Count) -> None:
    """In one process: importing takes longer than a cut."""
    words = [f"{scenario}={cuts}" for scenario, cuts in CUTS.items()]
    assert _power(solo.guest, "/mnt/tmp", "shut", str(SEED), *words) == sum(CUTS.values())
    count.add("ext4 cut off", sum(CUTS.values()))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A machine with disks of its own; off."""
    needs.need_user_mode_linux()
    needs.need_programs("mkfs.ext4")
    guest = Guest(lay_folder(tmp_path_factory.mktemp("disks")), "disks", memory="256M")
    yield guest
    guest.stop()
    remove_folder(guest.folder)


@pytest.mark.parametrize(
    ("scenario", "moment", "live"),
    [
        ("publish-second-pack", "end", [""]),
        ("deploy-copy-later-pack", "middle", ["a"]),
        ("deploy-copy-later-pack", "switch", ["a", "b"]),
    ],
)
def test_a_machine_loses_its_power(
    machine: Guest, scenario: str, moment: str, live: list[str], count: Count
) -> None:
    now = machine.folder / "now"
    now.unlink(missing_ok=True)
    if not machine.runs:
        _boot(machine)
    running = machine.begin([*_PROGRAM, SHARED, "wait", scenario, moment], environment=MODULES)
    until(now.exists, running)
    machine.cut_power()
    assert running.wait().code == -1

    _boot(machine)
    assert _power(machine, SHARED, "look", scenario) in live
    count.add("power cuts of a machine with ext4")


_PROGRAM = [sys.executable, "-m", "nfs.guest_power"]


def _boot(machine: Guest) -> None:
    machine.boot()
    machine.shell("modprobe -d /mnt/host/modules loop")


def _power(guest: Guest, *words: str) -> object:
    answer = guest.run([*_PROGRAM, *words], environment=MODULES)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)
