"""Hashing on all cores: three ways to do one thing, none hangs or leaves anything behind."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline import hashing
from moorline.disk import Disk
from moorline.errors import Error
from moorline.hashing import (
    MOST_MESSAGE,
    MOST_WAITING_PIECES,
    PIECE_BYTES,
    PIECE_FILES,
    READ_BYTES,
    SINGLE_BYTES,
    SMALL_BYTES,
    SMALL_FILES,
    Job,
    Workers,
    hash_buffer,
    hash_file,
    pieces,
    workers,
)
from ways import WAYS

# The test runner has threads of its own; what is forked here runs only the job.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Way = Callable[[Job], Workers]


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No child, no thread, no descriptor."""
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads


def collect(pool: Workers, count: int) -> dict[Any, Any]:
    results: dict[Any, Any] = {}
    try:
        for index in range(count):
            pool.put(index)
            results.update(pool.ready())
        results.update(pool.finish())
    finally:
        pool.close()
    return results


def work(index: int) -> list[tuple[str, bytes, int, None]]:
    """An answer that is sometimes much larger than a pipe."""
    size = 200_000 if index % 50 == 7 else index
    return [(f"\u00e9{index}", bytes([index % 256]) * size, index, None)]


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_all_ways_give_each_result_once(way: Way, count: int) -> None:
    assert collect(way(work), count) == {index: work(index) for index in range(count)}


def test_more_answers_than_any_pipe_holds_do_not_block(way: Way) -> None:
    """Nobody reads while the pieces are handed in."""
    pool = way(lambda index: b"x" * 3000)
    for index in range(2000):
        pool.put(index)
    assert len(dict(pool.finish())) == 2000
    pool.close()


@pytest.mark.parametrize("busy", ["threads", "processes"])
def test_whoever_hands_in_pieces_never_waits_for_the_workers(busy: str) -> None:
    """Far more than a socket holds, while all workers wait for something else."""
    gate, opens = os.pipe()
    pool = WAYS[busy](lambda piece: os.read(gate, 1) and len(piece))
    for _ in range(200):
        pool.put("x" * 20_000)
    assert list(pool.ready()) == []
    os.write(opens, b"g" * 200)
    assert [result for _, result in pool.finish()] == [20_000] * 200
    pool.close()
    os.close(gate)
    os.close(opens)


def test_pieces_without_end_are_not_all_kept_in_memory() -> None:
    pool = hashing._Processes(lambda piece: sum(range(20_000)), count=1)  # slower than `put`
    for number in range(4 * MOST_WAITING_PIECES):
        pool.put(number)
        assert pool._number - pool._given <= MOST_WAITING_PIECES + 1
    assert sorted(piece for piece, _ in pool.finish()) == list(range(4 * MOST_WAITING_PIECES))
    pool.close()


def test_a_piece_comes_back_with_its_result(way: Way) -> None:
    """Pieces are lists of paths: as large as 24 of the longest, which one message must hold."""
    name = b"\xff" * 4095
    pool = way(lambda piece: [len(path) + len(last) for path, last in piece])
    given = [[(name, b"x" * number)] * PIECE_FILES for number in range(100)]
    for piece in given:
        pool.put(piece)
    results = list(pool.finish())
    pool.close()
    assert sorted(piece for piece, _ in results) == given
    assert all(result == [4095 + len(piece[0][1])] * PIECE_FILES for piece, result in results)
    assert MOST_MESSAGE > PIECE_FILES * (4095 + 255 + 20)


def test_an_os_error_of_a_job_arrives_with_number_and_name(way: Way, tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path) + b"/gone\xff\n"

    def job(index: int) -> int:
        if index == 5:
            os.stat(missing)
        return index

    with pytest.raises(OSError) as caught:
        collect(way(job), 10)
    assert caught.value.errno == errno.ENOENT
    assert os.fsencode(caught.value.filename) == missing
    assert isinstance(caught.value, FileNotFoundError)


def test_an_os_error_without_a_name_arrives_too(way: Way) -> None:
    def job(index: int) -> None:
        raise OSError(errno.EIO, "bad disk")

    with pytest.raises(OSError) as caught:
        collect(way(job), 3)
    assert (caught.value.errno, caught.value.strerror) == (errno.EIO, "bad disk")
    assert caught.value.filename is None


def test_what_a_result_leads_to_is_done_as_well(way: Way) -> None:
    """A piece that is put while the rest is waited for."""
    pool, found = way(work), []
    pool.put(2)
    for piece, _ in pool.finish():
        found.append(piece)
        for more in range(piece):
            pool.put(more)
    pool.close()
    assert sorted(found) == [0, 0, 1, 2]


def test_so_is_what_a_result_leads_to_that_was_there_before() -> None:
    """All pieces were answered while others were put: the first result of `finish` is the last."""
    pool, found = hashing._Processes(work, count=1), []
    pool.put(1)
    pool._read(wait=True)
    for piece, _ in pool.finish():
        found.append(piece)
        if piece:
            pool.put(piece - 1)
    assert found == [1, 0]


def test_closing_in_the_middle_ends_everything(way: Way) -> None:
    pool = way(lambda index: b"x" * 10_000)
    for index in range(100):
        pool.put(index)
    for _ in pool.finish():
        break
    pool.close()
    pool.close()


def test_closing_before_any_work(way: Way) -> None:
    way(work).close()


def test_a_worker_that_is_killed_is_an_error_not_a_hang() -> None:
    parent = os.getpid()

    def job(index: int) -> int:
        if index == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    with pytest.raises(Error, match="a hashing process ended early"):
        collect(WAYS["processes"](job), 50)


