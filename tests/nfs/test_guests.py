"""A guest is a process of this machine with helpers of its own: none of them outlives the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nfs import needs
from nfs.machine import MODULES
from nfs.waiting import until

pytestmark = pytest.mark.slow

BOOT = """
import sys
from pathlib import Path
from nfs.guest import Guest, lay_folder
guest = Guest(lay_folder(Path(sys.argv[1])), "doomed", memory="64M")
guest.boot()
print("booted", flush=True)
sys.stdin.read()
"""


def test_a_guest_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    needs.need_user_mode_linux()
    tests = subprocess.Popen(
        [sys.executable, "-c", BOOT, str(tmp_path / "guest")], env=MODULES,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == b"booted\n"
        assert len(_processes(tmp_path)) > 1, "a kernel and its helpers"
        tests.kill()
    until(lambda: not _processes(tmp_path))


def _processes(folder: Path) -> list[str]:
    """Those of the guest, which has its folder on its command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if b"linux.uml" in words and bytes(folder) in words:
            found.append(process.parent.name)
    return found
