"""What every layout of a store promises: builds come back as they went in, damage is found and
mended, nobody's source is touched, and what did not change costs nothing.

A new layout joins by its name in `moorline.build.LAYOUTS`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damages import becomes
from fakes import CountingDisk
from moorline import store as store_module
from moorline import verifying, workflow
from moorline.build import LAYOUTS, build_id
from moorline.config import Config
from moorline.disk import Disk
from moorline.errors import Conflict, Mismatch, SourceChanged
from moorline.layout import pack_check, read_manifest
from moorline.layout.index import Index
from moorline.publishing import Publisher
from moorline.scan import scan
from moorline.store import open_store
from stores import content, leftovers, listed, make_store, problems, publish, times
from trees import SITE, Content, snapshot, write_tree
from ways import WAYS, always

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")

EDITED: dict[str, Content] = {
    **SITE,
    "index.html": b"<h1>two</h1>",
    "img/c.png": b"new" * 100,
    "img/moved.png": b"\x89PNG" * 600,
    "css/site.css": (b"body{}", 0o600),
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store(tmp_path: Path, layout: str) -> Path:
    return make_store(tmp_path / "store", layout)


def files(spec: dict[str, Content]) -> dict[str, bytes]:
    found = {n: c[0] if isinstance(c, tuple) else c for n, c in spec.items()}
    return {name: data for name, data in found.items() if isinstance(data, bytes)}


def bytes_in(store: Path) -> int:
    """What all contents take on the disk, each file counted once."""
    seen = {
        (status.st_dev, status.st_ino): status.st_size
        for folder in ("builds", "packs")
        for path in (store / folder).rglob("*")
        if path.is_file() and not path.is_symlink()
        for status in [path.stat()]
        if "tree" in path.parts or "packs" in path.parts
    }
    return sum(seen.values())


# -- in and out -----------------------------------------------------------------------------------


def test_a_build_comes_back_as_it_went_in(store: Path, site: Path) -> None:
    published = publish(store, site, "1")
    manifest = scan(Disk(), site).manifest
    assert content(store, "1") == files(SITE)
    assert problems(store, "1") == ()
    assert listed(store) == ["1"]
    assert leftovers(store) == []
    build, written = published.build, published.written
    assert (build.id, build.sequence, build.digest) == ("1", 1, manifest.digest)
    assert (build.files, build.size_bytes) == (len(manifest.files), manifest.size_bytes)
    assert build.manifest_bytes == len(manifest.text)
    assert (written.new_files, written.linked_files, written.repaired) == (6, 0, 0)
    assert not published.already
    names = {p.name for p in (store / "builds/1").iterdir()}
    assert names - {"tree"} == {"build.json", "manifest.gz", "index"}


def test_only_the_files_that_are_wanted_are_read(store: Path, site: Path) -> None:
    publish(store, site, "1")
    with open_store(Disk(), store) as opened, opened.open_build(build_id("1")) as build:
        manifest = build.manifest()
        wanted = [e for e in manifest.files if e.path in (b"index.html", b"css/empty.css")]
        found = {e.shown: b"".join(chunks) for e, chunks in build.reader(manifest).contents(wanted)}
        assert found == {"index.html": b"<h1>one</h1>", "css/empty.css": b""}
        assert list(build.reader(manifest).contents([])) == []


def test_a_reader_may_leave_contents_unread(store: Path, site: Path) -> None:
    publish(store, site, "1")
    with open_store(Disk(), store) as opened, opened.open_build(build_id("1")) as build:
        manifest = build.manifest()
        contents = build.reader(manifest).contents(manifest.files)
        for number, (entry, chunks) in enumerate(contents):
            if number % 2:
                assert b"".join(chunks) == files(SITE)[entry.shown]


def test_large_files_come_in_pieces(store: Path, tmp_path: Path) -> None:
    large = os.urandom(1 << 20) * 10
    source = write_tree(tmp_path / "s", {"large": large, "small": b"x", "large2": large + b"y"})
    publish(store, source, "1")
    with open_store(Disk(), store) as opened, opened.open_build(build_id("1")) as build:
        for entry, chunks in build.reader(build.manifest()).contents(build.manifest().files):
            pieces = list(chunks)
            assert b"".join(pieces) == files({"large": large, "small": b"x", "large2": large + b"y"})[entry.shown]  # noqa: E501  # fmt: skip
            assert all(len(piece) <= 8 << 20 for piece in pieces)
    assert problems(store, "1") == ()


def test_odd_names_and_an_empty_file_only(store: Path, tmp_path: Path) -> None:
    odd = {os.fsdecode(b"\xff\n%"): b"odd", "-rf": b"dash", "n" * 255: b"long", " ": b"space"}
    publish(store, write_tree(tmp_path / "odd", dict(odd)), "1")
    assert sorted(content(store, "1").values()) == sorted(odd.values())
    assert problems(store, "1") == ()
    publish(store, write_tree(tmp_path / "e", {"empty": b""}), "2")
    assert content(store, "2") == {"empty": b""}
    assert problems(store, "2") == ()


def test_a_build_of_links_and_directories_only(store: Path, tmp_path: Path) -> None:
    publish(store, write_tree(tmp_path / "s", {"d": None, "l": "d"}), "1")
    publish(store, write_tree(tmp_path / "s", {"d2": None}), "2")
    assert problems(store, "1") == problems(store, "2") == ()


# -- what did not change --------------------------------------------------------------------------


def test_the_next_build_writes_only_what_changed(store: Path, site: Path, layout: str) -> None:
    write_tree(site, {"large": b"L" * 100_000})
    publish(store, site, "1")
    before = bytes_in(store)
    second = publish(store, write_tree(site, EDITED), "2")
    assert content(store, "1") == {**files(SITE), "large": b"L" * 100_000}
    assert content(store, "2") == {**files(EDITED), "large": b"L" * 100_000}
    assert problems(store, "1") == problems(store, "2") == ()
    assert second.build.sequence == 2
    moved = len(b"\x89PNG" * 600) if layout == "tree" else 0  # a path has its own time
    assert bytes_in(store) - before < 1000 + moved, "what stayed in its place is not written again"
    assert second.written.new_bytes == bytes_in(store) - before


def test_a_thousand_builds_may_go_and_the_others_stay_whole(store: Path, site: Path) -> None:
    """Each build can be removed without the others: nothing refers to another build."""
    for number in range(8):
        publish(store, write_tree(site, {"n": b"%d" % number, f"f{number}": b"x" * 500}), f"{number}")  # noqa: E501  # fmt: skip
    for number in (0, 3, 5, 6):
        shutil.rmtree(store / "builds" / str(number))
    for number in (1, 2, 4, 7):
        assert problems(store, str(number)) == ()
        assert content(store, str(number))["n"] == b"%d" % number
    publish(store, site, "next")
    assert problems(store, "next") == ()


def test_sources_are_neither_changed_nor_linked(store: Path, site: Path) -> None:
    (site / "bin/run").chmod(0o555)
    (site / "spare").chmod(0o555)
    before = snapshot(site)
    publish(store, site, "1")
    publish(store, site, "2")
    publish(store, site, "2")
    damage_all_content(store, "2")
    assert publish(store, site, "2").written.repaired
    assert snapshot(site) == before
    for path in site.rglob("*"):
        assert path.is_dir() or path.lstat().st_nlink == 1


def test_changing_the_source_afterwards_changes_no_build(store: Path, site: Path) -> None:
    publish(store, site, "1")
    for path in site.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"changed in place")
    assert content(store, "1") == files(SITE)
    publish(store, site, "2")
    assert content(store, "1") == files(SITE)


# -- times ----------------------------------------------------------------------------------------


def test_times_say_when_a_path_got_its_content(store: Path, site: Path) -> None:
    for path in site.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))  # as builds that are reproducible do
    first = publish(store, site, "1").build.created
    assert set(times(store, "1").values()) == {first}
    assert first > 10**9, "not the source's times"
    second = publish(store, write_tree(site, {"index.html": b"<h1>two</h1>"}), "2").build.created
    assert second > first
    assert times(store, "2") == {**times(store, "1"), "index.html": second}
    third = publish(store, write_tree(site, {"index.html": b"<h1>one</h1>"}), "3").build.created
    assert third > second, "the old content is back, and yet it is a change"
    assert times(store, "3") == {**times(store, "1"), "index.html": third}


def test_a_path_that_is_new_gets_a_new_time(store: Path, site: Path) -> None:
    """Two builds ago it may have had other content of the same size, and the time of what moved
    there now may be the very one that a browser remembers of it."""
    write_tree(site, {"a": b"aaaa", "b": b"bbbb"})
    first = publish(store, site, "1").build.created
    (site / "a").unlink()
    publish(store, site, "2")
    (site / "b").rename(site / "a")
    third = publish(store, site, "3").build.created
    assert times(store, "1")["a"] == first
    assert times(store, "3")["a"] == third
    assert problems(store, "3") == ()


def test_a_path_with_other_content_never_takes_an_old_time(store: Path, site: Path) -> None:
    """Not even when another path had that content: its time may have stood for what this path
    held before, and a browser would be told that nothing changed."""
    write_tree(site, {"a": b"aaaa", "b": b"bbbb", "c": b"cccc"})
    publish(store, site, "1")
    second = publish(store, write_tree(site, {"a": b"bbbb", "b": b"aaaa"}), "2").build.created
    found = times(store, "2")
    assert (found["a"], found["b"]) == (second, second)
    assert found["c"] < second


def test_a_new_mode_is_a_new_file(store: Path, site: Path) -> None:
    publish(store, site, "1")
    (site / "index.html").chmod(0o600)
    second = publish(store, site, "2").build.created
    assert times(store, "2")["index.html"] == second
    assert problems(store, "1") == problems(store, "2") == ()


@given(st.data())
@settings(max_examples=15)
def test_no_path_ever_shows_other_content_under_the_same_time_and_size(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """nginx's ETag is time and size; paths never vanish in between here (see `file_times`)."""
    layout = data.draw(st.sampled_from(LAYOUTS))
    folder = tmp_path_factory.mktemp("times")
    store = make_store(folder / "store", layout)
    seen: dict[tuple[str, int, int], bytes] = {}
    for number in range(4):
        spec = {n: data.draw(st.sampled_from((b"1111", b"2222", b"33"))) for n in ("a", "b", "d/c")}
        source = write_tree(folder / f"s{number}", dict(spec))
        publish(store, source, str(number))
        for path, seconds in times(store, str(number)).items():
            key = (path, seconds, len(spec[path]))
            assert seen.setdefault(key, spec[path]) == spec[path]
    shutil.rmtree(folder)


