"""Publish: a scanned source becomes a build in the store.

The order is the promise. Content and manifest are written into incoming/ and made durable; then a
sequence number is taken; then times, index and build.json are written; then one rename puts the
folder into builds/. Before that rename nobody can see the build, after it nobody can see less than
all of it. Whatever dies on the way leaves only things that no build names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from typing import Optional

from moorline.build import Build, BuildId
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch
from moorline.files import read_file, remove_tree, replace_file, write_file
from moorline.layout import Base, Beat, Draft, Times, Written, file_times
from moorline.layout.index import read_index
from moorline.layout.pack import PackDraft
from moorline.layout.tree import TreeDraft
from moorline.manifest import MAX_MANIFEST_BYTES, Manifest
from moorline.scan import Progress, Source, no_progress
from moorline.store import OpenBuild, Store, times_text
from moorline.verifying import Verified

BEAT_S = 20.0


@dataclass(frozen=True)
class Published:
    """What a publish did: `already` when the same build was there; contents `repaired` are in
    `written`."""

    build: Build
    written: Written
    already: bool = False


@dataclass(frozen=True)
class Reservation:
    """A publish in flight: its folder in incoming/, open; `started` by the store's clock."""

    id: BuildId
    token: str
    folder: int
    alive: int
    started: int

    @property
    def name(self) -> str:
        return f"{self.id}.{self.token}"


