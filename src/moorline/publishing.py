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
import threading
from collections.abc import Callable

from moorline.build import Build, BuildId
from moorline.disk import Disk
from moorline.errors import Mismatch, NotFound
from moorline.files import write_file
from moorline.garbage import uncollected
from moorline.layout.draft import Written, all_times, kept_times
from moorline.ledger.directory import DirectoryLedger
from moorline.manifest import STORED, Entry, Manifest, compressed
from moorline.progress import Progress, no_progress
from moorline.repairing import Published, Repair
from moorline.reserving import Reservation, draft_of, planned_build
from moorline.source import Source
from moorline.store import Store
from moorline.succession import Newest, newest

__all__ = ["Published", "Publisher"]

_NAMELESS = BuildId("new")  # until the content is known, which some ids are made of


class _Compressing(threading.Thread):
    """Compresses a manifest while content is written: 70 ms for 60,000 files."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(daemon=True)  # an interrupted publish does not wait for it
        self.manifest = manifest
        self._made = b""
        self.start()

    def run(self) -> None:
        self._made = compressed(self.manifest.text)

    def wait(self) -> bytes:
        self.join()
        return self._made or compressed(self.manifest.text)  # or raises what the thread met


class Publisher:
    """Writes builds into one open store."""

    def __init__(self, store: Store, progress: Progress = no_progress) -> None:
        self.store = store
        self.disk: Disk = store.disk
        self.progress = progress
        self._ids: list[BuildId] | None = None
        self._newest = Newest(0, 0)
        self._reservation: Reservation | None = None

    def begin(self, id: BuildId | None, directories: list[Entry], beat: Callable[[], None]) -> None:
        """Do what can be done while the files of the source are hashed: look what the next build
        comes after, reserve its place, and make its directories in layout tree.

        `id` is None where only the content will give it. Nobody sees any of this, and what is not
        published is taken away again. `beat` is called every few milliseconds.
        """
        self._look()
        if id in (self._ids or ()):
            return
        self._reservation = self._reserve(id or _NAMELESS)
        beat()
        self._reservation.make_directories(directories, beat)

    def _look(self) -> None:
        self.close()
        self._ids = self.store.ids()
        self._newest = newest(self.store, self._ids)

    def _reserve(self, id: BuildId) -> Reservation:
        packs = self._newest.base.packs if self._newest.base else {}
        return Reservation(self.store, id, packs)

    def close(self) -> None:
        """Take away what was begun, and forget what was looked up."""
        reservation, base = self._reservation, self._newest.base
        self._reservation = self._ids = None
        self._newest = Newest(0, 0)
        if base is not None:
            os.close(base.folder)
        if reservation is not None:
            reservation.abandon()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @uncollected()
    def publish(
        self, source: Source, id: BuildId, *, revision: str = "", tool: str = ""
    ) -> Published:
        """Store `source` as build `id`, or complete and repair the one that is there.

        Raises Conflict when `id` has other content.
        """
        if self._ids is None:
            self._look()
        try:
            if id in (self._ids or ()):
                return Repair(self.store, self.progress).complete(source, id, revision, tool)
            return self._publish(source, id, revision, tool)
        finally:
            self.close()

    def _publish(self, source: Source, id: BuildId, revision: str, tool: str) -> Published:
        reservation, self._reservation = self._reservation or self._reserve(id), None
        try:
            planned = planned_build(id, source, reservation.token, revision, tool)
            build, written = self._write(reservation, source, planned)
            committed = self._commit(reservation, build)
        except BaseException:
            reservation.abandon()
            raise
        if not committed:  # another publish was faster
            reservation.abandon()
            return Repair(self.store, self.progress).complete(source, id, revision, tool)
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
        manifest, text = source.manifest, _Compressing(source.manifest)
        kept = kept_times(manifest, self._newest.base)
        expected = max(reservation.started, self._newest.created + 1)
        draft = draft_of(reservation, source, self._newest.base, kept, expected)
        written = draft.write(self.progress)
        write_file(self.disk, STORED, text.wait(), reservation.folder, private=True)
        build = reservation.take_ticket(build, self._newest)
        reservation.complete(draft.finish(all_times(manifest, kept, build.created)))
        self.disk.sync(reservation.folder)
        return build, written

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