# -- the same id again ----------------------------------------------------------------------------


def state(store: Path) -> dict[str, tuple[object, ...]]:
    """All of a store but the times and link counts of its folders."""
    return {path: row for path, row in snapshot(store).items() if row[5] is not None}


def test_the_same_build_again_changes_nothing(store: Path, site: Path) -> None:
    first = publish(store, site, "1")
    publish(store, write_tree(site, {"index.html": b"two"}), "2")
    before = state(store)
    again = publish(store, write_tree(site, {"index.html": b"<h1>one</h1>"}), "1")
    assert again.already
    assert again.build == first.build
    assert (again.written.new_bytes, again.written.repaired) == (0, 0)
    assert state(store) == before


def test_the_same_content_under_another_id_costs_nothing(store: Path, site: Path) -> None:
    publish(store, site, "1")
    before = bytes_in(store)
    second = publish(store, site, "2")
    assert not second.already
    assert bytes_in(store) == before
    assert listed(store) == ["1", "2"]
    assert times(store, "1") == times(store, "2")


def test_other_content_under_the_same_id_is_refused(store: Path, site: Path) -> None:
    publish(store, site, "1")
    before = state(store)
    with pytest.raises(Conflict, match="build 1 exists with other content") as caught:
        publish(store, write_tree(site, {"index.html": b"other"}), "1")
    assert caught.value.exit_code == 5
    assert state(store) == before
    assert leftovers(store) == []


