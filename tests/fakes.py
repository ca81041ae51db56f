"""Disks for tests: they count, stop, fail or act before an operation, and never wait for a device.

    disk = CountingDisk(); run(disk)          how many operations are there?
    for at in range(disk.count):              every point at which a run can die or fail:
        StoppingDisk(at)                          the process is dead from here on
        FailingDisk(at, errno.ENOSPC)             this one operation fails, the program goes on
        ActingDisk(at, action)                    somebody else does something just before

A planned event that never came makes a test worthless: assert `disk.fired`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from moorline.disk import AnyPath, Disk

CHANGING = frozenset(
    {
        *("create", "append", "write", "make_directory", "make_link", "hard_link", "clone"),
        *("rename", "unlink", "remove_directory", "set_mode", "set_owner", "set_times"),
    }
)


class Stopped(BaseException):
    """The process died here: nothing may catch this and carry on."""


class CountingDisk(Disk):
    """Counts and records all operations. Syncs are counted but not done: they cost much time, and
    no test can see what they do."""

    forks = False

    def __init__(self) -> None:
        self.count = 0
        self.operations: list[tuple[str, str]] = []

    def step(self, operation: str, path: AnyPath) -> None:
        self.count += 1
        self.operations.append((operation, os.fsdecode(path)))

    def sync(self, fd: int) -> None:
        self.step("sync", str(fd))

    def sync_all(self, fd: int) -> None:
        self.step("sync_all", str(fd))


class StoppingDisk(CountingDisk):
    """Dies before operation number `at` (from 0): that one and all later ones raise Stopped."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.fired = False

    def step(self, operation: str, path: AnyPath) -> None:
        super().step(operation, path)
        if self.count > self.at:
            self.fired = True
            raise Stopped(f"before operation {self.at}: {self.operations[self.at]}")


class FailingDisk(CountingDisk):
    """Operation number `at` fails with the error `code`; with a name, the first so called from
    there on. All others work."""

    def __init__(self, at: int, code: int = errno.EIO, operation: str = "") -> None:
        super().__init__()
        self.at = at
        self.code = code
        self.operation = operation
        self.fired = False

    def step(self, operation: str, path: AnyPath) -> None:
        super().step(operation, path)
        if self.fired or self.count <= self.at or self.operation not in ("", operation):
            return
        self.fired = True
        raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))


class ActingDisk(CountingDisk):
    """Runs `action` once, just before operation number `at`: a second program in the middle."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        super().__init__()
        self.at = at
        self.action = action
        self.fired = False

    def step(self, operation: str, path: AnyPath) -> None:
        super().step(operation, path)
        if self.count > self.at and not self.fired:
            self.fired = True
            self.action()


class ReadOnlyDisk(CountingDisk):
    """A share that is mounted read-only."""

    def step(self, operation: str, path: AnyPath) -> None:
        super().step(operation, path)
        if operation in CHANGING:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))


class FewLinksDisk(CountingDisk):
    """A file system with at most `most` hard links to a file, as EFS has 177."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def hard_link(
        self,
        source: AnyPath,
        path: AnyPath,
        source_at: int | None = None,
        at: int | None = None,
    ) -> None:
        if os.stat(source, dir_fd=source_at, follow_symlinks=False).st_nlink >= self.most:
            self.step("hard_link", path)
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), os.fsdecode(path))
        super().hard_link(source, path, source_at, at)


class UnreadableDisk(CountingDisk):
    """Opening a file whose last name is `name` fails: tests run as root, whom no mode stops."""

    def __init__(self, name: bytes, code: int = errno.EACCES) -> None:
        super().__init__()
        self.name = name
        self.code = code

    def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
        if os.path.basename(os.fsencode(path)) == self.name:
            self.step("open_file", path)
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))
        return super().open_file(path, at)