class Publisher:
    """Writes builds into one open store."""

    def __init__(self, store: Store, progress: Progress = no_progress) -> None:
        self.store = store
        self.disk: Disk = store.disk
        self.progress = progress

    def publish(
        self, source: Source, id: BuildId, *, revision: str = "", tool: str = ""
    ) -> Published:
        """Store `source` as build `id`, or complete and repair the one that is there.

        Raises Conflict when `id` has other content.
        """
        if id in self.store.ids():
            return self._complete(source, id, revision, tool)
        reservation = self._reserve(id)
        try:
            build: Optional[Build]
            build, written = self._write(reservation, source, revision, tool)
            try:
                self._commit(reservation)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                build = None  # another publish was faster
        except BaseException:
            self._abandon(reservation)
            raise
        if build is None:
            self._abandon(reservation)
            return self._complete(source, id, revision, tool)
        self._tidy(reservation)
        return Published(build, written)

    def _reserve(self, id: BuildId) -> Reservation:
        token = self.disk.token()
        name = f"{id}.{token}"
        with self.store.folder(b"incoming") as incoming:
            self.disk.make_directory(name, 0o755, incoming)
            folder = -1
            try:
                folder = self.disk.open_directory(name, incoming)
                alive = self.disk.create(b"alive", 0o644, folder)
            except BaseException:
                if folder >= 0:
                    os.close(folder)
                with contextlib.suppress(OSError):
                    self.disk.remove_directory(name, incoming)
                raise
        return Reservation(id, token, folder, alive, int(os.fstat(alive).st_mtime))

    def _beat(self, reservation: Reservation) -> Beat:
        last = time.monotonic()

        def beat() -> None:
            nonlocal last
            if time.monotonic() - last > BEAT_S:
                last = time.monotonic()
                self.disk.set_times(reservation.alive)

        return beat

    def _write(
        self, reservation: Reservation, source: Source, revision: str, tool: str
    ) -> tuple[Build, Written]:
        """Everything but the rename; durable when this returns."""
        opened = self.store.newest()
        try:
            base = opened.base() if opened else None
            last = opened.build.created if opened else 0
            manifest = source.manifest
            times = file_times(manifest, base, max(reservation.started, last + 1))
            draft = self._draft(reservation, source, base, times)
            written = draft.write(self.progress)
            write_file(self.disk, b"manifest", manifest.text, reservation.folder)
            sequence, created = self._take_ticket(reservation, last)
            times = file_times(manifest, base, created)
            draft.finish(times)
        finally:
            if opened is not None:
                opened.close()
        build = _build(reservation.id, source, sequence, reservation.token, created, revision, tool)
        write_file(self.disk, b"times", times_text(manifest, times), reservation.folder)
        write_file(self.disk, b"build.json", build.text(), reservation.folder)
        self.disk.sync(reservation.folder)
        return build, written

    def _draft(
        self, reservation: Reservation, source: Source, base: Optional[Base], times: Times,
        distrust: frozenset[str] = frozenset(),
    ) -> Draft:  # fmt: skip
        beat = self._beat(reservation)
        if self.store.layout == "tree":
            return TreeDraft(self.disk, reservation.folder, source, base, times, beat)
        return PackDraft(
            self.disk, self.store.root, reservation.folder, reservation.token, source, base,
            reservation.started, beat, distrust,
        )  # fmt: skip

    def _commit(self, reservation: Reservation) -> None:
        """The one moment at which a build begins to exist."""
        with self.store.folder(b"incoming") as incoming, self.store.folder(b"builds") as builds:
            self.disk.rename(reservation.name, reservation.id, incoming, builds)
            self.disk.sync(builds)
            self.disk.sync(incoming)

    def _tidy(self, reservation: Reservation) -> None:
        """Notes of the publish that nobody needs once the build is there."""
        os.close(reservation.alive)
        try:
            for name in (b"alive", b"uses", b"ticket"):
                with contextlib.suppress(OSError):
                    self.disk.unlink(name, reservation.folder)
        finally:
            os.close(reservation.folder)

    def _abandon(self, reservation: Reservation) -> None:
        """Take an unfinished publish away, as well as it goes; a cleaner does the rest."""
        os.close(reservation.alive)
        try:
            with contextlib.suppress(OSError):
                self._throw_away(reservation, pack=self.store.layout == "pack")
        finally:
            os.close(reservation.folder)

    def _throw_away(self, reservation: Reservation, *, pack: bool = False) -> None:
        """Remove the folder of a publish, and its pack. The heartbeat must be closed: of a file
        that is open NFS keeps a hidden one, and the folder would not go."""
        name = f"{reservation.name}.{reservation.started}.deleting"
        with self.store.folder(b"incoming") as incoming, self.store.folder(b"trash") as trash:
            self.disk.rename(reservation.name, name, incoming, trash)
            if pack:
                with contextlib.suppress(FileNotFoundError), self.store.folder(b"packs") as packs:
                    self.disk.unlink(reservation.token, packs)
            remove_tree(self.disk, os.fsencode(name), trash)

    def _complete(self, source: Source, id: BuildId, revision: str, tool: str) -> Published:
        """The same build again: verify what is stored, and mend it from the source."""
        repaired = 0
        try:
            opened = self.store.open_build(id)
        except Mismatch as error:
            self._restore_record(source, id, revision, tool, error)
            opened, repaired = self.store.open_build(id), 1
        with opened:
            _refuse_other_content(id, opened.build.digest, source)
            repaired += self._mend(opened, source)
        files = len(source.manifest.files)
        return Published(opened.build, Written(0, 0, files, repaired), already=True)

    def _restore_record(
        self, source: Source, id: BuildId, revision: str, tool: str, damage: Mismatch
    ) -> None:
        """Write build.json anew: the manifest says whether it is the same content, the ticket of
        the build's publish says the rest. Raises `damage` when they do not."""
        with self.store.folder(b"builds") as builds:
            try:
                folder = self.disk.open_directory(id, builds)
            except OSError:
                raise damage from None
        try:
            try:
                manifest = Manifest.parse(
                    read_file(self.disk, b"manifest", folder, most=MAX_MANIFEST_BYTES)
                )
            except (OSError, Mismatch):
                raise damage from None
            _refuse_other_content(id, manifest.digest, source)
            tickets = ((n, self.store.read_ticket(n)) for n, _ in self.store.tickets())
            mine = ((n, ticket) for n, ticket in tickets if ticket is not None and ticket[1] == id)
            sequence, ticket = next(mine, (0, None))
            if ticket is None:
                raise damage
            build = _build(id, source, sequence, ticket[0], ticket[2], revision, tool)
            replace_file(self.disk, b"build.json", build.text(), folder, self.disk.token())
        finally:
            os.close(folder)

    def _mend(self, opened: OpenBuild, source: Source) -> int:
        times = opened.times(source.manifest)
        reservation = None
        repaired = 0
        try:
            try:
                opened.manifest()
            except Mismatch:
                replace_file(
                    self.disk, b"manifest", source.manifest.text, opened.folder, self.disk.token()
                )
                repaired += 1
            verified = opened.verify(source.manifest, self.progress)
            if verified.problems:
                reservation = self._reserve(opened.build.id)
                repaired += self._repair(reservation, opened, source, verified, times)
        finally:
            if reservation is not None:
                self._leave(reservation, opened)
        return repaired

    def _repair(
        self, reservation: Reservation, opened: OpenBuild, source: Source, verified: Verified,
        times: Times,
    ) -> int:  # fmt: skip
        bad = {problem.path for problem in verified.problems}
        distrust = frozenset(e.digest for e in source.manifest.files if e.shown in bad)
        base = Base(opened.folder, source.manifest, times)
        draft = self._draft(reservation, source, base, times, distrust)
        return opened.reader().repair(draft, verified)

    def _leave(self, reservation: Reservation, opened: OpenBuild) -> None:
        """Remove the folder of a repair; its pack only when the repair did not come to use it."""
        os.close(reservation.alive)
        try:
            with contextlib.suppress(OSError, Mismatch):
                unused = self.store.layout == "pack" and (
                    reservation.token not in read_index(self.disk, opened.folder).packs
                )
                self._throw_away(reservation, pack=unused)
        finally:
            os.close(reservation.folder)

    def _take_ticket(self, reservation: Reservation, last: int) -> tuple[int, int]:
        """A sequence number that nobody else has, and a time later than all before it.

        The text is complete before the name exists (a hard link to it), so whoever meets the name
        can read it; and a link that reports EEXIST after it had succeeded is recognised.
        """
        for _ in range(1000):
            highest = self.store.tickets()[:1]
            number = highest[0][0] + 1 if highest else 1
            before = self.store.read_ticket(highest[0][0]) if highest else None
            created = max(reservation.started, last + 1, before[2] + 1 if before else 0)
            text = f"{reservation.token} {reservation.id} {created}\n".encode()
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(b"ticket", reservation.folder)
            write_file(self.disk, b"ticket", text, reservation.folder)
            with self.store.folder(b"sequence") as sequence:
                try:
                    self.disk.hard_link(b"ticket", b"%d" % number, reservation.folder, sequence)
                except FileExistsError:
                    mine = self.store.read_ticket(number)
                    if mine is None or mine[0] != reservation.token:
                        continue
                self.disk.sync(sequence)
            return number, created
        raise Error("no sequence number to be had: too many publishes at once. Try again.")


def _build(
    id: BuildId, source: Source, sequence: int, token: str, created: int, revision: str, tool: str
) -> Build:
    build = Build(
        id=id,
        digest=source.manifest.digest,
        manifest_bytes=len(source.manifest.text),
        sequence=sequence,
        token=token,
        created=created,
        files=len(source.manifest.files),
        size_bytes=source.manifest.size_bytes,
        revision=revision,
        tool=tool,
    )
    return Build.parse(build.text(), "build.json")  # nothing is published that nobody can read


def _refuse_other_content(id: BuildId, digest: str, source: Source) -> None:
    if digest != source.manifest.digest:
        raise Conflict(
            f"build {id} exists with other content (digest {digest[:12]}, not "
            f"{source.manifest.digest[:12]}). A published build never changes: choose another id."
        )
