"""A publish that begins while its source is still hashed: nobody sees it, and it may come to
nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import CountingDisk
from moorline import workflow
from moorline.build import build_id
from moorline.config import Config
from moorline.disk import AnyPath, Disk
from moorline.errors import Conflict, SourceChanged, SourceRefused
from moorline.publishing import Publisher
from moorline.scan import Outline, Rules, scan
from moorline.store import open_store
from stores import content, directories, leftovers, listed, make_store, problems, publish
from trees import Content, write_tree

SITE: dict[str, Content] = {"a": b"1", "d/b": b"2", "d/e/c": b"3", "z/y": b"4"}


@pytest.fixture
def store(tmp_path: Path, layout: str) -> Path:
    return make_store(tmp_path / "store", layout)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "site", SITE)


def nothing() -> None:
    """A beat that nobody needs."""


class Interfering(CountingDisk):
    """Does something in the middle: when the file `name` is opened to be hashed."""

    def __init__(self, name: bytes, interfere: Callable[[], None]) -> None:
        super().__init__()
        self.name = name
        self.interfere = interfere

    def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
        opened = super().open_file(path, at)
        if path == self.name:
            self.interfere()
        return opened


def verb(store: Path, source: Path, disk: Disk | None = None, id: str | None = "1") -> str:
    """`moorline publish`; the id of the build."""
    config = Config(store=str(store))
    done = workflow.publish(
        str(source), config=config, id=id, disk=disk or CountingDisk(), environment={}
    )
    return str(done.id)


def test_what_was_begun_is_no_build_and_can_be_taken_back(store: Path, site: Path) -> None:
    publish(store, write_tree(site.parent / "other", {"a": b"other"}), "0")
    source = scan(CountingDisk(), site)
    with open_store(CountingDisk(), store) as opened, Publisher(opened) as publisher:
        publisher.begin(build_id("1"), directories(source), nothing)
        assert listed(store) == ["0"]
        assert [path.name[:2] for path in (store / "incoming").iterdir()] == ["1."]
    assert leftovers(store) == []
    assert listed(store) == ["0"]


def test_a_source_that_is_refused_after_all_leaves_nothing(store: Path, site: Path) -> None:
    (site / "d/b").chmod(0o4755)  # only who opens it sees that
    with pytest.raises(SourceRefused, match="holds 1 thing"):
        verb(store, site)
    assert leftovers(store) == listed(store) == []


def test_a_source_that_changes_leaves_nothing(store: Path, site: Path) -> None:
    begun: list[str] = []

    def interfere() -> None:
        begun.extend(path.name for path in (store / "incoming").iterdir())
        (site / "d/b").write_bytes(b"longer")

    with pytest.raises(SourceChanged, match="d/b was written to"):
        verb(store, site, Interfering(b"b", interfere))
    assert [name[:2] for name in begun] == ["1."], "it had begun"
    assert leftovers(store) == listed(store) == []


def test_ctrl_c_while_hashing_leaves_nothing(store: Path, site: Path) -> None:
    def interfere() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verb(store, site, Interfering(b"b", interfere))
    assert leftovers(store) == listed(store) == []


def test_an_id_that_only_the_content_gives(store: Path, site: Path) -> None:
    begun: list[str] = []

    def interfere() -> None:
        begun.extend(path.name for path in (store / "incoming").iterdir())

    id = verb(store, site, Interfering(b"b", interfere), id=None)
    assert {name[:4] for name in begun} == {"new."}
    assert listed(store) == [id]
    assert content(store, id) == SITE
    assert leftovers(store) == []


def test_an_id_that_is_taken_begins_nothing(store: Path, site: Path) -> None:
    publish(store, site, "1")
    seen: list[str] = []

    def interfere() -> None:
        seen.extend(path.name for path in (store / "incoming").iterdir())

    assert verb(store, site, Interfering(b"b", interfere)) == "1"
    (site / "a").write_bytes(b"other")
    with pytest.raises(Conflict):
        verb(store, site, Interfering(b"b", interfere))
    assert seen == leftovers(store) == []
    assert problems(store, "1") == ()


@pytest.mark.parametrize("same", [True, False])
def test_another_publish_of_the_id_is_faster(store: Path, site: Path, same: bool) -> None:
    other = write_tree(site.parent / "other", SITE if same else {"a": b"other"})
    disk = Interfering(b"b", lambda: done.append(publish(store, other, "1")) if not done else None)
    done: list[object] = []
    if same:
        assert verb(store, site, disk) == "1"
    else:
        with pytest.raises(Conflict):
            verb(store, site, disk)
    assert len(done) == 1
    assert problems(store, "1") == ()
    assert leftovers(store) == []


def test_a_newer_build_meanwhile_does_not_matter(store: Path, site: Path) -> None:
    publish(store, site, "0")
    other = write_tree(site.parent / "other", {**SITE, "a": b"new"})
    disk = Interfering(b"b", lambda: done.append(publish(store, other, "x")) if not done else None)
    done: list[object] = []
    assert verb(store, site, disk) == "1"
    assert listed(store) == ["0", "x", "1"]
    assert content(store, "1") == SITE
    assert leftovers(store) == []


def test_dry_runs_begin_nothing(store: Path, site: Path) -> None:
    disk = Interfering(b"b", lambda: seen.extend(os.listdir(store / "incoming")))
    seen: list[str] = []
    config = Config(store=str(store))
    workflow.publish(str(site), config=config, id="1", disk=disk, environment={}, dry_run=True)
    assert seen == leftovers(store) == []


MODES = {"d": 0o555, "d/e": 0o500, "z": 0o775}


def test_directories_have_their_modes_in_the_end(store: Path, site: Path) -> None:
    for path, mode in MODES.items():
        (site / path).chmod(mode)
    try:
        verb(store, site)
        assert problems(store, "1") == ()
        tree = store / "builds/1/tree"
        if tree.exists():
            assert {p: stat.S_IMODE((tree / p).stat().st_mode) for p in MODES} == MODES
    finally:
        for root in (site, store / "builds/1/tree"):
            for path in MODES:
                if (root / path).exists():
                    (root / path).chmod(0o755)


def test_a_tree_lets_nobody_in_before_it_is_whole(tmp_path: Path, site: Path) -> None:
    store, modes = make_store(tmp_path / "store", "tree"), []

    class Watching(CountingDisk):
        def step(self, operation: str, path: AnyPath) -> None:
            for tree in (store / "incoming").glob("1.*/tree"):
                modes.append((stat.S_IMODE(tree.stat().st_mode), operation, path))

    verb(store, site, Watching())
    private = [(operation, path) for mode, operation, path in modes if mode == 0o700]
    assert {path for operation, path in private if operation == "create"} == {
        b"a", b"d/b", b"d/e/c", b"z/y"
    }  # fmt: skip
    assert private[-1][0] == "set_mode"
    assert [mode for mode, *_ in modes] == sorted(mode for mode, *_ in modes)
    assert stat.S_IMODE((store / "builds/1/tree").stat().st_mode) == 0o755


def test_a_directory_that_only_leads_to_a_linked_path(store: Path, site: Path) -> None:
    rules = Rules(linked=("d/data/uploads/",))
    outlines: list[Outline] = []
    source = scan(
        CountingDisk(), site, rules, meanwhile=lambda outline, beat: outlines.append(outline)
    )
    with open_store(CountingDisk(), store) as opened, Publisher(opened) as publisher:
        publisher.begin(build_id("1"), outlines[0].directories, nothing)
        publisher.publish(source, build_id("1"))
    assert problems(store, "1") == ()
    assert outlines[0].replaced == source.replaced == ("d/data/uploads/",)


def test_meanwhile_comes_once_with_directories_parents_first(site: Path) -> None:
    outlines: list[Outline] = []
    source = scan(CountingDisk(), site, meanwhile=lambda outline, beat: outlines.append(outline))
    (outline,) = outlines
    paths = [entry.path for entry in outline.directories]
    assert paths[0] == b"."
    assert set(paths) == {b".", b"d", b"d/e", b"z"}
    assert paths.index(b"d") < paths.index(b"d/e")
    assert set(outline.directories) == set(directories(source))


def test_meanwhile_does_not_come_for_what_is_refused_by_its_name(site: Path) -> None:
    (site / ".env").write_text("secret")
    with pytest.raises(SourceRefused):
        scan(CountingDisk(), site, meanwhile=lambda outline, beat: pytest.fail("begun"))


def test_a_beat_takes_what_was_hashed(tmp_path: Path) -> None:
    """With so many files that workers hash them."""
    site = write_tree(tmp_path / "many", {f"{n % 30}/{n}": b"%d" % n for n in range(1200)})
    done: list[int] = []

    def meanwhile(outline: Outline, beat: Callable[[], None]) -> None:
        while not done or done[-1] < 1100:  # what is left fills no piece
            beat()

    source = scan(
        Disk(), site, progress=lambda now, total, what, files=0: done.append(files),
        meanwhile=meanwhile,
    )  # fmt: skip
    assert len(source.manifest.files) == 1200
