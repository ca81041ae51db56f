"""Make a new directory tree from manifest entries: directories, links, new files, hard links.

Used wherever Moorline writes a tree: in a store of layout tree, on a target, and for `export`. The
tree is new and private while it grows: nobody else knows its name yet.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Optional

from moorline.disk import Descent, Disk, barrier_reports_errors
from moorline.files import written
from moorline.manifest import LINK, Entry


class NewTree:
    """A tree that grows below the open, empty directory `root`. Entries come in sorted order.

    `owner` is (uid, gid) for everything made, None for whoever runs this. In a `private` tree
    nobody else can put a link in the way, because its root lets nobody in: names are then paths
    from the root, and no directory has to be opened to make what is in it.
    """

    def __init__(
        self, disk: Disk, root: int, owner: Optional[tuple[int, int]] = None, *,
        private: bool = False,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.owner = owner
        self._private = private
        self._descent = Descent(disk, root)
        self.unfinished: list[Entry] = []  # directories that get their mode once they are filled
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._barrier_is_enough = barrier_reports_errors()

    def __enter__(self) -> NewTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._descent.close()

    @property
    def root(self) -> int:
        return self._descent.root

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """An open directory, and the name of `path` from there."""
        if self._private:
            return self.root, path
        directory, _, name = path.rpartition(b"/")
        return self._descent.enter(directory or b"."), name

    def add(self, entry: Entry) -> None:
        """A directory or link."""
        if entry.kind == LINK:
            at, name = self.parent(entry.path)
            self.disk.make_link(entry.target, name, at)
        else:
            made = entry.mode | 0o700
            if entry.path != b".":
                at, name = self.parent(entry.path)
                self.disk.make_directory(name, made, at)
            elif os.fstat(self._descent.enter(b".")).st_mode & stat.S_ISGID:
                # Given by the directory above, and what is made in here would inherit it.
                self.disk.set_mode(self._descent.enter(b"."), 0o700 if self._private else made)
            if made & ~self._umask != entry.mode or entry.path == b".":
                self.unfinished.append(entry)
        if self.owner is not None and entry.path != b".":
            at, name = self.parent(entry.path)
            self.disk.set_owner(name, *self.owner, at)

    def hard_link(self, entry: Entry, source_at: int, source: bytes) -> bool:
        """Link an existing file in; False when it has as many links as the disk allows."""
        at, name = self.parent(entry.path)
        try:
            self.disk.hard_link(source, name, source_at, at)
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM):
                return False
            raise
        return True

    def write(self, entry: Entry, chunks: Iterable[bytes], seconds: int) -> tuple[str, int]:
        """A new file with time `seconds`; returns the SHA-256 in hex and length of what was
        written. Stops after the entry's size: a source may be larger than it should be."""
        at, name = self.parent(entry.path)
        state, size = hashlib.sha256(), 0
        with written(self.disk, self.disk.create(name, 0o600, at)) as fd:
            for chunk in chunks:
                self.disk.write(fd, chunk)
                state.update(chunk)
                size += len(chunk)
                if size > entry.size:
                    break
            self._finish_file(fd, entry, seconds)
        return state.hexdigest(), size

    def clone(self, entry: Entry, source: int, seconds: int) -> bool:
        """A new file that shares the blocks of the open file `source`; False where impossible."""
        at, name = self.parent(entry.path)
        with written(self.disk, self.disk.create(name, 0o600, at)) as fd:
            if self.disk.clone(source, fd):
                self._finish_file(fd, entry, seconds)
                return True
        self.disk.unlink(name, at)
        return False

    def _finish_file(self, fd: int, entry: Entry, seconds: int) -> None:
        self._own(fd)
        self.disk.set_mode(fd, entry.mode)
        self.disk.set_times(fd, seconds)
        if not self._barrier_is_enough:
            self.disk.sync(fd)

    def remove(self, entry: Entry) -> None:
        """Take a file out again, to make it anew."""
        at, name = self.parent(entry.path)
        self.disk.unlink(name, at)

    def open(self, entry: Entry) -> tuple[int, os.stat_result]:
        at, name = self.parent(entry.path)
        return self.disk.open_file(name, at)

    def finish(self) -> None:
        """Set the modes of directories that could not have them while they were filled."""
        self.set_modes(reversed(self.unfinished))

    def set_modes(self, directories: Iterable[Entry]) -> None:
        for entry in directories:
            if entry.path == b".":
                fd = self._descent.enter(b".")
                self._own(fd)
                self.disk.set_mode(fd, entry.mode)
                continue
            at, name = self.parent(entry.path)
            fd = self.disk.open_directory(name, at)
            try:
                self.disk.set_mode(fd, entry.mode)
            finally:
                os.close(fd)

    def _own(self, fd: int) -> None:
        if self.owner is not None:
            self.disk.set_owner(fd, *self.owner)


def same_file(status: os.stat_result, entry: Entry, seconds: Optional[int]) -> bool:
    """Whether a file on disk may stand for `entry` as far as lstat can tell: content is hashed."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size == entry.size
        and status.st_mode & 0o7777 == entry.mode
        and (seconds is None or int(status.st_mtime) == seconds)
    )
