"""The files of a source: hashed while the walk still finds more, and read once more to be written.

A source is somebody's working directory: it is read, never changed, and a file that changes while
it is read fails the publish.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from moorline.disk import Descent, Disk
from moorline.errors import Problem, SourceChanged
from moorline.hashing import (
    PIECE_FILES,
    SMALL_BYTES,
    SMALL_FILES,
    Workers,
    hash_buffer,
    hash_file,
    workers,
)
from moorline.manifest import FILE, Entry, Manifest, entry_of, shown
from moorline.progress import Progress

_CHANGES = ("vanished or was replaced", "was written to")
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE}


@dataclass(frozen=True)
class Source:
    """A directory as it was scanned. `replaced` are the linked paths, directories with a slash."""

    root: str
    manifest: Manifest
    replaced: tuple[str, ...] = ()


@dataclass
class Found:
    """What is known of a source so far: the walk adds all but files, which come as they are hashed.
    `problems` are what a build may not hold."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: bytes, problem: str) -> None:
        self.problems.append(Problem(shown(path), problem))

    def refuse_special_bits(self, path: bytes, mode: int) -> None:
        if not mode & 0o7000:
            return
        for bit, name in (
            (stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid"), (stat.S_ISVTX, "sticky")
        ):  # fmt: skip
            if mode & bit:
                self.refuse(path, f"is {name}")


class Hashing:
    """Hashes files while the walk still finds more: in this process as long as there are few, and
    by workers from then on."""

    def __init__(self, disk: Disk, root: int, found: Found, progress: Progress) -> None:
        self.disk = disk
        self.root = root
        self.found = found
        self.progress = progress
        self._done = self._files = 0
        self._few: list[tuple[bytes, bytes]] = []
        self._piece: list[tuple[bytes, bytes]] = []
        self._pool: Workers | None = None

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def add(self, directory: bytes, name: bytes) -> None:
        if self._pool is None:
            self._few.append((directory, name))
            if len(self._few) > SMALL_FILES:
                self._start(SMALL_BYTES + 1)
            return
        self._piece.append((directory, name))
        if len(self._piece) >= PIECE_FILES:
            self._pool.put(self._piece)
            self._piece = []
            self.beat()

    def beat(self) -> None:
        """Take what was hashed by now, and see that nobody is idle."""
        if self._pool is not None:
            self._add_entries(self._pool.ready())

    def _start(self, size_bytes: int) -> None:
        self._pool = workers(self._job, files=len(self._few), size_bytes=size_bytes)
        few, self._few = self._few, []
        for start in range(0, len(few), PIECE_FILES):
            self._pool.put(few[start : start + PIECE_FILES])

    def _job(self, piece: list[tuple[bytes, bytes]]) -> list[tuple[int, int, str, str]]:
        buffer = hash_buffer()
        with Descent(self.disk, self.root) as descent:
            return [_hash_one(self.disk, descent, *names, buffer) for names in piece]

    def finish(self) -> None:
        """Wait for the rest."""
        if self._pool is None:
            self._start(self._small_size())
        assert self._pool is not None
        if self._piece:
            self._pool.put(self._piece)
        self._add_entries(self._pool.finish())

    def _add_entries(self, hashed: Iterable[tuple[Any, Any]]) -> None:
        """The entries of these files, or why they are refused. What workers told is not kept until
        the end: it takes as much memory as the entries."""
        found = self.found
        for piece, results in hashed:
            rows = zip(piece, results, strict=True)
            for (directory, name), (mode, size, digest, problem) in rows:
                path = name if directory == b"." else directory + b"/" + name
                self._done += size
                self._files += 1
                if problem in _CHANGES:
                    raise changed(path, problem)
                if problem:
                    found.refuse(path, problem)
                else:
                    found.refuse_special_bits(path, mode)
                    found.entries.append(entry_of((path, FILE, mode & 0o777, size, digest, b"")))
            self.progress(self._done, 0, "hashing", self._files)

    def _small_size(self) -> int:
        """The bytes of few files: one of them may be large, and worth a second process."""
        with Descent(self.disk, self.root) as descent:
            try:
                return sum(
                    self.disk.stat(name, descent.enter(directory)).st_size
                    for directory, name in self._few
                )
            except OSError as error:
                raise gone(error, os.fsencode(error.filename or "")) from error


def _hash_one(
    disk: Disk, descent: Descent, directory: bytes, name: bytes, buffer: memoryview
) -> tuple[int, int, str, str]:
    """(mode, size, digest, problem) of one file; the problem is empty when there is none."""
    try:
        fd, before = disk.open_file(name, at=descent.enter(directory))
    except PermissionError:
        return 0, 0, "", "cannot be read"
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return 0, 0, "", _CHANGES[0]
    try:
        digest, size = hash_file(disk, fd, before.st_size, buffer)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if size != before.st_size or _stamp(before) != _stamp(after):
        return 0, 0, "", _CHANGES[1]
    return before.st_mode, size, digest, ""


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def changed(path: bytes, how: str) -> SourceChanged:
    return SourceChanged(
        f"the build changed while it was published: {shown(path)} {how}. Nothing was published. "
        "Publish after the build has ended."
    )


def gone(error: OSError, path: bytes) -> Exception:
    """What an error means for a path that was there a moment ago."""
    return changed(path, _CHANGES[0]) if error.errno in _GONE else error


def source_content(disk: Disk, descent: Descent, entry: Entry) -> Iterator[bytes]:
    """The bytes of a file of the source; raises SourceChanged if they are not those of the scan."""
    directory, _, name = entry.path.rpartition(b"/")
    try:
        fd, status = disk.open_file(name, descent.enter(directory or b"."))
    except OSError as error:
        raise gone(error, entry.path) from error
    state, size = hashlib.sha256(), 0
    try:
        if status.st_size != entry.size:
            raise changed(entry.path, _CHANGES[1])
        while size < entry.size:
            chunk = disk.read(fd, min(entry.size - size, 1 << 20))
            if not chunk:
                break
            size += len(chunk)
            state.update(chunk)
            yield chunk
        if state.hexdigest() != entry.digest:
            raise changed(entry.path, _CHANGES[1])
    finally:
        os.close(fd)
