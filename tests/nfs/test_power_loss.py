"""The power goes for real: a real kernel with ext4, its page cache and journal lost in the middle.

What publish reported is whole, `current` leads to whole files, the same verb again succeeds and
nothing is left over (the invariants of tests/crash). tests/crash/test_power_loss.py tries a model
of a disk at every operation; here the kernel has the last word, at moments drawn with a seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from counts import Count
from nfs import needs
from nfs.guest import SHARED, Guest, lay_folder, remove_folder
from nfs.machine import serve
from nfs.solo import SoloRig
from nfs.waiting import until

pytestmark = pytest.mark.slow

SEED = 1
CUTS = {
    "publish-second-pack": 5,
    "publish-second-tree": 2,
    "publish-folding-pack": 2,
    "publish-repair-pack": 3,
    "deploy-copy-later-pack": 4,
    "deploy-link-later-tree": 2,
    "rollback-copy-pack": 2,
    "remove-pack": 2,
}
"""By scenario of tests/crash/scenarios.py."""

MOMENTS = {
    ("publish-second-pack", "end"): [""],
    ("deploy-copy-later-pack", "middle"): ["a"],
    ("deploy-copy-later-pack", "switch"): ["a", "b"],
}
"""Where a whole machine loses its power, and what may be live after that."""


def test_ext4_is_cut_off_at_any_moment(solo: SoloRig, count: Count) -> None:
    words = [f"{scenario}={cuts}" for scenario, cuts in CUTS.items()]
    assert _power(solo.guest, "/mnt/tmp", "shut", str(SEED), *words) == sum(CUTS.values())
    count.add("ext4 cut off", sum(CUTS.values()))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Guest]:
    """A machine with disks of its own."""
    needs.need_user_mode_linux()
    needs.need_programs("mkfs.ext4")
    guest = Guest(lay_folder(tmp_path / "disks"), "disks", memory="256M")
    _boot(guest)
    yield guest
    guest.stop()
    remove_folder(guest.folder)


def test_a_machine_loses_its_power_in_the_middle_of_three_verbs(
    machine: Guest, count: Count
) -> None:
    """Each on disks of its own; all three hang at their moment when the power goes."""
    running = []
    for scenario, moment in MOMENTS:
        folder = machine.folder / f"{scenario}.{moment}"
        folder.mkdir()
        words = [f"{SHARED}/{folder.name}", "wait", scenario, moment]
        running.append(machine.begin(words, program="power"))
        until((folder / "now").exists, running[-1])
    machine.cut_power()
    assert [each.wait().code for each in running] == [-1] * len(MOMENTS)

    _boot(machine)
    for (scenario, moment), live in MOMENTS.items():
        found = _power(machine, f"{SHARED}/{scenario}.{moment}", "look", scenario)
        assert found in live, f"{scenario}, {moment}"
    count.add("verbs that lost their machine's power, on ext4", len(MOMENTS))


def _boot(machine: Guest) -> None:
    machine.boot()
    serve(machine, "power")
    machine.shell("modprobe -d /mnt/host/modules loop")


def _power(guest: Guest, *words: str) -> object:
    answer = guest.run(words, program="power")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)
