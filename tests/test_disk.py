"""The operations on disks: what they refuse, what they guarantee when they are cut short."""

from __future__ import annotations

import errno
import inspect
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import CHANGING, CountingDisk
from moorline.disk import Descent, Disk, barrier_reports_errors
from moorline.files import (
    written,
)
from trees import write_tree

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


# -- every operation can be stopped ---------------------------------------------------------------

NOT_OPERATIONS = {"step", "token", "now", "unlock"}


def test_every_operation_takes_a_step_first() -> None:
    """What a test cannot stop, a crash test does not see."""
    for name, method in inspect.getmembers(Disk, inspect.isfunction):
        if name not in NOT_OPERATIONS and not name.startswith("_"):
            assert f'self.step("{name}"' in inspect.getsource(method), name
    assert {name for name, _ in inspect.getmembers(Disk, inspect.isfunction)} >= CHANGING


# -- reading --------------------------------------------------------------------------------------


def test_names_tell_the_kinds(tmp_path: Path, disk: Disk, here: int) -> None:
    write_tree(tmp_path, {"f": b"", "d/x": b"", "to-d": "d", "to-f": "f", "dangling": "none"})
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / os.fsdecode(b"\xff\n")).touch()
    expected = {
        b"f": "f",
        b"d": "d",
        b"to-d": "l",
        b"to-f": "l",
        b"dangling": "l",
        b"fifo": "?",
        b"\xff\n": "f",
    }
    assert dict(disk.names(tmp_path)) == expected
    assert dict(disk.names(here)) == expected
    assert dict(disk.names(here)) == expected, "a descriptor can be listed again"


def special_files(root: Path) -> Iterator[str]:
    os.mkfifo(root / "fifo")
    yield "fifo"
    os.mkdir(root / "directory")
    yield "directory"
    at = os.getcwd()
    os.chdir(root)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    os.chdir(at)
    yield "socket"


def test_only_regular_files_are_opened_and_a_fifo_does_not_hang(
    tmp_path: Path, disk: Disk, here: int
) -> None:
    for name in special_files(tmp_path):
        with pytest.raises(OSError) as caught:
            disk.open_file(name, here)
        assert caught.value.errno == errno.EINVAL, name
        assert caught.value.filename == name


