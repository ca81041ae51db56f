"""Hashing on all cores: one job for many pieces of work, results as they become ready.

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
import resource
import struct
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from moorline.disk import Disk, end_with_parent
from moorline.errors import Error
from moorline.interrupts import Held

if TYPE_CHECKING:
    import socket

Job = Callable[[Any], Any]
"""Does one piece. What it takes and returns must be what marshal can write: tuples, lists, bytes,
text, numbers. Everything else it needs, it has inherited."""

PIECE_FILES = 24
PIECE_BYTES = 4 << 20
READ_BYTES = 1 << 18  # stays in a core's own cache between reading and hashing
SINGLE_BYTES = 1 << 16  # smaller files are read at once
SMALL_BYTES = 6 << 20
SMALL_FILES = 400
MOST_MESSAGE = 1 << 17
WAITS_S = 0.0003  # an operation that takes longer waits for a network
GIVES_WAY = 5
"""By how much workers are nicer than who started them. That one has more to do than to wait for
them, and so has what a machine serves meanwhile."""
MOST_WAITING = 64
MOST_WAITING_PIECES = 1000  # some 24,000 files, in 5 MB
_OTHER_DESCRIPTORS = 200
_LEAST = 2  # even on one core: one hashes while the other waits for the disk


class Workers(Protocol):
    """`put` hands in a piece, `ready` gives what is done by now, `finish` waits for the rest, and
    for what is put meanwhile. Results are pairs of the piece and what the job made of it, in no
    order."""

    def put(self, piece: Any) -> None: ...
    def ready(self) -> Iterator[tuple[Any, Any]]: ...
    def finish(self) -> Iterator[tuple[Any, Any]]: ...
    def close(self) -> None: ...


def workers(
    job: Job, *, files: int, size_bytes: int, latency_s: float = 0.0, depth: int = 1,
    most: int = MOST_WAITING,
) -> Workers:  # fmt: skip
    """The way to run `job` that suits the amount of work and the disk; a worker of it opens up to
    `depth` directories. More than `most` would be of no use."""
    if latency_s > WAITS_S:
        return waiting_workers(job, min(most_waiting(depth), max(4, files)))
    if size_bytes <= SMALL_BYTES and files <= SMALL_FILES:
        return _Inline(job)
    count = min(most, max(_LEAST, _cores()))
    if threading.active_count() > 1:
        return _Threads(job, count=count)
    return _Processes(job, count=count)


def waiting_workers(job: Job, count: int) -> Workers:
    """Workers for a disk where each operation waits for a network. These may change it: they are
    threads of this process."""
    return _Threads(job, count=count)


def most_waiting(descriptors: int) -> int:
    """How many workers may wait at once, when each has so many open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MOST_WAITING, (limit - _OTHER_DESCRIPTORS) // max(1, descriptors)))


