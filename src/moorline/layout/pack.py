"""Layout pack: what is new goes into one large file, whatever the number of files.

packs/<token>              contents one after another, written once, never changed
builds/<id>/index          where each content of the build lies: see `layout.index`

Reading them; `pack_draft` writes one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator
from functools import partial
from typing import Callable

from moorline.aside import Aside
from moorline.disk import DAMAGE, Disk
from moorline.errors import Mismatch, Problem
from moorline.layout import missing
from moorline.layout.index import INDEX_DAMAGED, Place
from moorline.layout.pack_check import GAP_BYTES, READ_BYTES, open_pack
from moorline.manifest import Entry


class Packs:
    """The packs in the open directory `packs`, each opened once."""

    def __init__(self, disk: Disk, packs: int) -> None:
        self.disk = disk
        self.directory = packs
        self._aside = Aside(disk)
        self._open: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Packs:
        return self

    def __exit__(self, *_: object) -> None:
        self._aside.close()
        for fd, _size in self._open.values():
            if fd >= 0:
                os.close(fd)

    def size(self, token: str) -> int:
        """The bytes of a pack; -1 when it is missing or no file. It is not opened for that."""
        if token in self._open:
            return self._open[token][1]
        try:
            status = self.disk.stat(token, self.directory)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def _opened(self, token: str) -> tuple[int, int]:
        if token not in self._open:
            self._open[token] = open_pack(self.disk, self.directory, token)
        return self._open[token]

    def contents(
        self, wanted: Iterable[tuple[Place, str]]
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        """(digest, its bytes) for each place, in the order of the packs: large sequential reads."""
        places = sorted(wanted)
        for at, (place, digest) in enumerate(places):
            if not place.pack:
                yield digest, iter(())
                continue
            if at == 0 or places[at - 1][0].pack != place.pack:
                fd, size = self._opened(place.pack)
                ends = _run_ends([p for p, _ in places[at:] if p.pack == place.pack])
                window = _Window(self.disk, fd, self._aside)
                first = at
            if size < place.offset + place.length:
                yield digest, iter(())
                continue
            yield digest, window.read(place.offset, place.length, ends[at - first])


def _run_ends(places: list[Place]) -> list[int]:
    """For each place the end of its run: neighbours that are worth one sequential read."""
    ends = [0] * len(places)
    end = 0
    for i in range(len(places) - 1, -1, -1):
        place = places[i]
        here = place.offset + place.length
        if i + 1 == len(places) or places[i + 1].offset > here + GAP_BYTES:
            end = here
        ends[i] = max(end, here)
        end = ends[i]
    return ends


class _Window:
    """Reads ahead in one pack, up to the end of the run that the caller wants."""

    def __init__(self, disk: Disk, fd: int, aside: Aside) -> None:
        self.disk = disk
        self.fd = fd
        self._aside = aside
        self._start = 0
        self._data = b""
        self._ahead: tuple[int, Callable[[], bytes]] = (-1, bytes)

    def read(self, offset: int, length: int, run_end: int) -> Iterator[bytes]:
        """The bytes from `offset`; fewer than `length` when the file ends early."""
        while length > 0:
            inside = offset - self._start
            if not 0 <= inside < len(self._data):
                self._start, self._data = offset, b""
                self._data = self._taken(offset, run_end)
                if not self._data:
                    return
                continue
            chunk = self._data[inside : inside + length]
            offset += len(chunk)
            length -= len(chunk)
            yield chunk

    def _taken(self, offset: int, run_end: int) -> bytes:
        """What was read ahead, or is read now; and the next is begun."""
        begun, outcome = self._ahead
        data = outcome() if begun == offset else self._begin(offset, run_end)()
        after = offset + len(data)
        more = data and after < run_end
        self._ahead = (after, self._begin(after, run_end)) if more else (-1, bytes)
        return data

    def _begin(self, offset: int, run_end: int) -> Callable[[], bytes]:
        size = max(1, min(READ_BYTES, run_end - offset))
        return self._aside.begin(partial(self.disk.read, self.fd, size, offset))


class PackReader:
    """The contents of one published build; `locate` tells where they lie, or raises Mismatch."""

    def __init__(
        self, disk: Disk, packs: int, locate: Callable[[Container[str]], dict[str, Place]]
    ) -> None:
        self.disk = disk
        self.packs = packs
        self._locate = locate

    def contents(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        wanted = {entry.digest: entry for entry in entries}
        held, places = self._known(wanted), []
        for digest, entry in wanted.items():
            place = held.get(digest)
            if place is None or place.length != entry.size:
                yield entry, missing(entry, "missing from the build's index")
            else:
                places.append((place, digest))
        with Packs(self.disk, self.packs) as packs:
            for digest, chunks in packs.contents(places):
                yield wanted[digest], chunks

    def _known(self, digests: Container[str]) -> dict[str, Place]:
        """The places, for whoever needs them. Raises Mismatch with the cure."""
        try:
            return self._locate(digests)
        except Mismatch as error:
            raise Mismatch(
                f"{error.message} Publish the same build again: that repairs it.",
                problems=[Problem(".", INDEX_DAMAGED)],
            ) from None
