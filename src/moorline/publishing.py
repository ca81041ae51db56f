"""Publish: a scanned source becomes a build in the store.

The order is the promise. Content and manifest are written into incoming/ and made durable; then a
sequence number is taken; then the index is completed; then one rename puts the folder into builds/.
Before that rename nobody can see the build, after it nobody can see less than all of it. Whatever
dies on the way leaves only things that no build names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Optional

from moorline.build import Build, BuildId
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch, NotFound
from moorline.files import move_over, read_file, remove_tree, replace_file, write_file, written
from moorline.layout import Base, Draft, Times, Written, all_times, base_of, kept_times
from moorline.layout.index import Index, closing, opening, packs_named, read_index
from moorline.layout.pack import PackDraft
from moorline.layout.tree import TreeDraft, tree_index
from moorline.ledger.directory import DirectoryLedger
from moorline.manifest import MAX_MANIFEST_BYTES, Manifest
from moorline.scan import Progress, Source, no_progress
from moorline.store import Newest, OpenBuild, Store
from moorline.verifying import Verified

BEAT_S = 20.0


@dataclass(frozen=True)
class Published:
    """What a publish did: `already` when the same build was there; contents `repaired` are in
    `written`."""

    build: Build
    written: Written
    already: bool = False


class Reservation:
    """A publish in flight: its folder in incoming/, open, and in it the index that it has begun.

    That names the packs `named`, which nobody removes then; its time is the heartbeat. `started` is
    when it was made, by the store's clock.
    """

    def __init__(self, store: Store, id: BuildId, packs: Mapping[str, int]) -> None:
        self.disk = store.disk
        self.token = self.disk.token()
        self.name = f"{id}.{self.token}"
        self.named = [(self.token, 0), *packs.items()]
        self._beaten = time.monotonic()
        incoming = store.folder(b"incoming")
        self.disk.make_directory(self.name, 0o755, incoming)
        self.folder = self._index = -1
        try:
            self.folder = self.disk.open_directory(self.name, incoming)
            self._index = self.disk.create(b"index", 0o644, self.folder, private=True)
            self.started = int(os.fstat(self._index).st_mtime)
            self.disk.write(self._index, opening(dict(self.named)))
            self.disk.sync(self._index)
        except BaseException:
            self.close()
            with contextlib.suppress(OSError):
                remove_tree(self.disk, os.fsencode(self.name), incoming)
            raise

    def beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten > BEAT_S:
            self._beaten = now
            self.disk.set_times(self._index)

    def complete(self, index: Index) -> None:
        """Append the rest of the index; durable when this returns."""
        with written(self.disk, self._index) as fd:
            self._index = -1
            self.disk.write(fd, closing(self.named, index))
            self.disk.sync(fd)

    def close(self) -> None:
        for fd in (self._index, self.folder):
            if fd >= 0:
                with contextlib.suppress(OSError):  # it would hide what went wrong first
                    os.close(fd)
        self._index = self.folder = -1


class Publisher:
    """Writes builds into one open store."""

    def __init__(self, store: Store, progress: Progress = no_progress) -> None:
        self.store = store
        self.disk: Disk = store.disk
        self.progress = progress
        self._ids: Optional[list[BuildId]] = None
        self._newest = Newest(0, 0)

    def look(self) -> None:
        """Read what the next build comes after: may be done while the source is hashed."""
        self.close()
        self._ids = self.store.ids()
        self._newest = self.store.newest(self._ids)

    def close(self) -> None:
        """Forget what was looked up."""
        if self._newest.base is not None:
            os.close(self._newest.base.folder)
        self._ids, self._newest = None, Newest(0, 0)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(
        self, source: Source, id: BuildId, *, revision: str = "", tool: str = ""
    ) -> Published:
        """Store `source` as build `id`, or complete and repair the one that is there.

        Raises Conflict when `id` has other content.
        """
        if self._ids is None:
            self.look()
        try:
            if id in (self._ids or ()):
                return self._complete(source, id, revision, tool)
            return self._publish(source, id, revision, tool)
        finally:
            self.close()

    def _publish(self, source: Source, id: BuildId, revision: str, tool: str) -> Published:
        base = self._newest.base
        reservation = Reservation(self.store, id, base.packs if base else {})
        try:
            planned = _planned(id, source, reservation.token, revision, tool)
            build, written = self._write(reservation, source, planned)
            committed = self._commit(reservation, build)
        except BaseException:
            self._abandon(reservation)
            raise
        if not committed:  # another publish was faster
            self._abandon(reservation)
            return self._complete(source, id, revision, tool)
        try:
            tickets = self.store.folder(b"sequence")
            DirectoryLedger(self.disk, self.store.root).adopt_build(build, tickets)
        finally:
            reservation.close()
        return Published(build, written)

    def _write(
        self, reservation: Reservation, source: Source, build: Build
    ) -> tuple[Build, Written]:
        """Everything but the rename; durable when this returns."""
        manifest, kept = source.manifest, kept_times(source.manifest, self._newest.base)
        expected = max(reservation.started, self._newest.created + 1)
        draft = self._draft(reservation, source, self._newest.base, kept, expected)
        written = draft.write(self.progress)
        write_file(self.disk, b"manifest", manifest.text, reservation.folder, private=True)
        build = self._take_ticket(reservation, build)
        reservation.complete(draft.finish(all_times(manifest, kept, build.created)))
        self.disk.sync(reservation.folder)
        return build, written

    def _draft(
        self, reservation: Reservation, source: Source, base: Optional[Base], kept: Times,
        created: int, distrust: frozenset[str] = frozenset(),
    ) -> Draft:  # fmt: skip
        if self.store.layout == "tree":
            return TreeDraft(
                self.disk, reservation.folder, source, base, kept, created, reservation.beat
            )
        return PackDraft(
            self.disk, self.store.folder(b"packs"), reservation.folder, reservation.token, source,
            base, reservation.started, reservation.beat, distrust,
        )  # fmt: skip

    def _commit(self, reservation: Reservation, build: Build) -> bool:
        """The one moment at which a build begins to exist. False when the id is taken by now."""
        incoming, builds = self.store.folder(b"incoming"), self.store.folder(b"builds")
        try:
            self.disk.rename(reservation.name, build.id, incoming, builds)
        except NotADirectoryError:
            # A file or link with the name of a build is none. An unlink cannot hit a build that
            # another publish has put there meanwhile.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                self.disk.unlink(build.id, builds)
            return self._commit(reservation, build)
        except FileNotFoundError:  # NFS may have done it, and tried again
            if not self._committed(build):
                raise
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return False
        self.disk.sync(builds)
        self.disk.sync(incoming)
        return True

    def _committed(self, build: Build) -> bool:
        try:
            with self.store.open_build(build.id) as opened:
                return opened.build.token == build.token
        except (NotFound, Mismatch):
            return False

    def _abandon(self, reservation: Reservation) -> None:
        """Take an unfinished publish away, as well as it goes; a cleaner does the rest."""
        with contextlib.closing(reservation), contextlib.suppress(OSError):
            self._throw_away(reservation, pack=self.store.layout == "pack")

    def _throw_away(self, reservation: Reservation, *, pack: bool = False) -> None:
        """Remove the folder of a publish, and its pack. The index must be closed before: of a file
        that is open NFS keeps a hidden one, and the folder would not go."""
        reservation.close()
        name = f"{reservation.name}.{reservation.started}.deleting"
        incoming, trash = self.store.folder(b"incoming"), self.store.folder(b"trash")
        self.disk.rename(reservation.name, name, incoming, trash)
        if pack:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(reservation.token, self.store.folder(b"packs"))
        remove_tree(self.disk, os.fsencode(name), trash)

    def _complete(self, source: Source, id: BuildId, revision: str, tool: str) -> Published:
        """The same build again: verify what is stored, and mend it from the source."""
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
            text = read_file(self.disk, b"manifest", folder, most=MAX_MANIFEST_BYTES)
            return Manifest.parse(text).digest
        return ""

    def _remembered(self, id: BuildId, digest: str) -> Optional[Build]:
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
            planned = _planned(id, source, reservation.token, revision, tool)
            self._take_ticket(reservation, planned)
            token = self.disk.token()
            move_over(
                self.disk, b"build.json", b"build.json", reservation.folder, folder, token
            )  # fmt: skip
            self.disk.sync(folder)
        finally:
            self._abandon(reservation)

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
            return base_of(opened.folder, source.manifest.text, index)
        except Mismatch:
            return Base(opened.folder, {}, {})

    def _repair(
        self, reservation: Reservation, opened: OpenBuild, source: Source, base: Base,
        verified: Verified, times: Times,
    ) -> int:  # fmt: skip
        bad = {problem.path for problem in verified.problems}
        distrust = frozenset(e.digest for e in source.manifest.files if e.shown in bad)
        draft = self._draft(reservation, source, base, times, opened.build.created, distrust)
        return opened.reader(source.manifest).repair(draft, verified, times)

    def _leave(self, reservation: Reservation, opened: OpenBuild) -> None:
        """Remove the folder of a repair; its pack only when the repair did not come to use it."""
        with contextlib.closing(reservation), contextlib.suppress(OSError, Mismatch):
            unused = self.store.layout == "pack" and (
                reservation.token not in packs_named(self.disk, opened.folder, complete=True)
            )
            self._throw_away(reservation, pack=unused)

    def _take_ticket(self, reservation: Reservation, planned: Build) -> Build:
        """A sequence number that nobody else has, and a time later than all before it.

        The ticket is the build's own record: sequence/<n> is a hard link to build.json. So it is
        complete before the name exists, and whoever meets the name can read it; and a link that
        reports EEXIST after it had succeeded is recognised by its token.
        """
        newest = self._newest
        for _ in range(1000):
            created = max(reservation.started, newest.created + 1)
            build = replace(planned, sequence=newest.sequence + 1, created=created)
            write_file(self.disk, b"build.json", build.text(), reservation.folder, private=True)
            if self._linked(reservation, build):
                return build
            self.disk.unlink(b"build.json", reservation.folder)
            newest = self.store.newest(())
        raise Error("no sequence number to be had: too many publishes at once. Try again.")

    def _linked(self, reservation: Reservation, build: Build) -> bool:
        sequence = self.store.folder(b"sequence")
        name = b"%d" % build.sequence
        try:
            self.disk.hard_link(b"build.json", name, reservation.folder, sequence)
        except FileExistsError:
            mine = self.store.read_ticket(build.sequence)
            if mine is None or mine.token != build.token:
                return False
        self.disk.sync(sequence)
        return True


def _planned(id: BuildId, source: Source, token: str, revision: str, tool: str) -> Build:
    """The record of a build, but for what its ticket will say."""
    build = Build(
        id=id,
        digest=source.manifest.digest,
        manifest_bytes=len(source.manifest.text),
        sequence=0,
        token=token,
        created=0,
        files=len(source.manifest.files),
        size_bytes=source.manifest.size_bytes,
        revision=revision,
        tool=tool,
    )
    return Build.parse(build.text(), "build.json")  # nothing is published that nobody can read


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
