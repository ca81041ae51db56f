"""The ground that a scenario runs on: one store and one target, put back as they were each time.

Paths are absolute in bundles, links and records, so a run always happens in the same folder, and
what it starts from is copied into it. `fingerprint` tells whether two runs ended in the same state;
that one of them ran a second later makes no difference.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import time
from pathlib import Path

KEPT = ("store", "www", "bundles", "work")
_TIME = re.compile(rb"1[0-9]{9}")


def copy_tree(source: Path, path: Path) -> None:
    """A whole tree with modes, times, links and hard links: faster than a `cp -a` of its own."""
    inodes: dict[int, bytes] = {}
    _copy(os.fsencode(source), os.fsencode(path), inodes)


def _copy(source: bytes, path: bytes, inodes: dict[int, bytes]) -> None:
    status = os.lstat(source)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(path, 0o700)
        for name in os.listdir(source):
            _copy(source + b"/" + name, path + b"/" + name, inodes)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), path)
        return
    elif status.st_nlink > 1 and status.st_ino in inodes:
        os.link(inodes[status.st_ino], path)
        return
    else:
        inodes[status.st_ino] = path
        with open(source, "rb") as old, open(path, "xb") as new:
            new.write(old.read())
    os.chmod(path, status.st_mode & 0o7777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class Ground:
    """`folder` as it is now, to be put back as often as needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved = folder / "saved"
        self.since = int(time.time())
        self.keep()

    def keep(self) -> None:
        """What is there now is what `restore` puts back."""
        shutil.rmtree(self.saved, ignore_errors=True)
        self.saved.mkdir()
        for name in KEPT:
            if (self.folder / name).exists():
                copy_tree(self.folder / name, self.saved / name)

    def restore(self) -> None:
        self.clear()
        for path in self.saved.iterdir():
            copy_tree(path, self.folder / path.name)

    def clear(self, names: tuple[str, ...] = KEPT) -> None:
        for name in names:
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)

    def fingerprint(self) -> str:
        """Names, kinds, modes, contents and times, in whole seconds, of all that there is. All
        times since the ground was made are one."""
        lines: list[bytes] = []
        for name in KEPT:
            _describe(os.fsencode(self.folder / name), lines)
        text = b"\n".join(sorted(lines))
        return hashlib.sha256(_TIME.sub(self._coarse, text)).hexdigest()

    def _coarse(self, match: re.Match[bytes]) -> bytes:
        return b"now" if int(match[0]) >= self.since else match[0]


def _describe(path: bytes, lines: list[bytes]) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    content = b""
    if stat.S_ISDIR(status.st_mode):
        for name in os.listdir(path):
            _describe(path + b"/" + name, lines)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    else:
        with open(path, "rb") as file:
            content = b"%d " % int(status.st_mtime) + file.read()
    lines.append(b"%s %o %s" % (path, status.st_mode, content))
