"""The only code that touches a disk: some twenty operations, handed to whoever needs them.

Each operation calls `step` first. A test overrides `step` to stop a run before its k-th operation,
or to make that operation fail, for every k. So: no other module opens, writes, renames or removes.

Rules that hold for all of it:
- Paths may be relative to an open directory (`at`), and the last component is never followed when
  it is a link. `Descent` opens a path component by component in the same way, so a directory that
  is swapped for a link in the middle of a walk is refused, not followed.
- A file is opened without blocking and must be a regular one: a FIFO in place of a file is an
  error, not a hang.
- Errors of close() and fsync() are errors: on NFS that is where failed writes surface
  (measured with a real client: EIO, ENOSPC, EDQUOT and ESTALE all arrive there).
- Names are raw bytes; `str` is accepted for paths that a person gave.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import sys
import time
from functools import partial
from typing import Any, NamedTuple, Optional, Union

AnyPath = Union[str, bytes, "os.PathLike[str]"]

_FICLONE = 0x40049409  # linux/fs.h; XFS and btrfs share the blocks, others refuse
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE_FLAGS = _CREATE_FLAGS & ~os.O_EXCL | os.O_NONBLOCK
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS}

DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG})
"""Errors for a name that is missing, of another kind than it should be, or larger."""

STALE = frozenset({errno.ESTALE, errno.EBADF})
"""What was open and another NFS client removed or replaced: servers differ (measured with two)."""

_libc = ctypes.CDLL(None, use_errno=True)


class Named(NamedTuple):
    """One name in a directory: `kind` is f, d, l or ? (device, socket, FIFO)."""

    name: bytes
    kind: str


_named = partial(tuple.__new__, Named)  # a third of the time: there may be 100,000
_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Disk:
    """The operations. One instance has no state; tests hand in a subclass.

    `forks` is False where every operation has to happen in this process, to be counted.
    """

    forks = True

    def step(self, operation: str, path: AnyPath) -> None:
        """Called before every operation. A test raises here."""

    # -- reading ------------------------------------------------------------------------------

    def open_directory(self, path: AnyPath, at: Optional[int] = None) -> int:
        """A descriptor of a directory that is no link; ENOTDIR or ELOOP for anything else."""
        self.step("open_directory", path)
        try:
            return os.open(path, _DIRECTORY_FLAGS, dir_fd=at)
        except OSError as error:
            raise whole_path(error, at) from None

    def names(self, directory: Union[int, AnyPath]) -> list[Named]:
        """What a directory holds, in no order."""
        self.step("names", str(directory) if isinstance(directory, int) else directory)
        where = directory if isinstance(directory, int) else os.fsdecode(directory)
        with os.scandir(where) as found:
            return [_named((entry.name.encode(*_NAMES), _kind(entry))) for entry in found]

    def stat(self, path: AnyPath, at: Optional[int] = None) -> os.stat_result:
        """lstat: a link is described, not followed."""
        self.step("stat", path)
        return os.stat(path, dir_fd=at, follow_symlinks=False)

    def read_link(self, path: AnyPath, at: Optional[int] = None) -> bytes:
        self.step("read_link", path)
        return os.readlink(os.fsencode(path), dir_fd=at)

    def open_file(self, path: AnyPath, at: Optional[int] = None) -> tuple[int, os.stat_result]:
        """A descriptor to read from, and what it is. Raises OSError(EINVAL) for a non-file."""
        self.step("open_file", path)
        try:
            fd = os.open(path, _READ_FLAGS, dir_fd=at)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a socket
                raise whole_path(error, at) from None
        else:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                return fd, status
            os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))

    def read(self, fd: int, size: int, offset: Optional[int] = None) -> bytes:
        """Up to `size` bytes, from `offset` when it is given."""
        self.step("read", str(fd))
        try:
            return os.read(fd, size) if offset is None else os.pread(fd, size, offset)
        except OSError as error:
            raise whole_path(error, fd) from None

    def read_into(self, fd: int, buffer: memoryview, offset: Optional[int] = None) -> int:
        """Fills `buffer` from the file's position, or from `offset`, as far as it goes; how many
        bytes there were.

        New memory for each large read costs as much as the read itself (a page fault for every
        4 KB); a buffer that is used again does not.
        """
        self.step("read_into", str(fd))
        try:
            if offset is None:
                return os.readv(fd, [buffer])
            if hasattr(os, "preadv"):
                return os.preadv(fd, [buffer], offset)
            data = os.pread(fd, len(buffer), offset)  # PyPy
        except OSError as error:
            raise whole_path(error, fd) from None
        buffer[: len(data)] = data
        return len(data)

    # -- writing ------------------------------------------------------------------------------

    def create(
        self, path: AnyPath, mode: int = 0o644, at: Optional[int] = None, *, private: bool = False
    ) -> int:
        """A descriptor of a new file; EEXIST when the name is taken.

        A `private` name holds a random token, or lies in a folder whose name does: nobody else
        makes it, so exclusion need not be asked for, which costs NFS a request more (SETATTR).
        """
        self.step("create", path)
        try:
            fd = os.open(path, _PRIVATE_FLAGS if private else _CREATE_FLAGS, mode, dir_fd=at)
        except OSError as error:
            raise whole_path(error, at) from None
        if private:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size or status.st_nlink != 1:
                os.close(fd)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))
        return fd

    def append(self, path: AnyPath, at: Optional[int] = None) -> int:
        """A descriptor that appends to a local file, made when missing. Never on a share: two
        machines that append lose lines (measured: 199 of 400 survived)."""
        self.step("append", path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_NONBLOCK  # for a FIFO: ENXIO, no wait
        try:
            return os.open(path, flags, 0o644, dir_fd=at)
        except OSError as error:
            raise whole_path(error, at) from None

    def write(self, fd: int, data: Union[bytes, memoryview]) -> None:
        """All of `data`."""
        self.step("write", str(fd))
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            raise whole_path(error, fd) from None

    def sync(self, fd: int) -> None:
        """fsync of a file or directory."""
        self.step("sync", str(fd))
        try:
            os.fsync(fd)
        except OSError as error:
            raise whole_path(error, fd) from None

    def sync_all(self, fd: int) -> None:
        """The barrier: everything written to this file system before is durable (syncfs).

        Before Linux 5.8 syncfs did not report lost writes: see `barrier_reports_errors`.
        """
        self.step("sync_all", str(fd))
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise whole_path(OSError(code, os.strerror(code)), fd)

    def close(self, fd: int) -> None:
        """Raises what the writes before it could not."""
        try:
            self.step("close", str(fd))
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)

    def make_directory(self, path: AnyPath, mode: int = 0o755, at: Optional[int] = None) -> None:
        self.step("make_directory", path)
        try:
            os.mkdir(path, mode, dir_fd=at)
        except OSError as error:
            raise whole_path(error, at) from None

    def make_link(self, target: bytes, path: AnyPath, at: Optional[int] = None) -> None:
        self.step("make_link", path)
        try:
            os.symlink(target, os.fsencode(path), dir_fd=at)
        except OSError as error:
            raise whole_path(error, at) from None

    def hard_link(
        self, source: AnyPath, path: AnyPath, source_at: Optional[int] = None,
        at: Optional[int] = None,
    ) -> None:  # fmt: skip
        self.step("hard_link", path)
        # PyPy never follows here; asked not to, it hands linkat() a flag that Linux refuses.
        options = {} if sys.implementation.name == "pypy" else {"follow_symlinks": False}
        try:
            os.link(source, path, src_dir_fd=source_at, dst_dir_fd=at, **options)
        except OSError as error:
            raise whole_path(error, at) from None

    def clone(self, source: int, fd: int) -> bool:
        """Share the blocks of `source` with the empty file `fd`; False where impossible."""
        self.step("clone", str(fd))
        try:
            fcntl.ioctl(fd, _FICLONE, source)
        except OSError as error:
            if error.errno in _NO_CLONE:
                return False
            raise
        return True

    def rename(
        self, source: AnyPath, path: AnyPath, source_at: Optional[int] = None,
        at: Optional[int] = None,
    ) -> None:  # fmt: skip
        """Replaces a file or link at `path`; an empty directory too, so reserve names first."""
        self.step("rename", path)
        try:
            os.rename(source, path, src_dir_fd=source_at, dst_dir_fd=at)
        except OSError as error:
            raise whole_path(error, at) from None

    def unlink(self, path: AnyPath, at: Optional[int] = None) -> None:
        self.step("unlink", path)
        os.unlink(path, dir_fd=at)

    def remove_directory(self, path: AnyPath, at: Optional[int] = None) -> None:
        self.step("remove_directory", path)
        os.rmdir(path, dir_fd=at)

    def set_mode(self, fd: int, mode: int) -> None:
        self.step("set_mode", str(fd))
        os.fchmod(fd, mode)

    def set_owner(
        self, path: Union[int, AnyPath], uid: int, gid: int, at: Optional[int] = None
    ) -> None:
        """Of an open file, or of the name itself when that is a link."""
        self.step("set_owner", str(path) if isinstance(path, int) else path)
        if isinstance(path, int):
            os.fchown(path, uid, gid)
        else:
            os.chown(path, uid, gid, dir_fd=at, follow_symlinks=False)

    def set_times(self, fd: int, seconds: Optional[int] = None) -> None:
        """Access and modification time; the server's present time when `seconds` is None."""
        self.step("set_times", str(fd))
        os.utime(fd, None if seconds is None else (seconds, seconds))

    def lock(self, fd: int) -> bool:
        """An exclusive flock, without waiting: False when it is taken. Local disks only."""
        self.step("lock", str(fd))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        """Release it for every process that inherited the descriptor."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    def free_bytes(self, path: AnyPath) -> int:
        """What an ordinary user may still write there."""
        self.step("free_bytes", path)
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def is_mount(self, path: AnyPath) -> bool:
        self.step("is_mount", path)
        return os.path.ismount(path)

    def token(self) -> str:
        """16 random hex digits: names one attempt, so that a retried operation can tell who won."""
        return os.urandom(8).hex()

    def now(self) -> float:
        """This machine's clock. Never decides an order or an age on the share."""
        return time.time()


