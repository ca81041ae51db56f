"""A store: making it, opening it, and reading what is there, however damaged that is."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import CountingDisk, FailingDisk, ReadOnlyDisk, Stopped, StoppingDisk
from moorline import succession
from moorline.build import build_id
from moorline.disk import Disk
from moorline.errors import ConfigError, Conflict, Error, Mismatch, NotFound
from moorline.founding import init_store
from moorline.manifest import compressed
from moorline.store import FOLDERS, open_store
from moorline.succession import Newest
from stores import listed, make_store, newest, problems, publish
from trees import snapshot, write_tree


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


@pytest.fixture
def built(store: Path, site: Path) -> Path:
    """A store with the builds 1, 2 and 3."""
    for id in ("1", "2", "3"):
        publish(store, write_tree(site, {"index.html": f"build {id}".encode()}), id)
    return store


# -- making ---------------------------------------------------------------------------------------


def test_a_new_store(tmp_path: Path, layout: str) -> None:
    with init_store(Disk(), tmp_path / "a/b", app="site", layout=layout) as store:
        assert (store.app, store.layout, store.path) == ("site", layout, str(tmp_path / "a/b"))
        assert store.ids() == []
        assert store.builds() == []
        assert succession.newest(store, ()) == Newest(0, 0)
    assert json.loads((tmp_path / "a/b/moorline-store.json").read_text()) == {
        "format": 1,
        "store": store.id,
        "app": "site",
        "layout": layout,
    }
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == {
        "moorline-store.json",
        *(name.decode() for name in FOLDERS),
    }


def test_making_a_store_again_changes_nothing(store: Path) -> None:
    before = snapshot(store)
    with init_store(Disk(), store, app="site") as again:
        assert again.app == "site"
    assert snapshot(store) == before


@pytest.mark.parametrize(("app", "layout"), [("other", "pack"), ("site", "tree")])
def test_a_store_of_another_kind_is_not_taken_over(store: Path, app: str, layout: str) -> None:
    with pytest.raises(Conflict, match="is already a store: of 'site', layout pack"):
        init_store(Disk(), store, app=app, layout=layout)


def test_a_folder_that_holds_something_else_is_not_made_a_store(tmp_path: Path, site: Path) -> None:
    before = snapshot(site)
    with pytest.raises(ConfigError, match="is not empty and no store"):
        init_store(Disk(), site, app="site")
    assert snapshot(site) == before


def test_a_fresh_file_system_may_be_made_a_store(tmp_path: Path) -> None:
    write_tree(tmp_path, {"lost+found": None, ".snapshot": None})
    init_store(Disk(), tmp_path, app="site").close()


@pytest.mark.parametrize(("app", "layout"), [("../x", "pack"), ("", "pack"), ("site", "image")])
def test_bad_names_make_no_store(tmp_path: Path, app: str, layout: str) -> None:
    with pytest.raises(ConfigError):
        init_store(Disk(), tmp_path / "s", app=app, layout=layout)
    assert not (tmp_path / "s").exists()


def test_a_store_that_was_cut_short_is_completed_by_the_next_try(tmp_path: Path) -> None:
    counting = CountingDisk()
    init_store(counting, tmp_path / "counted", app="site").close()
    for at in range(counting.count):
        path = tmp_path / str(at)
        with pytest.raises(Stopped):
            init_store(StoppingDisk(at), path, app="site")
        with contextlib.suppress(NotFound):
            open_store(Disk(), path).close()
        with init_store(CountingDisk(), path, app="site") as store:
            assert store.builds() == []


def test_of_two_that_make_a_store_one_wins(tmp_path: Path) -> None:
    """The second comes in the middle of the first, at every moment; both use the winner's."""
    counting = CountingDisk()
    init_store(counting, tmp_path / "counted", app="site").close()
    for at in range(counting.count):
        path = tmp_path / str(at)

        class Meddling(CountingDisk):
            def step(self, operation: str, name: object) -> None:
                super().step(operation, str(name))
                if self.count == at + 1:  # noqa: B023
                    seconds.append(init_store(CountingDisk(), path, app="site"))  # noqa: B023

        seconds: list[object] = []
        with init_store(Meddling(), path, app="site") as first:
            (second,) = seconds
            assert first.id == second.id  # type: ignore[attr-defined]
            second.close()  # type: ignore[attr-defined]


# -- opening --------------------------------------------------------------------------------------


