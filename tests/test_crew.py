"""A share on which each operation waits: many workers write and read the same as one would."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FewLinksDisk
from moorline import hashing
from moorline.build import build_id
from moorline.crew import FEW_FILES, Crew, depth, read_latency
from moorline.disk import AnyPath, Disk
from moorline.errors import Mismatch, SourceChanged
from moorline.hashing import most_waiting
from moorline.layout import tree as tree_module
from moorline.layout.tree_draft import WORKERS_OF_A_DIRECTORY, _Order
from moorline.manifest import DIRECTORY, Entry
from moorline.publishing import Published, Publisher
from moorline.scan import scan
from moorline.store import open_store
from stores import content, leftovers, make_store, problems, publish, times
from trees import directory_entry, file_entry, write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")

LATENCY_S = 0.0005


class Share(Disk):
    """Every operation takes the time of a request; how many were under way, and where."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Counter[int] = Counter()
        self._waiting = self.most_at_once = 0
        self.most_in_one: dict[int, int] = {}
        self.threads: set[int] = set()

    def step(self, operation: str, path: AnyPath) -> None:
        self.threads.add(threading.get_ident())
        with self._lock:
            self._waiting += 1
            self.most_at_once = max(self.most_at_once, self._waiting)
        time.sleep(LATENCY_S)
        with self._lock:
            self._waiting -= 1

    def sync(self, fd: int) -> None:
        """No test can see what it does."""

    sync_all = sync

    def make_directory(self, path: AnyPath, mode: int = 0o755, at: int | None = None) -> None:
        with self._in(os.path.dirname(os.fsencode(path)), at):
            super().make_directory(path, mode, at)

    def _in(self, directory: bytes, at: int | None) -> _Inside:
        return _Inside(self, os.stat(directory or b".", dir_fd=at).st_ino)