# -- damage ---------------------------------------------------------------------------------------


def content_files(store: Path, id: str) -> list[Path]:
    """Where the contents of a build lie, whatever the layout; no empty ones."""
    if (store / "builds" / id / "tree").exists():
        found = [p for p in (store / "builds" / id / "tree").rglob("*") if not p.is_symlink()]
    else:
        index = Index.parse((store / "builds" / id / "index").read_bytes())
        found = [store / "packs" / token for token in index.packs]
    return sorted(path for path in found if path.is_file() and path.stat().st_size)


def damage_all_content(store: Path, id: str) -> None:
    for path in content_files(store, id):
        with path.open("r+b") as file:
            first = file.read(1)[0]
            file.seek(0)
            file.write(bytes([first ^ 1]))


def flip_last(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


CONTENT_DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": flip_last,
    "cut": lambda p: os.truncate(p, p.stat().st_size - 1),
    "emptied": lambda p: os.truncate(p, 0),
    "missing": lambda p: p.unlink(),
    "a directory": replace_by(Path.mkdir),
    "a link": replace_by(lambda p: p.symlink_to("/etc/passwd")),
    "a FIFO": replace_by(os.mkfifo),
    "other bytes": lambda p: p.write_bytes(b"x" * p.stat().st_size),
}


@pytest.mark.parametrize("damage", list(CONTENT_DAMAGES))
def test_damaged_content_is_found_listed_and_mended(store: Path, site: Path, damage: str) -> None:
    publish(store, site, "1")
    good, when = content(store, "1"), times(store, "1")
    before = {path: path.read_bytes() for path in (store / "builds/1").iterdir() if path.is_file()}
    for path in content_files(store, "1"):
        CONTENT_DAMAGES[damage](path)
    found = problems(store, "1")
    assert list(found) == sorted(found)
    assert found
    assert {problem.path for problem in found} <= {*good, "bin", "css", "img", "spare"}

    again = publish(store, site, "1")
    assert again.already
    assert again.written.repaired >= 1
    assert problems(store, "1") == ()
    assert content(store, "1") == good
    assert times(store, "1") == when
    assert leftovers(store) == []
    for name in ("build.json", "manifest.gz"):
        assert (store / "builds/1" / name).read_bytes() == before[store / "builds/1" / name]
    assert publish(store, site, "1").written.repaired == 0