def test_no_store(tmp_path: Path, site: Path) -> None:
    for path in (tmp_path / "none", site / "index.html"):
        with pytest.raises(NotFound, match=r"there is no such folder\. Mount the share, or make"):
            open_store(Disk(), path)
    with pytest.raises(NotFound, match="the folder holds no store"):
        open_store(Disk(), site)


def test_an_empty_mountpoint_is_no_store(tmp_path: Path) -> None:
    """Publishing into it would fill the local disk."""
    (tmp_path / "mnt").mkdir()
    with pytest.raises(NotFound, match=r"the folder is empty\. Is the share mounted there\?"):
        open_store(Disk(), tmp_path / "mnt")
    assert list((tmp_path / "mnt").iterdir()) == []


def test_another_application(store: Path) -> None:
    open_store(Disk(), store, app="site").close()
    with pytest.raises(ConfigError, match="belongs to application 'site', not to 'shop'"):
        open_store(Disk(), store, app="shop")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"has format 2; this moorline knows 1\. Use a newer moorline"),
        ({"format": "1"}, "'format' must be"),
        ({"layout": "image"}, "has an unknown layout 'image'"),
        ({"layout": None}, "'layout' is missing"),
        ({"app": 5}, "'app' must be"),
        ({"store": None}, "'store' is missing"),
    ],
)
def test_a_marker_of_another_kind(store: Path, changes: dict[str, object], message: str) -> None:
    marker = store / "moorline-store.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), **changes}))
    with pytest.raises(ConfigError, match=message):
        open_store(Disk(), store)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"x" * (2 << 20)])
def test_a_damaged_marker(store: Path, text: bytes) -> None:
    (store / "moorline-store.json").write_bytes(text)
    with pytest.raises((ConfigError, OSError)):
        open_store(Disk(), store)


def test_a_store_may_be_named_by_a_link_its_folders_not(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    open_store(Disk(), tmp_path / "link").close()
    (store / "builds").rename(tmp_path / "elsewhere")
    (store / "builds").symlink_to(tmp_path / "elsewhere")
    with open_store(Disk(), store) as opened, pytest.raises(NotADirectoryError):
        opened.builds()


# -- a store that is mounted read-only ------------------------------------------------------------


def test_a_read_only_store_can_be_read(built: Path) -> None:
    with open_store(ReadOnlyDisk(), built) as store:
        assert [build.id for build in store.builds()] == ["1", "2", "3"]
        with store.open_build(build_id("2")) as build:
            assert build.verify(build.manifest()).problems == ()


def test_a_read_only_store_refuses_a_publish_and_says_why(built: Path, site: Path) -> None:
    before = snapshot(built)
    with pytest.raises(OSError) as caught:
        publish(built, site, "4", ReadOnlyDisk())
    assert caught.value.errno == errno.EROFS
    assert snapshot(built) == before


# -- the order of builds --------------------------------------------------------------------------


def test_builds_come_in_the_order_of_their_sequence(built: Path) -> None:
    """Not by name, not by time: clocks and copies say nothing."""
    publish(built, built.parent / "site", "0-last")
    for number, id in enumerate(("0-last", "3", "2", "1")):
        os.utime(built / "builds" / id, (10**9 + number, 10**9 + number))
    assert listed(built) == ["1", "2", "3", "0-last"]
    assert newest(built) == "0-last"


def test_removed_builds_leave_gaps(built: Path) -> None:
    shutil.rmtree(built / "builds/3")
    assert listed(built) == ["1", "2"]
    assert newest(built) == "2"
    publish(built, built.parent / "site", "4")
    assert sorted(path.name for path in (built / "sequence").iterdir()) == ["1", "2", "3", "4"]
    assert listed(built) == ["1", "2", "4"]


@pytest.mark.parametrize("name", ["", "x", "-1", "1.5", "9" * 19, "07", ".hidden"])
def test_strange_names_among_the_numbers_are_passed_over(built: Path, name: str) -> None:
    (built / "sequence" / (name or "other")).write_text("x")
    (built / "sequence" / "90").mkdir()
    (built / "sequence" / "91").symlink_to("3")
    (built / "sequence" / "92").write_text("garbage")
    (built / "sequence" / "93").write_bytes(b"x" * 1000)
    assert newest(built) == "3"
    publish(built, built.parent / "site", "4")
    assert newest(built) == "4"


def test_a_number_that_was_taken_by_a_failed_publish_is_passed_over(built: Path) -> None:
    three = json.loads((built / "sequence/3").read_text())
    for number, id in ((4, "4"), (5, "2")):
        other = {**three, "sequence": number, "id": id, "digest": "0" * 64, "token": "aa" * 8}
        (built / f"sequence/{number}").write_text(json.dumps(other))
    assert newest(built) == "3"


def test_a_ticket_that_was_copied_to_another_number_is_passed_over(built: Path) -> None:
    shutil.copy(built / "sequence/1", built / "sequence/4")
    assert newest(built) == "3"


# -- damaged builds -------------------------------------------------------------------------------


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


RECORD_DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:20]),
    "not JSON": lambda p: p.write_bytes(b"hello\n"),
    "huge": lambda p: p.write_bytes(b"x" * (2 << 20)),
    "of another build": lambda p: p.write_bytes(p.read_bytes().replace(b'"id":"2"', b'"id":"1"')),
    "hostile id": lambda p: p.write_bytes(p.read_bytes().replace(b'"id":"2"', b'"id":"../2"')),
    "a link": lambda p: replaced(p, lambda q: q.symlink_to("../1/build.json")),
    "a directory": lambda p: replaced(p, Path.mkdir),
    "a FIFO": lambda p: replaced(p, os.mkfifo),
}


