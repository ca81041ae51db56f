"""Walk a source and hash it, in parallel.

A source is somebody's working directory: it is read, never changed, and a file that changes while
it is read fails the scan.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Protocol

from moorline.disk import AnyPath, Descent, Disk, Named
from moorline.errors import NotFound, Problem, SourceChanged, SourceRefused
from moorline.garbage import uncollected
from moorline.hashing import (
    PIECE_FILES,
    SMALL_BYTES,
    SMALL_FILES,
    Workers,
    hash_buffer,
    hash_file,
    workers,
)
from moorline.manifest import (
    DIRECTORY,
    FILE,
    LINK,
    MAX_DEPTH,
    MAX_LINK_BYTES,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    SECRETS,
    Entry,
    Manifest,
    entry_of,
    link_leaves,
    shown,
)


class Progress(Protocol):
    """Called with bytes done, bytes in all (0: not known), what is being done, and files done."""

    def __call__(self, done: int, total: int, what: str, files: int = 0, /) -> None: ...


_SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device node",
            stat.S_IFBLK: "a device node"}  # fmt: skip


def no_progress(done: int, total: int, what: str, files: int = 0, /) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True)
class Rules:
    """What a publish leaves out, replaces and accepts.

    `excluded(path, is_directory)` leaves things out. `linked` are paths that live in the target's
    `shared/`; a final slash says directory. `linked_root` is the absolute path of the target in a
    store of layout tree, where a relative link would not lead to the target. `allow` names
    `.git` or `.env` when they are meant.
    """

    excluded: Optional[Callable[[str, bool], bool]] = None
    linked: tuple[str, ...] = ()
    linked_root: Optional[str] = None
    allow: frozenset[str] = frozenset()
    allow_external_links: bool = False


@dataclass(frozen=True)
class Source:
    """A directory as it was scanned. `replaced` are the linked paths, directories with a slash."""

    root: str
    manifest: Manifest
    replaced: tuple[str, ...] = ()


# -- scanning a source ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outline:
    """A source of which all names are known: its directories, parents first, and what `Source`
    calls `replaced`."""

    directories: list[Entry]
    replaced: tuple[str, ...]


Meanwhile = Callable[[Outline, Callable[[], None]], object]


@dataclass
class _Walk:
    """What was found so far: by the walk all but files, which come as they are hashed."""

    disk: Disk
    rules: Rules
    linked: dict[bytes, bool]
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def outline(self) -> Outline:
        return Outline([e for e in self.entries if e.kind == DIRECTORY], self.replaced())

    def replaced(self) -> tuple[str, ...]:
        return tuple(
            sorted(os.fsdecode(path) + "/" * is_dir for path, is_dir in self.linked.items())
        )

    def refuse(self, path: bytes, problem: str) -> None:
        self.problems.append(Problem(shown(path), problem))


@uncollected()
def scan(
    disk: Disk, root: AnyPath, rules: Rules = Rules(), progress: Progress = no_progress, *,
    meanwhile: Meanwhile = lambda outline, beat: None,
) -> Source:  # fmt: skip
    """The manifest of the directory `root`.

    `meanwhile` is called while the workers still hash, unless something is refused by its name:
    with what is known by then, and with what it has to call every few milliseconds.

    Raises NotFound (no such directory), SourceRefused with every refused path, SourceChanged.
    """
    linked = {os.fsencode(name.rstrip("/")): name.endswith("/") for name in rules.linked}
    name = os.fsdecode(root)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"nothing to publish: {name} is no directory. Build first, or name the build's folder."
        ) from None
    try:
        walk = _Walk(disk, rules, linked)
        with _Hashing(walk, fd, progress) as hashing:
            _walk(walk, fd, hashing.add)
            if not walk.problems:
                meanwhile(walk.outline(), hashing.beat)
            hashing.finish()
    finally:
        os.close(fd)
    _add_linked(walk)
    if not walk.problems and len(walk.entries) <= 1:
        raise SourceRefused(f"nothing to publish: {name} is empty. Build first.")
    if walk.problems:
        raise SourceRefused(
            f"{name} holds {len(walk.problems)} thing(s) that a build may not hold. "
            "Remove them, leave them out with 'exclude', or allow them in moorline.toml.",
            problems=sorted(walk.problems),
        )
    return Source(os.path.realpath(name), Manifest.of(walk.entries), walk.replaced())


_Found = Callable[[bytes, bytes], None]
"""Called with (directory, name) of each file, while the walk goes on."""


def _walk(walk: _Walk, fd: int, found: _Found) -> None:
    """Record the directory `fd` and all below it, depth first."""
    todo = [b""]  # paths that end in a slash; the root's is empty
    with Descent(walk.disk, fd) as descent:
        while todo:
            path = todo.pop()
            try:
                inside = descent.enter(path[:-1] or b".")
            except PermissionError:
                walk.refuse(path[:-1], "cannot be read")
                continue
            except OSError as error:
                raise _gone(error, path[:-1]) from error
            todo += reversed(_walk_directory(walk, inside, path, found))


def _walk_directory(walk: _Walk, fd: int, path: bytes, found: _Found) -> list[bytes]:
    """Record one directory and what is in it; returns the directories in it."""
    mode = os.fstat(fd).st_mode
    if path:
        _refuse_special_bits(walk, path[:-1], mode & ~stat.S_ISGID)
    # The root is made by whoever deploys: mktemp's 0700 must not lock the web server out.
    walk.entries.append(Entry(path[:-1] or b".", DIRECTORY, mode & 0o777 if path else 0o755, 0))
    below = []
    excluded = walk.rules.excluded
    for named in sorted(walk.disk.names(fd)):  # what comes in order is soon sorted
        here = path + named.name
        if here in walk.linked:
            walk.linked[here] |= named.kind == "d"
        elif excluded is not None and excluded(os.fsdecode(here), named.kind == "d"):
            continue
        elif _walk_one(walk, fd, path, named, found):
            below.append(here + b"/")
    return below


def _walk_one(walk: _Walk, fd: int, path: bytes, named: Named, found: _Found) -> bool:
    """Record one name; True for a directory that is to be walked."""
    here = path + named.name
    if len(named.name) > MAX_NAME_BYTES or len(here) > MAX_PATH_BYTES:
        walk.refuse(here, "the name is too long")
    elif named.name in SECRETS and os.fsdecode(named.name) not in walk.rules.allow:
        walk.refuse(here, "is not published unless it is named: in 'exclude', 'linked' or 'allow'")
    elif named.kind == "f":
        found(path[:-1] or b".", named.name)
    elif named.kind == "d":
        if here.count(b"/") < MAX_DEPTH:
            return True
        walk.refuse(here, f"lies more than {MAX_DEPTH} directories deep")
    else:
        try:
            _walk_odd(walk, fd, named, here)
        except OSError as error:
            raise _gone(error, here) from error
    return False


def _walk_odd(walk: _Walk, fd: int, named: Named, here: bytes) -> None:
    if named.kind != "l":
        kind = stat.S_IFMT(walk.disk.stat(named.name, at=fd).st_mode)
        walk.refuse(here, f"is {_SPECIAL.get(kind, 'no file, directory or link')}")
        return
    target = walk.disk.read_link(named.name, at=fd)
    if link_leaves(here, target) and not walk.rules.allow_external_links:
        walk.refuse(here, f"is a link that leaves the build: {shown(target)}")
    elif len(target) > MAX_LINK_BYTES:
        walk.refuse(here, "is a link whose target is too long")
    else:
        walk.entries.append(Entry(here, LINK, 0o777, len(target), "", target))


def _add_linked(walk: _Walk) -> None:
    """A link into `shared/` for each linked path, and the directories that lead to it."""
    kinds = {entry.path: entry.kind for entry in walk.entries}
    for path in sorted(walk.linked):
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            above = b"/".join(parts[:depth])
            if above not in kinds:
                kinds[above] = DIRECTORY
                walk.entries.append(Entry(above, DIRECTORY, 0o755, 0))
            elif kinds[above] != DIRECTORY:
                walk.refuse(above, f"is no directory, but 'linked' names {shown(path)}")
        target = linked_target(path, walk.rules.linked_root)
        kinds[path] = LINK
        walk.entries.append(Entry(path, LINK, 0o777, len(target), "", target))


def linked_target(path: bytes, root: Optional[str] = None) -> bytes:
    """The text of the link that stands in for the linked `path`: from <target>/releases/<name>/
    up to <target>/shared/; absolute when the tree is served from the share."""
    if root is not None:
        return os.fsencode(root.rstrip("/")) + b"/shared/" + path
    return b"../" * (path.count(b"/") + 2) + b"shared/" + path


class _Hashing:
    """Hashes files while the walk still finds more: in this process as long as there are few, and
    by workers from then on."""

    def __init__(self, walk: _Walk, root: int, progress: Progress) -> None:
        self.walk = walk
        self.disk = walk.disk
        self.root = root
        self.progress = progress
        self._done = self._files = 0
        self._few: list[tuple[bytes, bytes]] = []
        self._piece: list[tuple[bytes, bytes]] = []
        self._pool: Optional[Workers] = None

    def __enter__(self) -> _Hashing:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.close()

    def add(self, directory: bytes, name: bytes) -> None:
        if self._pool is None:
            self._few.append((directory, name))
            if len(self._few) > SMALL_FILES:
                self._start(SMALL_BYTES + 1)
            return
        self._piece.append((directory, name))
        if len(self._piece) >= PIECE_FILES:
            self._pool.put(self._piece)
            self._piece = []
            self.beat()

    def beat(self) -> None:
        """Take what was hashed by now, and see that nobody is idle."""
        if self._pool is not None:
            self._add_entries(self._pool.ready())

    def _start(self, size_bytes: int) -> None:
        self._pool = workers(self._job, files=len(self._few), size_bytes=size_bytes)
        few, self._few = self._few, []
        for start in range(0, len(few), PIECE_FILES):
            self._pool.put(few[start : start + PIECE_FILES])

    def _job(self, piece: list[tuple[bytes, bytes]]) -> list[tuple[int, int, str, str]]:
        buffer = hash_buffer()
        with Descent(self.disk, self.root) as descent:
            return [_hash_one(self.disk, descent, *names, buffer) for names in piece]

    def finish(self) -> None:
        """Wait for the rest."""
        if self._pool is None:
            self._start(self._small_size())
        assert self._pool is not None
        if self._piece:
            self._pool.put(self._piece)
        self._add_entries(self._pool.finish())

    def _add_entries(self, hashed: Iterable[tuple[Any, Any]]) -> None:
        """The entries of these files, or why they are refused. What workers told is not kept until
        the end: it takes as much memory as the entries."""
        walk = self.walk
        for piece, results in hashed:
            for (directory, name), (mode, size, digest, problem) in zip(piece, results):
                path = name if directory == b"." else directory + b"/" + name
                self._done += size
                self._files += 1
                if problem in _CHANGES:
                    raise _changed(path, problem)
                if problem:
                    walk.refuse(path, problem)
                else:
                    _refuse_special_bits(walk, path, mode)
                    walk.entries.append(entry_of((path, FILE, mode & 0o777, size, digest, b"")))
            self.progress(self._done, 0, "hashing", self._files)

    def _small_size(self) -> int:
        """The bytes of few files: one of them may be large, and worth a second process."""
        with Descent(self.disk, self.root) as descent:
            try:
                return sum(
                    self.disk.stat(name, descent.enter(directory)).st_size
                    for directory, name in self._few
                )
            except OSError as error:
                raise _gone(error, os.fsencode(error.filename or "")) from error


def _hash_one(
    disk: Disk, descent: Descent, directory: bytes, name: bytes, buffer: memoryview
) -> tuple[int, int, str, str]:
    """(mode, size, digest, problem) of one file; the problem is empty when there is none."""
    try:
        fd, before = disk.open_file(name, at=descent.enter(directory))
    except PermissionError:
        return 0, 0, "", "cannot be read"
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return 0, 0, "", _CHANGES[0]
    try:
        digest, size = hash_file(disk, fd, before.st_size, buffer)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if size != before.st_size or _stamp(before) != _stamp(after):
        return 0, 0, "", _CHANGES[1]
    return before.st_mode, size, digest, ""


_CHANGES = ("vanished or was replaced", "was written to")
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE}


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(path: bytes, how: str) -> SourceChanged:
    return SourceChanged(
        f"the build changed while it was published: {shown(path)} {how}. Nothing was published. "
        "Publish after the build has ended."
    )


def _gone(error: OSError, path: bytes) -> Exception:
    """What an error means for a path that was there a moment ago."""
    return _changed(path, _CHANGES[0]) if error.errno in _GONE else error


def _refuse_special_bits(walk: _Walk, path: bytes, mode: int) -> None:
    if not mode & 0o7000:
        return
    for bit, name in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid"), (stat.S_ISVTX, "sticky")):
        if mode & bit:
            walk.refuse(path, f"is {name}")


def source_content(disk: Disk, descent: Descent, entry: Entry) -> Iterator[bytes]:
    """The bytes of a file of the source; raises SourceChanged if they are not those of the scan."""
    directory, _, name = entry.path.rpartition(b"/")
    try:
        fd, status = disk.open_file(name, descent.enter(directory or b"."))
    except OSError as error:
        raise _gone(error, entry.path) from error
    state, size = hashlib.sha256(), 0
    try:
        if status.st_size != entry.size:
            raise _changed(entry.path, _CHANGES[1])
        while size < entry.size:
            chunk = disk.read(fd, min(entry.size - size, 1 << 20))
            if not chunk:
                break
            size += len(chunk)
            state.update(chunk)
            yield chunk
        if state.hexdigest() != entry.digest:
            raise _changed(entry.path, _CHANGES[1])
    finally:
        os.close(fd)