@pytest.mark.parametrize("error", [MemoryError, ZeroDivisionError, RecursionError])
def test_a_job_that_breaks_is_an_error_not_a_hang(
    error: type[Exception], capfd: pytest.CaptureFixture[str]
) -> None:
    def job(index: int) -> None:
        raise error

    with pytest.raises(Error, match="a hashing process ended early"):
        collect(WAYS["processes"](job), 4)
    with pytest.raises(error):
        collect(WAYS["threads"](job), 4)
    assert capfd.readouterr().err == "", "no traceback from somewhere"


def test_a_child_does_not_go_on_as_if_it_were_the_program() -> None:
    """A SystemExit in a job must not run the caller's own code a second time."""
    seen = []

    def job(index: int) -> None:
        raise SystemExit(0)

    try:
        collect(WAYS["processes"](job), 2)
    except Error:
        seen.append(os.getpid())
    assert seen == [os.getpid()]


CHILDREN_OUTLIVE = """
import os, sys
from moorline.hashing import _Processes
pool = _Processes(lambda index: b"x" * 10_000, count=3)
for index in range(1000):
    pool.put(index)
next(iter(pool.finish()))
os.kill(os.getpid(), 9)
"""


def test_children_end_when_their_parent_is_killed() -> None:
    """They hold its stdout: the pipe reaches its end only when all of them have gone."""
    run = subprocess.run(
        [sys.executable, "-c", CHILDREN_OUTLIVE], capture_output=True, timeout=60, check=False
    )
    assert run.returncode == -signal.SIGKILL
    assert run.stderr == b""


# -- which way ------------------------------------------------------------------------------------


def kind(*, files: int, size_bytes: int, latency_s: float = 0.0) -> str:
    pool = workers(work, files=files, size_bytes=size_bytes, latency_s=latency_s)
    pool.close()
    return type(pool).__name__.strip("_").lower()


def test_the_way_suits_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert kind(files=0, size_bytes=0) == "inline"
    assert kind(files=SMALL_FILES, size_bytes=SMALL_BYTES) == "inline"
    assert kind(files=SMALL_FILES + 1, size_bytes=0) == "processes"
    assert kind(files=1, size_bytes=SMALL_BYTES + 1) == "processes"
    assert kind(files=10, size_bytes=10, latency_s=0.001) == "threads"


def test_a_program_that_has_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert kind(files=SMALL_FILES + 1, size_bytes=0) == "threads"


def test_no_more_workers_than_are_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """And two on one core: one hashes while the other waits."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    for cores, most, count in ((1, 4, 2), (3, 4, 3), (64, 4, 4)):
        monkeypatch.setattr(hashing, "_cores", lambda cores=cores: cores)
        pool = workers(work, files=0, size_bytes=SMALL_BYTES + 1, most=most)
        assert isinstance(pool, hashing._Processes)
        assert len(pool._children) == count
        pool.close()


def test_many_threads_only_where_each_operation_waits() -> None:
    pool = workers(work, files=1000, size_bytes=0, latency_s=0.003)
    assert isinstance(pool, hashing._Threads)
    assert len(pool._threads) == 64
    pool.close()


# -- pieces ---------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(0, 5000), st.integers(0, 10 * PIECE_BYTES)), max_size=200))
def test_pieces_cover_all_files_once_and_in_order(sizes: list[int]) -> None:
    found = pieces(sizes)
    assert [index for piece in found for index in piece] == list(range(len(sizes)))
    for piece in found:
        assert 0 < len(piece) <= PIECE_FILES
        assert sum(sizes[index] for index in piece[:-1]) < PIECE_BYTES


# -- one file -------------------------------------------------------------------------------------


class ShortReads(Disk):
    """Some file systems give less than was asked for."""

    def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
        return super().read(fd, min(size, 7), offset)

    def read_into(self, fd: int, buffer: memoryview, offset: int | None = None) -> int:
        return super().read_into(fd, buffer[:7], offset)


@pytest.mark.parametrize(
    "size",
    [0, 1, 6, 7, 8, 1000, SINGLE_BYTES - 1, SINGLE_BYTES, READ_BYTES, 3 * READ_BYTES + 5],
)
@pytest.mark.parametrize("disk", [Disk(), ShortReads()], ids=["whole", "short"])
def test_the_hash_of_a_file(tmp_path: Path, disk: Disk, size: int) -> None:
    if isinstance(disk, ShortReads) and size > 1000:
        size %= 1001
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "f").write_bytes(content[:size])
    fd, _ = disk.open_file(tmp_path / "f")
    try:
        found = hash_file(disk, fd, size, hash_buffer())
        assert found == (hashlib.sha256(content[:size]).hexdigest(), size)
    finally:
        os.close(fd)


@pytest.mark.parametrize("expected", [0, 10, 999, 1001, READ_BYTES])
def test_a_file_of_another_size_does_not_pass_for_the_expected_one(
    tmp_path: Path, expected: int
) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    fd, _ = Disk().open_file(tmp_path / "f")
    try:
        assert hash_file(Disk(), fd, expected, hash_buffer())[1] != expected
    finally:
        os.close(fd)


class Endless(Disk):
    """A file that grows for ever."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
        self.given += size
        return b"\0" * size

    def read_into(self, fd: int, buffer: memoryview, offset: int | None = None) -> int:
        self.given += len(buffer)
        return len(buffer)


@pytest.mark.parametrize("expected", [5000, 200_000])
def test_a_file_that_grows_for_ever_is_not_read_for_ever(expected: int) -> None:
    disk = Endless()
    _, size = hash_file(disk, -1, expected, hash_buffer())
    assert size > expected
    assert disk.given <= expected + 1 + READ_BYTES
