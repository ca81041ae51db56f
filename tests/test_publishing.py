"""Publishing: one commit point. Whatever dies, fails or comes in between, at any operation, every
build that is listed is whole, and the same publish again succeeds.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from damages import becomes
from fakes import ActingDisk, CountingDisk, FailingDisk, Stopped, StoppingDisk
from moorline import reserving
from moorline.build import Build, build_id
from moorline.disk import AnyPath, Disk
from moorline.errors import ConfigError, Conflict, Error, UnknownFormat
from moorline.layout.index import Index
from moorline.publishing import Published, Publisher
from moorline.scan import scan
from moorline.source import Source
from moorline.store import open_store
from stores import (
    content,
    directories,
    leftovers,
    listed,
    make_store,
    newest,
    packs,
    problems,
    times,
)
from trees import Content, write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")

OLD: dict[str, Content] = {"a": b"a" * 300, "d/b": b"old", "gone": b"x"}
NEW: dict[str, Content] = {"a": b"a" * 300, "d/b": b"new!", "l": "a", "e": b""}
OTHER: dict[str, Content] = {"a": b"a" * 300, "d/b": b"other"}


class Scene:
    """A store in some state, and sources that are scanned once, to publish into it again and again.

    `fresh` puts the store back as it was when `keep` was called: removing and copying directories
    is most of what these tests cost, so only what changed is put back.
    """

    def __init__(self, folder: Path, layout: str) -> None:
        self.folder = folder
        self.layout = layout
        self.store = make_store(folder / "store", layout)
        self.kept: dict[Path, tuple[object, ...]] = {}
        self.new = self.source("new", NEW)
        self.other = self.source("other", OTHER)
        self.keep()

    def source(self, name: str, spec: dict[str, Content]) -> Source:
        return scan(CountingDisk(), write_tree(self.folder / name, spec))

    def keep(self) -> None:
        self.kept = {path: self._look(path) for path in self.store.rglob("*")}

    def _look(self, path: Path) -> tuple[object, ...]:
        status = path.lstat()
        if path.is_symlink() or path.is_dir():
            return (status.st_mode, os.readlink(path) if path.is_symlink() else None, 0)
        return (status.st_mode, path.read_bytes(), status.st_mtime_ns)

    def fresh(self) -> Path:
        for path in sorted(self.store.rglob("*"), key=lambda p: len(p.parts)):
            if os.path.lexists(path) and self.kept.get(path) != self._look(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        for path, (mode, content_, time) in self.kept.items():
            if os.path.lexists(path):
                continue
            if content_ is None:
                path.mkdir()
            elif isinstance(content_, str):
                path.symlink_to(content_)
            else:
                assert isinstance(content_, bytes)
                path.write_bytes(content_)
            if not isinstance(content_, str):
                assert isinstance(mode, int)
                path.chmod(mode & 0o7777)
            if isinstance(time, int) and time:
                os.utime(path, ns=(time, time))
        return self.store

    def publish(self, id: str, source: Source, disk: Disk | None = None) -> Published:
        with open_store(CountingDisk(), self.store) as opened:
            opened.disk = disk or CountingDisk()
            with Publisher(opened) as publisher:
                publisher.begin(build_id(id), directories(source), lambda: None)
                return publisher.publish(source, build_id(id))

    def operations(self, id: str, source: Source) -> list[str]:
        """The operations of an undisturbed publish."""
        disk = CountingDisk()
        self.fresh()
        self.publish(id, source, disk)
        self.fresh()
        return [operation for operation, _ in disk.operations]


@pytest.fixture
def scene(tmp_path: Path, layout: str) -> Scene:
    return Scene(tmp_path, layout)


@pytest.fixture
def second(scene: Scene) -> Scene:
    """With a build "old" in the store."""
    scene.publish("old", scene.source("old", OLD))
    scene.keep()
    return scene


def order(store: Path) -> list[Build]:
    """All builds; sequence, time and token are theirs alone and agree."""
    with open_store(CountingDisk(), store) as opened:
        builds = opened.builds()
        for build in builds:
            assert opened.read_ticket(build.sequence) == build
    assert newest(store) == (builds[-1].id if builds else None)
    assert len({build.sequence for build in builds}) == len(builds)
    assert [build.created for build in builds] == sorted({build.created for build in builds})
    return builds


def sound(store: Path) -> list[str]:
    """Every listed build is whole; returns the ids."""
    found = listed(store)
    for id in found:
        assert problems(store, id) == (), id
    order(store)
    return found


def orphans(store: Path) -> set[str]:
    """Packs that no build names."""
    named: set[str] = set()
    for path in (store / "builds").glob("*/index"):
        named |= Index.parse(path.read_bytes()).packs.keys()
    return packs(store).keys() - named


# -- a process that dies --------------------------------------------------------------------------

WHOLE = {"a": b"a" * 300, "d/b": b"new!", "e": b""}


def dies_at_any_operation(scene: Scene, earlier: list[str]) -> None:
    outcomes = []
    for at in range(len(scene.operations("new", scene.new))):
        store = scene.fresh()
        disk = StoppingDisk(at)
        with pytest.raises(Stopped):
            scene.publish("new", scene.new, disk)
        assert disk.fired
        found = sound(store)
        assert found in (earlier, [*earlier, "new"])
        outcomes.append(len(found))
        around = {path.parts[-2] for path in store.glob("*/*") if path not in scene.kept}
        assert around <= {"incoming", "trash", "packs", "sequence", "builds", "ledger"}

        again = scene.publish("new", scene.new)
        assert again.already == ("new" in found)
        assert sound(store) == [*earlier, "new"]
        assert content(store, "new") == WHOLE
    assert outcomes == sorted(outcomes), "one commit point: before it no build, after it all of it"
    assert len(set(outcomes)) == 2


def test_the_first_publish_may_die_at_any_operation(scene: Scene) -> None:
    dies_at_any_operation(scene, [])


def test_a_later_publish_may_die_at_any_operation(second: Scene) -> None:
    dies_at_any_operation(second, ["old"])


def damage(store: Path, what: str) -> None:
    build = store / "builds" / "new"
    if what == "manifest":
        os.truncate(build / "manifest.gz", 30)
    elif what == "record":
        os.truncate(build / "build.json", 30)
    elif (build / "tree").exists():
        (build / "tree/d/b").unlink()
        (build / "tree/a").unlink()
        (build / "tree/a").write_bytes(b"A" * 300)
        (build / "tree/extra").mkdir()
    else:
        for token in packs(store):
            os.truncate(store / "packs" / token, 2)


@pytest.fixture(
    params=[
        "content",
        pytest.param("manifest", marks=pytest.mark.slow),
        pytest.param("record", marks=pytest.mark.slow),
    ]
)
def damaged(second: Scene, request: pytest.FixtureRequest) -> Scene:
    """With a build "new" besides, that is damaged in one way or another."""
    second.publish("new", second.new)
    damage(second.store, request.param)
    second.keep()
    return second


def test_a_repair_may_die_at_any_operation(damaged: Scene) -> None:
    for at in range(len(damaged.operations("new", damaged.new))):
        store = damaged.fresh()
        disk = StoppingDisk(at)
        with pytest.raises(Stopped):
            damaged.publish("new", damaged.new, disk)
        assert disk.fired
        assert (store / "builds/new").is_dir(), "a build that is being mended is never away"
        again = damaged.publish("new", damaged.new)
        assert again.already
        assert problems(store, "new") == ()
        assert listed(store) == ["old", "new"]
        order(store)
        assert content(store, "new") == WHOLE


# -- an operation that fails ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        errno.ENOSPC,
        pytest.param(errno.EIO, marks=pytest.mark.slow),
        pytest.param(errno.ESTALE, marks=pytest.mark.slow),
    ],
)
def test_any_operation_may_fail(second: Scene, code: int) -> None:
    """The program lives on and cleans up after itself: nothing is left, nothing half is there."""
    failed = 0
    for at in range(len(second.operations("new", second.new))):
        store = second.fresh()
        disk = FailingDisk(at, code)
        try:
            second.publish("new", second.new, disk)
        except (OSError, Error):
            failed += 1
        else:
            assert listed(store) == ["old", "new"], "a failure that is passed over changes nothing"
        assert disk.fired
        found = sound(store)
        if found == ["old"]:
            assert leftovers(store) == []
            assert orphans(store) == set()
        second.publish("new", second.new)
        assert sound(store) == ["old", "new"]
    assert failed > 30


@pytest.mark.slow
def test_any_operation_of_a_repair_may_fail(damaged: Scene) -> None:
    for at in range(len(damaged.operations("new", damaged.new))):
        store = damaged.fresh()
        disk = FailingDisk(at, errno.ENOSPC)
        try:
            damaged.publish("new", damaged.new, disk)
        except (OSError, Error):
            damaged.publish("new", damaged.new)
        assert disk.fired
        assert problems(store, "new") == ()


@pytest.mark.parametrize("operation", ["sync", "sync_all", "close", "write"])
def test_writes_that_fail_late_fail_the_publish(scene: Scene, operation: str) -> None:
    """On NFS that is where a full disk or a lost write shows."""
    names = scene.operations("new", scene.new)
    commit = len(names) - 1 - names[::-1].index("rename")
    wanted = [at for at, name in enumerate(names[:commit]) if name == operation]
    if operation == "sync_all":
        wanted = wanted[1:]  # the first one only takes the errors of others: see the next test
    assert wanted or (operation == "sync_all" and scene.layout == "pack")
    for at in wanted:
        store = scene.fresh()
        disk = FailingDisk(at, errno.EDQUOT, operation)
        with pytest.raises(OSError) as caught:
            scene.publish("new", scene.new, disk)
        assert disk.fired
        assert caught.value.errno == errno.EDQUOT
        assert listed(store) == leftovers(store) == []
        assert packs(store) == {}


def test_a_write_that_somebody_else_lost_before_is_not_our_failure(scene: Scene) -> None:
    """Linux tells it to the next syncfs of the mount, whoever asks."""
    disk = FailingDisk(0, errno.EIO, "sync_all")
    scene.publish("new", scene.new, disk)
    assert disk.fired == (scene.layout == "tree")
    assert sound(scene.store) == ["new"]


# -- somebody else in the middle ------------------------------------------------------------------


PRIVATE = {"read", "write", "sync", "sync_all", "close", "set_mode", "set_times"}
"""They touch only what nobody else can see: to come before one of them or after is the same."""


def moments(scene: Scene) -> list[int]:
    """The operations before which somebody else may make a difference."""
    names = scene.operations("new", scene.new)
    return [at for at, name in enumerate(names) if name not in PRIVATE]


def test_another_publish_of_the_same_build_may_come_in_between(second: Scene) -> None:
    for at in moments(second):
        store = second.fresh()
        both: list[Published] = []
        disk = ActingDisk(at, lambda: both.append(second.publish("new", second.new)))  # noqa: B023
        both.append(second.publish("new", second.new, disk))
        assert disk.fired
        inner, outer = both
        assert inner.build == outer.build
        assert sorted([inner.already, outer.already]) == [False, True]
        assert sound(store) == ["old", "new"]
        assert leftovers(store) == []
        assert orphans(store) == set()


def test_of_two_publishes_of_one_id_with_different_content_one_is_refused(second: Scene) -> None:
    won = set()
    results: list[str] = []

    def attempt(name: str, source: Source, disk: Disk | None = None) -> None:
        try:
            second.publish("new", source, disk)
            results.append(name)
        except Conflict as error:
            assert "exists with other content" in error.message
            assert error.exit_code == 5

    for at in range(len(second.operations("new", second.new))):
        store = second.fresh()
        results.clear()
        disk = ActingDisk(at, lambda: attempt("inner", second.other))
        attempt("outer", second.new, disk)
        assert disk.fired
        (winner,) = results
        won.add(winner)
        assert content(store, "new")["d/b"] == (b"other" if winner == "inner" else b"new!")
        assert sound(store) == ["old", "new"]
        assert leftovers(store) == []
        assert orphans(store) == set()
    assert won == {"inner", "outer"}


def test_publishes_of_different_ids_do_not_disturb_each_other(second: Scene) -> None:
    orders = set()
    for at in moments(second):
        store = second.fresh()
        disk = ActingDisk(at, lambda: second.publish("other", second.other))
        second.publish("new", second.new, disk)
        assert disk.fired
        orders.add(tuple(sound(store)))
        assert content(store, "other")["d/b"] == b"other"
        assert times(store, "new")["d/b"] != times(store, "other")["d/b"], "two contents, two times"
        assert leftovers(store) == []
        if second.layout == "tree":
            for id in ("new", "other"):
                for path, seconds in times(store, id).items():
                    assert (store / "builds" / id / "tree" / path).stat().st_mtime == seconds
    assert orders == {("old", "new", "other"), ("old", "other", "new")}


RACE = """
import json, sys
from pathlib import Path
from moorline.build import build_id
from moorline.disk import Disk
from moorline.publishing import Publisher
from moorline.scan import scan
from moorline.store import open_store
store, source, *ids = sys.argv[1:]
scanned = scan(Disk(), source)
print("ready", flush=True)
sys.stdin.readline()
for id in ids:
    with open_store(Disk(), store) as opened:
        published = Publisher(opened).publish(scanned, build_id(id))
        print(json.dumps([id, published.build.token, published.already]), flush=True)