@pytest.mark.parametrize("damage", list(CONTENT_DAMAGES))
def test_damaged_content_never_reaches_the_reader_as_a_whole_file(
    store: Path, site: Path, damage: str
) -> None:
    """It raises, gives other bytes or fewer: whoever hashes what he gets will see it."""
    publish(store, site, "1")
    for path in content_files(store, "1"):
        CONTENT_DAMAGES[damage](path)
    good = files(SITE)
    with open_store(Disk(), store) as opened, opened.open_build(build_id("1")) as build:
        wrong = 0
        manifest = build.manifest()
        for entry in manifest.files:
            try:
                for _, chunks in build.reader(manifest).contents([entry]):
                    wrong += b"".join(chunks) != good[entry.shown]
            except Mismatch as error:
                wrong += 1
                assert "Publish the same build again: that repairs it" in error.message
        assert wrong


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the test runner has threads
def test_what_is_damaged_is_the_same_however_it_is_found(
    store: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one process or several, which were there before the manifest was read or not."""
    spec: dict[str, Content] = {f"d{n % 4}/{n:03}": b"%d" % n * 9 for n in range(300)}
    publish(store, write_tree(tmp_path / "s", {**spec, "empty": b""}), "1")
    whole = content_files(store, "1")
    for path in (whole[0], whole[len(whole) // 2], whole[-1]):
        flip_last(path)
    expected = problems(store, "1")
    assert expected
    for module in (verifying, pack_check):
        monkeypatch.setattr(module, "workers", always(way))
    with open_store(Disk(), store) as opened, opened.open_build(build_id("1")) as build:
        verifier = build.verifier()
        manifest = build.manifest()
        found = build.verify(manifest, verifier=verifier)
        assert found.problems == expected == build.verify(manifest).problems
        assert found.files == 301


def test_workers_are_there_before_the_manifest_is_in_memory(
    store: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each takes a copy of it, by counting references: 161 MB in place of 87 for 100,000
    files."""
    publish(store, site, "1")
    done: list[str] = []

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **more: Any) -> Any:
            done.append(name)
            return function(*values, **more)

        return call

    for module in (verifying, pack_check):
        monkeypatch.setattr(module, "workers", noted("workers", always("inline")))
    monkeypatch.setattr(store_module, "read_manifest", noted("manifest", read_manifest))
    (found,) = workflow.verify(config=Config(store=str(store)), id="1")
    assert found.ok
    assert done == ["workers", "manifest"]


