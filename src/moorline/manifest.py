"""Entry and Manifest: the canonical text of a tree, its digest, and the difference of two.

The text is bytes, one line an entry, sorted by raw path, the root `.` first:

    moorline-manifest 1
    d 755 0 - .
    f 644 12 <sha256> index.html
    l 777 9 - logo.png img/a.png

Fields: kind (f, d, l), mode in octal, size in bytes (directories 0, links the length of their
target), SHA-256 or `-`, path, and for links the target. Bytes other than printable ASCII, and space
and `%`, are written as %XX, so that any file name survives. There is exactly one text for a tree:
`parse` refuses every other spelling, so equal trees have equal digests and the reverse.

Pure: no disk, no clock.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from typing import Any, Callable, NamedTuple

from moorline.errors import Mismatch

HEADER = b"moorline-manifest 1\n"
STORED = b"manifest.gz"  # the name that it has in the folder of a build
MAX_MANIFEST_BYTES = 256 << 20
MAX_ENTRIES = 1_000_000  # some 400 bytes of memory each; a text of short lines could hold 16 times
MAX_DEPTH = 300  # a walk holds a directory open at each level, and some walk three trees at once
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
MAX_LINK_BYTES = 4080  # EFS; Linux itself takes 4,095 (EFS user guide, limits)

FILE, DIRECTORY, LINK = "f", "d", "l"
SECRETS = (b".git", b".env")  # names that no build may have unless they are allowed
_NO_NAMES = frozenset({b"", b".", b".."})

_UNSAFE = re.compile(rb"[^\x21-\x24\x26-\x7e]")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")
# Three characters for each byte at most: a line without end is refused before it is unescaped.
_LINES = re.compile(
    rb"^([fdl]) ([0-7]{1,3}) ([0-9]{1,18}) (-|[0-9a-f]{64}) "
    rb"([\x21-\x7e]{1,%d})(?: ([\x21-\x7e]{1,%d}))?$" % (3 * MAX_PATH_BYTES, 3 * MAX_LINK_BYTES),
    re.MULTILINE,
)
_PART_BYTES = 1 << 20
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # RFC 1952: no name, no time, system unknown


class Entry(NamedTuple):
    """One file, directory or link. A NamedTuple, because a tree may have 100,000 of them.

    `path` is relative raw bytes, `.` for the root; `mode` the permission bits (& 0o777);
    `digest` the SHA-256 of a file in hex, else ""; `target` the raw text of a link, else b"".
    """

    path: bytes
    kind: str
    mode: int
    size: int
    digest: str = ""
    target: bytes = b""

    @property
    def shown(self) -> str:
        """The path as safe text for messages, escaped as in the manifest."""
        return shown(self.path)


_path = itemgetter(0)
entry_of: Callable[[Iterable[Any]], Entry] = partial(tuple.__new__, Entry)
"""An Entry of all six fields, in half the time that its own ways take: there may be 100,000."""


def escape(raw: bytes) -> bytes:
    """`raw` with every byte that is unsafe in a manifest written as %XX."""
    if not _UNSAFE.search(raw):
        return raw
    return _UNSAFE.sub(lambda match: b"%%%02X" % match.group()[0], raw)


def unescape(text: bytes) -> bytes:
    if b"%" not in text:
        return text
    return _ESCAPED.sub(lambda match: bytes([int(match.group(1), 16)]), text)


def shown(path: bytes) -> str:
    """Any path as safe ASCII text on one line, for messages and JSON."""
    return escape(path).decode("ascii")


def link_leaves(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` with text `target` points outside the tree, judged by its text."""
    if target.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in (b"", b"."):
            depth += 1
    return False


