"""Layout tree, mended: single entries of a build are put right while it may be served."""

from __future__ import annotations

import errno
import os

from moorline.disk import Descent, Disk
from moorline.growing import NewTree
from moorline.layout.draft import Draft
from moorline.manifest import DIRECTORY, LINK, Entry, unescape
from moorline.source import source_content
from moorline.verifying import Verified


def mend(disk: Disk, build: int, draft: Draft, verified: Verified) -> int:
    """Replace, one by one and each by a rename, what `verified` found damaged in the tree of the
    build open as `build`, so that no other path blinks; returns how many. The draft's staging
    folder takes what stood in the way."""
    bad = {problem.path for problem in verified.problems}
    if "." in bad:
        _missing_root(disk, build, draft.staging)
    entries = draft.source.manifest.entries
    mending = _Mend(disk, build, draft)
    try:
        for entry in entries:
            if entry.shown in bad:
                mending.entry(entry)
        known = {entry.shown for entry in entries}
        mending.extras([path for path in bad if path not in known])
        mending.modes([entry for entry in entries if entry.shown in bad])
    finally:
        mending.close()
    disk.sync_all(build)
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
