"""Layout tree: builds/<id>/tree is the build exactly as CI made it, ready to be served.

A file that did not change is a hard link to the newest build's. EFS allows 177 links to a file:
then a fresh file is written, which the following builds link to. Empty files are never linked (they
would reach the limit first), and neither is a file whose mode or time differs.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from typing import Optional

from moorline.disk import DAMAGE, Descent, Disk
from moorline.errors import Problem
from moorline.growing import NewTree, same_file
from moorline.layout import Base, Beat, Draft, Times, Written, all_times, missing
from moorline.layout.index import NO_PACK, Index, Row
from moorline.manifest import DIRECTORY, FILE, LINK, Entry, Manifest, unescape
from moorline.scan import Progress, Source, source_content
from moorline.verifying import Verified, verify

READ_BYTES = 4 << 20


def tree_index(manifest: Manifest, times: Times) -> Index:
    """What the index says in this layout: the times."""
    return Index({}, [Row(NO_PACK, 0, 0, times[entry.path]) for entry in manifest.files])


class TreeDraft:
    """Writes <staging>/tree. `kept` are the times of the files that did not change since `base`;
    all others get `created`, unless `finish` says otherwise."""

    def __init__(
        self, disk: Disk, staging: int, source: Source, base: Optional[Base], kept: Times,
        created: int, beat: Beat,
    ) -> None:  # fmt: skip
        self.disk = disk
        self.staging = staging
        self.source = source
        self.base = base
        self.kept = kept
        self.times = all_times(source.manifest, kept, created)
        self.beat = beat
        self._fresh: list[Entry] = []

    def write(self, progress: Progress) -> Written:
        # Linux reports a lost write to the next syncfs of the mount, whoever asks. One that
        # somebody else lost earlier is no failure of this publish: ask before the first write.
        with contextlib.suppress(OSError):
            self.disk.sync_all(self.staging)
        self.disk.make_directory(b"tree", 0o755, self.staging)
        total, done, linked = self.source.manifest.size_bytes, 0, 0
        old = self._base_tree()
        try:
            with (
                Descent(self.disk, os.fsencode(self.source.root)) as source,
                contextlib.closing(self._new_tree()) as tree,
            ):
                for entry in self.source.manifest.entries:
                    self.beat()
                    if entry.kind != FILE:
                        tree.add(entry)
                        continue
                    if old is not None and self._linked(tree, old, entry):
                        linked += 1
                    else:
                        chunks = source_content(self.disk, source, entry)
                        tree.write(entry, chunks, self.times[entry.path])
                        self._fresh.append(entry)
                    done += entry.size
                    progress(done, total, "writing")
                tree.finish()
        finally:
            if old is not None:
                old.close()
        self.disk.sync_all(self.staging)
        return Written(len(self._fresh), sum(e.size for e in self._fresh), linked)

    def _new_tree(self) -> NewTree:
        root = self.disk.open_directory(b"tree", self.staging)
        try:
            return NewTree(self.disk, root)
        finally:
            os.close(root)

    def _base_tree(self) -> Optional[Descent]:
        if self.base is None:
            return None
        try:
            fd = self.disk.open_directory(b"tree", self.base.folder)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return None
        try:
            return Descent(self.disk, fd)
        finally:
            os.close(fd)

    def _linked(self, tree: NewTree, old: Descent, entry: Entry) -> bool:
        if not entry.size or entry.path not in self.kept:
            return False
        directory, _, name = entry.path.rpartition(b"/")
        try:
            at = old.enter(directory or b".")
            status = self.disk.stat(name, at)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return False
        if not same_file(status, entry, self.times[entry.path]):
            return False
        return tree.hard_link(entry, at, name)

    def finish(self, times: Times) -> Index:
        """Give the new files their final time, when another publish took the expected one."""
        moved = [e for e in self._fresh if times[e.path] != self.times[e.path]]
        if moved:
            self._set_times(moved, times)
        return tree_index(self.source.manifest, times)

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


class TreeReader:
    """The tree of one published build."""

    def __init__(self, disk: Disk, build: int) -> None:
        self.disk = disk
        self.build = build

    def contents(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        root = self.disk.open_directory(b"tree", self.build)
        try:
            with Descent(self.disk, root) as descent:
                for entry in sorted(entries):
                    yield entry, self._content(descent, entry)
        finally:
            os.close(root)

    def _content(self, descent: Descent, entry: Entry) -> Iterator[bytes]:
        directory, _, name = entry.path.rpartition(b"/")
        try:
            fd, _ = self.disk.open_file(name, descent.enter(directory or b"."))
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            yield from missing(entry, "missing in the store, or no file there")
            return
        try:
            left = entry.size + 1
            while left > 0:
                chunk = self.disk.read(fd, min(left, READ_BYTES))
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
        finally:
            os.close(fd)

    def verify(self, manifest: Manifest, progress: Progress) -> Verified:
        try:
            root = self.disk.open_directory(b"tree", self.build)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            missing = [Problem(entry.shown, "missing") for entry in manifest.entries[1:]]
            return Verified((Problem(".", "the tree is missing"), *sorted(missing)), 0, 0)
        try:
            return verify(self.disk, root, manifest, progress)
        finally:
            os.close(root)

    def repair(self, draft: Draft, verified: Verified, times: Times) -> int:
        """Replace, one by one and each by a rename, what was found damaged: the tree is being
        served, so no other path may blink."""
        bad = {problem.path for problem in verified.problems}
        if "." in bad:
            _missing_root(self.disk, self.build, draft.staging)
        mend = _Mend(self.disk, self.build, draft)
        try:
            for entry in draft.source.manifest.entries:
                if entry.shown in bad:
                    mend.entry(entry)
            known = {entry.shown for entry in draft.source.manifest.entries}
            mend.extras([path for path in bad if path not in known])
            mend.modes([e for e in draft.source.manifest.entries if e.shown in bad])
        finally:
            mend.close()
        self.disk.sync_all(self.build)
        return len(bad)


def _missing_root(disk: Disk, build: int, staging: int) -> None:
    try:
        os.close(disk.open_directory(b"tree", build))
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            disk.rename(b"tree", b"moved.tree", build, staging)
        elif error.errno != errno.ENOENT:
            raise
        disk.make_directory(b"tree", 0o755, build)


class _Mend:
    """Puts single entries of a tree right; what stood in the way goes to the staging folder."""

    def __init__(self, disk: Disk, build: int, draft: Draft) -> None:
        self.disk = disk
        self.draft = draft
        self.source = Descent(disk, os.fsencode(draft.source.root))
        self.moved = 0
        try:
            root = disk.open_directory(b"tree", build)
        except BaseException:
            self.source.close()
            raise
        try:
            self.descent = Descent(disk, root)
        finally:
            os.close(root)

    def close(self) -> None:
        self.descent.close()
        self.source.close()

    def entry(self, entry: Entry) -> None:
        if entry.path == b".":
            return
        at, name = self._parent(entry.path)
        if entry.kind == DIRECTORY:
            self._directory(entry, at, name)
            return
        new = b".moorline-repair"
        staging = self.draft.staging
        if entry.kind == LINK:
            self.disk.make_link(entry.target, new, staging)
        else:
            root = os.dup(staging)
            try:
                with NewTree(self.disk, root) as tree:
                    chunks = source_content(self.disk, self.source, entry)
                    made = entry._replace(path=new)
                    tree.write(made, chunks, self.draft.times[entry.path])
            finally:
                os.close(root)
        try:
            self.disk.rename(new, name, staging, at)
        except IsADirectoryError:
            self._away(at, name)
            self.disk.rename(new, name, staging, at)

    def _directory(self, entry: Entry, at: int, name: bytes) -> None:
        try:
            os.close(self.disk.open_directory(name, at))
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._away(at, name)
            self.disk.make_directory(name, entry.mode | 0o700, at)

    def extras(self, paths: list[str]) -> None:
        for path in paths:
            at, name = self._parent(unescape(path.encode("ascii")))
            self._away(at, name)

    def modes(self, entries: list[Entry]) -> None:
        for entry in reversed(entries):
            if entry.kind == DIRECTORY:
                self.disk.set_mode(self.descent.enter(entry.path), entry.mode)

    def _away(self, at: int, name: bytes) -> None:
        """Out of the tree by one rename; removed with the staging folder."""
        self.moved += 1
        self.disk.rename(name, b"moved.%d" % self.moved, at, self.draft.staging)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        directory, _, name = path.rpartition(b"/")
        return self.descent.enter(directory or b"."), name