@dataclass(frozen=True)
class Manifest:
    """The sorted entries of one tree. Build it with `of` or `parse`, which check it."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """The manifest of `entries`, in any order. Raises Mismatch when they are not a tree."""
        ordered = sorted(entries, key=_path)
        root = bisect_left(ordered, (b".",))
        ordered[:0] = ordered[root : root + 1]  # the first, whatever its name sorts after
        del ordered[root + 1 : root + 2]
        manifest = cls(tuple(ordered))
        _check(manifest.entries)
        return manifest

    @classmethod
    def parse(cls, text: bytes, digest: str = "") -> Manifest:
        """The manifest written in `text`. Raises Mismatch unless it is canonical and safe.

        With `digest` the text must have that digest; it is canonical then, because whoever vouches
        for the digest made the text with `Manifest.text`, and is not written out again to compare.
        """
        if digest and hashlib.sha256(text).hexdigest() != digest:
            raise Mismatch(f"the manifest does not have the digest {digest[:12]}.")
        if len(text) > MAX_MANIFEST_BYTES:
            raise Mismatch("the manifest is larger than 256 MiB. It was not made by Moorline.")
        if not text.startswith(HEADER):
            first = shown(text[:40].split(b"\n")[0])
            raise Mismatch(
                f"the manifest starts with {first!r}, not with 'moorline-manifest 1'. "
                "It is damaged, or of a format that needs a newer moorline."
            )
        if not text.endswith(b"\n"):
            raise Mismatch("the manifest is cut off: its last line has no end.")
        if text.count(b"\n") > MAX_ENTRIES + 1:
            raise Mismatch(_TOO_MANY)
        entries = tuple(_entries(text))
        _check(entries)
        manifest = cls(entries)
        if not digest and manifest.text != text:
            raise Mismatch("the manifest is not in canonical form. It was changed by hand.")
        manifest.__dict__["text"] = text
        return manifest

    @cached_property
    def text(self) -> bytes:
        lines, paths = [HEADER], [entry.path for entry in self.entries]
        if _UNSAFE.search(b"".join(paths)):
            paths = list(map(escape, paths))
        for path, (_, kind, mode, size, digest, target) in zip(paths, self.entries):
            if kind == FILE:
                lines.append(b"f %o %d %b %b\n" % (mode, size, digest.encode(), path))
            elif kind == DIRECTORY:
                lines.append(b"d %o 0 - %b\n" % (mode, path))
            else:
                lines.append(b"l %o %d - %b %b\n" % (mode, size, path, escape(target)))
        return b"".join(lines)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text in hex: the name of this content."""
        return hashlib.sha256(self.text).hexdigest()

    @cached_property
    def files(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == FILE]

    @cached_property
    def size_bytes(self) -> int:
        """The sizes of all files, added up."""
        return sum(entry.size for entry in self.files)

    @cached_property
    def by_path(self) -> dict[bytes, Entry]:
        return {entry.path: entry for entry in self.entries}


_TOO_MANY = f"the build has more than {MAX_ENTRIES:,} files, directories and links."


