"""Walk a source: all that a build would hold, and all that it may not hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from moorline.disk import AnyPath, Descent, Disk, Named
from moorline.errors import NotFound, SourceRefused
from moorline.garbage import uncollected
from moorline.manifest import (
    DIRECTORY,
    LINK,
    MAX_DEPTH,
    MAX_LINK_BYTES,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    SECRETS,
    Entry,
    Manifest,
    link_leaves,
    shown,
)
from moorline.progress import Progress, no_progress
from moorline.source import Found, Hashing, Source, gone

_SPECIAL = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device node",
            stat.S_IFBLK: "a device node"}  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """What a publish leaves out, replaces and accepts.

    `excluded(path, is_directory)` leaves things out. `linked` are paths that live in the target's
    `shared/`; a final slash says directory. `linked_root` is the absolute path of the target in a
    store of layout tree, where a relative link would not lead to the target. `allow` names
    `.git` or `.env` when they are meant.
    """

    excluded: Callable[[str, bool], bool] | None = None
    linked: tuple[str, ...] = ()
    linked_root: str | None = None
    allow: frozenset[str] = frozenset()
    allow_external_links: bool = False


# -- scanning a source ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outline:
    """A source of which all names are known: its directories, parents first, and what `Source`
    calls `replaced`."""

    directories: list[Entry]
    replaced: tuple[str, ...]


Meanwhile = Callable[[Outline, Callable[[], None]], object]


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
    name = os.fsdecode(root)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"nothing to publish: {name} is no directory. Build first, or name the build's folder."
        ) from None
    try:
        walk = _Walk(disk, rules)
        with Hashing(disk, fd, walk, progress) as hashing:
            walk.run(fd, hashing.add)
            if not walk.problems:
                meanwhile(walk.outline(), hashing.beat)
            hashing.finish()
    finally:
        os.close(fd)
    walk.add_linked()
    if not walk.problems and len(walk.entries) <= 1:
        raise SourceRefused(f"nothing to publish: {name} is empty. Build first.")
    if walk.problems:
        raise SourceRefused(
            f"{name} holds {len(walk.problems)} thing(s) that a build may not hold. "
            "Remove them, leave them out with 'exclude', or allow them in moorline.toml.",
            problems=sorted(walk.problems),
        )
    return Source(os.path.realpath(name), Manifest.of(walk.entries), walk.replaced())


Tell = Callable[[bytes, bytes], None]
"""Called with (directory, name) of each file, while the walk goes on."""


class _Walk(Found):
    """One walk; `linked` is True for a path that is known to be a directory."""

    def __init__(self, disk: Disk, rules: Rules) -> None:
        super().__init__()
        self.disk = disk
        self.rules = rules
        self.linked = {os.fsencode(name.rstrip("/")): name.endswith("/") for name in rules.linked}

    def outline(self) -> Outline:
        return Outline([e for e in self.entries if e.kind == DIRECTORY], self.replaced())

    def replaced(self) -> tuple[str, ...]:
        return tuple(
            sorted(os.fsdecode(path) + "/" * is_dir for path, is_dir in self.linked.items())
        )

    def run(self, fd: int, tell: Tell) -> None:
        """Record the directory `fd` and all below it, depth first."""
        todo = [b""]  # paths that end in a slash; the root's is empty
        with Descent(self.disk, fd) as descent:
            while todo:
                path = todo.pop()
                try:
                    inside = descent.enter(path[:-1] or b".")
                except PermissionError:
                    self.refuse(path[:-1], "cannot be read")
                    continue
                except OSError as error:
                    raise gone(error, path[:-1]) from error
                todo += reversed(self._directory(inside, path, tell))

    def _directory(self, fd: int, path: bytes, tell: Tell) -> list[bytes]:
        """Record one directory and what is in it; returns the directories in it."""
        mode = os.fstat(fd).st_mode
        if path:
            self.refuse_special_bits(path[:-1], mode & ~stat.S_ISGID)
        # The root is made by whoever deploys: mktemp's 0700 must not lock the web server out.
        self.entries.append(Entry(path[:-1] or b".", DIRECTORY, mode & 0o777 if path else 0o755, 0))
        below = []
        excluded = self.rules.excluded
        for named in sorted(self.disk.names(fd)):  # what comes in order is soon sorted
            here = path + named.name
            if here in self.linked:
                self.linked[here] |= named.kind == "d"
            elif excluded is not None and excluded(os.fsdecode(here), named.kind == "d"):
                continue
            elif self._one(fd, path, named, tell):
                below.append(here + b"/")
        return below

    def _one(self, fd: int, path: bytes, named: Named, tell: Tell) -> bool:
        """Record one name; True for a directory that is to be walked."""
        here = path + named.name
        if len(named.name) > MAX_NAME_BYTES or len(here) > MAX_PATH_BYTES:
            self.refuse(here, "the name is too long")
        elif named.name in SECRETS and os.fsdecode(named.name) not in self.rules.allow:
            self.refuse(
                here, "is not published unless it is named: in 'exclude', 'linked' or 'allow'"
            )
        elif named.kind == "f":
            tell(path[:-1] or b".", named.name)
        elif named.kind == "d":
            if here.count(b"/") < MAX_DEPTH:
                return True
            self.refuse(here, f"lies more than {MAX_DEPTH} directories deep")
        else:
            try:
                self._odd(fd, named, here)
            except OSError as error:
                raise gone(error, here) from error
        return False

    def _odd(self, fd: int, named: Named, here: bytes) -> None:
        if named.kind != "l":
            kind = stat.S_IFMT(self.disk.stat(named.name, at=fd).st_mode)
            self.refuse(here, f"is {_SPECIAL.get(kind, 'no file, directory or link')}")
            return
        target = self.disk.read_link(named.name, at=fd)
        if link_leaves(here, target) and not self.rules.allow_external_links:
            self.refuse(here, f"is a link that leaves the build: {shown(target)}")
        elif len(target) > MAX_LINK_BYTES:
            self.refuse(here, "is a link whose target is too long")
        else:
            self.entries.append(Entry(here, LINK, 0o777, len(target), "", target))

    def add_linked(self) -> None:
        """A link into `shared/` for each linked path, and the directories that lead to it."""
        kinds = {entry.path: entry.kind for entry in self.entries}
        for path in sorted(self.linked):
            parts = path.split(b"/")
            for depth in range(1, len(parts)):
                above = b"/".join(parts[:depth])
                if above not in kinds:
                    kinds[above] = DIRECTORY
                    self.entries.append(Entry(above, DIRECTORY, 0o755, 0))
                elif kinds[above] != DIRECTORY:
                    self.refuse(above, f"is no directory, but 'linked' names {shown(path)}")
            target = linked_target(path, self.rules.linked_root)
            kinds[path] = LINK
            self.entries.append(Entry(path, LINK, 0o777, len(target), "", target))


def linked_target(path: bytes, root: str | None = None) -> bytes:
    """The text of the link that stands in for the linked `path`: from <target>/releases/<name>/
    up to <target>/shared/; absolute when the tree is served from the share."""
    if root is not None:
        return os.fsencode(root.rstrip("/")) + b"/shared/" + path
    return b"../" * (path.count(b"/") + 2) + b"shared/" + path
