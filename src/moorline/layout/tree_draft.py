"""Layout tree, written: an unchanged file is a hard link to the newest build's.

EFS allows 177 links to a file: then a fresh file is written, which the following builds link to.
Empty files are never linked (they would reach the limit first), and neither is a file whose mode or
time differs.

On a local disk entries are made one after the other. On a share each operation waits, so a crew
makes them; and since a server makes the names of one directory one after the other, the work is
spread over directories: over all that exist by now, with few workers in each.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from moorline.crew import FEW_FILES, Crew, depth
from moorline.disk import DAMAGE, Descent, Disk
from moorline.growing import NewTree, same_file
from moorline.hashing import WAITS_S, most_waiting
from moorline.layout import Times
from moorline.layout.draft import Base, Beat, Written, all_times
from moorline.layout.index import NO_PACK, Index, Rows
from moorline.layout.tree_repair import mend
from moorline.manifest import DIRECTORY, FILE, Entry, Manifest
from moorline.progress import Progress
from moorline.source import Source, source_content
from moorline.verifying import Verified

WORKERS_OF_A_DIRECTORY = 4
PIECE_ENTRIES = 16
BEAT_EVERY = 100

Piece = tuple[bytes, list[Entry]]
"""A directory, and some of the entries in it."""


def tree_index(manifest: Manifest, times: Times) -> Index:
    """What the index says in this layout: the times."""
    files = manifest.files
    nothing = [0] * len(files)
    rows = Rows([NO_PACK] * len(files), nothing, nothing, (times[e.path] for e in files))
    return Index({}, rows)


class Frame:
    """<staging>/tree, and the directories in it that were made before the files were hashed. Until
    it is finished its root lets nobody else in."""

    def __init__(self, disk: Disk, staging: int) -> None:
        self.disk = disk
        self._staging = staging
        # Linux reports a lost write to the next syncfs of the mount, whoever asks. One that
        # somebody else lost earlier is no failure of this publish: ask before the first write.
        with contextlib.suppress(OSError):
            disk.sync_all(staging)
        disk.make_directory(b"tree", 0o700, staging)
        root = disk.open_directory(b"tree", staging)
        try:
            self.tree = NewTree(disk, root, private=True)
        finally:
            os.close(root)
        self.made: set[bytes] = set()
        self._latency_s = -1.0

    def add(self, directories: Collection[Entry], beat: Beat) -> None:
        """Make these, parents first: not on a share that waits, where a crew makes them later."""
        if self.waits(len(directories)):
            return
        for number, entry in enumerate(directories):
            self.tree.add(entry)
            self.made.add(entry.path)
            if number % BEAT_EVERY == 0:
                beat()

    def waits(self, entries: int) -> bool:
        """Whether each change of the share waits for a network, and so many are worth a crew."""
        if not self.disk.forks or entries <= FEW_FILES:
            return False
        if self._latency_s < 0:
            self._latency_s = min(self._change_s(), self._change_s())
        return self._latency_s > WAITS_S

    def _change_s(self) -> float:
        """Seconds that one change takes."""
        start = time.perf_counter()
        self.disk.set_times(self._staging)
        return time.perf_counter() - start

    def another(self) -> NewTree:
        """The same tree for another worker, whose unfinished directories are its own."""
        return NewTree(self.disk, self.tree.root, private=True)

    def close(self) -> None:
        self.tree.close()


class TreeDraft:
    """Writes <staging>/tree. `kept` are the times of the files that did not change since `base`;
    all others get `created`, unless `finish` says otherwise."""

    def __init__(
        self, disk: Disk, staging: int, source: Source, base: Base | None, kept: Times,
        created: int, beat: Beat, frame: Frame | None = None,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.staging = staging
        self.source = source
        self.base = base
        self.kept = kept
        self.times = all_times(source.manifest, kept, created)
        self.beat = beat
        self._frame = frame
        self._fresh: list[Entry] = []
        self._done = self._files = 0

    def write(self, progress: Progress) -> Written:
        with contextlib.ExitStack() as stack:
            frame = self._frame
            if frame is None:
                frame = stack.enter_context(contextlib.closing(Frame(self.disk, self.staging)))
            if frame.waits(len(self.source.manifest.entries)):
                self._spread(frame, progress)
            else:
                self._in_order(frame, progress)
        self.disk.sync_all(self.staging)
        linked = len(self.source.manifest.files) - len(self._fresh)
        return Written(len(self._fresh), sum(e.size for e in self._fresh), linked)

    def _in_order(self, frame: Frame, progress: Progress) -> None:
        with contextlib.closing(_Hands(self, frame.tree)) as hands:
            for entry in self.source.manifest.entries:
                if entry.kind == FILE:
                    self._made([entry], [entry] if hands.make(entry) else [], progress)
                elif entry.path not in frame.made:
                    hands.make(entry)
        frame.tree.finish()

    def _spread(self, frame: Frame, progress: Progress) -> None:
        entries = self.source.manifest.entries
        order = _Order(entries)

        def work(hands: _Hands, piece: Piece) -> list[Entry]:
            return [entry for entry in piece[1] if hands.make(entry)]

        def done(piece: Piece, fresh: list[Entry]) -> Iterator[Piece]:
            self._made(piece[1], fresh, progress)
            return order.after(piece)

        with contextlib.ExitStack() as stack:
            crew = []
            for _ in range(most_waiting(2 * depth(entries) + 1)):
                tree = stack.enter_context(frame.another())
                crew.append(stack.enter_context(contextlib.closing(_Hands(self, tree))))
            frame.tree.add(entries[0])
            Crew(crew).run(work, order.inside(b"."), done)
            self._finish_directories(frame, crew)

    def _finish_directories(self, frame: Frame, crew: list[_Hands]) -> None:
        left = sorted((e for hands in crew for e in hands.tree.unfinished), reverse=True)
        if any(not entry.mode & 0o100 for entry in left):  # nobody enters it from then on
            frame.tree.set_modes(left)
        else:
            Crew(crew).run(
                lambda hands, some: hands.tree.set_modes(some),
                (left[at : at + PIECE_ENTRIES] for at in range(0, len(left), PIECE_ENTRIES)),
                lambda *_: (),
            )
        frame.tree.finish()  # the root last: then others may enter

    def _made(self, entries: list[Entry], fresh: list[Entry], progress: Progress) -> None:
        self.beat()
        self._fresh += fresh
        for entry in entries:
            if entry.kind == FILE:
                self._done += entry.size
                self._files += 1
        progress(self._done, self.source.manifest.size_bytes, "writing", self._files)

    def finish(self, times: Times) -> Index:
        """Give the new files their final time, when another publish took the expected one."""
        moved = [e for e in self._fresh if times[e.path] != self.times[e.path]]
        if moved:
            self._set_times(moved, times)
        return tree_index(self.source.manifest, times)

    def repair(self, build: int, verified: Verified, times: Times) -> int:
        return mend(self.disk, build, self, verified)

    def _set_times(self, moved: list[Entry], times: Times) -> None:
        with Descent(self.disk, self.staging) as descent:
            for entry in moved:
                directory, _, name = (b"tree/" + entry.path).rpartition(b"/")
                fd, _ = self.disk.open_file(name, descent.enter(directory))
                try:
                    self.disk.set_times(fd, times[entry.path])
                finally:
                    os.close(fd)
        self.disk.sync_all(self.staging)


class _Hands:
    """The new tree, and open directories of the source and of the tree to link from."""

    def __init__(self, draft: TreeDraft, tree: NewTree) -> None:
        self.draft = draft
        self.tree = tree
        self.disk = draft.disk
        with contextlib.ExitStack() as stack:
            self.source = stack.enter_context(Descent(self.disk, os.fsencode(draft.source.root)))
            self.old = self._old_tree()
            if self.old is not None:
                stack.enter_context(self.old)
            self.close = stack.pop_all().close

    def _old_tree(self) -> Descent | None:
        if self.draft.base is None:
            return None
        try:
            fd = self.disk.open_directory(b"tree", self.draft.base.folder)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return None
        try:
            return Descent(self.disk, fd)
        finally:
            os.close(fd)

    def make(self, entry: Entry) -> bool:
        """Make it; True when that took a new file."""
        if entry.kind != FILE:
            self.tree.add(entry)
            return False
        if self._linked(entry):
            return False
        chunks = source_content(self.disk, self.source, entry)
        self.tree.write(entry, chunks, self.draft.times[entry.path])
        return True

    def _linked(self, entry: Entry) -> bool:
        if self.old is None or not entry.size or entry.path not in self.draft.kept:
            return False
        directory, _, name = entry.path.rpartition(b"/")
        try:
            at = self.old.enter(directory or b".")
            status = self.disk.stat(name, at)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return False
        if not same_file(status, entry, self.draft.times[entry.path]):
            return False
        return self.tree.hard_link(entry, at, name)


class _Order:
    """Which entries can be made when: those in a directory once that is there, its directories
    first, and a few pieces at a time."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._inside: dict[bytes, list[Entry]] = {}
        self._left: dict[bytes, Iterator[Piece]] = {}
        for entry in entries:
            if entry.path != b".":
                self._inside.setdefault(entry.path.rpartition(b"/")[0] or b".", []).append(entry)

    def inside(self, directory: bytes) -> Iterator[Piece]:
        """What can be made once `directory` is."""
        entries = self._inside.get(directory, [])
        entries.sort(key=lambda entry: entry.kind != DIRECTORY)
        starts = range(0, len(entries), PIECE_ENTRIES)
        pieces = ((directory, entries[at : at + PIECE_ENTRIES]) for at in starts)
        self._left[directory] = pieces
        return islice(pieces, WORKERS_OF_A_DIRECTORY)

    def after(self, piece: Piece) -> Iterator[Piece]:
        """What can be made once `piece` is."""
        directory, entries = piece
        for entry in entries:
            if entry.kind == DIRECTORY:
                yield from self.inside(entry.path)
        yield from islice(self._left[directory], 1)