def compressed(text: bytes) -> bytes:
    """A manifest's text as it lies in a store: gzip, a third as long. The lowest level: what is
    left are the digests, which nothing shortens."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    data = deflate.compress(text) + deflate.flush()
    return _GZIP_HEADER + data[len(_GZIP_HEADER) :]


def most_compressed(text_bytes: int) -> int:
    """The length that `compressed` never exceeds: deflate adds 5 bytes to 16 KB at the worst."""
    return text_bytes + (text_bytes >> 10) + 64


def decompressed(data: bytes, most: int = MAX_MANIFEST_BYTES) -> bytes:
    """The text in what `compressed` made. Raises Mismatch when it is anything else, or when the
    text is longer than `most` bytes, of which no more are kept in memory."""
    inflate = zlib.decompressobj(31)
    try:
        text = inflate.decompress(data, most + 1)
    except zlib.error as error:
        raise Mismatch(f"the manifest is no gzip file: {error}.") from None
    whole = inflate.eof and not inflate.unused_data and data.startswith(_GZIP_HEADER)
    if not whole or len(text) > most:
        raise Mismatch(f"the manifest is cut off, or no gzip file of at most {most} bytes.")
    return text


def parts(text: bytes, start: int, size: int) -> Iterator[bytes]:
    """The text in pieces of whole lines: all lines at once would take more memory than it."""
    while start < len(text):
        end = text.find(b"\n", start + size) + 1 or len(text)
        yield text[start:end]
        start = end


def _entries(text: bytes) -> Iterator[Entry]:
    """All lines after the header, each of which has to be one. Many at once, because a call for
    each would take longest of all; not all at once, because their fields take more memory than the
    entries."""
    for part in parts(text, len(HEADER), _PART_BYTES):
        yield from _part(part)


def _part(text: bytes) -> Iterator[Entry]:
    fields = _LINES.findall(text)
    if len(fields) != text.count(b"\n"):
        wrong = next(line for line in text[:-1].split(b"\n") if not _LINES.fullmatch(line))
        raise Mismatch(f"the manifest has a line that is none: {shown(wrong[:100])!r}.")
    if b"%" in text:
        fields = [(*most, unescape(path), unescape(link)) for *most, path, link in fields]
    kinds, modes, sizes, digests, paths, targets = zip(*fields)
    octal = {mode: int(mode, 8) for mode in set(modes)}
    rows = zip(
        paths, b"".join(kinds).decode(), map(octal.__getitem__, modes), map(int, sizes),
        ("" if digest == b"-" else digest.decode() for digest in digests), targets,
    )  # fmt: skip
    return map(entry_of, rows)


def _check(entries: tuple[Entry, ...]) -> None:
    """Refuse whatever is not a tree: these paths are joined to directories on real machines."""
    if not entries or entries[0].path != b"." or entries[0].kind != DIRECTORY:
        raise Mismatch("the manifest does not start with its root directory.")
    if len(entries) > MAX_ENTRIES:
        raise Mismatch(_TOO_MANY)
    _refuse(entries[0], _unsound_fields(entries[0]))
    directories = {b""}
    last = b""
    for entry in entries[1:]:
        path, kind, mode, size, digest, target = entry
        parent, slash, name = path.rpartition(b"/")
        plain = (
            last < path and parent in directories and name not in _NO_NAMES
            and bool(parent) == bool(slash) and len(path) <= MAX_NAME_BYTES and b"\0" not in path
            and 0 <= mode <= 0o777 and not target
        )  # fmt: skip
        if kind == FILE:
            plain = plain and len(digest) == 64
        elif kind == DIRECTORY:
            plain = plain and not size and not digest
        if not plain or kind == LINK:  # seldom: there may be 100,000 entries
            _refuse(entry, _unsound(entry, last, directories))
        if kind == DIRECTORY:
            directories.add(path)
        last = path


def _refuse(entry: Entry, reason: str) -> None:
    if reason:
        raise Mismatch(f"the manifest has an impossible entry: {entry.shown[:200]}: {reason}.")


def _unsound(entry: Entry, last: bytes, directories: set[bytes]) -> str:
    path = entry.path
    if path == b".":
        return "the root stands twice"
    if path <= last:
        return "not in order, or twice"
    parent, _, name = path.rpartition(b"/")
    if parent == b"." or path.startswith(b"/"):
        return "not the plain path of its name"
    if parent not in directories:
        return "its directory is not listed before it"
    if name in _NO_NAMES or b"\0" in name:
        return "not a name"
    if len(name) > MAX_NAME_BYTES or len(path) > MAX_PATH_BYTES:
        return "the name is too long"
    if path.count(b"/") > MAX_DEPTH:
        return f"it lies more than {MAX_DEPTH} directories deep"
    return _unsound_fields(entry)


def _unsound_fields(entry: Entry) -> str:
    _, kind, mode, size, digest, target = entry
    if not 0 <= mode <= 0o777:
        return "the mode is out of range"
    if kind == FILE:
        return "" if len(digest) == 64 and not target else "a file needs a digest"
    if digest:
        return "only files have a digest"
    if kind == DIRECTORY:
        return "" if size == 0 and not target else "a directory has no size"
    if mode != 0o777 or not target or b"\0" in target or size != len(target):
        return "the link is not well formed"
    return "the link is too long" if size > MAX_LINK_BYTES else ""


@dataclass(frozen=True)
class Difference:
    """What changed from one manifest to another, as paths; `changed` lists each difference."""

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    changed: tuple[tuple[Entry, Entry], ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def difference(old: Manifest, new: Manifest) -> Difference:
    """What turns `old` into `new`; each tuple is sorted by path."""
    before, after = old.by_path, new.by_path
    return Difference(
        added=tuple(entry for entry in new.entries if entry.path not in before),
        removed=tuple(entry for entry in old.entries if entry.path not in after),
        changed=tuple(
            (before[entry.path], entry)
            for entry in new.entries
            if entry.path in before and before[entry.path] != entry
        ),
    )


def how_changed(old: Entry, new: Entry) -> str:
    """In words, how two entries of one path differ: type, content, mode or link."""
    if old.kind != new.kind:
        names = {FILE: "file", DIRECTORY: "directory", LINK: "link"}
        return f"{names[old.kind]} became {names[new.kind]}"
    parts = []
    if old.digest != new.digest:
        parts.append(f"content ({old.size} -> {new.size} bytes)")
    if old.mode != new.mode:
        parts.append(f"mode ({old.mode:o} -> {new.mode:o})")
    if old.target != new.target:
        parts.append(f"link ({shown(old.target)} -> {shown(new.target)})")
    return ", ".join(parts)
