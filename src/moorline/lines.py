"""Two manifests compared as texts, line by line, without reading either into entries.

Two builds have the same file at a path exactly where they have the same line. Reading a manifest of
100,000 files takes longer than linking the files; and a line that is no line of a manifest can only
be equal to none.

Pure: no disk, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from moorline.manifest import HEADER, Manifest, parts, unescape

_FILE_LINE = b"f "


def file_lines(text: bytes) -> Iterator[bytes]:
    """The lines of a manifest's text that are files."""
    for part in parts(text, 0, 1 << 16):
        for line in part.split(b"\n"):
            if line.startswith(_FILE_LINE):
                yield line


def same_files(manifest: Manifest, old: bytes) -> Iterator[int]:
    """For each file of the manifest, the number of the file in the text `old` whose line is the
    very same; -1 where there is none.

    Both are in the order of their paths, so one walk along both finds all, and skips long stretches
    that are the same. Where `old` is in no order, as a hostile text may be, fewer are found.
    """
    new, at, before, number = manifest.text, len(HEADER), len(HEADER), 0
    while at < len(new):
        same = _same_lines(new, at, old, before)
        if same:
            files = same.count(b"\n" + _FILE_LINE) + same.startswith(_FILE_LINE)
            yield from range(number, number + files)
            number, at, before = number + files, at + len(same), before + len(same)
            continue
        line, other = _line(new, at), _line(old, before)
        mine, theirs = _path_of(line), _path_of(other)
        if other and theirs <= mine:
            number += other.startswith(_FILE_LINE)
            before += len(other)
        if not other or mine <= theirs:
            if line.startswith(_FILE_LINE):
                yield -1
            at += len(line)


def _same_lines(new: bytes, at: int, old: bytes, before: int) -> bytes:
    """Lines that both texts have from there on: many, one, or none."""
    for most in (1 << 14, 1 << 11, 1 << 8):
        end = new.rfind(b"\n", at, at + most) + 1
        if end and old.startswith(new[at:end], before):
            return new[at:end]
    line = _line(new, at)
    return line if line == _line(old, before) else b""


def _line(text: bytes, at: int) -> bytes:
    return text[at : text.find(b"\n", at) + 1 or len(text)]


def _path_of(line: bytes) -> bytes:
    """Empty for what is no line of a manifest."""
    fields = line.rstrip(b"\n").split(b" ", 5)
    return unescape(fields[4]) if len(fields) > 4 else b""
