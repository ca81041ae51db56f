"""A share that imitates EFS: a FUSE pass-through to a directory, as a program of its own.

    python fuse_share.py DIRECTORY MOUNTPOINT

Latency by class of operation, at most 177 links to a file, faults on order, and a count of every
operation. As on NFS, lost writes surface at fsync and close, a file that another client removed
answers ESTALE, and there are no user xattrs. `simulator` drives it by an xattr on the mount point.
Two mounts of one directory are two clients: each believes what it saw for as long as NFS would.
Not imitated: locks between mounts, loss of what was not synced, recovery.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")  # before the import: it prefers version 2

import mfusepy as fuse  # type: ignore[import-untyped]  # it ships neither stubs nor py.typed

CONTROL = "user.moorline.simulator"
MB = 1 << 20  # what one READ or WRITE carries, as with rsize=1048576
BELIEF_S = {"attr_timeout": 3.0, "entry_timeout": 3.0, "negative_timeout": 30.0}
THREADS = 128  # waiting operations: as many as a client has in flight
LINKS = 177
TELLS = frozenset(
    ("mkdir", "symlink", "link", "create", "chmod", "chown", "truncate", "utimens")
)  # fmt: skip
"""After these libfuse asks for attributes within the same request, as an NFS server sends them."""
MAKES = frozenset(("mkdir", "symlink", "link", "create", "rename"))
"""Before these FUSE asks whether the name is there. Linux's NFS client leaves that to the server
(nfs_lookup for LOOKUP_CREATE | LOOKUP_EXCL and LOOKUP_RENAME_TARGET, and atomic open)."""

Operation = Callable[..., Any]


def counted(kind: str) -> Callable[[Operation], Operation]:
    """Count an operation, let it take as long as its kind takes, fail it if a rule says so."""

    def wrap(operation: Operation) -> Operation:
        @functools.wraps(operation)
        def gated(share: FuseShare, path: str, *rest: Any) -> Any:
            if operation.__name__ in MAKES:
                share.take_back_look(rest[0] if operation.__name__ == "rename" else path)
            with share.gate(operation.__name__, kind, path):
                found = operation(share, path, *rest)
            if operation.__name__ in TELLS:
                share.told[threading.get_native_id()] = path
            return found

        return gated

    return wrap


class Handle:
    """An open file: what was written but not yet sent, the first error, how far was read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.unsent = 0
        self.error: OSError | None = None
        self.read_block = -1


