"""Every content of a build in layout pack compared with its digest, on all cores.

Here it is decided what lies where, workers read and hash. A piece is a run of neighbours in one
pack, read from its first byte to its last: packs are read in large sequential parts.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Callable

from moorline.disk import DAMAGE, Disk
from moorline.errors import Mismatch, Problem
from moorline.hashing import workers
from moorline.layout.index import INDEX_DAMAGED, NO_PACK, Index, Rows
from moorline.manifest import Entry, Manifest
from moorline.progress import Progress
from moorline.verifying import Verified

READ_BYTES = 4 << 20
GAP_BYTES = 1 << 20  # reading over a gap this small is cheaper than another round trip
RUN_BYTES = 4 * READ_BYTES
RUN_CONTENTS = 1000  # take some 90 bytes each in a message
MOST_WORKERS = 4  # hash 6 GB a second; each opens the packs, which costs a share requests
_CHEAP = 16  # contents of a pack take together what one file does: nothing is opened for them
_EMPTY = hashlib.sha256().hexdigest()

Span = tuple[int, int, str]
"""Offset, length and digest of one content in its pack."""

Run = tuple[str, list[Span]]
"""The pack, and what is read of it in one go: sorted."""


class PackVerifier:
    """A `Verifier` of a build of about so many files; `packs` is the open directory of all packs,
    `index` gives what the store says of a manifest's files, or raises Mismatch."""

    def __init__(
        self, disk: Disk, packs: int, index: Callable[[Manifest], Index], *, files: int,
        size_bytes: int,
    ) -> None:  # fmt: skip
        self._index = index
        self._packs = _Packs(disk, packs)
        self._pool = workers(
            self._packs.wrong, files=files // _CHEAP, size_bytes=size_bytes, most=MOST_WORKERS
        )

    def close(self) -> None:
        self._pool.close()
        self._packs.close()

    def verify(self, manifest: Manifest, progress: Progress) -> Verified:
        files = manifest.files
        try:
            index = self._index(manifest)
            held = index.held(files)
        except Mismatch:
            return Verified((Problem(".", INDEX_DAMAGED),), 0, 0)
        damaged = {
            entry.digest: "missing from the build's index"
            for entry in files
            if entry.digest not in held or files[held[entry.digest]].size != entry.size
        }
        numbers = [number for digest, number in held.items() if digest not in damaged]
        total = sum(files[number].size for number in numbers)
        done = contents = 0
        for (_, spans), wrong in self._checked(runs(files, index.rows, numbers)):
            damaged.update(wrong)
            contents += len(spans)
            done += sum(length for _, length, _ in spans)
            progress(done, total, "verifying", contents)
        problems = [Problem(e.shown, damaged[e.digest]) for e in files if e.digest in damaged]
        return Verified(tuple(sorted(problems)), len(files), done)

    def _checked(self, found: Iterable[Run]) -> Iterator[tuple[Run, dict[str, str]]]:
        """Each run, and what is wrong with contents of it."""
        for run in found:
            self._pool.put(run)
            for (token, spans), (gone, bad) in self._pool.ready():
                yield (token, spans), _problems(token, spans, gone, bad)
        for (token, spans), (gone, bad) in self._pool.finish():
            yield (token, spans), _problems(token, spans, gone, bad)


def _problems(token: str, spans: list[Span], gone: bool, bad: list[int]) -> dict[str, str]:
    problem = f"pack {token} {'is missing' if gone else 'is damaged here'}"
    return {spans[number][2]: problem for number in bad}


def open_pack(disk: Disk, directory: int, token: str) -> tuple[int, int]:
    """A descriptor of a pack, and its size; -1 when it is missing or no file."""
    try:
        fd, status = disk.open_file(token, directory)
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return -1, -1
    return fd, status.st_size


def runs(files: Sequence[Entry], rows: Rows, numbers: Iterable[int]) -> Iterator[Run]:
    """The contents of the files with these numbers, as workers get them."""
    packs: dict[str, list[int]] = {}
    for number in numbers:
        pack = rows.packs[number] if files[number].size else NO_PACK
        packs.setdefault(pack, []).append(number)
    for pack in sorted(packs):
        packs[pack].sort(key=rows.offsets.__getitem__)
        run: list[Span] = []
        start = end = 0
        for number in packs[pack]:
            _, _, _, length, digest, _ = files[number]
            offset = rows.offsets[number]
            apart = offset > end + GAP_BYTES  # not worth being read over
            full = offset + length > start + RUN_BYTES or len(run) >= RUN_CONTENTS
            if run and (apart or full):
                yield pack, run
                run = []
            if not run:
                start = offset
            run.append((offset, length, digest))
            end = max(end, offset + length)
        yield pack, run


class _Packs:
    """What workers do, and what each keeps meanwhile: open packs, and memory to read into."""

    def __init__(self, disk: Disk, directory: int) -> None:
        self.disk = disk
        self.directory = directory
        self._open: dict[str, tuple[int, int]] = {}
        self._memory: list[memoryview] = []
        self._lock = threading.Lock()  # where workers are threads of one process

    def close(self) -> None:
        opened, self._open = self._open, {}
        for fd, _size in opened.values():
            if fd >= 0:
                os.close(fd)

    def wrong(self, run: Run) -> tuple[bool, list[int]]:
        """Whether the pack is missing, and the numbers of contents that are not what they should
        be."""
        token, spans = run
        if token == NO_PACK:
            return False, [n for n, (_, _, digest) in enumerate(spans) if digest != _EMPTY]
        fd, size = self._opened(token)
        if fd < 0:
            return True, list(range(len(spans)))
        ends = [offset + length for offset, length, _ in spans]
        memory = self._buffer()
        window = _Window(self.disk, fd, memory, min(size, max(ends)))
        bad = [
            number
            for number, (offset, length, digest) in enumerate(spans)
            if ends[number] > size or window.digest(offset, length) != digest
        ]
        self._memory.append(memory)
        return False, bad

    def _buffer(self) -> memoryview:
        with self._lock:
            return self._memory.pop() if self._memory else memoryview(bytearray(READ_BYTES))

    def _opened(self, token: str) -> tuple[int, int]:
        with self._lock:
            if token not in self._open:
                self._open[token] = open_pack(self.disk, self.directory, token)
            return self._open[token]


class _Window:
    """A part of one pack in memory; the next part when that is asked for, none after `end`."""

    def __init__(self, disk: Disk, fd: int, memory: memoryview, end: int) -> None:
        self.disk = disk
        self.fd = fd
        self.end = end
        self._memory = memory
        self._start = self._size = 0

    def digest(self, offset: int, length: int) -> str:
        """Of what the pack has there, which is less than `length` where it ends early."""
        inside = offset - self._start
        if inside >= 0 and inside + length <= self._size:
            return hashlib.sha256(self._memory[inside : inside + length]).hexdigest()
        state = hashlib.sha256()
        while length > 0:
            chunk = self._from(offset)[:length]
            if not chunk:
                break
            state.update(chunk)
            offset += len(chunk)
            length -= len(chunk)
        return state.hexdigest()

    def _from(self, offset: int) -> memoryview:
        inside = offset - self._start
        if not 0 <= inside < self._size:
            # To the end of a part as all runs have them: a page is not asked for twice.
            most = len(self._memory) - offset % len(self._memory)
            part = self._memory[: min(most, self.end - offset)]
            self._start, self._size = offset, self.disk.read_into(self.fd, part, offset)
            inside = 0
        return self._memory[inside : self._size]
