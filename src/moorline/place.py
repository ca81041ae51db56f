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
from typing import Any, Callable, Optional

from moorline.disk import Descent, Disk
from moorline.errors import Mismatch, Problem
from moorline.growing import NewTree, same_file
from moorline.hashing import Workers, hash_buffer, hash_file, pieces, workers
from moorline.layout import Reader, Times
from moorline.manifest import FILE, Entry, Manifest, file_lines, unescape
from moorline.scan import Progress

READ_BYTES = 4 << 20


@dataclass(frozen=True)
class Held:
    """A release that the target holds: its open directory, and what reads the text of its manifest;
    empty when that is damaged. Its lines are compared with those of the new build as they are: to
    parse them would take longer than to link the files."""

    folder: int
    manifest: Callable[[], bytes]


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

    `held` are releases of this target, the live one first; `owner` is (uid, gid) or None.
    """

    def __init__(
        self, disk: Disk, root: int, manifest: Manifest, times: Times, reader: Reader,
        held: list[Held], owner: Optional[tuple[int, int]], progress: Progress,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.root = root
        self.manifest = manifest
        self.times = times
        self.reader = reader
        self.owner = owner
        self.progress = progress
        self.placed = Placed()
        self._found = _found(held, manifest)  # reads: nothing of ours is open yet
        self.tree = NewTree(disk, root, owner, private=True)
        self._uid = owner[0] if owner else os.geteuid()
        self._sources = [Descent(disk, release.folder) for release in held]
        self._here: list[Entry] = []
        self._missing: list[Entry] = []
        self._clones: Optional[bool] = None
        self._done = 0

    def run(self) -> Placed:
        """Raises Mismatch, with every problem, when the share does not hold the build."""
        held = [e for e in self.manifest.files if e.path in self._found]
        runs = pieces([entry.size for entry in held])
        pool = workers(
            self._hash_job(held, runs), files=len(held), size_bytes=sum(e.size for e in held)
        )
        try:
            self._grow(held, runs, pool)
            self._fetch(self._missing)
            damaged = self._hashed(held, runs, pool.finish())
            for entry in damaged:
                self.tree.remove(entry)
            self._fetch(damaged)
            self.tree.finish()
        finally:
            pool.close()
            self.tree.close()
            for source in self._sources:
                source.close()
        self.placed.damaged = [entry.shown for entry in damaged]
        self.placed.reused_files -= len(damaged)
        self.placed.verified_files = len(self.manifest.files)
        return self.placed

    # -- what the target holds ----------------------------------------------------------------

    def _grow(self, held: list[Entry], runs: list[range], pool: Workers) -> None:
        """Directories, links and held files, in order; each piece is hashed once it is complete."""
        ready = piece = 0
        for entry in self.manifest.entries:
            if entry.kind != FILE:
                self.tree.add(entry)
                continue
            if entry.path not in self._found:
                self._missing.append(entry)
                continue
            if self._reuse(entry):
                self._here.append(entry)
                self.placed.reused_files += 1
            else:
                self._missing.append(entry)
            ready += 1
            if ready == runs[piece].stop:
                pool.put(piece)
                piece += 1
                self.progress(self._done, self.manifest.size_bytes, "placing")

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

    def _hash_job(self, held: list[Entry], runs: list[range]) -> Callable[[int], Any]:
        """A worker's piece: the numbers of files in the new release whose content is wrong."""

        def job(index: int) -> list[int]:
            bad, buffer = [], hash_buffer()
            with Descent(self.disk, self.root) as descent:
                for number in runs[index]:
                    entry = held[number]
                    directory, _, name = entry.path.rpartition(b"/")
                    try:
                        fd, _ = self.disk.open_file(name, descent.enter(directory or b"."))
                    except FileNotFoundError:
                        continue  # not reused: it is fetched, and hashed then
                    try:
                        found = hash_file(self.disk, fd, entry.size, buffer)
                        if found != (entry.digest, entry.size):
                            bad.append(number)
                    finally:
                        os.close(fd)
            return bad

        return job

    def _hashed(
        self, held: list[Entry], runs: list[range], results: Iterator[tuple[int, Any]]
    ) -> list[Entry]:
        """The held files whose local content turned out to be wrong."""
        damaged = []
        for index, bad in results:
            damaged += [held[number] for number in bad]
            self._done += sum(held[number].size for number in runs[index])
            self.progress(self._done, self.manifest.size_bytes, "verifying")
        here = {entry.path for entry in self._here} if damaged else set()
        return sorted(entry for entry in damaged if entry.path in here)

    # -- what the share holds -----------------------------------------------------------------

    def _fetch(self, entries: list[Entry]) -> None:
        """Read each missing content once, and write it to every path that wants it."""
        wanted: dict[str, list[Entry]] = {}
        for entry in entries:
            wanted.setdefault(entry.digest, []).append(entry)
        problems: list[Problem] = []
        for first, chunks in self.reader.contents(paths[0] for paths in wanted.values()):
            digest, size = self.tree.write(first, self._counted(chunks), self.times[first.path])
            if (digest, size) != (first.digest, first.size):
                found = "content differs" if size == first.size else f"has {size} bytes"
                problems += [Problem(e.shown, found) for e in wanted[first.digest]]
                continue
            self.placed.copied_files += 1
            self.placed.copied_bytes += size
            for entry in wanted[first.digest][1:]:
                self._write_again(first, entry)
        if problems:
            raise Mismatch(
                f"{len(problems)} file(s) of the build are not what CI made: the store was changed "
                "after publishing. Nothing was switched. Publish the same build again: that "
                "repairs the store.",
                problems=sorted(problems),
            )

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._done += len(chunk)
            self.progress(self._done, self.manifest.size_bytes, "copying")
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
    missing = dict(zip(file_lines(manifest.text), (entry.path for entry in manifest.files)))
    for number, release in enumerate(held):
        text = release.manifest()
        for line in file_lines(text):
            path = missing.pop(line, None)
            if path is not None:
                found[path] = (number, path)
        if not missing:
            break
        anywhere = _by_content(text, {line.split(b" ", 4)[3] for line in missing})
        for line, path in list(missing.items()):
            _, mode, _, digest, _ = line.split(b" ", 4)
            moved = anywhere.get((mode, digest))
            if moved is not None:
                found[path] = (number, moved)
                del missing[line]
    return found


def _by_content(text: bytes, digests: set[bytes]) -> dict[tuple[bytes, bytes], bytes]:
    """(mode, digest) -> the first path that has them, for some digests."""
    found: dict[tuple[bytes, bytes], bytes] = {}
    for line in file_lines(text):
        _, mode, _, digest, path = line.split(b" ", 4)
        if digest in digests:
            found.setdefault((mode, digest), unescape(path))
    return found
