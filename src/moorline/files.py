"""Small files and whole folders, made of the operations of `disk`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable

from moorline.disk import STALE, AnyPath, Disk, Named

MOST_OPEN = 100


def read_file(disk: Disk, path: AnyPath, at: int | None = None, *, most: int = 1 << 20) -> bytes:
    """A whole small file. Raises OSError(EFBIG) when it is larger than `most` bytes.

    What another machine replaces at this moment is read again from its name: an NFS client may open
    the file that the name meant before, which is no more. It would do so again until it looks the
    name up (measured: eight times in 0.1 s).
    """
    try:
        return _read_file(disk, path, at, most)
    except OSError as error:
        if error.errno not in STALE:
            raise
        disk.stat(path, at)
        return _read_file(disk, path, at, most)


def _read_file(disk: Disk, path: AnyPath, at: int | None, most: int) -> bytes:
    fd, _ = disk.open_file(path, at)
    try:
        parts: list[bytes] = []
        left = most + 1
        while left > 0:
            part = disk.read(fd, min(left, 1 << 20))
            if not part:
                return b"".join(parts)
            parts.append(part)
            left -= len(part)
        raise OSError(errno.EFBIG, f"larger than {most} bytes", os.fsdecode(path))
    finally:
        os.close(fd)


def write_file(
    disk: Disk, path: AnyPath, data: bytes, at: int | None = None, mode: int = 0o644, *,
    private: bool = False,
) -> None:  # fmt: skip
    """A new small file, durable; its name is durable only after a sync of the directory. `private`
    as in `Disk.create`."""
    with written(disk, disk.create(path, mode, at, private=private)) as fd:
        disk.write(fd, data)
        disk.sync(fd)


def replace_file(disk: Disk, path: bytes, data: bytes, at: int, token: str) -> None:
    """Put `data` under `path` in the open directory `at`: readers see the old or the new, whole.

    Never rewritten in place: on NFS the other machines would go on seeing the old attributes.
    """
    temporary = b".%s.%s.tmp" % (path, token.encode())
    try:
        write_file(disk, temporary, data, at, private=True)
        move_over(disk, temporary, path, at, at, token)
    except OSError:  # a full disk should not hold half a file as well
        with contextlib.suppress(OSError):
            disk.unlink(temporary, at)
        raise
    disk.sync(at)


def move_over(disk: Disk, source: bytes, path: bytes, source_at: int, at: int, token: str) -> None:
    """Rename a file over whatever is called `path`: no rename replaces a directory, so one that
    somebody put there is renamed away and removed."""
    try:
        disk.rename(source, path, source_at, at)
    except IsADirectoryError:
        doomed = b".%s.%s.old.tmp" % (path, token.encode())
        disk.rename(path, doomed, at, at)
        disk.rename(source, path, source_at, at)
        remove_tree(disk, doomed, at)


def sync_directory(disk: Disk, path: AnyPath, at: int | None = None) -> None:
    """Make the names in a directory durable."""
    fd = disk.open_directory(path, at)
    try:
        disk.sync(fd)
    finally:
        os.close(fd)


def sync_file(disk: Disk, path: AnyPath, at: int | None = None) -> None:
    fd, _ = disk.open_file(path, at)
    try:
        disk.sync(fd)
    finally:
        os.close(fd)


class written:
    """`with written(disk, fd)`: close a file that was written, once, and let its error be seen."""

    def __init__(self, disk: Disk, fd: int) -> None:
        self.disk = disk
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.disk.close(self.fd)
        else:
            with contextlib.suppress(OSError):  # it would hide what went wrong first
                os.close(self.fd)


def make_directories(disk: Disk, path: AnyPath, mode: int = 0o755) -> None:
    """`path` and what is missing above it, durable."""
    missing = []
    here = os.fsencode(path)
    while not _is_directory(disk, here):
        missing.append(here)
        here = os.path.dirname(here.rstrip(b"/")) or b"."
    for directory in reversed(missing):
        try:
            disk.make_directory(directory, mode)
        except FileExistsError:
            if not _is_directory(disk, directory):
                raise
        with contextlib.suppress(PermissionError):
            sync_directory(disk, os.path.dirname(directory.rstrip(b"/")) or b".")


def _is_directory(disk: Disk, path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def remove_tree(
    disk: Disk, name: bytes, at: int, *, beat: Callable[[], None] = lambda: None
) -> None:
    """Remove a file, link or whole directory by its name in the open directory `at`.

    Only for names that nobody else can want: a cleaner first renames what it removes.
    """
    # Open directories, and what is left to remove from each, the last one first.
    stack = [(at, deque([Named(name, "?")]))]
    try:
        while stack[0][1]:
            directory, left = stack[-1]
            if not left:
                stack.pop()
                os.close(directory)
                with contextlib.suppress(FileNotFoundError):
                    disk.remove_directory(stack[-1][1].pop().name, stack[-1][0])
                continue
            beat()
            below = _unlink(disk, directory, left[-1])
            if below < 0:
                left.pop()
                continue
            stack.append((below, deque()))
            stack[-1][1].extend(_removable(disk, below))
            if len(stack) > MOST_OPEN and stack[-1][1]:
                _lift(disk, stack)
    finally:
        for directory, _ in stack[1:]:
            os.close(directory)


def _lift(disk: Disk, stack: list[tuple[int, deque[Named]]]) -> None:
    """Move the deepest directory up, into the one that is removed, where it is met again later: a
    tree may be deeper than a process may have files open."""
    os.close(stack.pop()[0])
    above, left = stack[-1]
    name = b".deep.%s" % disk.token().encode()
    disk.rename(left.pop().name, name, above, stack[1][0])
    stack[1][1].appendleft(Named(name, "d"))


def _unlink(disk: Disk, at: int, named: Named) -> int:
    """Remove what is no directory and return -1; open what is one."""
    if named.kind in "d?":
        try:
            return disk.open_directory(named.name, at)
        except FileNotFoundError:
            return -1
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
    with contextlib.suppress(FileNotFoundError):  # another cleaner was faster
        disk.unlink(named.name, at)
    return -1


def _removable(disk: Disk, fd: int) -> list[Named]:
    inside = disk.names(fd)
    if inside and not os.fstat(fd).st_mode & stat.S_IWUSR:
        disk.set_mode(fd, 0o700)
    return inside
