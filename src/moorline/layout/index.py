"""What a store knows of a build's files beside their identity: the file builds/<id>/index.

    moorline-index 1
    pack <token> <bytes>
    <pack number> <offset> <proved> <time>

A row for each file of the manifest, in its order: where its content lies, when that was last read
and found right, and the file's modification time, which is when its path got its present content;
both in seconds by the store's clock. The pack number is `-` where no pack is needed: for an empty
file, and for all of layout tree.

A publish begins the file with the packs that it may come to rely on, before it looks at them:
whoever removes packs reads that first. Until the rest is appended, the file's own time is the
heartbeat of the publish. Packs that no row names are then passed over.

The index is not trusted, and may be replaced (by rename) to repair or to note a proof.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Callable, NamedTuple, Optional

from moorline.disk import DAMAGE, Disk
from moorline.errors import Mismatch
from moorline.files import read_file
from moorline.manifest import MAX_ENTRIES, Entry

HEADER = b"moorline-index 1\n"
NO_PACK = ""
INDEX_DAMAGED = "the build's index is missing or damaged"

_PACK = re.compile(rb"pack ([0-9a-f]{16}) ([0-9]{1,18})\n")
_FIRST_FIELD = re.compile(rb"^[0-9]{1,4} ", re.MULTILINE)
_MOST_PACKS_BYTES = 1 << 12
_MOST_ROW_BYTES = 64
_NUMBERS = b"0123456789-"
_MOST_DIGITS = 18
MAX_INDEX_BYTES = _MOST_PACKS_BYTES + MAX_ENTRIES * _MOST_ROW_BYTES
_PART_ROWS = 1 << 12
_MOST = (10**18, 10**11, 10**11)  # of offset, proved, time


class Row(NamedTuple):
    """One file; `pack` is a token, or `NO_PACK`."""

    pack: str
    offset: int
    proved: int
    time: int


class Place(NamedTuple):
    """Where one content lies."""

    pack: str
    offset: int
    length: int
    proved: int


place_of: Callable[[Iterable[Any]], Place] = partial(tuple.__new__, Place)
"""A Place of all four fields, in a third of the time: as `entry_of`."""


class Rows:
    """Rows kept as columns: a build may have 100,000, and a Row takes five times the memory."""

    def __init__(
        self, packs: Iterable[str], offsets: Iterable[int], proofs: Iterable[int],
        times: Iterable[int],
    ) -> None:  # fmt: skip
        self.packs = list(packs)  # of few different ones, as proofs and times are
        self.offsets = array("q", offsets)
        self.proofs = list(proofs)
        self.times = list(times)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Rows:
        columns = tuple(zip(*rows))
        return cls(*columns) if columns else cls((), (), (), ())

    def __len__(self) -> int:
        return len(self.packs)

    def __iter__(self) -> Iterator[Row]:
        return map(Row, self.packs, self.offsets, self.proofs, self.times)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Index:
    """The rows of a build, and the size in bytes of each pack that they name."""

    packs: Mapping[str, int]
    rows: Rows

    @classmethod
    def parse(cls, text: bytes, files: Optional[int] = None) -> Index:
        """Raises Mismatch for a text that is no index, or is not of a build of `files` files."""
        names, sizes, at = _packs(text)
        if not text.endswith(b"\n"):
            raise Mismatch("the build's index is cut off.")
        lines = text.count(b"\n", at)
        if lines > MAX_ENTRIES or (files is not None and lines != files):
            raise Mismatch(f"the build's index has {lines} rows for {files} files.")
        body = text[at:]
        if body.translate(None, _NUMBERS) != b"   \n" * lines:
            raise Mismatch("the build's index has a row that is none.")
        rows = _rows(body.split(), names)
        if len(rows) != lines:
            raise Mismatch("the build's index has a row that is cut off.")
        used = set(rows.packs)
        return cls({token: sizes[token] for token in sizes if token in used}, rows)

    @property
    def text(self) -> bytes:
        return opening(self.packs) + closing(list(self.packs.items()), self)

    def held(self, files: Sequence[Entry]) -> dict[str, int]:
        """By content the number of a row that tells where it lies: `files` are those of the build's
        manifest. Raises Mismatch when a row points outside of its pack."""
        return {entry.digest: number for number, entry in self._sound(files)}

    def of(
        self, files: Sequence[Entry], wanted: Optional[Container[str]] = None
    ) -> dict[str, Place]:  # fmt: skip
        """By content where it lies, for the digests `wanted` or all. Raises Mismatch as `held`."""
        found: dict[str, Place] = {}
        rows = self.rows
        for number, (_, _, _, size, digest, _) in self._sound(files, wanted):
            pack = rows.packs[number] if size else NO_PACK  # whatever the row says: it needs none
            found[digest] = Place(pack, rows.offsets[number], size, rows.proofs[number])
        return found

    def _sound(
        self, files: Sequence[Entry], wanted: Optional[Container[str]] = None
    ) -> Iterator[tuple[int, Entry]]:  # fmt: skip
        rows = zip(files, self.rows.packs, self.rows.offsets)
        for number, (entry, pack, offset) in enumerate(rows):
            if wanted is not None and entry.digest not in wanted:
                continue
            if pack and offset + entry.size > self.packs[pack]:
                raise Mismatch("the build's index points outside of a pack.")
            if pack or not entry.size:
                yield number, entry


NO_INDEX = Index({}, Rows((), (), (), ()))


def _packs(text: bytes) -> tuple[list[str], dict[str, int], int]:
    """The packs that a text begins with: names by number, sizes, and where the rows begin. A pack
    may stand there twice: begun, and finished."""
    if not text.startswith(HEADER):
        raise Mismatch("the build's index is damaged or of an unknown format.")
    names: list[str] = []
    sizes: dict[str, int] = {}
    at = len(HEADER)
    while (match := _PACK.match(text, at, at + 64)) is not None and at < _MOST_PACKS_BYTES:
        names.append(match.group(1).decode())
        sizes[names[-1]] = int(match.group(2))
        at = match.end()
    return names, sizes, at


def _rows(fields: Sequence[bytes], names: Sequence[str]) -> Rows:
    """Column by column: a build may have 100,000 files."""
    tokens = {b"%d" % number: name for number, name in enumerate(names)} | {b"-": NO_PACK}
    try:
        packs = [tokens[field] for field in fields[0::4]]
        offsets, proofs, times = (_numbers(fields[column::4]) for column in (1, 2, 3))
    except (KeyError, ValueError):
        raise Mismatch("the build's index has a row that is none.") from None
    if not len(packs) == len(offsets) == len(proofs) == len(times):
        raise Mismatch("the build's index has a row that is cut off.")
    for numbers, most in zip((offsets, proofs, times), _MOST):
        if numbers and not (min(numbers) >= 0 and max(numbers) < most):
            raise Mismatch("the build's index has a number that is out of range.")
    return Rows(packs, offsets, proofs, times)


def _numbers(fields: Sequence[bytes]) -> list[int]:
    """Equal fields become one number: most files of a build have one time and one proof."""
    different = set(fields)
    if max(map(len, different), default=0) > _MOST_DIGITS:  # reading long ones takes its square
        raise ValueError
    if len(different) * 2 > len(fields):
        return list(map(int, fields))
    known = {field: int(field) for field in different}
    return [known[field] for field in fields]


def opening(packs: Mapping[str, int]) -> bytes:
    """How the index begins: with packs that the rows may name."""
    return HEADER + _pack_lines(packs.items())


def closing(named: Sequence[tuple[str, int]], index: Index) -> bytes:
    """What completes a file that began with the packs `named`."""
    more = [pack for pack in index.packs.items() if pack not in named]
    numbers = {token: b"%d" % number for number, (token, _) in enumerate([*named, *more])}
    numbers[NO_PACK] = b"-"
    rows = index.rows
    lines = (
        b"%b %d %d %d\n" % (numbers[pack], at, proved, time)
        for pack, at, proved, time in zip(rows.packs, rows.offsets, rows.proofs, rows.times)
    )
    parts = iter(
        lambda: b"".join(islice(lines, _PART_ROWS)), b""
    )  # not all lines in memory at once
    return _pack_lines(more) + b"".join(parts)


def _pack_lines(packs: Iterable[tuple[str, int]]) -> bytes:
    return b"".join(b"pack %s %d\n" % (token.encode(), size) for token, size in packs)


def read_index(disk: Disk, build: int, files: int) -> Index:
    """The index of the build folder open as `build`, of `files` files. Raises Mismatch, also when
    there is none."""
    return Index.parse(_read(disk, build, _MOST_PACKS_BYTES + files * _MOST_ROW_BYTES), files)


def packs_named(disk: Disk, build: int, *, complete: bool) -> set[str]:
    """The packs that the index in an open folder names: those of its rows when it is `complete`,
    else all that it begins with, as far as it was written. Raises Mismatch when a complete one
    cannot be read."""
    try:
        text = _read(disk, build, MAX_INDEX_BYTES)
        names, _, at = _packs(text)
    except Mismatch:
        if complete:
            raise
        return set()
    if not complete:
        return set(names)
    try:
        return {names[number] for number in _first_fields(text, at, len(names))}
    except IndexError:
        raise Mismatch("the build's index names a pack that it does not list.") from None


def _first_fields(text: bytes, at: int, listed: int) -> set[int]:
    """The pack numbers that rows begin with, where the first `listed` ones have names. Also of rows
    that are damaged otherwise."""
    before = at - 1  # the end of the line before the rows
    known = b"|".join(b"%d " % number for number in range(listed))
    if re.compile(rb"\n(?!%b|- |\Z)" % (known or b"- ")).search(text, before) is None:
        return {number for number in range(listed) if text.find(b"\n%d " % number, before) >= 0}
    return {int(field) for field in _FIRST_FIELD.findall(text, at)}


def _read(disk: Disk, build: int, most: int) -> bytes:
    try:
        return read_file(disk, b"index", build, most=most)
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        raise Mismatch("the build's index is missing or no file.") from None