"""


def race(store: Path, source: Path, ids: list[list[str]]) -> list[tuple[str, str, bool]]:
    """One process for each list of ids; all begin at the same moment."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, store, source, *mine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mine in ids
    ]
    results = []
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in running:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            results += [tuple(json.loads(line)) for line in out.splitlines()]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return results


def test_processes_that_publish_at_the_same_time(tmp_path: Path, layout: str) -> None:
    store = make_store(tmp_path / "store", layout)
    source = write_tree(tmp_path / "s", {f"f{n}": b"%d" % n * 50 for n in range(20)})
    ids = [["one", f"a{n}", "two", f"b{n}"] for n in range(4)]
    results = race(store, source, ids)
    assert set(sound(store)) == {id for mine in ids for id in mine}
    for shared in ("one", "two"):
        mine = [(token, already) for id, token, already in results if id == shared]
        assert len({token for token, _ in mine}) == 1
        assert sorted(already for _, already in mine) == [False, True, True, True]
    assert leftovers(store) == []
    assert orphans(store) == set()


# -- the order of things --------------------------------------------------------------------------


class Tracing(CountingDisk):
    """Remembers which created files were synced before they were closed."""

    def __init__(self) -> None:
        super().__init__()
        self.unsynced: dict[int, str] = {}
        self.events: list[str] = []

    def create(
        self, path: AnyPath, mode: int = 0o644, at: int | None = None, *, private: bool = False
    ) -> int:
        fd = super().create(path, mode, at, private=private)
        self.unsynced[fd] = os.fsdecode(path)
        self.events.append(f"create {os.fsdecode(path)}")
        return fd

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.events.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")

    def sync_all(self, fd: int) -> None:
        super().sync_all(fd)
        self.events.append("sync_all")

    def hard_link(
        self, source: AnyPath, path: AnyPath, source_at: int | None = None, at: int | None = None
    ) -> None:
        super().hard_link(source, path, source_at, at)
        self.events.append(f"link {os.fsdecode(path)}")

    def rename(
        self, source: AnyPath, path: AnyPath, source_at: int | None = None, at: int | None = None
    ) -> None:
        super().rename(source, path, source_at, at)
        self.events.append(f"rename {os.fsdecode(path)}")