@pytest.mark.parametrize("files", [0, 10**9])
def test_what_build_json_says_of_the_size_decides_nothing_but_who_works(
    store: Path, site: Path, files: int
) -> None:
    publish(store, site, "1")
    record = store / "builds/1/build.json"
    text = json.loads(record.read_text())
    record.write_text(json.dumps({**text, "files": files, "bytes": files}))
    (found,) = workflow.verify(config=Config(store=str(store)), id="1", disk=CountingDisk())
    assert found.ok
    damage_all_content(store, "1")
    (found,) = workflow.verify(config=Config(store=str(store)), id="1", disk=CountingDisk())
    assert not found.ok


def test_a_build_on_a_damaged_one_is_whole_when_the_damage_can_be_seen(
    store: Path, site: Path
) -> None:
    """What is missing, cut or of another kind is not taken over. (A bit that is wrong inside is
    found by reading: in a pack at the latest after a week, in a tree by `verify`.)"""
    for number, name in enumerate(("cut", "missing", "a directory", "a link", "a FIFO")):
        publish(store, write_tree(site, {"n": b"%d" % number}), f"a{number}")
        for path in content_files(store, f"a{number}"):
            CONTENT_DAMAGES[name](path)
        publish(store, write_tree(site, {"n": b"%d!" % number}), f"b{number}")
        assert problems(store, f"b{number}") == (), name
        shutil.rmtree(store / "builds" / f"a{number}")


