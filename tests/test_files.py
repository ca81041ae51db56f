"""Small files and whole trees, made of the disk's operations: whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes import CountingDisk, FailingDisk, Stopped, StoppingDisk
from moorline.disk import AnyPath, Disk
from moorline.files import (
    make_directories,
    read_file,
    remove_tree,
    replace_file,
    write_file,
    written,
)
from trees import SITE, snapshot, write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    """The test's folder, open."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_small_file_has_a_limit(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert read_file(disk, tmp_path / "f", most=100) == b"x" * 100
    with pytest.raises(OSError) as caught:
        read_file(disk, tmp_path / "f", most=99)
    assert caught.value.errno == errno.EFBIG
    (tmp_path / "empty").touch()
    assert read_file(disk, tmp_path / "empty", most=0) == b""


class Believing(Disk):
    """As an NFS client: opens the file that a name meant, until it looks the name up."""

    looked = False

    def stat(self, path: AnyPath, at: int | None = None) -> os.stat_result:
        self.looked = True
        return super().stat(path, at)

    def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
        if not self.looked:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return super().open_file(path, at)


def test_a_small_file_that_was_replaced_or_removed_by_another_machine(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"new")
    assert read_file(Believing(), tmp_path / "f") == b"new"
    with pytest.raises(FileNotFoundError):
        read_file(Believing(), tmp_path / "gone")


def test_an_error_of_close_is_an_error_of_the_write(tmp_path: Path) -> None:
    """On NFS a failed write shows at close(). The file must be closed all the same."""
    disk = FailingDisk(0, errno.EDQUOT, "close")
    fd = disk.create(tmp_path / "f")
    with pytest.raises(OSError) as caught, written(disk, fd):
        disk.write(fd, b"lost")
    assert caught.value.errno == errno.EDQUOT
    with pytest.raises(OSError):
        os.fstat(fd)


def test_an_error_of_sync_is_an_error_of_the_write(tmp_path: Path, here: int) -> None:
    with pytest.raises(OSError) as caught:
        write_file(FailingDisk(0, errno.ENOSPC, "sync"), "f", b"lost", here)
    assert caught.value.errno == errno.ENOSPC


def test_an_error_in_the_middle_is_not_hidden_by_closing(tmp_path: Path) -> None:
    disk = FailingDisk(0, errno.EIO, "close")
    with pytest.raises(ZeroDivisionError), written(disk, disk.create(tmp_path / "f")):
        _ = 1 // 0


# -- replacing ------------------------------------------------------------------------------------


