"""Builds of odd names and shapes, and files that are not what they seem while they are read."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from counts import Count
from crash.scenarios import SPECS, deployed
from fakes import CountingDisk
from hostile.limits import Ended, limited
from moorline import workflow
from moorline.disk import AnyPath, Disk
from moorline.errors import Error, SourceChanged
from trees import Content, write_tree
from world import World

_NFC = unicodedata.normalize("NFC", "Z\u00fcrich.html")
_NFD = unicodedata.normalize("NFD", "Z\u00fcrich.html")
TREES: dict[str, dict[str, Content]] = {
    "NFC and NFD twins": {_NFC: b"composed", _NFD: b"decomposed", f"{_NFC}.d/x": b"1",
                          f"{_NFD}.d/x": b"2"},
    "case twins": {"README": b"1", "readme": b"2", "Readme": b"3", "A/x": b"4", "a/x": b"5"},
    "names of 255 bytes": {"n" * 255: b"1", "\u00fc" * 127 + "/" + "m" * 255: b"2",
                           "/".join(["d" * 255] * 15): b"3"},
    "names that look like ours": {"current": b"1", ".moorline/lock": b"2", "releases/a.1/x": b"3",
                                  "manifest": b"4", ".x.tmp": b"5", "shared": None,
                                  ".removing.a.1": b"6", ".deep.0": b"7"},
    "names that a shell or a terminal would obey": {
        "-rf": b"1", "$(id)": b"2", "`id`": b"3", "a\nb": b"4", "a\rb": b"5", "\x1b[2J": b"6",
        "a;b|c&d": b"7", "%s%n%00": b"8", "* ?": b"9", "\u202egnp.exe": b"10", "a\\b": b"11"},
    "links in circles": {"a": "b", "b": "a", "c": "c", "d/e": "../d", "d/f": ".", "g": "x" * 4000},
    "1,000 links": {f"l{i}": f"l{i + 1}" for i in range(1000)},
    "300 levels": {"/".join(["d"] * 300) + "/leaf": b"leaf"},
    "one name, many kinds": {"a/a/a": b"1", "a/b": "a", "b": "a/a", "c/a": None},
}  # fmt: skip


@pytest.mark.parametrize("layout", ["pack", "tree"])
@pytest.mark.parametrize("name", TREES)
def test_an_odd_tree_arrives_as_it_was(name: str, layout: str, here: Path, count: Count) -> None:
    """Through both layouts, over another build and back, verified by a second scan."""
    world = World(here, layout)
    for id, spec in (("a", SPECS["a"]), ("b", TREES[name]), ("c", {**TREES[name], "new": b"n"})):
        world.publish(id, spec)
        world.deploy(id)
        assert _read(world.live) == _read(here / "src" / id)
    world.rollback()
    assert _read(world.live) == _read(here / "src" / "b")
    exported = here / "export"
    workflow.export("c", str(exported), config=world.config, disk=world.disk)
    assert _read(exported) == _read(here / "src" / "c")
    count.add("odd trees")


def _read(top: Path) -> dict[bytes, object]:
    """All that is in a tree, by an own walk that knows no limit of paths."""
    found: dict[bytes, object] = {}
    todo = [(b"", os.open(top, os.O_RDONLY))]
    while todo:
        path, fd = todo.pop()
        for name in map(os.fsencode, os.listdir(fd)):
            here = path + b"/" + name
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                found[here] = os.readlink(name, dir_fd=fd)
            elif stat.S_ISDIR(status.st_mode):
                found[here] = oct(status.st_mode)
                todo.append((here, os.open(name, os.O_RDONLY, dir_fd=fd)))
            else:
                with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                    found[here] = (oct(status.st_mode), file.read())
        os.close(fd)
    return found


class FoldingDisk(CountingDisk):
    """A local disk that takes Readme and README for one name, as casefold ext4 does."""

    def create(
        self, path: AnyPath, mode: int = 0o644, at: int | None = None, *, private: bool = False
    ) -> int:
        name = os.fsencode(path)
        if at is not None and name.lower() in {n.lower() for n in map(os.fsencode, os.listdir(at))}:
            self.step("create", path)
            raise FileExistsError(17, "File exists", os.fsdecode(path))
        return super().create(path, mode, at, private=private)


def test_case_twins_on_a_disk_that_folds_them_are_refused(here: Path, count: Count) -> None:
    """Neither is lost in the other: the deploy fails and the old release stays."""
    world = World(here)
    deployed("a", live=("a",), mode="copy")(world)
    world.publish("b", TREES["case twins"])
    with pytest.raises(Error, match="File exists"):
        world.deploy("b", disk=FoldingDisk())
    assert world.live.name == "a.1"
    count.add("odd trees")


class GrowingDisk(CountingDisk):
    """Whatever file is opened below `top` has no end: it grows by each read."""

    def __init__(self, top: Path) -> None:
        super().__init__()
        self.top = str(top)
        self.reads = 0

    def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path.startswith(self.top) and os.path.isfile(path):
            self.reads += 1
            assert self.reads < 10_000, "it is read for ever"
            with open(path, "ab") as file:
                file.write(b"more" * 4096)
        return super().read(fd, size, offset)


@pytest.mark.parametrize("layout", ["pack", "tree"])
def test_files_that_grow_for_ever_while_they_are_read(
    layout: str, here: Path, count: Count
) -> None:
    """In the source, in the store, and in the release that is live: each is read to its size."""
    world = World(here, layout)
    deployed("a", "b", live=("a",), mode="copy")(world)
    source = write_tree(here / "src" / "c", SPECS["c"])
    with pytest.raises(SourceChanged):
        workflow.publish(str(source), config=world.config, id="c", disk=GrowingDisk(source))
    store = GrowingDisk(world.store)
    with pytest.raises(Error):
        world.deploy("b", disk=store)
    assert store.reads
    release = GrowingDisk(world.live)
    found = workflow.verify(config=world.config, target=str(world.root), disk=release)[0]
    assert release.reads and not found.ok
    count.add("files that grow for ever", store.reads + release.reads)


SPARSE: dict[str, Callable[[World], Path]] = {
    "a pack": lambda world: max((world.store / "packs").iterdir(), key=lambda p: p.stat().st_size),
    "the manifest": lambda world: next((world.store / "builds" / "b").glob("manifest*")),
    "the index": lambda world: world.store / "builds" / "b" / "index",
    "build.json": lambda world: world.store / "builds" / "b" / "build.json",
    "settings": lambda world: next((world.store / "settings").iterdir()),
    "the agent": lambda world: next((world.store / "agent").iterdir()),
    "a file that is live": lambda world: world.live / "index.html",
    "build.json of the bundle": lambda world: Path(world.bundle("b")) / "build.json",
}


@pytest.mark.parametrize("what", SPARSE)
def test_a_sparse_file_of_terabytes(what: str, here: Path, count: Count) -> None:
    """It costs its author nothing, and nobody more than the file that belongs there."""
    world = World(here)
    deployed("a", "b", live=("a",), mode="copy")(world)
    os.truncate(SPARSE[what](world), 5 << 40)

    def run() -> str:
        said = []
        for verb in (
            lambda: workflow.verify(config=world.config, everything=True),
            lambda: workflow.verify(config=world.config, target=str(world.root)),
            lambda: world.deploy("b", disk=Disk()),
            lambda: world.publish("c", SPECS["c"]),
        ):
            try:
                verb()
                said.append("done")
            except Error as error:
                said.append(type(error).__name__)
        return " ".join(said)

    ended: Ended = limited(run, mib=400)
    assert not ended.error, ended
    assert world.live.name in ("a.1", "b.2")
    count.add("sparse files of terabytes")


def test_a_sparse_file_in_a_source_is_published_as_what_it_is(here: Path, count: Count) -> None:
    """Its zeros count: a build says how large it is."""
    world = World(here)
    source = write_tree(here / "src" / "a", {"x": b"x"})
    os.truncate(source / "x", 32 << 20)
    ended = limited(lambda: workflow.publish(str(source), config=world.config, id="a").files,
                    mib=200)  # fmt: skip
    assert ended.value == 1, ended
    count.add("sparse files of terabytes")


@pytest.mark.slow
def test_a_hundred_thousand_things_too_many_are_all_listed(here: Path, count: Count) -> None:
    """In the child that reads the share, and through the pipe."""
    world = World(here, "tree")
    deployed("a", "b", live=("a",), mode="link")(world)
    extra = world.store / "builds" / "b" / "tree" / "img"
    for number in range(100_000):
        os.symlink("x", extra / f"extra-{number}-{'n' * 200}")

    def run() -> int:
        try:
            world.deploy("b", mode="link", disk=Disk())
        except Error as error:
            return len(error.problems)
        return 0

    ended = limited(run, mib=600)
    assert ended.value == 100_000, ended
    count.add("odd trees")
