"""Nothing on the share is written in a way that two NFS clients lose: no appending (measured: 199
of 400 lines survived), no rewriting in place. Every verb runs, and its disk is watched."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from counts import Count
from crash.disks import Call, WatchedDisk
from crash.scenarios import SCENARIOS, world_of

pytestmark = pytest.mark.slow


class WritesDisk(WatchedDisk):
    """Looks at each file as it is written: how it was opened, and where it lies."""

    def __init__(self, share: Path) -> None:
        super().__init__()
        self.share = os.fsencode(share) + b"/"
        self.local_appends = self.writes = 0
        self.wrong: list[str] = []

    def after(self, call: Call) -> None:
        if call.operation in ("write", "set_times"):
            self._look(call)

    def _look(self, call: Call) -> None:
        fd = call.arguments[0]
        path = os.readlink(b"/proc/self/fd/%d" % fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        on_share = path.startswith(self.share)
        self.writes += on_share
        if flags & os.O_APPEND:
            if on_share:
                self.wrong.append(f"{call}: appends to {os.fsdecode(path)}")
            self.local_appends += not on_share


def test_no_verb_appends_on_the_share(here: Path, count: Count) -> None:
    writes = local = 0
    for name, scenario in SCENARIOS.items():
        folder = here / name
        folder.mkdir()
        world = world_of(scenario, folder)
        disk = WritesDisk(world.store)
        scenario.run(world, disk)
        assert not disk.wrong, f"{name}: {disk.wrong}"
        writes += disk.writes
        local += disk.local_appends
    assert writes > 100
    assert local > 0, "the histories of targets are appended to: the watch sees nothing"
    count.add("writes on the share that append nothing", writes)


def test_a_file_of_the_share_is_only_opened_to_write_when_it_is_made(here: Path) -> None:
    """`disk` has no other way: a new name, exclusively, or appending."""
    path = here / "file"
    disk = WatchedDisk()
    os.close(disk.create(str(path)))
    with pytest.raises(FileExistsError):
        disk.create(str(path))
    fd, _ = disk.open_file(str(path))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)
