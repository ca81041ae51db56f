"""The same build published again: what is stored of it is verified, and mended from the source."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from moorline.build import Build, BuildId
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch
from moorline.files import move_over, replace_file
from moorline.layout import Times, read_manifest
from moorline.layout.draft import Base, Written, base_of
from moorline.layout.index import packs_named, read_index
from moorline.layout.tree_draft import tree_index
from moorline.ledger.directory import DirectoryLedger
from moorline.manifest import STORED, Manifest, compressed
from moorline.progress import Progress, no_progress
from moorline.reserving import Reservation, draft_of, planned_build
from moorline.source import Source
from moorline.store import OpenBuild, Store
from moorline.succession import newest
from moorline.verifying import Verified


@dataclass(frozen=True)
class Published:
    """What a publish did: `already` when the same build was there; contents `repaired` are in
    `written`."""

    build: Build
    written: Written
    already: bool = False


class Repair:
    """Completes builds of one open store."""

    def __init__(self, store: Store, progress: Progress = no_progress) -> None:
        self.store = store
        self.disk: Disk = store.disk
        self.progress = progress

    def complete(self, source: Source, id: BuildId, revision: str, tool: str) -> Published:
        """Verify what is stored and mend it from the source. Raises Conflict for other content."""
        repaired = 0
        try:
            opened = self._same_build(id, source)
        except Mismatch as error:
            self._restore_record(source, id, revision, tool, error)
            opened, repaired = self.store.open_build(id), 1
        with opened:
            _refuse_other_content(id, opened.build.digest, source)
            repaired += self._mend(opened, source)
            self._settle(opened)
        files = len(source.manifest.files)
        return Published(opened.build, Written(0, 0, files, repaired), already=True)

    def _same_build(self, id: BuildId, source: Source) -> OpenBuild:
        """The build. Raises Mismatch when its build.json is damaged: also when it names another
        content and the manifest beside it is the source's."""
        opened = self.store.open_build(id)
        if opened.build.digest != source.manifest.digest and _holds_manifest(opened, source):
            opened.close()
            raise Mismatch(f"{opened.path}/build.json and the manifest beside it differ.")
        return opened

    def _settle(self, opened: OpenBuild) -> None:
        """Whoever published or mended this build may have died before all of it was durable, and
        it is promised now."""
        if self.store.layout == "tree":
            self.disk.sync_all(opened.folder)
        self.disk.sync(opened.folder)
        self.disk.sync(self.store.folder(b"builds"))
        self.disk.sync(self.store.folder(b"incoming"))

    def _restore_record(
        self, source: Source, id: BuildId, revision: str, tool: str, damage: Mismatch
    ) -> None:
        """Write build.json anew, when the manifest says that it is the same content: from the
        ledger or the ticket; where they were damaged with it, which are the same file, the build
        gets a new number. Without a manifest these two have to say so, else this raises `damage`.
        """
        try:
            folder = self.disk.open_directory(id, self.store.folder(b"builds"))
        except OSError:
            raise damage from None
        try:
            digest = self._digest_of_manifest(folder)
            if digest:
                _refuse_other_content(id, digest, source)
            build = self._remembered(id, source.manifest.digest)
            if build is None and not digest:
                raise damage
            if build is not None:
                replace_file(self.disk, b"build.json", build.text(), folder, self.disk.token())
            else:
                self._number_anew(source, id, revision, tool, folder)
        finally:
            os.close(folder)

    def _digest_of_manifest(self, folder: int) -> str:
        """What the manifest in a build's folder stands for; empty when there is none."""
        with contextlib.suppress(OSError, Mismatch):
            return Manifest.parse(read_manifest(self.disk, folder)).digest
        return ""

    def _remembered(self, id: BuildId, digest: str) -> Build | None:
        """What the ledger or a ticket says of a build."""
        with contextlib.suppress(Error):
            build = DirectoryLedger(self.disk, self.store.root).build(id)
            if build is not None and build.digest == digest:
                return build
        tickets = map(self.store.read_ticket, self.store.tickets())
        mine = (t for t in tickets if t is not None and (t.id, t.digest) == (id, digest))
        return next(mine, None)

    def _number_anew(
        self, source: Source, id: BuildId, revision: str, tool: str, folder: int
    ) -> None:
        reservation = Reservation(self.store, id, {})
        try:
            planned = planned_build(id, source, reservation.token, revision, tool)
            reservation.take_ticket(planned, newest(self.store, ()))
            token = self.disk.token()
            move_over(
                self.disk, b"build.json", b"build.json", reservation.folder, folder, token
            )  # fmt: skip
            self.disk.sync(folder)
        finally:
            reservation.abandon()

    def _mend(self, opened: OpenBuild, source: Source) -> int:
        times = opened.times(source.manifest)
        reservation = None
        repaired = 0
        try:
            try:
                opened.manifest()
            except Mismatch:
                text = compressed(source.manifest.text)
                replace_file(self.disk, STORED, text, opened.folder, self.disk.token())
                repaired += 1
            if self.store.layout == "tree" and not opened.has_index(source.manifest):
                text = tree_index(source.manifest, times).text
                replace_file(self.disk, b"index", text, opened.folder, self.disk.token())
                repaired += 1
            verified = opened.verify(source.manifest, self.progress)
            if verified.problems:
                base = self._itself(opened, source)
                reservation = Reservation(self.store, opened.build.id, base.packs)
                repaired += self._repair(reservation, opened, source, base, verified, times)
        finally:
            if reservation is not None:
                self._leave(reservation, opened)
        return repaired

    def _itself(self, opened: OpenBuild, source: Source) -> Base:
        """A damaged build as what its own repair takes over from."""
        try:
            index = read_index(self.disk, opened.folder, len(source.manifest.files))
            index.of(source.manifest.files)  # one row outside of its pack: none is believed
            return base_of(opened.folder, source.manifest.text, index)
        except Mismatch:
            return Base(opened.folder)

    def _repair(
        self, reservation: Reservation, opened: OpenBuild, source: Source, base: Base,
        verified: Verified, times: Times,
    ) -> int:  # fmt: skip
        bad = {problem.path for problem in verified.problems}
        distrust = frozenset(e.digest for e in source.manifest.files if e.shown in bad)
        draft = draft_of(reservation, source, base, times, opened.build.created, distrust)
        return draft.repair(opened.folder, verified, times)

    def _leave(self, reservation: Reservation, opened: OpenBuild) -> None:
        """Remove the folder of a repair; its pack only when the repair did not come to use it."""
        with contextlib.closing(reservation), contextlib.suppress(OSError, Mismatch):
            unused = self.store.layout == "pack" and (
                reservation.token not in packs_named(self.disk, opened.folder, complete=True)
            )
            reservation.throw_away(pack=unused)


def _holds_manifest(opened: OpenBuild, source: Source) -> bool:
    try:
        opened.manifest(source.manifest.digest)
    except Mismatch:
        return False
    return True


def _refuse_other_content(id: BuildId, digest: str, source: Source) -> None:
    if digest != source.manifest.digest:
        raise Conflict(
            f"build {id} exists with other content (digest {digest[:12]}, not "
            f"{source.manifest.digest[:12]}). A published build never changes: choose another id."
        )
