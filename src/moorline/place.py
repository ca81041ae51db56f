"""Place a build for one target: a local copy that costs what changed, or the tree on the share.

Copy: what the target already holds is linked or cloned into the new release and hashed there, by
workers, while the rest is read from the share once, in large sequential pieces, hashing the bytes
that are written. So every byte that goes live is hashed in this very deploy, and the share sees
nothing of what did not change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Callable, Optional

from moorline.aside import Flushing
from moorline.disk import Descent, Disk
from moorline.errors import Mismatch, Problem
from moorline.growing import NewTree, same_file
from moorline.hashing import PIECE_BYTES, PIECE_FILES, Workers, hash_buffer, hash_file, workers
from moorline.layout import Reader, Times
from moorline.lines import file_lines, same_files
from moorline.manifest import FILE, Entry, Manifest, unescape
from moorline.progress import Progress

READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Held:
    """A release that the target holds: its open directory, and what reads the text of its manifest;
    empty when that is damaged. Its lines are compared with those of the new build as they are: to
    parse them would take longer than to link the files."""

    folder: int
    manifest: Callable[[], bytes]


Piece = list[tuple[bytes, int, str]]
"""Path, size and digest of some files that were reused."""


def hash_workers(disk: Disk, root: int, *, files: int, size_bytes: int) -> Workers:
    """Workers for a `Placement` in the open directory `root`, which lets nobody else in. They take
    a `Piece`, and answer with the numbers of the files in it that are wrong.

    Start them before the manifest is read. A forked process shares its parent's memory until one of
    them writes there, which counting references does: with 100,000 files each had a copy.
    """

    def job(piece: Piece) -> list[int]:
        bad, buffer = [], hash_buffer()
        for number, (path, size, digest) in enumerate(piece):
            fd, _ = disk.open_file(path, root)  # a private tree: `NewTree`
            try:
                if hash_file(disk, fd, size, buffer) != (digest, size):
                    bad.append(number)
            finally:
                os.close(fd)
        return bad

    return workers(job, files=files, size_bytes=size_bytes)


@dataclass
class Placed:
    """What a placement did; `damaged` are paths whose local copy was not what it should be."""

    verified_files: int = 0
    copied_files: int = 0
    copied_bytes: int = 0
    reused_files: int = 0
    damaged: list[str] = field(default_factory=list)


class Placement:
    """One build being written into the open, empty directory `root`, which lets nobody else in.

    `held` are releases of this target, the live one first; `owner` is (uid, gid) or None; `hashers`
    are the `hash_workers` of that directory, or None where nothing is held.
    """

    def __init__(
        self, disk: Disk, root: int, manifest: Manifest, times: Times, reader: Reader,
        held: list[Held], owner: Optional[tuple[int, int]], progress: Progress,
        hashers: Optional[Workers] = None,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.manifest = manifest
        self.times = times
        self.reader = reader
        self.owner = owner
        self.progress = progress
        self.placed = Placed()
        self._found = _found(held, manifest)  # reads: nothing of ours is open yet
        self.tree = NewTree(disk, root, owner, private=True)
        self._flushing = Flushing(disk, self.tree.root)
        self._uid = owner[0] if owner else os.geteuid()
        self._sources = [Descent(disk, release.folder) for release in held]
        self._hashers = hashers
        self._missing: list[Entry] = []
        self._clones: Optional[bool] = None
        self._done = 0

    def run(self) -> Placed:
        """Raises Mismatch, with every problem, when the share does not hold the build."""
        try:
            self._grow()
            self._flushing.begin()  # what was made: thousands of directories take a while
            self._fetch(self._missing)
            if self._missing:  # while the rest is hashed: little is left for the last barrier
                self._flushing.begin()
            damaged = self._damaged()
            for entry in damaged:
                self.tree.remove(entry)
            self._fetch(damaged)
            self._flushing.finish()
            self.tree.finish()
        finally:
            self._flushing.close()
            self.tree.close()
            for source in self._sources:
                source.close()
        self.placed.damaged = [entry.shown for entry in damaged]
        self.placed.reused_files -= len(damaged)
        self.placed.verified_files = len(self.manifest.files)
        return self.placed

    # -- what the target holds ----------------------------------------------------------------

    def _grow(self) -> None:
        """Directories, links and held files, in order; each piece is hashed once it is complete."""
        piece: Piece = []
        size = 0
        for entry in self.manifest.entries:
            if entry.kind != FILE:
                self.tree.add(entry)
            elif entry.path not in self._found or not self._reuse(entry):
                self._missing.append(entry)
            else:
                self.placed.reused_files += 1
                piece.append((entry.path, entry.size, entry.digest))
                size += entry.size
            if len(piece) >= PIECE_FILES or size >= PIECE_BYTES:
                self._hash(piece)
                piece, size = [], 0
        if piece:
            self._hash(piece)

    def _hash(self, piece: Piece) -> None:
        assert self._hashers is not None  # whoever knows of held files starts them
        self._hashers.put(piece)
        self.progress(0, self.manifest.size_bytes, "placing", self.placed.reused_files)

    def _reuse(self, entry: Entry) -> bool:
        """Link, clone or copy a file that the target holds; False when it cannot stand for it."""
        number, path = self._found[entry.path]
        directory, _, name = path.rpartition(b"/")
        try:
            at = self._sources[number].enter(directory or b".")
            status = self.disk.stat(name, at)
        except OSError:
            return False
        if not same_file(status, entry, None):
            return False
        same_time = int(status.st_mtime) == self.times[entry.path]
        linkable = same_time and status.st_uid == self._uid
        if self._clones is not False and entry.size and self._clone(entry, at, name):
            return True
        if linkable and self.tree.hard_link(entry, at, name):
            return True
        return self._copy(entry, at, name)

    def _clone(self, entry: Entry, at: int, name: bytes) -> bool:
        """Share blocks where the disk can; the first file decides for all."""
        try:
            source, _ = self.disk.open_file(name, at)
        except OSError:
            return False
        try:
            self._clones = self.tree.clone(entry, source, self.times[entry.path])
        finally:
            os.close(source)
        return self._clones

    def _copy(self, entry: Entry, at: int, name: bytes) -> bool:
        try:
            source, _ = self.disk.open_file(name, at)
        except OSError:
            return False
        try:
            self.tree.write(entry, self._chunks(source), self.times[entry.path])
        finally:
            os.close(source)
        return True

    def _chunks(self, fd: int) -> Iterator[bytes]:
        while True:
            chunk = self.disk.read(fd, READ_BYTES)
            if not chunk:
                return
            yield chunk

    def _damaged(self) -> list[Entry]:
        """The reused files whose local content turned out to be wrong."""
        damaged: set[bytes] = set()
        files = 0
        for piece, bad in self._hashers.finish() if self._hashers is not None else ():
            damaged.update(piece[number][0] for number in bad)
            self._done += sum(size for _, size, _ in piece)
            files += len(piece)
            self.progress(self._done, self.manifest.size_bytes, "verifying", files)
        return [entry for entry in self.manifest.files if entry.path in damaged] if damaged else []

    # -- what the share holds -----------------------------------------------------------------

    def _fetch(self, entries: list[Entry]) -> None:
        """Read each missing content once, and write it to every path that wants it."""
        wanted: dict[str, list[Entry]] = {}
        for entry in entries:
            wanted.setdefault(entry.digest, []).append(entry)
        problems: list[Problem] = []
        for first, chunks in self.reader.contents(paths[0] for paths in wanted.values()):
            found = self._written(first, chunks)
            if found:
                problems += [Problem(e.shown, found) for e in wanted[first.digest]]
                continue
            self.placed.copied_files += 1
            self.placed.copied_bytes += first.size
            self._flushing.written(first.size)
            for entry in wanted[first.digest][1:]:
                self._write_again(first, entry)
        if problems:
            raise Mismatch(
                f"{len(problems)} file(s) of the build are not what CI made: the store was changed "
                "after publishing. Nothing was switched. Publish the same build again: that "
                "repairs the store.",
                problems=sorted(problems),
            )

    def _written(self, entry: Entry, chunks: Iterator[bytes]) -> str:
        """Empty when the content was right, else what is wrong with it."""
        try:
            digest, size = self.tree.write(entry, self._counted(chunks), self.times[entry.path])
        except Mismatch as error:  # the store does not hold it
            return error.problems[0].problem
        if size == entry.size:
            return "" if digest == entry.digest else "content differs"
        return f"has {'more' if size > entry.size else size} bytes, should be {entry.size}"

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._done += len(chunk)
            files = self.placed.copied_files
            self.progress(self._done, self.manifest.size_bytes, "copying", files)
            yield chunk

    def _write_again(self, first: Entry, entry: Entry) -> None:
        """The same content under another path, from the file that was just verified."""
        source, _ = self.tree.open(first)
        try:
            digest, _ = self.tree.write(entry, self._chunks(source), self.times[entry.path])
        finally:
            os.close(source)
        if digest != entry.digest:
            raise Mismatch(f"{entry.shown} changed on the local disk while it was written.")
        self.placed.copied_files += 1


def _found(held: list[Held], manifest: Manifest) -> dict[bytes, tuple[int, bytes]]:
    """For each file that some held release should have: (number of the release, path in it)."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for number, release in enumerate(held):
        text = release.manifest()
        missing: list[Entry] = []
        for entry, same in zip(manifest.files, same_files(manifest, text)):
            if entry.path in found:
                continue
            if same >= 0:
                found[entry.path] = (number, entry.path)
            else:
                missing.append(entry)
        anywhere = _by_content(text, {entry.digest.encode() for entry in missing})
        for entry in missing:
            moved = anywhere.get((b"%o" % entry.mode, entry.digest.encode()))
            if moved is not None:
                found[entry.path] = (number, moved)
        if len(found) == len(manifest.files):
            break
    return found


def _by_content(text: bytes, digests: set[bytes]) -> dict[tuple[bytes, bytes], bytes]:
    """(mode, digest) -> the first path that has them, for some digests."""
    found: dict[tuple[bytes, bytes], bytes] = {}
    for line in file_lines(text):
        _, mode, _, digest, path = line.split(b" ", 4)
        if digest in digests:
            found.setdefault((mode, digest), unescape(path))
    return found
