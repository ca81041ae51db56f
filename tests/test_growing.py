"""Growing a tree from manifest entries: modes, times, owners, links, and nothing half done."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from fakes import CountingDisk, FailingDisk, FewLinksDisk
from moorline.disk import Disk
from moorline.growing import NewTree, same_file
from moorline.manifest import DIRECTORY, FILE, Entry, Manifest
from moorline.verifying import verify
from trees import directory_entry, entries, file_entry, link_entry

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def new_tree(root: Path, disk: Disk | None = None, owner: tuple[int, int] | None = None) -> NewTree:
    fd = os.open(root, os.O_RDONLY)
    try:
        return NewTree(disk or CountingDisk(), fd, owner)
    finally:
        os.close(fd)


def grow(root: Path, manifest: Manifest, owner: tuple[int, int] | None = None) -> None:
    with new_tree(root, owner=owner) as tree:
        for entry in manifest.entries:
            if entry.kind == FILE:
                tree.write(entry, [b"x" * entry.size], 1000)
            else:
                tree.add(entry)
        tree.finish()


@given(entries())
@settings(max_examples=40)
def test_any_tree_grows_as_its_manifest_says(
    tmp_path_factory: pytest.TempPathFactory, tree: list[Entry]
) -> None:
    """All modes included: a directory that nobody may write to is filled all the same."""
    root = tmp_path_factory.mktemp("root")
    manifest = Manifest.of(
        file_entry(e.path, b"x" * e.size, e.mode) if e.kind == FILE else e for e in tree
    )
    grow(root, manifest)
    assert verify(CountingDisk(), root, manifest).problems == ()
    for entry in manifest.entries:
        path = os.fsencode(root) + b"/" + entry.path
        if entry.kind == FILE:
            assert os.stat(path).st_mtime == 1000
        elif entry.kind == DIRECTORY:
            os.chmod(path, 0o755)
    shutil.rmtree(root)


def test_a_directory_that_hands_down_its_group_bit(root: Path) -> None:
    root.chmod(0o2775)
    manifest = Manifest.of([directory_entry(), directory_entry(b"a"), directory_entry(b"a/b")])
    grow(root, manifest)
    assert verify(CountingDisk(), root, manifest).problems == ()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_everything_belongs_to_the_owner(root: Path) -> None:
    manifest = Manifest.of(
        [
            directory_entry(),
            directory_entry(b"d", 0o500),
            file_entry(b"d/f", b"x"),
            link_entry(b"l", b"d"),
        ]
    )
    grow(root, manifest, owner=(1234, 2345))
    for path in (root, root / "d", root / "d/f", root / "l"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (1234, 2345)
    assert verify(CountingDisk(), root, manifest).problems == ()


def test_what_is_written_is_hashed_on_the_way(root: Path) -> None:
    with new_tree(root) as tree:
        said = tree.write(file_entry(b"f", b"hello"), [b"he", b"", b"llo"], 5)
    assert said == (hashlib.sha256(b"hello").hexdigest(), 5)
    assert (root / "f").read_bytes() == b"hello"


def test_a_source_without_end_is_not_written_without_end(root: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"xxx"

    with new_tree(root) as tree:
        _, size = tree.write(file_entry(b"f", b"12345"), endless(), 5)
    assert size == 6
    assert (root / "f").stat().st_size == 6


def test_a_file_is_private_until_it_is_whole(root: Path) -> None:
    """Its mode comes last: nobody reads a half-written file of a mode that lets him."""
    modes = []

    def chunks() -> Iterator[bytes]:
        modes.append((root / "f").stat().st_mode & 0o777)
        yield b"x"

    with new_tree(root) as tree:
        tree.write(file_entry(b"f", b"x", 0o666), chunks(), 5)
    assert modes == [0o600]
    assert (root / "f").stat().st_mode & 0o777 == 0o666


def test_a_name_that_is_taken_is_an_error(root: Path) -> None:
    (root / "f").symlink_to("/etc/passwd")
    with new_tree(root) as tree, pytest.raises(FileExistsError):
        tree.write(file_entry(b"f", b"x"), [b"x"], 5)


def test_links_are_made_until_there_are_too_many(root: Path) -> None:
    (root / "f").write_bytes(b"x")
    fd = os.open(root, os.O_RDONLY)
    with new_tree(root, FewLinksDisk(2)) as tree:
        assert tree.hard_link(file_entry(b"g", b"x"), fd, b"f")
        assert not tree.hard_link(file_entry(b"h", b"x"), fd, b"f")
    os.close(fd)
    assert (root / "f").stat().st_nlink == 2
    assert not (root / "h").exists()


@pytest.mark.parametrize(
    ("code", "declined"),
    [(errno.EMLINK, True), (errno.EXDEV, True), (errno.EPERM, True), (errno.EIO, False)],
)
def test_only_a_link_that_cannot_be_is_declined(root: Path, code: int, declined: bool) -> None:
    (root / "f").write_bytes(b"x")
    fd = os.open(root, os.O_RDONLY)
    try:
        with new_tree(root, FailingDisk(0, code, "hard_link")) as tree:
            if declined:
                assert not tree.hard_link(file_entry(b"g", b"x"), fd, b"f")
            else:
                with pytest.raises(OSError):
                    tree.hard_link(file_entry(b"g", b"x"), fd, b"f")
    finally:
        os.close(fd)


def test_a_clone_is_whole_or_not_there(root: Path) -> None:
    (root / "f").write_bytes(b"x")
    source, _ = Disk().open_file(root / "f")
    with new_tree(root) as tree:
        made = tree.clone(file_entry(b"g", b"x", 0o640), source, 77)
    os.close(source)
    assert (root / "g").exists() is made
    if made:
        assert ((root / "g").read_bytes(), (root / "g").stat().st_mtime) == (b"x", 77)


def test_which_files_may_stand_for_an_entry(root: Path) -> None:
    path = root / "f"
    path.write_bytes(b"12345")
    path.chmod(0o644)
    os.utime(path, (50, 50))
    entry = file_entry(b"f", b"12345")
    assert same_file(path.lstat(), entry, 50)
    assert same_file(path.lstat(), entry, None)
    assert not same_file(path.lstat(), entry, 51)
    assert not same_file(path.lstat(), file_entry(b"f", b"1234"), 50)
    assert not same_file(path.lstat(), file_entry(b"f", b"12345", 0o600), 50)
    path.chmod(0o4644)
    assert not same_file(path.lstat(), entry, 50)
    (root / "l").symlink_to("f")
    assert not same_file((root / "l").lstat(), entry, None)


@pytest.mark.parametrize("enough", [True, False])
def test_where_the_barrier_tells_no_errors_each_file_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    """Before Linux 5.8 syncfs did not report lost writes."""
    monkeypatch.setattr("moorline.growing.barrier_reports_errors", lambda: enough)
    synced: list[str] = []

    class Watching(Disk):
        def sync(self, fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))
            super().sync(fd)

    root = os.open(tmp_path, os.O_RDONLY)
    with NewTree(Watching(), root) as tree:
        tree.write(Entry(b"a", FILE, 0o644, 1, "0" * 64), iter([b"x"]), 1)
    os.close(root)

    assert synced == ([] if enough else [str(tmp_path / "a")])