def test_everything_is_durable_before_the_one_rename(second: Scene) -> None:
    scene, disk = second, Tracing()
    token = scene.publish("new", scene.new, disk).build.token
    events = disk.events
    commit = events.index("rename new")
    assert [e for e in events if e.startswith("rename")] == ["rename new"]
    assert events[commit:] == [
        *("rename new", "sync builds", "sync incoming"),
        *("sync ledger", "link new.json", "sync builds"),
    ]  # fmt: skip
    for name in ("manifest.gz", "index", "build.json"):
        assert events.index(f"create {name}") < events.index(f"sync {name}") < commit
    assert events[commit - 1] == f"sync new.{token}", "the names in the folder, last of all"
    ticket = events.index("link 2")
    assert events.index("sync build.json") < ticket < events.index("sync sequence") < commit
    assert events.index("sync manifest.gz") < ticket
    completed = commit - events[commit::-1].index("sync index")
    assert ticket < completed < commit, "the index is begun first, and completed after the ticket"
    if scene.layout == "pack":
        assert events.index(f"create {token}") < events.index(f"sync {token}") < ticket
        assert events.index(f"sync {token}") < events.index("sync packs") < ticket
    else:
        assert events.index("sync_all") < events.index("create d/b")
        barrier = ticket - events[ticket::-1].index("sync_all")
        assert events.index("create d/b") < barrier < ticket


