"""One more thread: in order, with errors where they are asked for, and gone afterwards."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fakes import CountingDisk
from moorline.aside import FLUSH_BYTES, Aside, Flushing
from moorline.disk import AnyPath, Disk
from moorline.layout import pack as pack_module
from moorline.layout import pack_draft
from moorline.layout.index import Place
from stores import content, leftovers, make_store, problems, publish
from trees import write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threading.active_count() == 1


def test_work_is_done_in_order_in_another_thread() -> None:
    seen: list[tuple[int, int]] = []

    def note(n: int) -> None:
        seen.append((n, threading.get_ident()))

    with Aside(Disk()) as aside:
        for n in range(50):
            outcome = aside.begin(partial(note, n))
        outcome()
    assert [n for n, _ in seen] == list(range(50))
    assert threading.get_ident() not in {thread for _, thread in seen}


def test_without_threads_work_waits_until_it_is_asked_for() -> None:
    seen: list[int] = []

    def note() -> None:
        seen.append(threading.get_ident())

    with Aside(CountingDisk()) as aside:
        outcome = aside.begin(note)
        assert seen == []
        outcome()
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("disk", [Disk(), CountingDisk()], ids=["thread", "none"])
def test_results_and_errors_come_where_they_are_asked_for(disk: Disk) -> None:
    with Aside(disk) as aside:
        fails, works = aside.begin(lambda: 1 // 0), aside.begin(lambda: 5)
        assert works() == 5
        with pytest.raises(ZeroDivisionError):
            fails()


def test_leaving_waits_for_what_was_begun(tmp_path: Path) -> None:
    """Else it could go on with a descriptor that is somebody else's by then."""
    go, seen = threading.Event(), list[bool]()
    timer = threading.Timer(0.05, go.set)

    def wait() -> None:
        seen.append(go.wait(10))

    with Aside(Disk()) as aside:
        aside.begin(wait)
        timer.start()
    assert seen == [True]
    timer.join()


class Threads(Disk):
    def __init__(self, failing: str = "") -> None:
        self.seen: dict[str, set[int]] = {}
        self.failing = failing

    def step(self, operation: str, path: AnyPath) -> None:
        self.seen.setdefault(operation, set()).add(threading.get_ident())
        if operation == self.failing and threading.get_ident() != threading.main_thread().ident:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "READ_BYTES", 1000)
    monkeypatch.setattr(pack_draft, "WRITE_BYTES", 1000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "s", {f"f{n}": b"%d " % n * n * 10 for n in range(40)})


@pytest.mark.usefixtures("small_pieces")
def test_a_pack_is_written_aside_and_read_as_it_is(tmp_path: Path, source: Path) -> None:
    store, disk = make_store(tmp_path / "store"), Threads()
    publish(store, source, "1", disk)
    assert len(disk.seen["write"]) == 2, "the pack is, small files are not"
    assert problems(store, "1") == ()
    assert content(store, "1") == {path.name: path.read_bytes() for path in source.iterdir()}


@pytest.mark.usefixtures("small_pieces")
def test_an_error_of_a_write_aside_fails_the_publish(tmp_path: Path, source: Path) -> None:
    store = make_store(tmp_path / "store")
    with pytest.raises(OSError, match="Input/output error"):
        publish(store, source, "1", Threads("write"))
    assert leftovers(store) == []
    assert [*(store / "packs").iterdir(), *(store / "builds").iterdir()] == []


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("gap", [0, 7, 1 << 20])
def test_what_is_read_ahead_is_what_a_single_read_gives(
    tmp_path: Path, gap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "GAP_BYTES", gap)
    data = bytes(range(256)) * 80
    (tmp_path / "pack").write_bytes(data)
    places = [(at, length) for at, length in ((0, 10), (17, 3000), (3017, 1), (9000, 5000))]
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pack_module.Packs(disk := Threads(), fd) as packs:
            wanted = [(Place("pack", *p, 0), f"{p}") for p in places]
            found = {name: b"".join(chunks) for name, chunks in packs.contents(wanted)}
        assert found == {f"{(a, n)}": data[a : a + n] for a, n in places}
        assert threading.get_ident() not in disk.seen["read"]
    finally:
        os.close(fd)


def test_ctrl_c_in_the_middle_of_starting_the_thread_is_all_that_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Aside(Disk()) as aside:
        aside.begin(lambda: None)


# -- what was written gets to the disk meanwhile --------------------------------------------------


class Flushed(Disk):
    """Counts barriers, and in which thread they were; one of them may fail."""

    def __init__(self, fails: int = -1, *, forks: bool = True) -> None:
        self.forks = forks
        self.threads: list[int] = []
        self.fails = fails

    def sync_all(self, fd: int) -> None:
        self.threads.append(threading.get_ident())
        if len(self.threads) - 1 == self.fails:
            raise OSError(errno.EIO, "lost")


@pytest.mark.parametrize("forks", [True, False])
def test_a_barrier_for_so_many_bytes(forks: bool) -> None:
    disk = Flushed(forks=forks)
    flushing = Flushing(disk, 0)
    for _ in range(4):
        flushing.written(FLUSH_BYTES // 2)
    flushing.begin()
    flushing.finish()
    assert len(disk.threads) == 3
    assert (threading.get_ident() in disk.threads) is not forks
    flushing.finish()
    assert len(disk.threads) == 3
    flushing.close()


@pytest.mark.parametrize("fails", [0, 1, 2])
@pytest.mark.parametrize("forks", [True, False])
def test_a_lost_write_is_told_whoever_asked_the_disk(forks: bool, fails: int) -> None:
    """Linux tells of it once."""
    flushing = Flushing(Flushed(fails, forks=forks), 0)
    for _ in range(3):
        flushing.begin()
    with pytest.raises(OSError, match="lost"):
        flushing.finish()
    flushing.close()
