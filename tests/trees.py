"""Directory trees for tests: written from a dict, looked at as a dict, and drawn by Hypothesis."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

from moorline.manifest import DIRECTORY, FILE, LINK, Entry, Manifest, link_leaves

Content = bytes | str | None | tuple[bytes, int]
"""bytes: a file; str: a link; None: a directory; (bytes, mode): a file with a mode."""

SITE: dict[str, Content] = {
    "index.html": b"<h1>one</h1>",
    "img/a.png": b"\x89PNG" * 600,
    "img/b.png": b"\x89PNG" * 600,
    "img/logo.png": "a.png",
    "css/site.css": b"body{}",
    "css/empty.css": b"",
    "bin/run": (b"#!/bin/sh\nexit 0\n", 0o755),
    "spare": None,
}


def write_tree(root: Path, spec: Mapping[str, Content]) -> Path:
    """Add what `spec` names to the directory `root`; what is there is replaced."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in spec.items():
        path = root / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
            continue
        data, mode = content if isinstance(content, tuple) else (content, 0o644)
        path.write_bytes(data)
        path.chmod(mode)
    return root


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """All that anybody could change in a tree: type, mode, times, links, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        links = 1 if path.is_dir() and not path.is_symlink() else status.st_nlink
        found[str(path.relative_to(root))] = (
            *(status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns),
            *(links, content),
        )
    return found


def file_entry(path: bytes, content: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, FILE, mode, len(content), hashlib.sha256(content).hexdigest())


def link_entry(path: bytes, target: bytes) -> Entry:
    return Entry(path, LINK, 0o777, len(target), "", target)


def directory_entry(path: bytes = b".", mode: int = 0o755) -> Entry:
    return Entry(path, DIRECTORY, mode, 0)


# -- drawn by Hypothesis --------------------------------------------------------------------------

_NAMES = [
    b"a", b"b", b"a b", b"-rf", b"--", b"%41", b"%", b"new\nline", b"\xff\xfe", b"cr\r", b"~", b"!",
    b"a-b", b"a.b", "n\u0303".encode(), "\u00f1".encode(), b"n" * 255, b"\x01\x7f", b"...", b"#",
]  # fmt: skip

names = st.one_of(
    st.sampled_from(_NAMES),
    st.binary(min_size=1, max_size=12).filter(
        lambda raw: raw not in (b".", b"..") and b"/" not in raw and b"\0" not in raw
    ),
)
modes = st.integers(0, 0o777)
contents = st.binary(max_size=40)


@st.composite
def entries(draw: st.DrawFn, most: int = 12) -> list[Entry]:
    """The entries of any tree, in any order."""
    directories = [b"."]
    found = [directory_entry(b".", draw(modes))]
    taken = {b"."}
    for _ in range(draw(st.integers(0, most))):
        parent, name = draw(st.sampled_from(directories)), draw(names)
        path = name if parent == b"." else parent + b"/" + name
        if path in taken:
            continue
        taken.add(path)
        kind = draw(st.sampled_from((FILE, DIRECTORY, LINK)))
        if kind == FILE:
            found.append(file_entry(path, draw(contents), draw(modes)))
        elif kind == LINK:
            found.append(link_entry(path, draw(contents.filter(lambda t: t and b"\0" not in t))))
        else:
            found.append(directory_entry(path, draw(modes)))
            directories.append(path)
    return list(draw(st.permutations(found)))


def manifests(most: int = 12) -> st.SearchStrategy[Manifest]:
    return entries(most).map(Manifest.of)


def materialise(root: Path, tree: list[Entry], content: Mapping[str, bytes]) -> None:
    """Make `tree` below the existing directory `root`; `content` holds bytes by digest."""
    top = os.fsencode(root)
    for entry in sorted(tree):
        path = top + b"/" + entry.path
        if entry.kind == FILE:
            with open(path, "xb") as file:
                file.write(content[entry.digest])
            os.chmod(path, entry.mode)
        elif entry.kind == LINK:
            os.symlink(entry.target, path)
        elif entry.path != b".":
            os.mkdir(path)
    for entry in sorted(tree, reverse=True):
        if entry.kind == DIRECTORY and entry.path != b".":
            os.chmod(top + b"/" + entry.path, entry.mode)


def stays_inside(entry: Entry) -> bool:
    return entry.kind != LINK or not link_leaves(entry.path, entry.target)