class _Inside:
    def __init__(self, share: Share, directory: int) -> None:
        self.share = share
        self.directory = directory

    def __enter__(self) -> None:
        share = self.share
        with share._lock:
            share._now[self.directory] += 1
            here = max(share.most_in_one.get(self.directory, 0), share._now[self.directory])
            share.most_in_one[self.directory] = here

    def __exit__(self, *_: object) -> None:
        with self.share._lock:
            self.share._now[self.directory] -= 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two directories with many others in them, and a bit of everything."""
    files: dict[str, bytes] = {f"{d}/{n:03}/index.html": b"%d" % n for d in "ab" for n in range(40)}
    root = write_tree(tmp_path / "source", {**files, "empty": b"", "c/deep/er/x": b"x" * 70_000})
    (root / "link").symlink_to("a/000")
    (root / "c/deep").chmod(0o500)
    (root / "c").chmod(0o711)
    (root / "b/007").chmod(0o775)
    (root / "b/007/index.html").chmod(0o755)
    return root


def publish_slowly(store: Path, source: Path, id: str, disk: Disk | None = None) -> Published:
    disk = disk or Share()
    with open_store(disk, store) as opened:
        return Publisher(opened).publish(scan(Disk(), source), build_id(id))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", "tree")


def edit(source: Path) -> None:
    (source / "a/000/index.html").write_text("new")
    (source / "a/new").mkdir()
    (source / "a/new/index.html").write_text("page")


# -- writing --------------------------------------------------------------------------------------


def test_many_workers_write_what_one_would(store: Path, source: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", "tree")
    slow, quick = publish_slowly(store, source, "1"), publish(other, source, "1")
    assert slow.written == quick.written
    edit(source)
    slow, quick = publish_slowly(store, source, "2"), publish(other, source, "2")
    assert slow.written == quick.written
    assert slow.written.new_files == 3, "the empty file too"
    for id in "12":
        assert problems(store, id) == ()
        trees = [root / "builds" / id / "tree" for root in (store, other)]
        one, two = (scan(Disk(), tree).manifest for tree in trees)
        assert one.text == two.text
        assert len(set(times(store, id).values())) == int(id), "what did not change keeps its time"
    pages = [store / f"builds/{id}/tree/b/007/index.html" for id in "12"]
    assert pages[0].samefile(pages[1])
    assert leftovers(store) == []
    assert threading.active_count() == 1


def test_the_work_is_spread_over_directories(store: Path, source: Path) -> None:
    share = Share()
    publish_slowly(store, source, "1", share)
    assert len(share.threads) > 2 * WORKERS_OF_A_DIRECTORY
    assert share.most_at_once > WORKERS_OF_A_DIRECTORY
    assert max(share.most_in_one.values()) <= WORKERS_OF_A_DIRECTORY


def test_a_local_disk_and_a_few_files_have_no_crew(store: Path, source: Path) -> None:
    class Watched(Share):
        def step(self, operation: str, path: AnyPath) -> None:
            self.threads.add(threading.get_ident())

    disk = Watched()
    publish_slowly(store, source, "1", disk)
    assert disk.threads == {threading.get_ident()}
    few = write_tree(source.parent / "few", {"a": b"a"})
    share = Share()
    publish_slowly(store, few, "2", share)
    assert share.threads == {threading.get_ident()}


def test_a_source_that_changes_meanwhile_leaves_nothing(store: Path, source: Path) -> None:
    class Meddling(Share):
        def make_directory(self, path: AnyPath, mode: int = 0o755, at: int | None = None) -> None:
            if path == b"tree":
                (source / "a/039/index.html").write_text("changed in the middle")
            super().make_directory(path, mode, at)

    with pytest.raises(SourceChanged, match=r"a/039/index\.html"):
        publish_slowly(store, source, "1", Meddling())
    assert leftovers(store) == []
    assert list((store / "builds").iterdir()) == []
    assert threading.active_count() == 1


@pytest.mark.parametrize("operation", ["create", "make_directory", "hard_link", "set_mode"])
def test_an_error_of_any_worker_ends_the_publish(store: Path, source: Path, operation: str) -> None:
    publish(store, source, "0")

    class Full(Share):
        left = 70

        def step(self, step: str, path: AnyPath) -> None:
            super().step(step, path)
            if step == operation:
                self.left -= 1
                if not self.left:
                    raise OSError(errno.ENOSPC, "no space left on device", path)

    edit(source)
    for number in range(200):
        (source / f"b/{number % 40:03}/more{number}").write_text("x")
    for directory in (source / "b").iterdir():
        directory.chmod(0o775)
    with pytest.raises(OSError, match="no space left"):
        publish_slowly(store, source, "1", Full())
    assert leftovers(store) == []
    assert [path.name for path in (store / "builds").iterdir()] == ["0"]


def test_workers_too_meet_the_limit_of_links(store: Path, source: Path) -> None:
    class Efs(FewLinksDisk, Share):
        forks = True

        def __init__(self) -> None:
            FewLinksDisk.__init__(self, 3)
            Share.__init__(self)

        def step(self, operation: str, path: AnyPath) -> None:
            Share.step(self, operation, path)

    for id in "1234":
        publish_slowly(store, source, id, Efs())
    pages = [store / f"builds/{id}/tree/b/007/index.html" for id in "1234"]
    assert [page.stat().st_nlink for page in pages] == [3, 3, 3, 1]
    assert problems(store, "4") == ()


def test_workers_do_not_run_out_of_descriptors(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (300, 300))
    deep = "/".join(f"level{n}" for n in range(40))
    spec = {f"{deep}/file": b"x"} | {f"f{n}": b"x" for n in range(70)}
    root = write_tree(tmp_path / "deep", spec)
    share = Share()
    publish_slowly(store, root, "1", share)
    assert share.most_at_once == 1, "a worker may need 3 x 41 of the 100 that are left"


def test_as_many_workers_as_descriptors_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert most_waiting(1) == 64
    assert most_waiting(30) == 27
    assert most_waiting(5000) == 1
    assert depth([file_entry(b"a/b/c", b""), directory_entry()]) == 3


# -- in which order -------------------------------------------------------------------------------

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(st.dictionaries(PATHS, st.integers(0, 60), max_size=8), st.randoms())
def test_every_entry_is_made_once_and_after_its_directory(
    directories: dict[str, int], random: Random
) -> None:
    entries = _entries(directories)
    order = _Order(entries)
    made, under_way = {b"."}, list(order.inside(b"."))
    while under_way:
        apart = Counter(directory for directory, _ in under_way)
        assert max(apart.values()) <= WORKERS_OF_A_DIRECTORY
        piece = under_way.pop(random.randrange(len(under_way)))
        for entry in piece[1]:
            assert entry.path not in made
            assert (entry.path.rpartition(b"/")[0] or b".") in made
            made.add(entry.path)
        under_way += order.after(piece)
    assert made == {entry.path for entry in entries}


def _entries(directories: dict[str, int]) -> list[Entry]:
    every = {b".": directory_entry()}
    for path, files in directories.items():
        parts = path.encode().split(b"/")
        for end in range(1, len(parts) + 1):
            above = b"/".join(parts[:end])
            every[above] = directory_entry(above)
        for number in range(files):
            name = b"/".join([*parts, b"file%d" % number])
            every[name] = file_entry(name, b"")
    return sorted(every.values())


def test_directories_come_first() -> None:
    files = [file_entry(b"a%d" % n, b"") for n in range(100)]
    order = _Order([directory_entry(), *files, directory_entry(b"z")])
    (_, first), *_ = order.inside(b".")
    assert first[0].kind == DIRECTORY


# -- reading --------------------------------------------------------------------------------------


def read_slowly(store: Path, id: str, disk: Disk) -> Iterator[tuple[str, bytes | str]]:
    with open_store(disk, store) as opened, opened.open_build(build_id(id)) as build:
        manifest = build.manifest()
        for entry, chunks in build.reader(manifest).contents(reversed(manifest.files)):
            try:
                yield entry.shown, b"".join(chunks)
            except Mismatch as error:
                yield entry.shown, error.problems[0].problem


@pytest.mark.parametrize("window_bytes", [1 << 24, 69_999, 100, 1, 0])
def test_contents_are_read_by_many_and_given_in_order(
    store: Path, source: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int
) -> None:
    monkeypatch.setattr(tree_module, "WINDOW_BYTES", window_bytes)
    publish(store, source, "1")
    share = Share()
    found = list(read_slowly(store, "1", share))
    assert [name for name, _ in found] == sorted(name for name, _ in found)
    assert dict(found) == content(store, "1")
    assert len(share.threads) > 2 or not window_bytes
    assert threading.active_count() == 1


def test_a_lost_or_longer_file_is_told_at_its_turn(store: Path, source: Path) -> None:
    publish(store, source, "1")
    good = content(store, "1")
    (store / "builds/1/tree/a/030/index.html").unlink()
    (store / "builds/1/tree/a/031/index.html").write_bytes(b"y" * 100_000)
    found = dict(read_slowly(store, "1", Share()))
    assert found.pop("a/030/index.html") == "missing in the store, or no file there"
    longer = found.pop("a/031/index.html")
    assert len(longer) == len(good["a/031/index.html"]) + 1, "no more than tells that it is longer"
    assert found == {name: text for name, text in good.items() if name in found}


def test_who_stops_reading_leaves_no_thread(store: Path, source: Path) -> None:
    publish(store, source, "1")
    reading = read_slowly(store, "1", Share())
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert threading.active_count() == 1


def test_a_disk_that_fails_is_an_error_and_no_damage(store: Path, source: Path) -> None:
    class Failing(Share):
        def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
            if path == b"x":
                raise OSError(errno.EIO, "input/output error", path)
            return super().open_file(path, at)

    publish(store, source, "1")
    with pytest.raises(OSError, match="input/output error"):
        list(read_slowly(store, "1", Failing()))


# -- the crew -------------------------------------------------------------------------------------


def test_what_is_told_done_can_bring_more() -> None:
    seen: list[int] = []

    def done(piece: int, result: int) -> Iterable[int]:
        seen.append(result)
        return range(piece)

    Crew(["a", "b", "c"]).run(lambda hands, piece: piece * 10, [3], done)
    assert Counter(seen) == {30: 1, 20: 1, 10: 2, 0: 4}


def test_nobody_holds_what_another_uses() -> None:
    used, lock = [0, 0], threading.Lock()

    def work(hands: int, piece: int) -> int:
        with lock:
            used[hands] += 1
            most = used[hands]
        time.sleep(0.001)
        with lock:
            used[hands] -= 1
        return most

    most: set[int] = set()

    def done(piece: int, found: int) -> tuple[()]:
        most.add(found)
        return ()

    Crew([0, 1]).run(work, range(50), done)
    assert most == {1}


@pytest.mark.parametrize("broken", ["work", "done"])
def test_an_error_ends_all_threads(broken: str) -> None:
    def fails(*_: object) -> tuple[()]:
        raise Mismatch("wrong")

    def works(*_: object) -> tuple[()]:
        return ()

    work, done = (fails, works) if broken == "work" else (works, fails)
    with pytest.raises(Mismatch, match="wrong"):
        Crew(range(8)).run(work, range(100), done)
    assert threading.active_count() == 1


def test_the_latency_is_the_least_of_a_few_opens(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "r", {f"{n}": b"x" for n in range(5)})
    fd = os.open(root, os.O_RDONLY)
    try:
        files = [file_entry(b"gone", b"x"), file_entry(b"1", b"x"), file_entry(b"2", b"x")]
        assert read_latency(Disk(), fd, files) < LATENCY_S
        assert read_latency(Share(), fd, files) >= LATENCY_S
        assert read_latency(Disk(), fd, files[:1]) == 0
    finally:
        os.close(fd)
    assert hashing.WAITS_S < LATENCY_S
    assert FEW_FILES < hashing.SMALL_FILES
