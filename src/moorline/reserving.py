"""A publish in flight: its folder in incoming/, its ticket, and what writes its content.

Whatever dies on the way leaves only things that no build names.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from moorline.build import MOST_SECONDS, MOST_SEQUENCE, Build, BuildId
from moorline.errors import Error, Mismatch
from moorline.files import remove_tree, write_file, written
from moorline.layout import Times
from moorline.layout.draft import Base, Beat, Draft
from moorline.layout.index import Index, closing, opening
from moorline.layout.pack_draft import PackDraft
from moorline.layout.tree_draft import Frame, TreeDraft
from moorline.manifest import Entry
from moorline.source import Source
from moorline.store import Store
from moorline.succession import Newest, newest

BEAT_S = 20.0


class Reservation:
    """A publish in flight: its folder in incoming/, open, and in it the index that it has begun.

    That names the packs `named`, which nobody removes then; its time is the heartbeat. `started` is
    when it was made, by the store's clock.
    """

    def __init__(self, store: Store, id: BuildId, packs: Mapping[str, int]) -> None:
        self.store = store
        self.disk = store.disk
        self.token = self.disk.token()
        self.name = f"{id}.{self.token}"
        self.named = [(self.token, 0), *packs.items()]
        self._beaten = time.monotonic()
        incoming = store.folder(b"incoming")
        self.disk.make_directory(self.name, 0o755, incoming)
        self.folder = self._index = -1
        self.frame: Frame | None = None
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

    def make_directories(self, directories: Collection[Entry], beat: Beat) -> None:
        """In layout tree: these, parents first, which the build is known to have by now."""
        if self.store.layout == "tree":
            self.frame = Frame(self.disk, self.folder)
            self.frame.add(directories, beat)

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
        if self.frame is not None:
            self.frame.close()
            self.frame = None
        for fd in (self._index, self.folder):
            if fd >= 0:
                with contextlib.suppress(OSError):  # it would hide what went wrong first
                    os.close(fd)
        self._index = self.folder = -1

    def take_ticket(self, planned: Build, last: Newest) -> Build:
        """A sequence number that nobody else has, and a time later than all before it, of which
        `last` is the newest as far as the caller knows.

        The ticket is the build's own record: sequence/<n> is a hard link to build.json. So it is
        complete before the name exists, and whoever meets the name can read it; and a link that
        reports EEXIST after it had succeeded is recognised by its token.
        """
        for _ in range(1000):
            created = max(self.started, last.created + 1)
            if last.sequence >= MOST_SEQUENCE or created > MOST_SECONDS:
                raise _nothing_after(self.store, last)
            build = replace(planned, sequence=last.sequence + 1, created=created)
            write_file(self.disk, b"build.json", build.text(), self.folder, private=True)
            if self._linked(build):
                return build
            self.disk.unlink(b"build.json", self.folder)
            last = newest(self.store, ())
        raise Error("no sequence number to be had: too many publishes at once. Try again.")

    def _linked(self, build: Build) -> bool:
        sequence = self.store.folder(b"sequence")
        name = b"%d" % build.sequence
        try:
            self.disk.hard_link(b"build.json", name, self.folder, sequence)
        except FileExistsError:
            mine = self.store.read_ticket(build.sequence)
            if mine is None or mine.token != build.token:
                return False
        self.disk.sync(sequence)
        return True

    def abandon(self) -> None:
        """Take an unfinished publish away, as well as it goes; a cleaner does the rest."""
        with contextlib.closing(self), contextlib.suppress(OSError):
            self.throw_away(pack=self.store.layout == "pack")

    def throw_away(self, *, pack: bool = False) -> None:
        """Remove the folder, and its pack. The index must be closed before: of a file
        that is open NFS keeps a hidden one, and the folder would not go."""
        self.close()
        name = f"{self.name}.{self.started}.deleting"
        incoming, trash = self.store.folder(b"incoming"), self.store.folder(b"trash")
        self.disk.rename(self.name, name, incoming, trash)
        if pack:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(self.token, self.store.folder(b"packs"))
        remove_tree(self.disk, os.fsencode(name), trash)


def draft_of(
    reservation: Reservation, source: Source, base: Base | None, kept: Times,
    created: int, distrust: frozenset[str] = frozenset(),
) -> Draft:  # fmt: skip
    """What writes the content of a build, in the layout of the store."""
    store = reservation.store
    if store.layout == "tree":
        return TreeDraft(
            store.disk, reservation.folder, source, base, kept, created, reservation.beat,
            reservation.frame,
        )  # fmt: skip
    return PackDraft(
        store.disk, store.folder(b"packs"), reservation.folder, reservation.token, source,
        base, reservation.started, reservation.beat, distrust,
    )  # fmt: skip


def planned_build(id: BuildId, source: Source, token: str, revision: str, tool: str) -> Build:
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


def _nothing_after(store: Store, newest: Newest) -> Mismatch:
    """Who can write the share has put a ticket there that leaves no number, or no time."""
    number = newest.sequence
    if number < MOST_SEQUENCE:
        tickets = map(store.read_ticket, store.tickets())
        last = next((t for t in tickets if t is not None and t.created == newest.created), None)
        number = last.sequence if last else number
    return Mismatch(
        f"{store.path}/sequence/{number} leaves no number or no time for another build: no publish "
        "made it, or not so. Remove that file, then publish again."
    )
