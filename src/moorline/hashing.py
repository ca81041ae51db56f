"""Hashing on all cores: one job for each numbered piece of work, results as they become ready.

Worker processes only hash and look: every change of a disk happens in the process that started
them. Three ways to run the same jobs, chosen by `workers`:

- inline, for small work: starting a process costs more than hashing a few megabytes, and a test
  that counts operations sees all of them;
- processes (plain fork), for a local disk: SHA-256 of small files is bound by the interpreter;
- threads, where each operation waits for a network, and where this process has threads already
  (forking one that has is not safe).
"""

from __future__ import annotations

import hashlib
import marshal
import os
import queue
import selectors
import struct
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional, Protocol

from moorline.disk import Disk
from moorline.errors import Error

Job = Callable[[int], Any]
"""Does piece `index` and returns something that marshal can write: tuples, bytes, text, numbers."""

PIECE_FILES = 24
PIECE_BYTES = 4 << 20
READ_BYTES = 1 << 20
SMALL_BYTES = 6 << 20
SMALL_FILES = 400
MOST_PIECES = 16_000  # their numbers must fit into one pipe: 64 KiB, 4 bytes each


class Workers(Protocol):
    """`put` hands in a piece, `ready` gives what is done by now, `finish` waits for the rest."""

    def put(self, index: int) -> None: ...
    def ready(self) -> Iterator[tuple[int, Any]]: ...
    def finish(self) -> Iterator[tuple[int, Any]]: ...
    def close(self) -> None: ...


def workers(job: Job, *, files: int, size_bytes: int, latency_s: float = 0.0) -> Workers:
    """The way to run `job` that suits the amount of work and the disk."""
    if latency_s > 0.0003:
        return _Threads(job, count=min(64, max(4, files)))
    if size_bytes <= SMALL_BYTES and files <= SMALL_FILES:
        return _Inline(job)
    count = len(os.sched_getaffinity(0))
    if threading.active_count() > 1:
        return _Threads(job, count=count)
    return _Processes(job, count=count)


def hash_file(disk: Disk, fd: int, size: int) -> tuple[str, int]:
    """SHA-256 in hex and the length of an open file. Stops once it is longer than `size`: the
    caller expects `size` bytes, and a file that grows for ever must not be read for ever."""
    data = disk.read(fd, min(size + 1, READ_BYTES))
    if len(data) == size < READ_BYTES:
        return hashlib.sha256(data).hexdigest(), size
    state, total = hashlib.sha256(data), len(data)
    while data and total <= size:
        data = disk.read(fd, READ_BYTES)
        state.update(data)
        total += len(data)
    return state.hexdigest(), total


def pieces(sizes: list[int]) -> list[range]:
    """Runs of neighbouring files, small enough to share out evenly and few enough for a pipe."""
    files = max(PIECE_FILES, len(sizes) // MOST_PIECES + 1)
    runs: list[range] = []
    start = held = 0
    for index, size in enumerate(sizes):
        held += size
        if index + 1 - start >= files or (held >= PIECE_BYTES and len(runs) < MOST_PIECES // 2):
            runs.append(range(start, index + 1))
            start, held = index + 1, 0
    if start < len(sizes):
        runs.append(range(start, len(sizes)))
    return runs


class _Inline:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._done: list[tuple[int, Any]] = []

    def put(self, index: int) -> None:
        self._done.append((index, self._job(index)))

    def ready(self) -> Iterator[tuple[int, Any]]:
        done, self._done = self._done, []
        return iter(done)

    finish = ready

    def close(self) -> None:
        pass


class _Threads:
    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        self._todo: queue.SimpleQueue[Optional[int]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Any, Optional[BaseException]]]
        self._done = queue.SimpleQueue()
        self._waiting = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while True:
            index = self._todo.get()
            if index is None:
                return
            try:
                self._done.put((index, self._job(index), None))
            except BaseException as error:
                self._done.put((index, None, error))

    def put(self, index: int) -> None:
        self._waiting += 1
        self._todo.put(index)

    def ready(self) -> Iterator[tuple[int, Any]]:
        while self._waiting and not self._done.empty():
            yield self._take()

    def finish(self) -> Iterator[tuple[int, Any]]:
        while self._waiting:
            yield self._take()
        self.close()

    def _take(self) -> tuple[int, Any]:
        index, result, error = self._done.get()
        self._waiting -= 1
        if error is not None:
            raise error
        return index, result

    def close(self) -> None:
        while not self._todo.empty():
            try:
                self._todo.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []


_HEADER = struct.Struct("<II")


class _Processes:
    """Forked children that take the next number from one pipe and answer on a pipe each.

    The numbers of all pieces fit into the first pipe, so `put` never blocks; a child that has
    answered a lot waits until `ready` or `finish` reads. A child ends when the first pipe does:
    also when its parent is killed.
    """

    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        take, self._give = os.pipe()
        self._answers: dict[int, bytearray] = {}
        self._children: list[int] = []
        self._waiting = 0
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            self._start(take)
        os.close(take)

    def _start(self, take: int) -> None:
        answer, tell = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(self._give)
                os.close(answer)
                self._serve(take, tell)
                status = 0
            finally:
                os._exit(status)
        os.close(tell)
        os.set_blocking(answer, False)
        self._children.append(child)
        self._answers[answer] = bytearray()
        self._selector.register(answer, selectors.EVENT_READ)

    def _serve(self, take: int, tell: int) -> None:
        while True:
            number = os.read(take, 4)
            if not number:
                return
            index = int.from_bytes(number, "little")
            try:
                text = marshal.dumps((True, self._job(index)))
            except OSError as error:
                name = None if error.filename is None else os.fsencode(error.filename)
                text = marshal.dumps((False, (error.errno, error.strerror, name)))
            view = memoryview(_HEADER.pack(index, len(text)) + text)
            while view:
                view = view[os.write(tell, view) :]

    def put(self, index: int) -> None:
        os.write(self._give, index.to_bytes(4, "little"))
        self._waiting += 1

    def ready(self) -> Iterator[tuple[int, Any]]:
        return self._read(wait=False)

    def finish(self) -> Iterator[tuple[int, Any]]:
        while self._waiting:
            yield from self._read(wait=True)
        self.close()

    def _read(self, *, wait: bool) -> Iterator[tuple[int, Any]]:
        for key, _ in self._selector.select(None if wait else 0):
            data = os.read(key.fd, 1 << 18)
            if not data:
                raise Error("a hashing process ended early. Memory may have run out. Try again.")
            held = self._answers[key.fd]
            held += data
            yield from self._parse(held)

    def _parse(self, held: bytearray) -> Iterator[tuple[int, Any]]:
        while len(held) >= _HEADER.size:
            index, size = _HEADER.unpack_from(held)
            if len(held) < _HEADER.size + size:
                return
            done, result = marshal.loads(held[_HEADER.size : _HEADER.size + size])
            del held[: _HEADER.size + size]
            self._waiting -= 1
            if not done:
                number, text, name = result
                raise OSError(number, text, None if name is None else os.fsdecode(name))
            yield index, result

    def close(self) -> None:
        if self._give < 0:
            return
        os.close(self._give)
        self._give = -1
        for answer in self._answers:
            os.close(answer)
        self._selector.close()
        for child in self._children:
            os.waitpid(child, 0)