def test_a_device_node_is_not_read(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(OSError) as caught:
        disk.open_file("/dev/zero")
    assert caught.value.errno == errno.EINVAL


def test_a_link_is_neither_opened_nor_followed(tmp_path: Path, disk: Disk, here: int) -> None:
    write_tree(tmp_path, {"f": b"secret", "d/x": b"", "to-f": "f", "to-d": "d"})
    with pytest.raises(OSError) as caught:
        disk.open_file("to-f", here)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(OSError) as caught:
        disk.open_directory("to-d", here)
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    with pytest.raises(FileExistsError):
        disk.create("to-f", at=here)
    with pytest.raises(OSError) as caught:
        disk.append("to-f", here)
    assert caught.value.errno == errno.ELOOP
    assert stat.S_ISLNK(disk.stat("to-f", here).st_mode)
    assert disk.read_link("to-f", here) == b"f"
    disk.hard_link("to-f", "again", here, here)
    assert stat.S_ISLNK(disk.stat("again", here).st_mode)


def test_reading_by_place_and_in_a_row(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    fd, status = disk.open_file(tmp_path / "f")
    assert status.st_size == 10
    assert [disk.read(fd, 4), disk.read(fd, 2, 8), disk.read(fd, 100), disk.read(fd, 1)] == [
        b"0123",
        b"89",
        b"456789",
        b"",
    ]
    os.close(fd)


@pytest.mark.parametrize("lacks", [False, True])
def test_reading_into_memory_by_place_and_in_a_row(
    tmp_path: Path, disk: Disk, lacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where there is no preadv: PyPy."""
    if lacks:
        monkeypatch.delattr(os, "preadv")
    (tmp_path / "f").write_bytes(b"0123456789")
    fd, _ = disk.open_file(tmp_path / "f")
    memory = bytearray(b"----")
    found = []
    for offset in (None, 8, None, 20):
        size = disk.read_into(fd, memoryview(memory), offset)
        found.append((size, bytes(memory)))
    assert found == [(4, b"0123"), (2, b"8923"), (4, b"4567"), (0, b"4567")]
    os.close(fd)
    with pytest.raises(OSError):
        disk.read_into(fd, memoryview(memory), 0)


# -- going down -----------------------------------------------------------------------------------


def test_a_descent_opens_each_directory_once_when_asked_in_order(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/b/1": b"", "a/b/2": b"", "a/c/3": b"", "a-b/4": b"", "5": b""})
    disk = CountingDisk()
    with Descent(disk, tmp_path) as descent:
        held = {}
        for path in (b".", b"a", b"a/b", b"a/b", b"a/c", b"a-b", b"."):
            held[path] = {name for name, _ in disk.names(descent.enter(path))}
    assert held == {
        b".": {b"a", b"a-b", b"5"},
        b"a": {b"b", b"c"},
        b"a/b": {b"1", b"2"},
        b"a/c": {b"3"},
        b"a-b": {b"4"},
    }
    opened = [path for operation, path in disk.operations if operation == "open_directory"]
    assert opened == [str(tmp_path), "a", "b", "c", "a-b"]


@pytest.mark.parametrize("where", ["l", "l/inner", "a/l", "a/l/inner"])
def test_a_descent_refuses_a_link_in_every_place(tmp_path: Path, disk: Disk, where: str) -> None:
    write_tree(tmp_path, {"a/inner/x": b"", "l": "a", "a/l": "../a", "f": b""})
    with Descent(disk, tmp_path) as descent:
        with pytest.raises(OSError) as caught:
            descent.enter(where.encode())
        assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
        assert disk.names(descent.enter(b"a/inner")) == [(b"x", "f")], "it goes on working"


@pytest.mark.parametrize(("where", "code"), [("none", errno.ENOENT), ("f", errno.ENOTDIR)])
def test_a_descent_refuses_what_is_no_directory(
    tmp_path: Path, disk: Disk, where: str, code: int
) -> None:
    write_tree(tmp_path, {"a/x": b"", "f": b""})
    with Descent(disk, tmp_path) as descent:
        descent.enter(b"a")
        with pytest.raises(OSError) as caught:
            descent.enter(where.encode() + b"/deeper")
        assert caught.value.errno == code


def test_a_root_that_is_a_link_is_refused(tmp_path: Path, disk: Disk) -> None:
    write_tree(tmp_path, {"a/x": b"", "l": "a"})
    with pytest.raises(NotADirectoryError):
        Descent(disk, tmp_path / "l")


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    """Between the moment it is seen and the moment it is entered."""
    write_tree(tmp_path, {"a/x": b"", "elsewhere/x": b"secret"})
    disk = Disk()
    with Descent(disk, tmp_path) as descent:
        assert (b"a", "d") in disk.names(descent.enter(b"."))
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a").symlink_to("elsewhere")
        with pytest.raises(NotADirectoryError):
            descent.enter(b"a")


# -- writing --------------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_not_written_to(tmp_path: Path, disk: Disk, here: int) -> None:
    (tmp_path / "f").write_bytes(b"old")
    for create in (
        lambda: disk.create("f", at=here),
        lambda: disk.make_directory("f", at=here),
        lambda: disk.make_link(b"x", "f", here),
        lambda: disk.hard_link("f", "f", here, here),
    ):
        with pytest.raises(FileExistsError):
            create()
    assert (tmp_path / "f").read_bytes() == b"old"


def test_written_files_have_mode_time_and_content(tmp_path: Path, disk: Disk, here: int) -> None:
    with written(disk, disk.create("f", 0o600, here)) as fd:
        disk.write(fd, b"one ")
        disk.write(fd, memoryview(b"two"))
        disk.set_mode(fd, 0o444)
        disk.set_times(fd, 1_700_000_000)
        disk.sync(fd)
    status = (tmp_path / "f").stat()
    assert (tmp_path / "f").read_bytes() == b"one two"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o444, 1_700_000_000 * 10**9)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_large_write_is_complete(tmp_path: Path, disk: Disk) -> None:
    """os.write may write a part; a pipe that is full shows it."""
    take, give = os.pipe()
    os.set_blocking(give, True)
    pid = os.fork()
    if pid == 0:
        os.close(give)
        total = 0
        while part := os.read(take, 1000):
            total += len(part)
        os._exit(total == 300_000)
    os.close(take)
    disk.write(give, b"x" * 300_000)
    os.close(give)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_full_disk_is_an_error_at_the_write(tmp_path: Path, disk: Disk) -> None:
    """A limit on the size of files stands in for a full disk: os.write writes a part first."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    fd = disk.create(tmp_path / "f")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            disk.write(fd, b"x" * 3000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        os.close(fd)
    assert caught.value.errno == errno.EFBIG


def test_syncs_report_errors(disk: Disk, here: int) -> None:
    disk.sync(here)
    disk.sync_all(here)
    for sync in (disk.sync, disk.sync_all):
        with pytest.raises(OSError) as caught:
            sync(1 << 20)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("release", "reports"),
    [
        ("5.8.0", True),
        ("5.7.19-generic", False),
        ("4.14.355-amzn2", False),
        ("6.1.112-124.190.amzn2023.x86_64", True),
        ("10.0", True),
        ("strange", False),
        ("6", False),
    ],
)
def test_which_kernels_report_lost_writes_at_the_barrier(
    monkeypatch: pytest.MonkeyPatch, release: str, reports: bool
) -> None:
    names = os.uname_result(("Linux", "host", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: names)
    assert barrier_reports_errors() is reports


def test_a_clone_is_made_or_declined(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "f").write_bytes(b"content")
    source, _ = disk.open_file(tmp_path / "f")
    with written(disk, disk.create(tmp_path / "g")) as fd:
        made = disk.clone(source, fd)
    os.close(source)
    assert (tmp_path / "g").read_bytes() == (b"content" if made else b"")


def test_a_lock_is_held_by_one(tmp_path: Path, disk: Disk) -> None:
    one, two = disk.append(tmp_path / "lock"), disk.append(tmp_path / "lock")
    assert disk.lock(one)
    assert not disk.lock(two)
    disk.unlock(one)
    assert disk.lock(two)
    os.close(one)
    os.close(two)


def test_owners_of_files_and_links(tmp_path: Path, disk: Disk, here: int) -> None:
    write_tree(tmp_path, {"f": b"", "l": "f"})
    fd, _ = disk.open_file("f", here)
    mine = (os.getuid(), os.getgid())
    disk.set_owner(fd, *mine)
    disk.set_owner("l", *mine, here)
    os.close(fd)
    if os.getuid() == 0:
        disk.set_owner("l", 1, 1, here)
        assert disk.stat("l", here).st_uid == 1
        assert disk.stat("f", here).st_uid == 0


def test_small_answers(tmp_path: Path, disk: Disk) -> None:
    assert disk.free_bytes(tmp_path) > 0
    assert disk.is_mount("/")
    assert not disk.is_mount(tmp_path)
    assert len({disk.token() for _ in range(100)}) == 100
    assert disk.now() > 1_700_000_000
