"""The builds that are published: generated trees, byte for byte the same for one seed.

Every shape is a pair: A, and B = A after one change. Unchanged files have the same modification
time in both. Real builds have new ones every time, but then `rsync --link-dest` would link nothing:
the pair gives every peer its best case.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OLD_S, NEW_S = 1_700_000_000, 1_700_086_400  # of A's files, and of what B changed
_DICTIONARY = (
    "anchor", "bollard", "buoy", "cable", "channel", "current", "deck", "dock", "draught", "fender",
    "galley", "harbour", "hawser", "helm", "hull", "jetty", "keel", "lantern", "line", "mast",
    "mooring", "pier", "pilot", "port", "quay", "rope", "rudder", "sail", "shore", "signal", "slip",
    "stern", "tide", "tow", "vessel", "wake", "watch", "water", "wharf", "wind",
)  # fmt: skip


@cache
def _words() -> bytes:
    """Text to cut pages from: longer than twice the largest page."""
    return " ".join(random.Random(0).choices(_DICTIONARY, k=200_000)).encode()


@dataclass(frozen=True)
class Pair:
    """Two builds of one site."""

    name: str
    a: Path
    b: Path


@dataclass(frozen=True)
class Size:
    """What a tree holds."""

    files: int
    directories: int
    bytes: int


class Writer:
    """Writes files below `root`; content depends on `seed` and the order of calls only."""

    def __init__(self, root: Path, seed: int, seconds: int = OLD_S) -> None:
        self.root = root
        self.seconds = seconds
        self._random = random.Random(seed)

    def binary(self, path: str, size: int) -> None:
        """A file that does not compress, such as an image."""
        self._write(path, self._random.randbytes(size))

    def text(self, path: str, size: int, title: str = "", mode: int = 0o644) -> None:
        """A file that compresses about as HTML and JavaScript do; no two are the same."""
        head = f"<!doctype html><title>{title or path}</title>\n".encode()
        start = self._random.randrange(len(_words()) // 2)
        self._write(path, (head + _words()[start : start + size])[: max(size, len(head))], mode)

    def between(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def link(self, path: str, target: str) -> None:
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.symlink_to(target)
        os.utime(where, (self.seconds, self.seconds), follow_symlinks=False)

    def _write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        where = os.path.join(self.root, path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            fd = os.open(where, flags, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(where), exist_ok=True)
            fd = os.open(where, flags, mode)
        try:
            os.write(fd, data)
            os.utime(fd, (self.seconds, self.seconds))
        finally:
            os.close(fd)


Make = Callable[[Path, float, int], None]


def make_gatsby(root: Path, scale: float, seed: int) -> None:
    """A Gatsby site: 3,000 pages of two files in a directory each, 1,500 images, few others."""
    writer = Writer(root, seed)
    for number in range(_scaled(3000, scale)):
        slug = _slug(number)
        writer.text(f"posts/{slug}/index.html", writer.between(8_000, 15_000), slug)
        writer.text(f"page-data/posts/{slug}/page-data.json", writer.between(5_000, 12_000), slug)
    for number in range(_scaled(1500, scale)):
        writer.binary(f"images/photo-{number:04}.png", writer.between(165_000, 395_000))
    for number in range(8):
        writer.text(f"app-{number}.js", writer.between(40_000, 200_000))
        writer.text(f"app-{number}.js.map", writer.between(100_000, 400_000))
    writer.text("index.html", 9_000)
    writer.text("site.css", 30_000)


def edit_gatsby(root: Path, scale: float, seed: int) -> None:
    """One page edited, one image added."""
    writer = Writer(root, seed + 1, NEW_S)
    slug = _slug(_scaled(3000, scale) // 2)
    writer.text(f"posts/{slug}/index.html", 11_000, "edited")
    writer.text(f"page-data/posts/{slug}/page-data.json", 8_000, "edited")
    writer.binary("images/added-photo.png", 267_000)


def make_node_modules(root: Path, scale: float, seed: int) -> None:
    """1,200 packages of 50 small files, the commands of some in .bin."""
    for number in range(_scaled(1200, scale)):
        _package(Writer(root, seed * 100_000 + number), number)


def edit_node_modules(root: Path, scale: float, seed: int) -> None:
    """Three packages of a hundred have a new version."""
    count = _scaled(1200, scale)
    for number in range(0, count, 33):
        _package(Writer(root, (seed + 1) * 100_000 + number, NEW_S), number, again=True)


def _package(writer: Writer, number: int, *, again: bool = False) -> None:
    name = f"@scope{number % 40}/package-{number}" if number % 3 == 0 else f"package-{number}"
    here = f"node_modules/{name}"
    writer.text(f"{here}/package.json", writer.between(800, 3_000), name)
    writer.text(f"{here}/README.md", writer.between(2_000, 12_000), name)
    writer.text(f"{here}/bin.js", writer.between(500, 2_000), name, 0o755)
    for folder, count in (("lib", 20), ("dist", 12), ("dist/esm", 15)):
        for index in range(count):
            writer.text(f"{here}/{folder}/file-{index}.js", writer.between(400, 15_500))
    if number % 4 == 0 and not again:
        writer.link(f"node_modules/.bin/package-{number}", f"../{name}/bin.js")


def make_flat(root: Path, files: int, seed: int) -> None:
    """`files` files of 4 KB on average, 50 to a directory: for the growth curves."""
    writer = Writer(root, seed)
    for number in range(files):
        writer.text(flat_path(number), writer.between(1_000, 7_000), str(number))


def edit_flat(root: Path, files: int, percent: int, seed: int) -> None:
    """`percent` of the files of `make_flat` have other content, spread evenly."""
    writer = Writer(root, seed + percent, NEW_S)
    for number in range(0, files, 100 // percent):
        writer.text(flat_path(number), writer.between(1_000, 7_000), f"edited {number}")


def flat_path(number: int) -> str:
    return f"{number // 2500:03}/{number // 50:05}/page-{number:06}.html"


SHAPES: dict[str, tuple[Make, Make]] = {
    "gatsby": (make_gatsby, edit_gatsby),
    "node_modules": (make_node_modules, edit_node_modules),
}


def make_pair(shape: str, folder: Path, *, scale: float = 1.0, seed: int = 1) -> Pair:
    """Both builds of a shape, below `folder`; made anew."""
    make, edit = SHAPES[shape]
    pair = Pair(shape, folder / "A", folder / "B")
    for root in (pair.a, pair.b):
        root.mkdir(parents=True)
        make(root, scale, seed)
    edit(pair.b, scale, seed)
    _settle(pair)
    return pair


def _settle(pair: Pair) -> None:
    """Directories get a fixed time as well: making what is in them has changed it."""
    for root in (pair.a, pair.b):
        for folder, _, _ in os.walk(root, topdown=False):
            os.utime(folder, (OLD_S, OLD_S))


def size_of(root: Path) -> Size:
    files = directories = total = 0
    for folder, _, names in os.walk(root):
        directories += 1
        for name in names:
            files += 1
            total += os.lstat(os.path.join(folder, name)).st_size
    return Size(files, directories, total)


def _scaled(count: int, scale: float) -> int:
    return max(10, round(count * scale))


def _slug(number: int) -> str:
    return f"{_DICTIONARY[number % len(_DICTIONARY)]}-and-what-it-is-worth-{number:04}"
