"""Layout pack, written: contents that no kept pack holds become one more pack."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from moorline.aside import Aside
from moorline.disk import Descent, Disk
from moorline.files import move_over, write_file, written
from moorline.layout import Times
from moorline.layout.draft import Base, Beat, Written
from moorline.layout.index import NO_PACK, Index, Place, Rows
from moorline.layout.pack import Packs
from moorline.packing import PackUse, to_fold
from moorline.progress import Progress, no_progress
from moorline.source import Source, source_content
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
        base: Base | None, now: int, beat: Beat, distrust: frozenset[str] = frozenset(),
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
        columns = tuple(zip(*(self._places[e.digest] for e in files), strict=True))
        packs, offsets, _, proofs = columns or ((), (), (), ())
        return Index(self._packs, Rows(packs, offsets, proofs, (times[e.path] for e in files)))

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

    def repair(self, build: int, verified: Verified, times: Times) -> int:
        """One more pack with what is wrong in the build, and an index that names it."""
        self.write(no_progress)
        index = self.finish(times)
        write_file(self.disk, b"repaired", index.text, self.staging, private=True)
        move_over(self.disk, b"repaired", b"index", self.staging, build, self.disk.token())
        self.disk.sync(build)
        self.disk.sync(self.staging)
        return len(verified.problems)


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


def _digest_of(chunks: Iterable[bytes]) -> str:
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()
