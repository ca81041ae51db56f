"""Layout tree: builds/<id>/tree is the build exactly as CI made it, ready to be served.

Reading and verifying it; `tree_draft` writes it, `tree_repair` puts single entries right.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Optional, Union

from moorline.crew import FEW_FILES, Crew, depth, read_latency
from moorline.disk import DAMAGE, Descent, Disk
from moorline.errors import Mismatch, Problem
from moorline.hashing import WAITS_S, most_waiting
from moorline.layout import missing
from moorline.manifest import Entry, Manifest
from moorline.progress import Progress
from moorline.verifying import DirectoryVerifier, Verified

READ_BYTES = 4 << 20
WINDOW_FILES = 256  # are read at once, on a share that waits, and kept in memory
WINDOW_BYTES = 16 << 20
_Read = Union[list[bytes], Mismatch]


class TreeReader:
    """The tree of one published build."""

    def __init__(self, disk: Disk, build: int) -> None:
        self.disk = disk
        self.build = build

    def contents(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        ordered = sorted(entries)
        root = self.disk.open_directory(b"tree", self.build)
        try:
            if len(ordered) > FEW_FILES and read_latency(self.disk, root, ordered) > WAITS_S:
                yield from self._read_by_many(root, ordered)
                return
            with Descent(self.disk, root) as descent:
                for entry in ordered:
                    yield entry, self._content(descent, entry)
        finally:
            os.close(root)

    def _read_by_many(
        self, root: int, ordered: list[Entry]
    ) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """The same where each operation waits: many files at once, in order for the caller."""
        with contextlib.ExitStack() as stack:
            descents = [
                stack.enter_context(Descent(self.disk, root))
                for _ in range(most_waiting(depth(ordered)))
            ]
            crew = Crew(descents)
            for window in _windows(ordered):
                if window[0].size > WINDOW_BYTES:
                    yield window[0], self._content(descents[0], window[0])
                    continue
                found = self._window(crew, window)
                for entry in window:
                    yield entry, _again(found.pop(entry.path))

    def _window(self, crew: Crew[Descent], window: list[Entry]) -> dict[bytes, _Read]:
        found: dict[bytes, _Read] = {}

        def done(entry: Entry, read: _Read) -> tuple[()]:
            found[entry.path] = read
            return ()

        crew.run(self._whole, window, done)
        return found

    def _whole(self, descent: Descent, entry: Entry) -> _Read:
        try:
            return list(self._content(descent, entry))
        except Mismatch as error:  # for whoever asks for this one
            return error

    def _content(self, descent: Descent, entry: Entry) -> Iterator[bytes]:
        directory, _, name = entry.path.rpartition(b"/")
        try:
            fd, _ = self.disk.open_file(name, descent.enter(directory or b"."))
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            yield from missing(entry, "missing in the store, or no file there")
            return
        try:
            left = entry.size + 1
            while left > 0:
                chunk = self.disk.read(fd, min(left, READ_BYTES))
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
        finally:
            os.close(fd)


class TreeVerifier:
    """The `Verifier` of the build whose folder is open as `build`."""

    def __init__(self, disk: Disk, build: int, *, files: int, size_bytes: int) -> None:
        self._tree: Optional[DirectoryVerifier] = None
        try:
            self._root = disk.open_directory(b"tree", build)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return
        try:
            self._tree = DirectoryVerifier(disk, self._root, files=files, size_bytes=size_bytes)
        except BaseException:
            os.close(self._root)
            raise

    def verify(self, manifest: Manifest, progress: Progress) -> Verified:
        if self._tree is not None:
            return self._tree.verify(manifest, progress)
        missing = [Problem(entry.shown, "missing") for entry in manifest.entries[1:]]
        return Verified((Problem(".", "the tree is missing"), *sorted(missing)), 0, 0)

    def close(self) -> None:
        tree, self._tree = self._tree, None
        if tree is not None:
            tree.close()
            os.close(self._root)


def _windows(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Neighbouring files that fit into memory together; a larger one is alone."""
    window: list[Entry] = []
    held = 0
    for entry in entries:
        held += entry.size
        if window and (held > WINDOW_BYTES or len(window) >= WINDOW_FILES):
            yield window
            window, held = [], entry.size
        window.append(entry)
    if window:
        yield window


def _again(read: _Read) -> Iterator[bytes]:
    if isinstance(read, Mismatch):
        raise read
    yield from read
