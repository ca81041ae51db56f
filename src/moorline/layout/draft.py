"""What a publish writes into a store, and what it takes over from the build before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from moorline.disk import Disk
from moorline.errors import Mismatch
from moorline.layout import Times, read_manifest
from moorline.layout.index import NO_INDEX, NO_PACK, Index, Place, place_of, read_index
from moorline.lines import file_lines, same_files
from moorline.manifest import HEADER, MAX_ENTRIES, Entry, Manifest
from moorline.progress import Progress
from moorline.source import Source
from moorline.verifying import Verified

_MOST_BASE_BYTES = 64 << 20  # of a manifest: a larger build is not taken over from


@dataclass(frozen=True)
class Written:
    """What a publish wrote, and what it took over from earlier builds."""

    new_files: int
    new_bytes: int
    linked_files: int
    repaired: int = 0


class Draft(Protocol):
    """A build being written into the open folder `staging`; `write` first, then `finish`."""

    staging: int
    source: Source
    times: Times

    def write(self, progress: Progress) -> Written: ...

    def finish(self, times: Times) -> Index:
        """Give the files their final times; what the index says of them."""
        ...

    def repair(self, build: int, verified: Verified, times: Times) -> int:
        """Write what `verified` found damaged in the build open as `build` anew; returns how many
        that were. In place of `write` and `finish`."""
        ...


Beat = Callable[[], None]
"""Called now and then during long work, so that others see that the publish is alive."""


@dataclass
class Base:
    """A build which another takes over from: its open folder, the text of its manifest, its index,
    and for each content a number of a file that has it.

    Nothing of it is trusted: a line of the manifest counts only where the new build has the very
    same, and a content only as far as it was proved. So lines are not parsed any further.
    """

    folder: int
    manifest: bytes = b""
    index: Index = NO_INDEX
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def packs(self) -> Mapping[str, int]:
        return self.index.packs

    def places(self, wanted: Mapping[str, Entry]) -> Iterator[tuple[str, Place]]:
        """Where contents lie by the index, of those that are `wanted`: files by their digest."""
        numbers, sizes = self.numbers, self.packs
        rows = self.index.rows
        packs, offsets, proofs = rows.packs, rows.offsets, rows.proofs
        for digest, (_, _, _, size, _, _) in wanted.items():
            at = numbers.get(digest)
            if at is None:
                continue
            pack, offset = packs[at], offsets[at]
            if not size:  # whatever the row says: it has no need of one
                yield digest, place_of((NO_PACK, 0, 0, proofs[at]))
            elif pack and offset + size <= sizes[pack]:  # else it is nowhere
                yield digest, place_of((pack, offset, size, proofs[at]))


def base_of(folder: int, manifest: bytes, index: Index) -> Base:
    """What these two files of the build in `folder` say. Raises Mismatch when it is not sound."""
    digests = (line.split(b" ", 4)[3].decode("ascii") for line in file_lines(manifest))
    try:
        numbers = {digest: number for number, digest in enumerate(digests)}
    except (IndexError, ValueError):
        raise Mismatch("the newest build's manifest is none.") from None
    return Base(folder, manifest, index, numbers)


def read_base(disk: Disk, folder: int, digest: str) -> Base:
    """The build in the open `folder`. Raises Mismatch when its manifest has another digest, or its
    index does not fit."""
    manifest = read_manifest(disk, folder, _MOST_BASE_BYTES)
    sound = manifest.startswith(HEADER) and manifest.count(b"\n") <= MAX_ENTRIES + 1
    if not sound or hashlib.sha256(manifest).hexdigest() != digest:
        raise Mismatch("the newest build's manifest is damaged.")
    files = manifest.count(b"\nf ")
    return base_of(folder, manifest, read_index(disk, folder, files))


def kept_times(manifest: Manifest, base: Base | None) -> Times:
    """The times of the files that the base build holds under the same path, with the same content
    and mode: of those whose lines in both manifests are the same.

    Only these keep their time and may be linked. A content that moved to another path does not take
    its time along: that path may have had other content of the same size and time in an earlier
    build, and a browser that saw it would be told "304 Not Modified". Changed content never keeps
    its time, for the same reason: nginx tells versions apart by time and size.
    """
    if base is None:
        return {}
    times = base.index.rows.times
    pairs = zip(manifest.files, same_files(manifest, base.manifest), strict=True)
    kept = {entry.path: times[number] for entry, number in pairs if number >= 0}
    base.manifest = b""  # not needed any more, and 12 MB for 100,000 files
    return kept


def all_times(manifest: Manifest, kept: Times, created: int) -> Times:
    """The time of each file: the one that it keeps, else the build's `created`."""
    return {entry.path: kept.get(entry.path, created) for entry in manifest.files}
