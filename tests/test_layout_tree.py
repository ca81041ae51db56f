"""Layout tree: a plain folder, ready to be served, whose unchanged files are hard links."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from damages import DAMAGES, becomes, swap_for_link
from fakes import CountingDisk, FewLinksDisk
from moorline.disk import Disk
from moorline.errors import Problem
from moorline.scan import scan
from stores import content, leftovers, make_store, problems, publish, times
from trees import Content, snapshot, write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", "tree")


def tree(store: Path, id: str) -> Path:
    return store / "builds" / id / "tree"


def inode(path: Path) -> int:
    return path.lstat().st_ino


def test_the_tree_is_the_build_exactly(store: Path, site: Path) -> None:
    (site / "css").chmod(0o711)
    (site / "spare").chmod(0o500)
    (site / "bin/run").chmod(0o555)
    build = publish(store, site, "1").build
    assert scan(Disk(), tree(store, "1")).manifest.text == scan(Disk(), site).manifest.text
    for path in tree(store, "1").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_mtime_ns == build.created * 10**9


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(store: Path, site: Path, umask: int) -> None:
    (site / "img").chmod(0o777)
    (site / "css").chmod(0o750)
    (site / "index.html").chmod(0o666)
    before = os.umask(umask)
    try:
        if umask == 0o777 and os.getuid() != 0:
            return
        publish(store, site, "1")
    finally:
        os.umask(before)
    assert problems(store, "1") == ()


def test_files_that_did_not_change_are_links(store: Path, site: Path) -> None:
    publish(store, site, "1")
    write_tree(site, {"index.html": b"two"})
    (site / "css/site.css").chmod(0o600)
    (site / "bin/run").rename(site / "bin/start")
    second = publish(store, site, "2")
    one, two = tree(store, "1"), tree(store, "2")
    for name in ("img/a.png", "img/b.png"):
        assert inode(one / name) == inode(two / name), name
    for name in ("index.html", "css/site.css", "css/empty.css", "img", "img/logo.png"):
        assert inode(one / name) != inode(two / name), name
    assert inode(one / "bin/run") != inode(two / "bin/start"), "a new path has a time of its own"
    assert second.written.linked_files == 2
    moved = (two / "bin/start").stat().st_size
    assert second.written.new_bytes == len(b"two") + len(b"body{}") + moved


def test_empty_files_are_never_linked(store: Path, tmp_path: Path) -> None:
    """All empty files of a build would share one inode, and reach the limit of links first."""
    source = write_tree(tmp_path / "s", {f"empty{n}": b"" for n in range(20)})
    publish(store, source, "1")
    publish(store, source, "2")
    assert {p.stat().st_nlink for p in store.glob("builds/*/tree/*")} == {1}


def test_equal_files_of_one_build_are_files_of_their_own(store: Path, site: Path) -> None:
    publish(store, site, "1")
    assert inode(tree(store, "1") / "img/a.png") != inode(tree(store, "1") / "img/b.png")


def test_where_no_more_links_are_allowed_a_fresh_file_is_written(store: Path, site: Path) -> None:
    """EFS allows 177 links to a file; three here. The following builds link to the fresh file."""
    disk = FewLinksDisk(3)
    first = publish(store, site, "0", disk).build.created
    for number in range(1, 8):
        publish(store, site, f"{number}", disk)
    inodes = [inode(tree(store, f"{number}") / "img/a.png") for number in range(8)]
    assert inodes[0] == inodes[1] == inodes[2]
    assert inodes[3] == inodes[4] == inodes[5]
    assert inodes[6] == inodes[7]
    assert len(set(inodes)) == 3
    for number in range(8):
        assert problems(store, f"{number}") == ()
        assert set(times(store, f"{number}").values()) == {first}
        status = (tree(store, f"{number}") / "img/a.png").stat()
        assert status.st_nlink <= 3
        assert status.st_mtime == first, (
            "the fresh file has the old time: its content did not change"
        )


BASE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "touched": lambda p: os.utime(p, (1, 1)),
    "mode": lambda p: p.chmod(0o600),
    "setuid": lambda p: p.chmod(0o4644),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b"x"),
    "missing": Path.unlink,
    "a link": lambda p: becomes(p, lambda q: q.symlink_to("b.png")),
    "a FIFO": lambda p: becomes(p, os.mkfifo),
    "a directory": lambda p: becomes(p, Path.mkdir),
    "its directory is missing": lambda p: shutil.rmtree(p.parent),
    "its directory is a link": lambda p: swap_for_link(p.parent),
    "the tree is missing": lambda p: shutil.rmtree(p.parent.parent),
    "the tree is a link": lambda p: swap_for_link(p.parent.parent),
    "the tree is a file": lambda p: becomes(p.parent.parent, Path.touch),
}


@pytest.mark.parametrize("damage", list(BASE_DAMAGES))
def test_what_lstat_finds_wrong_is_not_linked(store: Path, site: Path, damage: str) -> None:
    publish(store, site, "1")
    with (tree(store, "1") / "img/a.png").open("rb"):  # its number is not given away again
        old = inode(tree(store, "1") / "img/a.png")
        BASE_DAMAGES[damage](tree(store, "1") / "img/a.png")
        publish(store, write_tree(site, {"index.html": b"two"}), "2")
        assert problems(store, "2") == ()
        assert inode(tree(store, "2") / "img/a.png") != old


def test_a_link_is_never_made_out_of_the_base_build(store: Path, site: Path) -> None:
    """A directory of the base that was swapped for a link leads nowhere."""
    publish(store, site, "1")
    outside = write_tree(store.parent / "outside", {"a.png": b"\x89PNG" * 600})
    os.utime(outside / "a.png", (times(store, "1")["img/a.png"],) * 2)
    shutil.rmtree(tree(store, "1") / "img")
    (tree(store, "1") / "img").symlink_to(outside)
    publish(store, write_tree(site, {"index.html": b"two"}), "2")
    assert (outside / "a.png").stat().st_nlink == 1


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_every_kind_of_damage_is_listed_and_mended(store: Path, site: Path, damage: str) -> None:
    act, expected = DAMAGES[damage]
    publish(store, site, "1")
    when = times(store, "1")
    kept = inode(tree(store, "1") / "img/b.png")
    act(tree(store, "1"))
    assert dict(problems(store, "1")) == expected
    again = publish(store, site, "1")
    assert again.already
    assert again.written.repaired == len(expected)
    assert problems(store, "1") == ()
    assert leftovers(store) == []
    assert times(store, "1") == when
    for path, seconds in when.items():
        assert (tree(store, "1") / path).stat().st_mtime == seconds
    if "img/b.png" not in expected:
        assert inode(tree(store, "1") / "img/b.png") == kept, "what is whole is left alone"


ROOT_DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": shutil.rmtree,
    "a link to an identical tree": swap_for_link,
    "a file": lambda p: becomes(p, Path.touch),
    "a FIFO": lambda p: becomes(p, os.mkfifo),
}


@pytest.mark.parametrize("damage", list(ROOT_DAMAGES))
def test_a_whole_tree_that_is_gone_is_listed_and_mended(
    store: Path, site: Path, damage: str
) -> None:
    publish(store, site, "1")
    good = content(store, "1")
    ROOT_DAMAGES[damage](tree(store, "1"))
    found = problems(store, "1")
    assert found[0] == Problem(".", "the tree is missing")
    assert [p.path for p in found[1:]] == [
        "bin", "bin/run", "css", "css/empty.css", "css/site.css", "img", "img/a.png", "img/b.png",
        "img/logo.png", "index.html", "spare",
    ]  # fmt: skip
    publish(store, site, "1")
    assert problems(store, "1") == ()
    assert content(store, "1") == good
    assert not tree(store, "1").is_symlink()


def test_mending_replaces_each_file_by_one_rename(store: Path, site: Path) -> None:
    """The tree may be served right now: a path that is mended is never missing, and what is whole
    is not touched."""
    publish(store, site, "1")
    damaged = tree(store, "1") / "index.html"
    damaged.write_bytes(b"<h1>ONE</h1>")
    (tree(store, "1") / "img/logo.png").unlink()
    (tree(store, "1") / "img/logo.png").symlink_to("b.png")
    before = {p: row for p, row in snapshot(tree(store, "1")).items() if not p.startswith("in")}

    class Watching(CountingDisk):
        def step(self, operation: str, path: str | bytes | os.PathLike[str]) -> None:
            super().step(operation, path)
            seen.add(damaged.read_bytes())
            links.add(os.readlink(tree(store, "1") / "img/logo.png"))

    seen: set[bytes] = set()
    links: set[str] = set()
    publish(store, site, "1", Watching())
    assert seen == {b"<h1>ONE</h1>", b"<h1>one</h1>"}
    assert links == {"a.png", "b.png"}
    after = {p: row for p, row in snapshot(tree(store, "1")).items() if not p.startswith("in")}
    unchanged = before.keys() - {".", "img", "img/logo.png"}
    assert {p: after[p] for p in unchanged} == {p: before[p] for p in unchanged}


def test_mending_one_build_leaves_the_damage_of_another_to_be_found(
    store: Path, site: Path
) -> None:
    """A damaged inode is in every build that links it: each of them says so until it is mended."""
    publish(store, site, "1")
    publish(store, write_tree(site, {"new": b"new"}), "2")
    (tree(store, "1") / "img/a.png").write_bytes(b"x" * 2400)
    assert [p.path for p in problems(store, "1")] == ["img/a.png"]
    assert [p.path for p in problems(store, "2")] == ["img/a.png"]
    publish(store, site, "2")
    assert problems(store, "2") == ()
    assert [p.path for p in problems(store, "1")] == ["img/a.png"]


def test_a_file_becomes_a_directory_and_back_between_builds(store: Path, tmp_path: Path) -> None:
    steps: list[dict[str, Content]] = [
        {"x": b"file", "y/z": b"inside"},
        {"x/z": b"inside", "y": b"file"},
        {"x": "y", "y": b"file"},
    ]
    for number, spec in enumerate(steps):
        publish(store, write_tree(tmp_path / f"s{number}", spec), f"{number}")
    for number in range(3):
        assert problems(store, f"{number}") == ()
    assert stat.S_ISLNK((tree(store, "2") / "x").lstat().st_mode)