def _cores() -> int:
    """The cores that this process may use; PyPy can only count those of the machine."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def hash_buffer() -> memoryview:
    """Memory for `hash_file`, for any number of files one after another."""
    return memoryview(bytearray(READ_BYTES))


def hash_file(disk: Disk, fd: int, size: int, buffer: memoryview) -> tuple[str, int]:
    """SHA-256 in hex and the length of an open file. Stops once it is longer than `size`: the
    caller expects `size` bytes, and a file that grows for ever must not be read for ever."""
    if size < SINGLE_BYTES:
        data = disk.read(fd, size + 1)
        if len(data) == size:
            return hashlib.sha256(data).hexdigest(), size
        state, total = hashlib.sha256(data), len(data)
    else:
        state, total = hashlib.sha256(), 0
    while total <= size:
        length = disk.read_into(fd, buffer)
        if not length:
            break
        state.update(buffer[:length])
        total += length
    return state.hexdigest(), total


def pieces(sizes: list[int]) -> list[range]:
    """Runs of neighbouring files, small enough to share out evenly."""
    runs: list[range] = []
    start = held = 0
    for index, size in enumerate(sizes):
        held += size
        if index + 1 - start >= PIECE_FILES or held >= PIECE_BYTES:
            runs.append(range(start, index + 1))
            start, held = index + 1, 0
    if start < len(sizes):
        runs.append(range(start, len(sizes)))
    return runs


class _Inline:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._done: list[tuple[Any, Any]] = []

    def put(self, piece: Any) -> None:
        self._done.append((piece, self._job(piece)))

    def ready(self) -> Iterator[tuple[Any, Any]]:
        done, self._done = self._done, []
        return iter(done)

    def finish(self) -> Iterator[tuple[Any, Any]]:
        while self._done:  # what is put meanwhile counts as well
            yield from self.ready()

    def close(self) -> None:
        pass


class _Threads:
    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        self._todo: queue.SimpleQueue[Optional[tuple[Any]]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, Any, Optional[BaseException]]]
        self._done = queue.SimpleQueue()
        self._waiting = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while True:
            todo = self._todo.get()
            if todo is None:
                return
            try:
                self._done.put((todo[0], self._job(todo[0]), None))
            except BaseException as error:
                self._done.put((todo[0], None, error))

    def put(self, piece: Any) -> None:
        self._waiting += 1
        self._todo.put((piece,))

    def ready(self) -> Iterator[tuple[int, Any]]:
        while self._waiting and not self._done.empty():
            yield self._take()

    def finish(self) -> Iterator[tuple[int, Any]]:
        while self._waiting:
            yield self._take()
        self.close()

    def _take(self) -> tuple[Any, Any]:
        piece, result, error = self._done.get()
        self._waiting -= 1
        if error is not None:
            raise error
        return piece, result

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


_SIZE = struct.Struct("<I")


class _Processes:
    """Forked children that take the next piece from one socket and answer on a pipe each.

    The socket keeps messages whole, so whoever is free takes the next one. It holds a tenth of a
    second's work; what does not fit waits here, so that whoever finds the pieces is not slowed
    down by those who hash them. A child ends when the socket does, also when its parent is killed,
    even while it waits for a share that does not answer.
    """

    def __init__(self, job: Job, count: int) -> None:
        import selectors  # dear, and a small build has no use for them
        import socket

        self._job = job
        self._give, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._give.setblocking(False)
        self._pieces: dict[int, Any] = {}
        self._number = self._given = 0
        self._done: list[tuple[Any, Any]] = []
        self._answers: dict[int, bytearray] = {}
        self._children: list[int] = []
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            self._start(take)
        take.close()

    def _start(self, take: socket.socket) -> None:
        import selectors

        answer, tell = os.pipe()
        parent = os.getpid()
        held = Held()
        child = held.fork()
        if child == 0:
            status = 1
            try:
                end_with_parent(parent)
                os.nice(GIVES_WAY)
                held.release()
                self._give.close()
                os.close(answer)
                _serve(self._job, take, tell)
                status = 0
            finally:
                os._exit(status)
        os.close(tell)
        self._children.append(child)
        self._answers[answer] = bytearray()
        self._selector.register(answer, selectors.EVENT_READ)
        held.release()

    def put(self, piece: Any) -> None:
        self._number += 1
        self._pieces[self._number] = piece
        self._hand_out()
        if self._given < self._number:
            # Answers are taken meanwhile: a child would wait for that, and so for ever.
            self._read(wait=self._number - self._given > MOST_WAITING_PIECES)

    def _hand_out(self) -> None:
        """As many pieces as the socket takes now."""
        while self._given < self._number:
            number = self._given + 1
            try:
                self._give.send(marshal.dumps((number, self._pieces[number])))
            except BlockingIOError:
                return
            except BrokenPipeError:
                raise Error(_DIED) from None
            self._given = number

    def ready(self) -> Iterator[tuple[Any, Any]]:
        self._read(wait=False)
        done, self._done = self._done, []
        return iter(done)

    def finish(self) -> Iterator[tuple[Any, Any]]:
        while self._pieces or self._done:
            if not self._done:
                self._read(wait=True)
            yield from self.ready()
        self.close()

    def _read(self, *, wait: bool) -> None:
        for key, _ in self._selector.select(None if wait else 0):
            data = os.read(key.fd, 1 << 18)
            if not data:
                raise Error(_DIED)
            held = self._answers[key.fd]
            held += data
            self._parse(held)
        self._hand_out()

    def _parse(self, held: bytearray) -> None:
        while len(held) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(held)
            if len(held) < _SIZE.size + size:
                return
            number, error, result = marshal.loads(held[_SIZE.size : _SIZE.size + size])
            del held[: _SIZE.size + size]
            piece = self._pieces.pop(number)
            if error is not None:
                code, text, name = error
                raise OSError(code, text, None if name is None else os.fsdecode(name))
            self._done.append((piece, result))

    def close(self) -> None:
        if not self._children:
            return
        self._give.close()
        for answer in self._answers:
            os.close(answer)
        self._selector.close()
        for child in self._children:
            os.waitpid(child, 0)
        self._children = []


_DIED = "a hashing process ended early. Memory may have run out. Try again."


def _serve(job: Job, take: socket.socket, tell: int) -> None:
    """A child's life: pieces in, answers out, until the parent closes its end."""
    while True:
        message = take.recv(MOST_MESSAGE)
        if not message:
            return
        number, piece = marshal.loads(message)
        try:
            text = marshal.dumps((number, None, job(piece)))
        except OSError as error:
            name = None if error.filename is None else os.fsencode(error.filename)
            text = marshal.dumps((number, (error.errno, error.strerror, name), None))
        view = memoryview(_SIZE.pack(len(text)) + text)
        while view:
            view = view[os.write(tell, view) :]
