"""Layout pack: what is new goes into one large file, whatever the number of files.

packs/<token>              contents one after another, written once, never changed
builds/<id>/index          where each content of the build lies: see `layout.index`
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from typing import Callable, Optional

from moorline.aside import Aside
from moorline.disk import DAMAGE, Descent, Disk
from moorline.errors import Mismatch, Problem
from moorline.files import move_over, write_file, written
from moorline.layout import Base, Beat, Draft, Times, Written, missing
from moorline.layout.index import INDEX_DAMAGED, NO_PACK, Index, Place, Rows
from moorline.layout.pack_check import GAP_BYTES, READ_BYTES, open_pack
from moorline.manifest import Entry
from moorline.packing import PackUse, to_fold
from moorline.scan import Progress, Source, no_progress, source_content
from moorline.verifying import Verified

WRITE_BYTES = 2 << 20  # of which the last is written meanwhile
REVERIFY_S = 7 * 86400


class PackDraft:
    """Writes the contents that no kept pack holds into packs/<token>.

    `packs` and `staging` are open directories; `base` is the newest build, or None, whose packs the
    index in `staging` names by now: so a pack that is found stays. `now` is in seconds by the
    store's clock. `distrust` are digests not to take over from the base.
    """

    def __init__(
        self, disk: Disk, packs: int, staging: int, token: str, source: Source,
        base: Optional[Base], now: int, beat: Beat, distrust: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.disk = disk
        self.packs = packs
        self.staging = staging
        self.token = token
        self.source = source
        self.now = now
        self.beat = beat
        self.times: Times = {}
        self.repaired = 0
        self.wanted = {entry.digest: entry for entry in source.manifest.files}
        self._base = base or Base(staging)
        self._distrust = distrust

    def write(self, progress: Progress) -> Written:
        held = self._held(progress)
        new = [digest for digest in self.wanted if digest not in held]
        new_bytes = sum(self.wanted[digest].size for digest in new)
        uses = _uses(self._base.packs, held)
        folded = to_fold(uses, new_bytes)
        moving = new + [digest for digest, place in held.items() if place.pack in folded]
        packs = {use.token: use.size for use in uses if use.token not in folded}
        places = self._write_pack(moving, progress)
        size = max((place.offset + place.length for place in places.values()), default=0)
        if size:
            packs[self.token] = size
        held.update(places)
        self._packs, self._places = packs, held
        fresh = set(new)
        new_files = sum(entry.digest in fresh for entry in self.source.manifest.files)
        taken = len(self.source.manifest.files) - new_files
        return Written(new_files, size, taken, self.repaired)

    def finish(self, times: Times) -> Index:
        files = self.source.manifest.files
        places = [self._places[entry.digest] for entry in files]
        rows = Rows(
            (place.pack for place in places),
            (place.offset for place in places),
            (place.proved for place in places),
            (times[entry.path] for entry in files),
        )
        return Index(self._packs, rows)

    def _held(self, progress: Progress) -> dict[str, Place]:
        """What the base's packs hold of this build: present, long enough, and proved lately."""
        with Packs(self.disk, self.packs) as packs:
            sizes = self._base.packs
            whole = {token: size for token, size in sizes.items() if packs.size(token) >= size}
            whole[NO_PACK] = 0
            found: dict[str, Place] = {}
            stale, oldest = [], self.now - REVERIFY_S
            for digest, place in self._base.places(self.wanted):
                pack, offset, length, proved = place
                if offset + length > whole.get(pack, -1) or digest in self._distrust:
                    self.repaired += 1
                    continue
                found[digest] = place
                if not oldest < proved <= self.now:
                    stale.append(digest)
            self._base.numbers = {}  # not needed any more, and 16 MB for 100,000 files
            return self._prove(packs, found, stale, progress)

    def _prove(
        self, packs: Packs, found: dict[str, Place], stale: list[str], progress: Progress
    ) -> dict[str, Place]:
        """Read what was not read for `REVERIFY_S`; what is damaged will be written anew."""
        total, done = sum(found[digest].length for digest in stale), 0
        places = [(found[digest], digest) for digest in stale]
        for files, (digest, chunks) in enumerate(packs.contents(places), 1):
            self.beat()
            if _digest_of(chunks) == digest:
                found[digest] = found[digest]._replace(proved=self.now)
            else:
                del found[digest]
                self.repaired += 1
            done += self.wanted[digest].size
            progress(done, total, "proving what the store holds", files)
        return found

    def _write_pack(self, digests: list[str], progress: Progress) -> dict[str, Place]:
        """Contents from the source into packs/<token>, hashed as they are written."""
        entries = sorted(self.wanted[digest] for digest in digests)
        empty = {e.digest: Place(NO_PACK, 0, 0, self.now) for e in entries if not e.size}
        entries = [entry for entry in entries if entry.size]
        if not entries:
            return empty
        total = sum(entry.size for entry in entries)
        pack = self.disk.create(self.token, 0o644, self.packs, private=True)
        with (
            written(self.disk, pack) as fd,
            Descent(self.disk, os.fsencode(self.source.root)) as descent,
            Aside(self.disk) as aside,
        ):
            writer = _PackWriter(self.disk, fd, aside)
            places = {}
            for entry in entries:
                self.beat()
                offset = writer.offset
                for chunk in source_content(self.disk, descent, entry):
                    writer.add(chunk)
                places[entry.digest] = Place(self.token, offset, entry.size, self.now)
                progress(writer.offset, total, "writing", len(places))
            writer.finish()
            self.disk.sync(fd)
        self.disk.sync(self.packs)
        return {**empty, **places}


class _PackWriter:
    """Gathers small contents into large writes, one of which may be under way."""

    def __init__(self, disk: Disk, fd: int, aside: Aside) -> None:
        self.disk = disk
        self.fd = fd
        self.offset = 0
        self._aside = aside
        self._written: Callable[[], None] = lambda: None
        self._held: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._held.append(chunk)
        self._size += len(chunk)
        self.offset += len(chunk)
        if self._size >= WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._written()
        data, self._held, self._size = b"".join(self._held), [], 0
        self._written = self._aside.begin(partial(self.disk.write, self.fd, data))

    def finish(self) -> None:
        """All is written when this returns."""
        if self._held:
            self._flush()
        self._written()


def _uses(packs: Mapping[str, int], held: dict[str, Place]) -> list[PackUse]:
    live = dict.fromkeys([*packs, NO_PACK], 0)
    for place in held.values():
        live[place.pack] += place.length
    return [PackUse(token, size, live[token]) for token, size in packs.items() if live[token]]


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
        self, disk: Disk, packs: int, build: int,
        locate: Callable[[Container[str]], dict[str, Place]],
    ) -> None:  # fmt: skip
        self.disk = disk
        self.packs = packs
        self.build = build
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

    def repair(self, draft: Draft, verified: Verified, times: Times) -> int:
        draft.write(no_progress)
        index = draft.finish(times)
        write_file(self.disk, b"repaired", index.text, draft.staging, private=True)
        token = self.disk.token()
        move_over(self.disk, b"repaired", b"index", draft.staging, self.build, token)
        self.disk.sync(self.build)
        self.disk.sync(draft.staging)
        return len(verified.problems)


def _digest_of(chunks: Iterable[bytes]) -> str:
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()