class ServerTime(CountingDisk):
    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.seconds = seconds

    def create(
        self, path: AnyPath, mode: int = 0o644, at: int | None = None, *, private: bool = False
    ) -> int:
        fd = super().create(path, mode, at, private=private)
        os.utime(fd, (self.seconds, self.seconds))
        return fd


def test_the_time_of_a_build_is_the_stores_and_goes_forward(scene: Scene) -> None:
    """Not this machine's: clocks of builders differ, and one of them once ran ahead."""

    store = scene.fresh()
    created = [
        scene.publish(f"{n}", (scene.new, scene.other)[n % 2], ServerTime(now)).build.created
        for n, now in enumerate((5000, 9000, 7000, 7000, 9003))
    ]
    assert created == [5000, 9000, 9001, 9002, 9003]
    order(store)
    (store / "sequence" / "6").write_text("damaged")
    assert scene.publish("5", scene.other, ServerTime(1)).build.created == 9004


def test_a_long_publish_shows_that_it_is_alive(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "BEAT_S", -1.0)
    disk = CountingDisk()
    scene.publish("new", scene.new, disk)
    beats = [name for name, _ in disk.operations].count("set_times")
    files = 3 if scene.layout == "tree" else 0
    assert beats >= files + 2
    monkeypatch.setattr(reserving, "BEAT_S", 1000.0)
    disk = CountingDisk()
    scene.publish("again", scene.new, disk)
    assert [name for name, _ in disk.operations].count("set_times") <= 1


