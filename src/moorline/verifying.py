"""Verify a directory against a manifest, in parallel: every name, type, mode, link and byte.

The directory may be hostile: it is walked by open directories, no link is followed, only regular
files are opened, and never more is read than the manifest says.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any, Union

from moorline.crew import depth, read_latency
from moorline.disk import AnyPath, Descent, Disk
from moorline.errors import Problem
from moorline.hashing import SMALL_FILES, WAITS_S, hash_buffer, hash_file, pieces, workers
from moorline.manifest import DIRECTORY, FILE, LINK, Entry, Manifest, shown
from moorline.scan import Progress, no_progress


@dataclass(frozen=True)
class Verified:
    """The outcome of a full verification: no problems means that every byte was read and right."""

    problems: tuple[Problem, ...]
    files: int
    bytes: int


def verify(
    disk: Disk,
    root: Union[int, AnyPath],
    manifest: Manifest,
    progress: Progress = no_progress,
) -> Verified:
    """Compare the directory `root` with `manifest`: every name, type, mode, link and byte.

    All differences are listed, sorted by path. Raises OSError only when `root` itself cannot be
    opened or the disk fails.
    """
    children: dict[bytes, list[Entry]] = {}
    for entry in manifest.entries:
        if entry.kind == DIRECTORY:
            children[entry.path] = []
        if entry.path != b".":
            children[entry.path.rpartition(b"/")[0] or b"."].append(entry)
    directories = list(children)
    runs = pieces([sum(e.size + 4096 for e in children[d]) for d in directories])
    fd = os.dup(root) if isinstance(root, int) else disk.open_directory(root)

    def job(index: int) -> tuple[list[tuple[str, str]], int, int]:
        check = _Check(disk, manifest)
        with Descent(disk, fd) as descent:
            for number in runs[index]:
                check.directory(descent, directories[number], children[directories[number]])
        return [(p.path, p.problem) for p in check.problems], check.files, check.bytes

    try:
        return _verify(disk, fd, manifest, job, len(runs), progress)
    finally:
        os.close(fd)


def _verify(
    disk: Disk, fd: int, manifest: Manifest, job: Any, runs: int, progress: Progress
) -> Verified:
    files = manifest.files
    latency_s = read_latency(disk, fd, files) if len(files) > SMALL_FILES else 0.0
    pool = workers(
        job, files=len(files), size_bytes=manifest.size_bytes, latency_s=latency_s,
        depth=depth(manifest.entries) if latency_s > WAITS_S else 1,
    )  # fmt: skip
    problems: list[Problem] = []
    read = size = 0
    try:
        for index in range(runs):
            pool.put(index)
        for _, (found, more_files, more_bytes) in pool.finish():
            problems += [Problem(*pair) for pair in found]
            read, size = read + more_files, size + more_bytes
            progress(size, manifest.size_bytes, "verifying", read)
    finally:
        pool.close()
    return Verified(tuple(sorted(problems)), read, size)


class _Check:
    """Compares directories with their entries and collects what differs."""

    def __init__(self, disk: Disk, manifest: Manifest) -> None:
        self.disk = disk
        self.manifest = manifest
        self.problems: list[Problem] = []
        self.files = 0
        self.bytes = 0
        self.buffer = hash_buffer()

    def differs(self, path: bytes, problem: str) -> None:
        self.problems.append(Problem(shown(path), problem))

    def directory(self, descent: Descent, path: bytes, expected: list[Entry]) -> None:
        try:
            fd = descent.enter(path)
            found = {named.name: named.kind for named in self.disk.names(fd)}
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                raise
            if path == b".":
                self.differs(path, "cannot be opened as a directory")
            for entry in expected:
                self.differs(entry.path, "missing")
            return
        self.mode(self.manifest.by_path[path], os.fstat(fd).st_mode)
        for entry in expected:
            name = entry.path.rpartition(b"/")[2]
            self.entry(fd, name, found.pop(name, ""), entry)
        for name, kind in found.items():
            here = name if path == b"." else path + b"/" + name
            self.differs(here, f"extra {_noun(kind).split()[-1]}")

    def entry(self, fd: int, name: bytes, kind: str, entry: Entry) -> None:
        """One entry; `kind` is what the directory has under its name, or nothing."""
        if not kind:
            self.differs(entry.path, "missing")
        elif kind != entry.kind:
            self.differs(entry.path, f"is {_noun(kind)}, should be {_noun(entry.kind)}")
        elif kind == FILE:
            self.file(fd, name, entry)
        elif kind == LINK:
            self.link(fd, name, entry)

    def mode(self, entry: Entry, mode: int) -> None:
        if mode & 0o7777 != entry.mode:
            self.differs(entry.path, f"mode is {mode & 0o7777:o}, should be {entry.mode:o}")

    def link(self, fd: int, name: bytes, entry: Entry) -> None:
        try:
            target = self.disk.read_link(name, at=fd)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            self.differs(entry.path, "missing")
            return
        if target != entry.target:
            self.differs(entry.path, f"leads to {shown(target)}, should be {shown(entry.target)}")

    def file(self, directory: int, name: bytes, entry: Entry) -> None:
        try:
            fd, status = self.disk.open_file(name, at=directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ELOOP, errno.EINVAL):
                raise
            self.differs(entry.path, f"cannot be opened: {error.strerror}")
            return
        try:
            digest, size = hash_file(self.disk, fd, entry.size, self.buffer)
        finally:
            os.close(fd)
        self.files += 1
        self.bytes += size
        self.mode(entry, status.st_mode)
        if size != entry.size:
            found = "more" if size > entry.size else str(size)
            self.differs(entry.path, f"has {found} bytes, should be {entry.size}")
        elif digest != entry.digest:
            self.differs(entry.path, "content differs")


def _noun(kind: str) -> str:
    return {"f": "a file", "d": "a directory", "l": "a link"}.get(kind, "a special file")