@pytest.mark.parametrize("damage", list(RECORD_DAMAGES))
def test_a_build_whose_record_is_damaged_hides_no_other(built: Path, damage: str) -> None:
    RECORD_DAMAGES[damage](built / "builds/2/build.json")
    with open_store(Disk(), built) as store:
        assert [build.id for build in store.builds()] == ["1", "3"]
        with pytest.raises((Mismatch, ConfigError)):
            store.open_build(build_id("2"))
    publish(built, built.parent / "site", "4")
    assert newest(built) == "4"


@pytest.mark.parametrize("damage", list(RECORD_DAMAGES))
def test_the_newest_build_with_a_damaged_record_is_not_built_upon(built: Path, damage: str) -> None:
    """A ticket that was not damaged with it says enough: it names the manifest's digest."""
    path = built / "builds/3/build.json"
    path.write_bytes(path.read_bytes().replace(b'"id":"3"', b'"id":"2"'))
    RECORD_DAMAGES[damage](path)
    (built / "sequence/3").unlink()
    assert newest(built) == "2"
    publish(built, built.parent / "site", "4")
    assert problems(built, "4") == ()


def test_what_lies_among_the_builds_and_is_none_is_not_listed(built: Path) -> None:
    builds = built / "builds"
    (builds / "file").write_text("x")
    (builds / "link").symlink_to("1")
    (builds / ".hidden").mkdir()
    (builds / "bad name").mkdir()
    os.mkfifo(builds / "fifo")
    (builds / "empty").mkdir()
    with open_store(Disk(), built) as store:
        assert [build.id for build in store.builds()] == ["1", "2", "3"]
        for id in ("file", "link", "fifo", "empty"):
            with pytest.raises(Mismatch):
                store.open_build(build_id(id))
        with pytest.raises(NotFound, match="no build none in the store"):
            store.open_build(build_id("none"))


def test_an_error_of_the_disk_is_not_taken_for_a_missing_build(built: Path) -> None:
    counting = CountingDisk()
    with open_store(counting, built) as store:
        start = counting.count
        store.builds()
        end = counting.count
    for at in range(start, end):
        with open_store(FailingDisk(at, errno.EIO), built) as store, pytest.raises(OSError):
            store.builds()


# -- manifest and times ---------------------------------------------------------------------------


def test_a_manifest_counts_only_with_its_digest(built: Path) -> None:
    path = built / "builds/2/manifest.gz"
    good = gzip.decompress(path.read_bytes())
    with open_store(Disk(), built) as store, store.open_build(build_id("2")) as build:
        assert build.manifest().text == good
        assert build.manifest(hashlib.sha256(good).hexdigest(), len(good)).text == good
        with pytest.raises(Mismatch, match="is not the one that CI made"):
            build.manifest("ab" * 32)
        with pytest.raises(Mismatch, match="Publish the same build again"):
            build.manifest(build.build.digest, len(good) - 1)


def zcat(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes())


MANIFEST_DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "a mode": lambda p: p.write_bytes(compressed(zcat(p).replace(b"644", b"755", 1))),
    "plain text": lambda p: p.write_bytes(zcat(p)),
    "another header": lambda p: p.write_bytes(gzip.compress(zcat(p))),
    "cut": lambda p: os.truncate(p, 50),
    "longer": lambda p: p.write_bytes(compressed(zcat(p) + b"d 755 0 - zz\n")),
    "something after its end": lambda p: p.write_bytes(p.read_bytes() + b"\0"),
    "twice": lambda p: p.write_bytes(p.read_bytes() * 2),
    "a bomb": lambda p: p.write_bytes(compressed(zcat(p) + bytes(64 << 20))),
    "a link": lambda p: replaced(p, lambda q: q.symlink_to("../1/manifest.gz")),
    "a FIFO": lambda p: replaced(p, os.mkfifo),
}


