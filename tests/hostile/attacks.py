"""What somebody does who can write a folder and wants a program of root to do harm for him.

An attack replaces what lies at a path, whatever that is at this moment. `Outside` is what no
program may ever read, write or remove for him: it has the shape of what the links into it stand
for.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from crash.ground import copy_tree

Way = Callable[[Path, Path], object]
"""Does something to a path; the second one is the folder outside."""

SECRET = b"root:secret\n"
OLD = (1_000_000_000, 1_000_000_000)


class Outside:
    """A folder that belongs to somebody else. `unharmed` says whether anybody changed anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("img", "bin", "removing", "targets", "builds", "pins", "tree/img", "x"):
            (folder / name).mkdir(parents=True)
        for name in ("secret", "index.html", "img/a.png", ".x.tmp", "index", "bin/run",
                     "removing/x.json", "targets/.x.tmp", "builds/.x.tmp", "tree/index.html",
                     "tree/img/a.png", "x/index", "manifest", "build.json"):  # fmt: skip
            (folder / name).write_bytes(SECRET)
            os.utime(folder / name, OLD)
        (folder / "locked").mkdir(mode=0o700)
        self._before = self._look()

    def unharmed(self) -> bool:
        return self._look() == self._before

    def _look(self) -> dict[str, tuple[object, ...]]:
        """All that a program could change. Not the number of links: an attacker may make some."""
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.folder, *self.folder.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[str(path)] = (
                *(status.st_mode, status.st_uid, status.st_gid, status.st_ino),
                *(status.st_mtime_ns, content),
            )
        return found


def removed(path: Path, outside: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _instead(make: Callable[[Path, Path], object]) -> Way:
    """What `make` makes, in the place of what was there; nothing where the folder above is gone."""

    def way(path: Path, outside: Path) -> None:
        if not path.parent.is_dir() or path.parent.resolve().is_relative_to(outside):
            return
        removed(path, outside)
        make(path, outside)

    return way


def _socket(path: Path, outside: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{here}/{path.name}")  # names of sockets are short
    finally:
        os.close(here)


def _device(path: Path, outside: Path) -> None:
    os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: it never ends


def _huge(path: Path, outside: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


def _flipped(path: Path, outside: Path) -> None:
    """Other content under the same size, mode and time."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        return
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _cut(path: Path, outside: Path) -> None:
    if not path.is_symlink() and path.is_file():
        os.truncate(path, path.stat().st_size // 2)


def _grown(path: Path, outside: Path) -> None:
    if not path.is_symlink() and path.is_file():
        with path.open("ab") as file:
            file.write(b"more\n" * 9)


def _swapped(path: Path, outside: Path) -> None:
    """One name for another beside it: both are as good as they were, in the wrong place."""
    if not path.parent.is_dir():
        return
    for other in sorted(path.parent.iterdir()):
        if other != path and os.path.lexists(path) and other.is_dir() == path.is_dir():
            spare = path.parent / ".swapped"
            for old, new in ((path, spare), (other, path), (spare, other)):
                old.rename(new)
            return


def _copied(path: Path, outside: Path) -> None:
    """A fresh copy of what was there: new inodes under old names. No harm by itself."""
    if path.is_symlink() or not path.exists():
        return
    spare = path.parent / ".copied"
    copy_tree(path, spare)
    removed(path, outside)
    spare.rename(path)


def _filled(path: Path, outside: Path) -> None:
    """A folder with links in it that lead out, under every name that was there."""
    names = [each.name for each in path.iterdir()] if path.is_dir() else ["x", "tree", "img"]
    removed(path, outside)
    path.mkdir()
    for name in [*names, "index", "build.json"]:
        if not os.path.lexists(path / name):
            (path / name).symlink_to(outside / name if (outside / name).exists() else outside)


ON_ANYTHING: dict[str, Way] = {
    "removed": removed,
    "a link out": _instead(lambda p, o: p.symlink_to(o if p.suffix == "" else o / "secret")),
    "a link to itself": _instead(lambda p, o: p.symlink_to(p.name)),
    "a FIFO": _instead(lambda p, o: os.mkfifo(p)),
    "a socket": _instead(_socket),
    "a device": _instead(_device),
    "swapped": _swapped,
    "copied": _copied,
}
ON_FILES: dict[str, Way] = {
    "flipped": _flipped,
    "cut": _cut,
    "grown": _grown,
    "emptied": _instead(lambda p, o: p.touch()),
    "endless": _instead(_huge),
    "a hard link out": _instead(lambda p, o: os.link(o / "secret", p)),
    "a link to a secret": _instead(lambda p, o: p.symlink_to(o / "secret")),
    "a directory": _instead(_filled),
}
ON_FOLDERS: dict[str, Way] = {
    "a file": _instead(lambda p, o: p.write_bytes(SECRET)),
    "filled with links": _filled,
    "a link to the same outside": _instead(lambda p, o: p.symlink_to(o / p.name)),
}