def replacing(disk: Disk, folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        replace_file(disk, b"record", b"new", fd, disk.token())
    finally:
        os.close(fd)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    (tmp_path / "record").write_bytes(b"old")
    return tmp_path / "record"


def steps_of(run: Callable[[Disk], object]) -> int:
    disk = CountingDisk()
    run(disk)
    assert disk.count > 3
    return disk.count


def test_a_replaced_file_is_old_or_new_wherever_the_process_dies(record: Path) -> None:
    seen = []
    for at in range(steps_of(lambda disk: replacing(disk, record.parent))):
        record.write_bytes(b"old")
        disk = StoppingDisk(at)
        with pytest.raises(Stopped):
            replacing(disk, record.parent)
        assert disk.fired
        seen.append(record.read_bytes())
        assert {p.name for p in record.parent.iterdir() if not p.name.startswith(".")} == {"record"}
    assert seen == sorted(seen, reverse=True), "old until it is new"
    assert {b"old", b"new"} == set(seen)
    replacing(Disk(), record.parent)
    assert record.read_bytes() == b"new"


def test_a_replaced_file_is_old_or_new_whatever_fails(record: Path) -> None:
    for at in range(steps_of(lambda disk: replacing(disk, record.parent))):
        record.write_bytes(b"old")
        disk = FailingDisk(at, errno.ENOSPC)
        with pytest.raises(OSError) as caught:
            replacing(disk, record.parent)
        assert disk.fired
        assert caught.value.errno == errno.ENOSPC
        assert record.read_bytes() in (b"old", b"new")


def test_content_is_durable_before_it_gets_its_name_and_the_name_before_success(
    record: Path,
) -> None:
    disk = CountingDisk()
    replacing(disk, record.parent)
    assert [name for name, _ in disk.operations] == [
        "create",
        "write",
        "sync",
        "close",
        "rename",
        "sync",
    ]


def test_a_replaced_file_is_a_new_file(record: Path) -> None:
    """Never rewritten in place: a reader that has it open goes on reading the old one."""
    with record.open("rb") as reader:
        replacing(Disk(), record.parent)
        assert reader.read() == b"old"


def test_a_name_that_was_swapped_for_a_link_is_replaced_not_followed(record: Path) -> None:
    outside = record.parent / "outside"
    outside.write_bytes(b"precious")
    record.unlink()
    record.symlink_to(outside)
    replacing(Disk(), record.parent)
    assert outside.read_bytes() == b"precious"
    assert record.read_bytes() == b"new"
    assert not record.is_symlink()


# -- making and removing directories --------------------------------------------------------------


def test_missing_directories_are_made(tmp_path: Path, disk: Disk) -> None:
    make_directories(disk, tmp_path / "a" / "b" / "c")
    make_directories(disk, tmp_path / "a" / "b" / "c")
    make_directories(disk, str(tmp_path / "a" / "d") + "/")
    assert (tmp_path / "a/b/c").is_dir()
    assert (tmp_path / "a/d").is_dir()


def test_directories_may_be_relative(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_directories(disk, "x/y")
    assert (tmp_path / "x/y").is_dir()


@pytest.mark.parametrize("inside", ["f", "f/x", "dangling"])
def test_a_file_in_the_way_is_an_error(tmp_path: Path, disk: Disk, inside: str) -> None:
    write_tree(tmp_path, {"f": b"", "dangling": "none"})
    with pytest.raises(OSError):
        make_directories(disk, tmp_path / inside)


@pytest.mark.parametrize("name", ["f", "l", "fifo", "d", "none"])
def test_anything_can_be_removed(tmp_path: Path, disk: Disk, here: int, name: str) -> None:
    write_tree(tmp_path, {"f": b"", "kept/x": b"", "l": "kept"})
    write_tree(tmp_path / "d", SITE)
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "d" / "fifo")
    (tmp_path / "d" / "out").symlink_to(tmp_path / "kept")
    (tmp_path / "d" / "css").chmod(0o500)
    remove_tree(disk, name.encode(), here)
    assert not os.path.lexists(tmp_path / name)
    assert (tmp_path / "kept/x").exists(), "a link is removed, not what it leads to"


def test_a_deep_tree_can_be_removed(tmp_path: Path, disk: Disk, here: int) -> None:
    """Deeper than Python's own stack, as only a hostile hand makes it."""
    at = os.dup(here)
    for _ in range(700):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    _, hard = soft = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2000, hard), hard))
    try:
        remove_tree(disk, b"d", here)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, soft)
    assert not (tmp_path / "d").exists()


def test_removing_beats_and_takes_one_operation_a_file(tmp_path: Path, here: int) -> None:
    write_tree(tmp_path / "d", {f"sub/{n}": b"" for n in range(50)})
    disk, beats = CountingDisk(), []
    remove_tree(disk, b"d", here, beat=lambda: beats.append(1))
    assert len(beats) > 50
    assert disk.count == 50 + 2 * 3, "unlink each; open, list and remove two directories"


def test_a_removal_can_be_taken_up_again_wherever_it_was_cut_short(
    tmp_path: Path, here: int
) -> None:
    kept = snapshot(write_tree(tmp_path / "kept", SITE))
    write_tree(tmp_path / "d", SITE)
    counting = CountingDisk()
    remove_tree(counting, b"d", here)
    for at in range(counting.count):
        write_tree(tmp_path / "d", SITE)
        with pytest.raises(Stopped):
            remove_tree(StoppingDisk(at), b"d", here)
        remove_tree(Disk(), b"d", here)
        assert not (tmp_path / "d").exists()
    assert snapshot(tmp_path / "kept") == kept