@pytest.mark.parametrize("damage", list(MANIFEST_DAMAGES))
def test_a_damaged_manifest_is_refused_and_not_built_upon(built: Path, damage: str) -> None:
    MANIFEST_DAMAGES[damage](built / "builds/3/manifest.gz")
    with (
        open_store(Disk(), built) as store,
        store.open_build(build_id("3")) as build,
        pytest.raises(Mismatch, match="was changed after publishing"),
    ):
        build.manifest()
    assert newest(built) == "2"
    published = publish(built, built.parent / "site", "4")
    assert published.written.new_files == 1, "what build 2 holds is taken over from there"
    assert problems(built, "4") == ()


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes().replace(b"moorline-index 1", b"moorline-index 2")),
        lambda p: p.write_bytes(p.read_bytes() + b"- 0 0 0\n"),
        lambda p: os.truncate(p, p.stat().st_size - 1),
        lambda p: replaced(p, Path.mkdir),
        lambda p: replaced(p, os.mkfifo),
        lambda p: replaced(p, lambda q: q.symlink_to("/etc/passwd")),
    ],
)
def test_without_an_index_all_times_are_that_of_the_build(
    built: Path, damage: Callable[[Path], object]
) -> None:
    damage(built / "builds/3/index")
    with open_store(Disk(), built) as store, store.open_build(build_id("3")) as build:
        manifest = build.manifest()
        assert len(manifest.files) == 6
        found = build.times(manifest)
        assert found == dict.fromkeys((e.path for e in manifest.files), build.build.created)


# -- agents and settings --------------------------------------------------------------------------


def test_what_is_kept_by_its_digest_comes_back(store: Path) -> None:
    data = b"settings"
    name = hashlib.sha256(data).hexdigest()
    with open_store(Disk(), store) as opened:
        assert not opened.has(b"settings", name, len(data))
        with pytest.raises(NotFound, match=f"does not hold settings/{name}. Publish the same"):
            opened.get(b"settings", name, name)
        opened.put(b"settings", name, data)
        assert opened.has(b"settings", name, len(data))
        assert not opened.has(b"settings", name, len(data) + 1)
        assert opened.get(b"settings", name, name) == data
        before = snapshot(store)
        opened.put(b"settings", name, data)
    assert snapshot(store) == before


KEPT_DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda p: p.write_bytes(b"Settings"),
    "shorter": lambda p: p.write_bytes(b"sett"),
    "longer": lambda p: p.write_bytes(b"settings!"),
    "huge": lambda p: os.truncate(p, 1 << 30),
    "a link": lambda p: replaced(p, lambda q: q.symlink_to("/etc/passwd")),
    "a FIFO": lambda p: replaced(p, os.mkfifo),
}


@pytest.mark.parametrize("damage", list(KEPT_DAMAGES))
def test_what_was_changed_is_refused_and_repaired(store: Path, damage: str) -> None:
    data = b"settings"
    name = hashlib.sha256(data).hexdigest()
    with open_store(Disk(), store) as opened:
        opened.put(b"settings", name, data)
        KEPT_DAMAGES[damage](store / "settings" / name)
        with pytest.raises(Mismatch, match="was changed: its SHA-256 is not the one in the bundle"):
            opened.get(b"settings", name, name)
        opened.put(b"settings", name, data)
        assert opened.get(b"settings", name, name) == data


def test_putting_is_whole_or_nothing(store: Path) -> None:
    counting = CountingDisk()
    with open_store(counting, store) as opened:
        start = counting.count
        opened.put(b"agent", "counted", b"agent")
    for at in range(start, counting.count):
        name = f"agent-{at}"
        with open_store(StoppingDisk(at), store) as opened, pytest.raises(Stopped):
            opened.put(b"agent", name, b"agent")
        path = store / "agent" / name
        assert not path.exists() or path.read_bytes() == b"agent"


def test_every_error_of_this_module_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        open_store(Disk(), tmp_path / "none")
    assert caught.value.exit_code == 4
    assert f"moorline init --store {tmp_path}/none" in caught.value.message