@pytest.mark.parametrize("name", ["manifest.gz", "index", "build.json"])
@pytest.mark.parametrize("gone", [True, False])
def test_damaged_records_of_a_build_are_mended(
    store: Path, site: Path, name: str, gone: bool
) -> None:
    publish(store, site, "1")
    publish(store, write_tree(site, {"index.html": b"two"}), "2")
    path = store / "builds/2" / name
    before = path.read_bytes()
    if gone:
        path.unlink()
    else:
        becomes(path, lambda p: p.write_bytes(before[: len(before) // 2]))
    again = publish(store, site, "2")
    assert again.already
    assert problems(store, "2") == ()
    assert listed(store) == ["1", "2"]
    assert leftovers(store) == []
    if name != "index":
        assert path.read_bytes() == before
        assert again.written.repaired == 1
    assert publish(store, site, "2").written.repaired == 0


def test_a_record_is_only_mended_for_the_same_content(store: Path, site: Path) -> None:
    publish(store, site, "1")
    (store / "builds/1/build.json").unlink()
    with pytest.raises(Conflict):
        publish(store, write_tree(site, {"index.html": b"other"}), "1")
    assert not (store / "builds/1/build.json").exists()


def test_a_build_without_record_and_manifest_is_known_by_its_ticket(
    store: Path, site: Path
) -> None:
    """Where nothing says what the id stood for it is not given away again."""
    publish(store, site, "1")
    for name in ("build.json", "manifest.gz"):
        (store / "builds/1" / name).unlink()
    assert publish(store, site, "1").already
    assert problems(store, "1") == ()
    for name in (
        "builds/1/build.json",
        "builds/1/manifest.gz",
        "sequence/1",
        "ledger/builds/1.json",
    ):
        (store / name).unlink()
    with pytest.raises(Mismatch):
        publish(store, site, "1")


def test_other_builds_are_whole_while_one_is_mended(store: Path, site: Path) -> None:
    publish(store, site, "1")
    publish(store, write_tree(site, {"index.html": b"two", "new": b"new" * 50}), "2")
    path = content_files(store, "2")[0]
    flip_last(path)
    damaged = [id for id in ("1", "2") if problems(store, id)]
    assert damaged
    for id, text in (("1", b"<h1>one</h1>"), ("2", b"two")):
        spec: dict[str, Content] = {"index.html": text}
        if id == "1":
            (site / "new").unlink()
        else:
            spec["new"] = b"new" * 50
        publish(store, write_tree(site, spec), id)
        assert problems(store, id) == ()
    assert problems(store, "1") == problems(store, "2") == ()


@given(st.data())
@settings(max_examples=20)
def test_any_history_of_publishes_keeps_every_build_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from(LAYOUTS))
    folder = tmp_path_factory.mktemp("history")
    store = make_store(folder / "store", layout)
    spec: dict[str, Content] = {}
    expected: dict[str, dict[str, bytes]] = {}
    for number in range(data.draw(st.integers(1, 7))):
        names = st.sampled_from(("a", "b", "d/c", "d/e/f"))
        sizes = st.sampled_from((0, 1, 3, 40, 500, 6000))
        for name in data.draw(st.lists(names, min_size=1, max_size=3)):
            spec[name] = bytes([data.draw(st.integers(65, 70))]) * data.draw(sizes)
        if len(spec) > 1 and data.draw(st.booleans()):
            del spec[data.draw(st.sampled_from(sorted(spec)))]
        source = write_tree(folder / f"s{number}", spec)
        publish(store, source, str(number))
        expected[str(number)] = files(spec)
        if len(expected) > 1 and data.draw(st.integers(0, 4)) == 0:
            gone = data.draw(st.sampled_from(sorted(expected)))
            shutil.rmtree(store / "builds" / gone)
            del expected[gone]
    assert listed(store) == sorted(expected, key=int)
    for id, held in expected.items():
        assert content(store, id) == held
        assert problems(store, id) == ()
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        lambda p: p.write_bytes(b"<h1>NEW</h1>"),
        lambda p: p.write_bytes(p.read_bytes() + b"more"),
        lambda p: os.truncate(p, 3),
        replace_by(Path.mkdir),
        replace_by(os.mkfifo),
    ],
)
def test_a_source_that_changed_after_the_scan_is_not_published(
    store: Path, site: Path, change: Callable[[Path], object]
) -> None:
    """Every file is hashed again as it is written."""
    publish(store, site, "1")
    source = scan(Disk(), write_tree(site, {"index.html": b"<h1>new</h1>"}))
    change(site / "index.html")
    with (
        open_store(CountingDisk(), store) as opened,
        pytest.raises(SourceChanged, match=r"index\.html .*Nothing was published"),
    ):
        Publisher(opened).publish(source, build_id("2"))
    assert listed(store) == ["1"]
    assert leftovers(store) == []
    assert problems(store, "1") == ()


def test_a_source_may_be_named_by_a_link(store: Path, site: Path) -> None:
    (site.parent / "latest").symlink_to("site")
    publish(store, site.parent / "latest", "1")
    assert content(store, "1") == files(SITE)