def test_progress_reaches_the_end(scene: Scene) -> None:
    calls: list[tuple[int, int, str, int]] = []
    with open_store(CountingDisk(), scene.fresh()) as opened:
        Publisher(opened, lambda *call: calls.append(call)).publish(scene.new, build_id("new"))
    done, total, what, _ = calls[-1]
    assert done == total > 0
    assert what == "writing"


# -- sequence numbers -----------------------------------------------------------------------------


class Linking(CountingDisk):
    """Hard links into sequence/ go wrong in one way or another."""

    def __init__(self, how: Callable[[Callable[[], None], int], None]) -> None:
        super().__init__()
        self.how = how
        self.tries = 0

    def hard_link(
        self, source: AnyPath, path: AnyPath, source_at: int | None = None, at: int | None = None
    ) -> None:
        if not os.fsdecode(path).isdigit():
            super().hard_link(source, path, source_at, at)
            return
        self.tries += 1
        self.how(lambda: Disk.hard_link(self, source, path, source_at, at), self.tries)


def test_a_link_that_says_eexist_after_it_succeeded_is_recognised(scene: Scene) -> None:
    """NFS repeats a request whose answer was lost."""

    def twice(link: Callable[[], None], tries: int) -> None:
        link()
        raise FileExistsError(errno.EEXIST, "exists")

    store, disk = scene.fresh(), Linking(twice)
    assert scene.publish("new", scene.new, disk).build.sequence == 1
    assert disk.tries == 1
    order(store)


def test_a_number_that_somebody_else_took_is_not_shared(scene: Scene) -> None:
    def slower(link: Callable[[], None], tries: int) -> None:
        if tries < 4:
            token, created = f"{tries:016x}", 2 * 10**9 + tries
            other = Build(
                build_id("other"), "0" * 64, 1, sequence=tries, token=token, created=created,
                files=1, size_bytes=1,
            )  # fmt: skip
            (store / "sequence" / str(tries)).write_bytes(other.text())
        link()

    store, disk = scene.fresh(), Linking(slower)
    build = scene.publish("new", scene.new, disk).build
    assert (build.sequence, disk.tries) == (4, 4)
    assert build.created == 2 * 10**9 + 4, "later than all before it"
    order(store)


def test_a_number_that_is_never_to_be_had_ends_in_an_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(link: Callable[[], None], tries: int) -> None:
        raise FileExistsError(errno.EEXIST, "exists")

    store, disk = scene.fresh(), Linking(taken)
    with pytest.raises(Error, match=r"no sequence number to be had.*Try again"):
        scene.publish("new", scene.new, disk)
    assert disk.tries == 1000
    assert listed(store) == leftovers(store) == []


# -- the commit -----------------------------------------------------------------------------------


class Committing(CountingDisk):
    """The rename to builds/new ends as `how` says, which gets the rename itself and its source."""

    def __init__(self, how: Callable[[Callable[[], None], Path], None]) -> None:
        super().__init__()
        self.how = how

    def rename(
        self, source: AnyPath, path: AnyPath, source_at: int | None = None, at: int | None = None
    ) -> None:
        if os.fsdecode(path) != "new":
            super().rename(source, path, source_at, at)
            return
        staged = Path(os.readlink(f"/proc/self/fd/{source_at}"), os.fsdecode(source))
        self.how(lambda: Disk.rename(self, source, path, source_at, at), staged)


def test_a_commit_that_says_enoent_after_it_succeeded_is_recognised(scene: Scene) -> None:
    """NFS repeats a request whose answer was lost."""

    def twice(rename: Callable[[], None], staged: Path) -> None:
        rename()
        raise FileNotFoundError(errno.ENOENT, "no such file")

    store = scene.fresh()
    done = scene.publish("new", scene.new, Committing(twice))
    assert not done.already
    assert sound(store) == ["new"]
    assert leftovers(store) == []


