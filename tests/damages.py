"""Things that happen to directories, each as a function of its path.

DAMAGES: everything that can be different about a directory made of `trees.SITE`, with mode 755, and
what `verify` says of it. CHANGES: what a second program does to one made of `SMALL` while the first
one reads it.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from trees import Content


def becomes(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def swap_for_link(path: Path) -> None:
    """An identical directory elsewhere, and a link to it."""
    path.rename(path.parent.parent / "outside")
    path.symlink_to("../outside")


def swap(path: Path, other: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


DAMAGES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "extra file": (lambda s: (s / "img/x").touch(), {"img/x": "extra file"}),
    "extra directory": (lambda s: (s / "x/y").mkdir(parents=True), {"x": "extra directory"}),
    "extra link": (lambda s: (s / "x").symlink_to("img"), {"x": "extra link"}),
    "extra FIFO": (lambda s: os.mkfifo(s / "x"), {"x": "extra file"}),
    "extra odd name": (lambda s: (s / "new\nline").touch(), {"new%0Aline": "extra file"}),
    "missing file": (lambda s: (s / "index.html").unlink(), {"index.html": "missing"}),
    "missing link": (lambda s: (s / "img/logo.png").unlink(), {"img/logo.png": "missing"}),
    "missing directory": (
        lambda s: shutil.rmtree(s / "css"),
        {"css": "missing", "css/empty.css": "missing", "css/site.css": "missing"},
    ),
    "changed byte": (
        lambda s: (s / "index.html").write_bytes(b"<h1>oNe</h1>"),
        {"index.html": "content differs"},
    ),
    "renamed file": (
        lambda s: (s / "index.html").rename(s / "index.htm"),
        {"index.htm": "extra file", "index.html": "missing"},
    ),
    "renamed link": (
        lambda s: (s / "img/logo.png").rename(s / "logo.png"),
        {"img/logo.png": "missing", "logo.png": "extra link"},
    ),
    "renamed directory": (
        lambda s: (s / "css").rename(s / "CSS"),
        {
            "CSS": "extra directory",
            "css": "missing",
            "css/empty.css": "missing",
            "css/site.css": "missing",
        },
    ),
    "swapped files": (
        lambda s: swap(s / "index.html", s / "css/site.css"),
        {
            "css/site.css": "has more bytes, should be 6",
            "index.html": "has 6 bytes, should be 12",
        },
    ),
    "file swapped with a link to it": (
        lambda s: swap(s / "img/a.png", s / "img/logo.png"),
        {
            "img/a.png": "is a link, should be a file",
            "img/logo.png": "is a file, should be a link",
        },
    ),
    "swapped directories": (
        lambda s: swap(s / "spare", s / "bin"),
        {"bin/run": "missing", "spare/run": "extra file"},
    ),
    "longer": (
        lambda s: (s / "index.html").write_bytes(b"<h1>one</h1>!"),
        {"index.html": "has more bytes, should be 12"},
    ),
    "no longer empty": (
        lambda s: (s / "css/empty.css").write_bytes(b"!"),
        {"css/empty.css": "has more bytes, should be 0"},
    ),
    "shorter": (
        lambda s: (s / "index.html").write_bytes(b"<h1>one</h1"),
        {"index.html": "has 11 bytes, should be 12"},
    ),
    "emptied": (
        lambda s: (s / "img/a.png").write_bytes(b""),
        {"img/a.png": "has 0 bytes, should be 2400"},
    ),
    "mode of a file": (
        lambda s: (s / "index.html").chmod(0o664),
        {"index.html": "mode is 664, should be 644"},
    ),
    "unreadable": (
        lambda s: (s / "index.html").chmod(0),
        {"index.html": "mode is 0, should be 644"},
    ),
    "setuid": (
        lambda s: (s / "bin/run").chmod(0o4755),
        {"bin/run": "mode is 4755, should be 755"},
    ),
    "mode of a directory": (
        lambda s: (s / "img").chmod(0o777),
        {"img": "mode is 777, should be 755"},
    ),
    "sticky directory": (
        lambda s: (s / "img").chmod(0o1755),
        {"img": "mode is 1755, should be 755"},
    ),
    "mode of the root": (lambda s: s.chmod(0o700), {".": "mode is 700, should be 755"}),
    "link target": (
        lambda s: becomes(s / "img/logo.png", lambda p: p.symlink_to("b.png")),
        {"img/logo.png": "leads to b.png, should be a.png"},
    ),
    "file to directory": (
        lambda s: becomes(s / "index.html", Path.mkdir),
        {"index.html": "is a directory, should be a file"},
    ),
    "file to link with the same content": (
        lambda s: becomes(s / "img/a.png", lambda p: p.symlink_to("b.png")),
        {"img/a.png": "is a link, should be a file"},
    ),
    "file to FIFO": (
        lambda s: becomes(s / "index.html", os.mkfifo),
        {"index.html": "is a special file, should be a file"},
    ),
    "link to file with the same content": (
        lambda s: becomes(s / "img/logo.png", lambda p: p.write_bytes(b"\x89PNG" * 600)),
        {"img/logo.png": "is a file, should be a link"},
    ),
    "link to directory": (
        lambda s: becomes(s / "img/logo.png", Path.mkdir),
        {"img/logo.png": "is a directory, should be a link"},
    ),
    "directory to file": (
        lambda s: becomes(s / "spare", Path.touch),
        {"spare": "is a file, should be a directory"},
    ),
    "directory to FIFO": (
        lambda s: becomes(s / "spare", os.mkfifo),
        {"spare": "is a special file, should be a directory"},
    ),
    "directory to a link to an identical one": (
        lambda s: swap_for_link(s / "img"),
        {
            "img": "is a link, should be a directory",
            "img/a.png": "missing",
            "img/b.png": "missing",
            "img/logo.png": "missing",
        },
    ),
}

SMALL: dict[str, Content] = {"f": b"file", "d/g": b"in d", "d/h": b"in d too", "l": "f"}


def make_socket(path: Path) -> None:
    at = os.getcwd()
    os.chdir(path.parent)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)
    os.chdir(at)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written to": lambda s: (s / "f").write_bytes(b"FILE"),
    "grown": lambda s: os.truncate(s / "f", 5000),
    "truncated": lambda s: os.truncate(s / "f", 1),
    "file removed": lambda s: (s / "f").unlink(),
    "file became FIFO": lambda s: becomes(s / "f", os.mkfifo),
    "file became socket": lambda s: becomes(s / "f", make_socket),
    "file became directory": lambda s: becomes(s / "f", Path.mkdir),
    "file became link": lambda s: becomes(s / "f", lambda p: p.symlink_to("/etc/passwd")),
    "link removed": lambda s: (s / "l").unlink(),
    "link became file": lambda s: becomes(s / "l", lambda p: p.write_bytes(b"x")),
    "link became FIFO": lambda s: becomes(s / "l", os.mkfifo),
    "directory removed": lambda s: shutil.rmtree(s / "d"),
    "directory became file": lambda s: becomes(s / "d", lambda p: p.write_bytes(b"x")),
    "directory became link": lambda s: swap_for_link(s / "d"),
}