class FuseShare(fuse.Operations):  # type: ignore[misc]  # mfusepy's classes are untyped to mypy
    use_ns = True

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.latency: dict[str, int] = {}
        self.links = LINKS
        self.rules: list[dict[str, Any]] = []
        self.operations: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.looked: set[str] = set()  # names that were not there
        # By the kernel's thread: Python has a new one, with locals of its own, for every callback.
        self.told: dict[int, str] = {}
        self._handles: dict[int, Handle] = {}
        self._next = 0
        self._mutex = threading.Lock()

    @contextlib.contextmanager
    def gate(self, name: str, kind: str, path: str) -> Iterator[None]:
        with self._mutex:
            self.operations[name] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            fault = self._fault(name, path)
        try:
            time.sleep(self.latency.get(kind, 0) / 1e6)
            if fault:
                raise OSError(getattr(errno, fault), "", path)
            yield
        finally:
            with self._mutex:
                self.in_flight -= 1

    def _fault(self, name: str, path: str) -> str:
        """The errno's name of the first rule that is due: `skip` calls pass, `times` fail."""
        for rule in self.rules:
            if rule["operation"] == name and fnmatch.fnmatch(path, rule["path"]):
                if rule["skip"] > 0:
                    rule["skip"] -= 1
                elif rule["times"] > 0:
                    rule["times"] -= 1
                    return str(rule["error"])
        return ""

    def _real(self, path: str) -> str:
        return self.root + path

    def _opened(self, fd: int) -> int:
        with self._mutex:
            self._next += 1
            self._handles[self._next] = Handle(fd)
            return self._next

    def _give(self, path: str) -> None:
        """What the caller made belongs to the caller."""
        uid, gid, _ = fuse.fuse_get_context()
        if os.geteuid() == 0 and (uid or gid):
            os.lchown(self._real(path), uid, gid)

    # -- looking ------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if self.told.pop(threading.get_native_id(), None) == path:
            return self._attributes(path, fh)
        with self.gate("getattr", "meta", path):
            try:
                return self._attributes(path, fh)
            except FileNotFoundError:
                with self._mutex:
                    self.looked.add(path)
                raise

    def take_back_look(self, path: str) -> None:
        """Count the look before a name was made as what it is on NFS: none. It has taken its time,
        so a share that is simulated is never faster than one that is not."""
        with self._mutex:
            if path in self.looked:
                self.looked.remove(path)
                self.operations["getattr"] -= 1

    def _attributes(self, path: str, fh: int | None) -> dict[str, int]:
        handle = self._handles.get(fh or 0)
        status = os.fstat(handle.fd) if handle else os.lstat(self._real(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")
        found: dict[str, int] = {name: getattr(status, name) for name in names}
        for name in ("st_atime", "st_mtime", "st_ctime"):
            found[name] = getattr(status, f"{name}_ns")
        return found

    @counted("meta")
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with os.scandir(self._real(path)) as found:
            return [(entry.name, {"st_ino": entry.inode(), "st_mode": 0}, 0) for entry in found]

    @counted("meta")
    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    @counted("meta")
    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path))
        names = [name for name in dir(found) if name.startswith("f_") and name != "f_fsid"]
        return {name: getattr(found, name) for name in names}

    # -- changing names -----------------------------------------------------------------------

    @counted("change")
    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._real(path), mode)
        self._give(path)

    @counted("change")
    def symlink(self, path: str, target: str) -> None:
        os.symlink(target, self._real(path))
        self._give(path)

    @counted("change")
    def link(self, path: str, source: str) -> None:
        if os.lstat(self._real(source)).st_nlink >= self.links:
            raise OSError(errno.EMLINK, "", path)
        os.link(self._real(source), self._real(path), follow_symlinks=False)

    @counted("change")
    def rename(self, old: str, new: str) -> None:
        os.rename(self._real(old), self._real(new))

    @counted("change")
    def unlink(self, path: str) -> None:
        os.unlink(self._real(path))

    @counted("change")
    def rmdir(self, path: str) -> None:
        os.rmdir(self._real(path))

    @counted("change")
    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._real(path), mode)

    @counted("change")
    def chown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self._real(path), uid, gid)

    @counted("change")
    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._real(path), length)

    @counted("change")
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        path = self._real(path)
        if times is None:
            os.utime(path, follow_symlinks=False)
        else:
            os.utime(path, ns=times, follow_symlinks=False)

    # -- open files ---------------------------------------------------------------------------

    @counted("change")
    def create(self, path: str, mode: int, flags: int = os.O_RDWR) -> int:
        fd = os.open(self._real(path), flags | os.O_CREAT, mode)
        self._give(path)
        return self._opened(fd)

    @counted("meta")
    def open(self, path: str, flags: int) -> int:
        return self._opened(os.open(self._real(path), flags & ~(os.O_CREAT | os.O_EXCL)))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        handle = self._handles[fh]
        if offset // MB != handle.read_block:
            with self.gate("read", "read", path):
                _alive(handle, path)
            handle.read_block = offset // MB  # only now: the kernel repeats a failed readahead
        return os.pread(handle.fd, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        handle = self._handles[fh]
        size = os.pwrite(handle.fd, data, offset)
        handle.unsent += size
        while handle.unsent >= MB:
            handle.unsent -= MB
            self._send(path, handle)
        return size

    def _send(self, path: str, handle: Handle) -> None:
        try:
            with self.gate("write", "write", path):
                _alive(handle, path)
        except OSError as error:
            handle.error = handle.error or error

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        """What NFS does at fsync and at close: send the rest, report the first error."""
        handle = self._handles[fh]
        if handle.unsent:
            handle.unsent = 0
            self._send(path, handle)
        error, handle.error = handle.error, None
        if error is not None:
            raise error

    def flush(self, path: str, fh: int) -> None:
        self.fsync(path, 0, fh)

    def release(self, path: str, fh: int) -> None:
        with self._mutex:
            handle = self._handles.pop(fh)
        with self.gate("close", "meta", path):
            os.close(handle.fd)

    # -- control ------------------------------------------------------------------------------

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        if (path, name) != ("/", CONTROL):
            raise OSError(errno.ENOTSUP, "", path)
        with self._mutex:
            seen = {"operations": self.operations, "most_in_flight": self.most_in_flight,
                    "rules": self.rules}  # fmt: skip
            return json.dumps(seen).encode()

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> None:
        if (path, name) != ("/", CONTROL):
            raise OSError(errno.ENOTSUP, "", path)
        order = json.loads(value)
        with self._mutex:
            self.latency = order.get("latency", self.latency)
            self.links = order.get("links", self.links)
            self.rules = order.get("rules", self.rules)


def _alive(handle: Handle, path: str) -> None:
    """One's own unlink only hides an open file; a file without a name was removed by another."""
    if os.fstat(handle.fd).st_nlink == 0:
        raise OSError(errno.ESTALE, "", path)


class Mount(fuse.FUSE):  # type: ignore[misc]  # mfusepy's classes are untyped to mypy
    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        """mfusepy drops the flags: an exchange would become a plain rename."""
        if flags:
            return -errno.EINVAL
        done: int = self.rename_fuse_2(old, new)
        return done


def main() -> None:
    root, mountpoint = sys.argv[1:]
    sys.setswitchinterval(0.0005)
    others = {"allow_other": True} if os.geteuid() == 0 else {}
    Mount(
        FuseShare(root), mountpoint, foreground=True, use_ino=True, auto_cache=True,
        default_permissions=True, max_threads=THREADS, **BELIEF_S, **others,
    )  # fmt: skip


if __name__ == "__main__":
    main()