def test_a_build_of_another_publish_is_not_taken_for_this_one(scene: Scene) -> None:
    """A cleaner took what was silent for too long; then another publish took the id."""

    def cleaned(rename: Callable[[], None], staged: Path) -> None:
        staged.rename(store / "trash" / f"{staged.name}.{'0' * 16}.1")
        scene.publish("new", scene.other)
        rename()

    store = scene.fresh()
    with pytest.raises(FileNotFoundError):
        scene.publish("new", scene.new, Committing(cleaned))
    assert sound(store) == ["new"]
    assert content(store, "new")["d/b"] == b"other"


# -- what is written down -------------------------------------------------------------------------


def test_revision_and_tool_are_written_down(scene: Scene) -> None:
    store = scene.fresh()
    with open_store(CountingDisk(), store) as opened:
        Publisher(opened).publish(scene.new, build_id("new"), revision="3f2a9c1", tool="0.1.0")
    record = json.loads((store / "builds/new/build.json").read_text())
    assert (record["revision"], record["tool"], record["format"]) == ("3f2a9c1", "0.1.0", 1)
    assert set(record) == {
        "format", "id", "digest", "manifest_bytes", "sequence", "token", "created", "files",
        "bytes", "revision", "tool",
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{16}", record["token"])


@pytest.mark.parametrize("revision", ["x" * 5000, "nul\0"])
def test_a_record_that_nobody_could_read_is_not_published(scene: Scene, revision: str) -> None:
    store = scene.fresh()
    with open_store(CountingDisk(), store) as opened, pytest.raises(ConfigError, match="revision"):
        Publisher(opened).publish(scene.new, build_id("new"), revision=revision)
    assert listed(store) == leftovers(store) == []
    assert packs(store) == {}


def test_a_record_of_a_newer_moorline_is_not_mended(scene: Scene) -> None:
    store = scene.fresh()
    scene.publish("new", scene.new)
    path = store / "builds/new/build.json"
    newer = path.read_text().replace('"format":1', '"format":2')
    path.write_text(newer)
    with pytest.raises(UnknownFormat, match=r"format 2; .* Use a newer moorline"):
        scene.publish("new", scene.new)
    assert path.read_text() == newer


def test_a_record_is_mended_from_its_ticket(second: Scene) -> None:
    scene, store = second, second.store
    build = scene.publish("new", scene.new).build
    scene.publish("later", scene.other)
    becomes(store / "builds/new/build.json", lambda path: path.write_text("{}"))
    with open_store(CountingDisk(), store) as opened:
        mended = Publisher(opened).publish(scene.new, build_id("new"))
    assert mended.build == build
    assert mended.written.repaired == 1
    assert sound(store) == ["old", "new", "later"]


def test_a_record_that_was_damaged_with_its_ticket_is_mended_from_the_ledger(
    second: Scene,
) -> None:
    """They are one file: who writes into one writes into both."""
    scene, store = second, second.store
    build = scene.publish("new", scene.new).build
    becomes(store / "ledger/builds/new.json", lambda path: path.write_bytes(build.text()))
    (store / "builds/new/build.json").write_text("{}")
    mended = scene.publish("new", scene.new)
    assert mended.build == build
    assert mended.written.repaired == 1
    assert listed(store) == ["old", "new"]


def test_a_record_of_which_no_copy_is_left_gets_a_new_number(second: Scene) -> None:
    """Record, ticket and ledger are one file. The manifest still says that it is this content."""
    scene, store = second, second.store
    scene.publish("new", scene.new)
    when = times(store, "new")
    scene.publish("later", scene.other)
    (store / "builds/new/build.json").write_text("{}")
    assert scene.publish("new", scene.new).already
    assert sound(store) == ["old", "later", "new"]
    assert times(store, "new") == when
    assert leftovers(store) == []


def test_without_a_manifest_nobody_says_what_a_build_was(scene: Scene) -> None:
    store = scene.fresh()
    scene.publish("new", scene.new)
    (store / "builds/new/build.json").write_text("{}")
    (store / "builds/new/manifest.gz").unlink()
    with pytest.raises(Error, match="The build is damaged"):
        scene.publish("new", scene.new)
    assert (store / "builds/new/build.json").read_text() == "{}"
