"""Verify a directory against a manifest, in parallel: every name, type, mode, link and byte.

The directory may be hostile: it is walked by open directories, no link is followed, only regular
files are opened, and never more is read than the manifest says.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Protocol, Union

from moorline.crew import depth, read_latency
from moorline.disk import AnyPath, Descent, Disk
from moorline.errors import Problem
from moorline.hashing import (
    MOST_MESSAGE,
    PIECE_BYTES,
    PIECE_FILES,
    SMALL_FILES,
    WAITS_S,
    hash_buffer,
    hash_file,
    pieces,
    workers,
)
from moorline.manifest import DIRECTORY, FILE, LINK, Entry, Manifest, shown
from moorline.progress import Progress, no_progress

Row = tuple[bytes, str, int, int, str, bytes]
"""An Entry as workers get it: a plain tuple."""

Listing = tuple[bytes, int, Sequence[Row]]
"""The path of a directory, its mode, and what belongs into it. One that is large is told by the
modes NAMES, to learn what it holds, and then LISTED, for some of its files and links at a time."""

Looked = Optional[tuple[int, dict[bytes, str]]]
"""The mode of a directory, and what it holds by name and kind; None when it cannot be opened."""

NAMES, LISTED = -1, -2
MOST_LISTED = MOST_MESSAGE // 4  # bytes of a listing in a message, and of several together
MANY = 4 * PIECE_FILES  # names make a directory large: where each file waits, it would be the last
_ROW_BYTES = 110  # of a row beside its path and its target
_TEXT_WEIGHS = PIECE_BYTES // MOST_LISTED  # so that a piece that is full has no more text
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES})


@dataclass(frozen=True)
class Verified:
    """The outcome of a full verification: no problems means that every byte was read and right."""

    problems: tuple[Problem, ...]
    files: int
    bytes: int


class Verifier(Protocol):
    """Reads every byte of one build and lists every difference; for one call.

    Make it before the manifest is read. A forked process shares its parent's memory until one of
    the two writes there, which counting references does: with 100,000 files each had a copy.
    """

    def verify(self, manifest: Manifest, progress: Progress) -> Verified: ...
    def close(self) -> None: ...


def verify(
    disk: Disk,
    root: Union[int, AnyPath],
    manifest: Manifest,
    progress: Progress = no_progress,
) -> Verified:
    """Compare the directory `root` with `manifest`: every name, type, mode, link and byte.

    All differences are listed, sorted by path. Raises OSError only when `root` itself cannot be
    opened or the disk fails.
    """
    fd = os.dup(root) if isinstance(root, int) else disk.open_directory(root)
    try:
        files, size_bytes = len(manifest.files), manifest.size_bytes
        verifier = DirectoryVerifier(disk, fd, files=files, size_bytes=size_bytes)
        with contextlib.closing(verifier):
            return verifier.verify(manifest, progress)
    finally:
        os.close(fd)


class DirectoryVerifier:
    """A `Verifier` of the directory open as `root`, for about so many files.

    Workers get directories with what belongs into them. Of a large one they are first asked for its
    names, which are compared here, and then get its files and links in parts.
    """

    def __init__(self, disk: Disk, root: int, *, files: int, size_bytes: int) -> None:
        self.disk = disk
        self.root = root
        self._pool = workers(self._job, files=files, size_bytes=size_bytes)
        self._children: _Children = {}
        self._here = _Check(disk)
        self._files = self._bytes = 0

    def close(self) -> None:
        self._pool.close()

    def verify(self, manifest: Manifest, progress: Progress) -> Verified:
        self._suit(manifest)
        self._children = _children(manifest)
        for piece in _shared_out(self._children):
            self._pool.put(piece)
            self._take(self._pool.ready(), manifest.size_bytes, progress)
        self._take(self._pool.finish(), manifest.size_bytes, progress)
        return Verified(tuple(sorted(self._here.problems)), self._files, self._bytes)

    def _suit(self, manifest: Manifest) -> None:
        """Other workers, where each operation turns out to wait for a network."""
        files = manifest.files
        latency_s = read_latency(self.disk, self.root, files) if len(files) > SMALL_FILES else 0.0
        if latency_s > WAITS_S:
            self._pool.close()
            self._pool = workers(
                self._job, files=len(files), size_bytes=manifest.size_bytes, latency_s=latency_s,
                depth=depth(manifest.entries),
            )  # fmt: skip

    def _job(self, piece: list[Listing]) -> tuple[list[tuple[str, str]], int, int, Looked]:
        check = _Check(self.disk)
        looked: Looked = None
        with Descent(self.disk, self.root) as descent:
            for path, mode, rows in piece:
                if mode != LISTED:
                    looked = check.look(descent, path)
                if mode >= 0:
                    rows = check.names(path, mode, rows, looked)
                check.contents(descent, path, rows)
        names = looked if piece[0][1] == NAMES else None
        return [(p.path, p.problem) for p in check.problems], check.files, check.bytes, names

    def _take(
        self, results: Iterable[tuple[Any, Any]], total: int, progress: Progress
    ) -> None:  # fmt: skip
        for piece, (problems, files, size, looked) in results:
            self._here.problems += [Problem(*pair) for pair in problems]
            self._files, self._bytes = self._files + files, self._bytes + size
            path, mode, _ = piece[0]
            if mode == NAMES:
                there = self._here.names(path, *self._children[path], looked)
                for part in _parts(path, there):
                    self._pool.put(part)
            progress(self._bytes, total, "verifying", self._files)


_Children = Mapping[bytes, tuple[int, list[Entry]]]
"""By the path of a directory its mode, and what belongs into it."""


def _children(manifest: Manifest) -> _Children:
    children: dict[bytes, tuple[int, list[Entry]]] = {}
    for entry in manifest.entries:
        path = entry[0]
        if entry[1] == DIRECTORY:
            children[path] = (entry[2], [])
        if path != b".":
            children[path.rpartition(b"/")[0] or b"."][1].append(entry)
    return children


def _shared_out(children: _Children) -> Iterator[list[Listing]]:
    """What workers get at a time: small enough to share out evenly, and for a message. Large
    directories come first: the rest of the work goes on beside their parts."""
    texts = {path: len(path) + sum(map(_told, rows)) for path, (_, rows) in children.items()}
    small = []
    for path, (_, entries) in children.items():
        if len(entries) > MANY or texts[path] > MOST_LISTED:
            yield [(path, NAMES, ())]
        else:
            small.append(path)
    sizes = [
        max(sum(row[3] + 4096 for row in children[path][1]), texts[path] * _TEXT_WEIGHS)
        for path in small
    ]
    for run in pieces(sizes):
        yield [_listing(small[number], *children[small[number]]) for number in run]


def _parts(path: bytes, entries: Sequence[Row]) -> Iterator[list[Listing]]:
    for run in pieces([max(row[3], _told(row) * _TEXT_WEIGHS) for row in entries]):
        yield [_listing(path, LISTED, [entries[number] for number in run])]


def _listing(path: bytes, mode: int, rows: Sequence[Row]) -> Listing:
    return path, mode, [row[:] for row in rows]  # plain tuples: an Entry is none for marshal


def _told(row: Row) -> int:
    """About as many bytes it takes in a message."""
    return len(row[0]) + len(row[5]) + _ROW_BYTES


class _Check:
    """Compares directories with their entries and collects what differs."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.problems: list[Problem] = []
        self.files = 0
        self.bytes = 0
        self.buffer = hash_buffer()

    def differs(self, path: bytes, problem: str) -> None:
        self.problems.append(Problem(shown(path), problem))

    def look(self, descent: Descent, path: bytes) -> Looked:
        try:
            fd = descent.enter(path)
            return os.fstat(fd).st_mode, {n.name: n.kind for n in self.disk.names(fd)}
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return None

    def names(self, path: bytes, mode: int, rows: Sequence[Row], looked: Looked) -> list[Row]:
        """Compare what a directory holds by name and kind; the files and links to look at."""
        if looked is None:
            if path == b".":
                self.differs(path, "cannot be opened as a directory")
            self.missing(rows)
            return []
        self.mode(path, mode, looked[0])
        found = looked[1]
        start = 0 if path == b"." else len(path) + 1
        there = [row for row in rows if self.entry(row, found.pop(row[0][start:], ""))]
        for name, kind in found.items():
            here = name if path == b"." else path + b"/" + name
            self.differs(here, f"extra {_noun(kind).split()[-1]}")
        return there

    def missing(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.differs(row[0], "missing")

    def entry(self, row: Row, kind: str) -> bool:
        """Whether there is more to look at; `kind` is what the directory has under its name, or
        nothing."""
        if not kind:
            self.differs(row[0], "missing")
        elif kind != row[1]:
            self.differs(row[0], f"is {_noun(kind)}, should be {_noun(row[1])}")
        return kind == row[1] != DIRECTORY

    def contents(self, descent: Descent, path: bytes, rows: Sequence[Row]) -> None:
        """Files and links of one directory, which may be another one by now."""
        if not rows:
            return
        try:
            fd = descent.enter(path)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.missing(rows)
            return
        start = 0 if path == b"." else len(path) + 1
        for row in rows:
            if row[1] == FILE:
                self.file(fd, row[0][start:], row)
            elif row[1] == LINK:
                self.link(fd, row[0][start:], row)

    def mode(self, path: bytes, mode: int, found: int) -> None:
        if found & 0o7777 != mode:
            self.differs(path, f"mode is {found & 0o7777:o}, should be {mode:o}")

    def link(self, fd: int, name: bytes, row: Row) -> None:
        path, _, _, _, _, expected = row
        try:
            target = self.disk.read_link(name, at=fd)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            self.differs(path, "missing")
            return
        if target != expected:
            self.differs(path, f"leads to {shown(target)}, should be {shown(expected)}")

    def file(self, directory: int, name: bytes, row: Row) -> None:
        path, _, mode, expected_size, expected, _ = row
        try:
            fd, status = self.disk.open_file(name, at=directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ELOOP, errno.EINVAL):
                raise
            self.differs(path, f"cannot be opened: {error.strerror}")
            return
        try:
            digest, size = hash_file(self.disk, fd, expected_size, self.buffer)
        finally:
            os.close(fd)
        self.files += 1
        self.bytes += size
        self.mode(path, mode, status.st_mode)
        if size != expected_size:
            found = "more" if size > expected_size else str(size)
            self.differs(path, f"has {found} bytes, should be {expected_size}")
        elif digest != expected:
            self.differs(path, "content differs")


def _noun(kind: str) -> str:
    return {"f": "a file", "d": "a directory", "l": "a link"}.get(kind, "a special file")