def whole_path(error: OSError, at: Optional[int]) -> OSError:
    """The same error with the path in full: which disk is it that is full, or gone? Of an open file
    the kernel tells no name, and of a name in an open directory only that. `at` is either."""
    names = [n for n in (error.filename2, error.filename) if n is not None]
    name = os.fsencode(names[0]) if names else b""
    if at is None or name.startswith(b"/"):
        return error
    try:
        above = os.readlink(f"/proc/self/fd/{at}")  # asks the kernel, not the disk
    except OSError:
        return error
    path = os.path.join(above, os.fsdecode(name)) if name else above
    return OSError(error.errno, error.strerror, path)


def end_with_parent(parent: int) -> None:
    """In a child: be killed when `parent` is, whatever this waits for."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _kind(entry: os.DirEntry[Any]) -> str:
    if entry.is_file(follow_symlinks=False):
        return "f"
    if entry.is_dir(follow_symlinks=False):
        return "d"
    return "l" if entry.is_symlink() else "?"


def barrier_reports_errors() -> bool:
    """Whether syncfs reports writes that were lost (Linux 5.8, commit 735e4ae5ba28)."""
    numbers = os.uname().release.split("-")[0].split(".")
    try:
        return (int(numbers[0]), int(numbers[1])) >= (5, 8)
    except (IndexError, ValueError):
        return False


class Descent:
    """Walks down a tree by open directories, never through a link.

    `enter` returns the descriptor of one directory of the tree; it is valid until the next call.
    Asked in sorted order it opens each directory once.
    """

    def __init__(self, disk: Disk, root: Union[int, AnyPath]) -> None:
        self.disk = disk
        self.root = os.dup(root) if isinstance(root, int) else disk.open_directory(root)
        self._parts: list[bytes] = []
        self._fds: list[int] = []

    def enter(self, directory: bytes) -> int:
        """`directory` is relative, `.` for the root. Raises OSError when a part is no directory."""
        parts = [] if directory == b"." else directory.split(b"/")
        same = 0
        for here, there in zip(self._parts, parts):
            if here != there:
                break
            same += 1
        while len(self._parts) > same:
            self._parts.pop()
            os.close(self._fds.pop())
        for part in parts[same:]:
            above = self._fds[-1] if self._fds else self.root
            self._fds.append(self.disk.open_directory(part, at=above))
            self._parts.append(part)
        return self._fds[-1] if self._fds else self.root

    def close(self) -> None:
        for fd in [self.root, *self._fds]:
            os.close(fd)
        self._parts, self._fds = [], []

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
