"""A model of what a disk keeps when its power goes.

    JournalDisk    does everything for real, and notes what was written, named and made durable;
                   its process may die and another go on with what is there, durable or not
    State          what the disk may hold after a power cut at some moment of the run

Durable is what an fsync of that file or directory covered, or a sync of its file system; store and
target are two file systems. Of all the rest any part may be lost: the content of a file (nothing,
the first half or all of it is there), and each change of names by itself, in any order. A rename
happens as a whole or not at all, and is durable once both of its directories were synced. That is
harsher than ext4 or XFS, which keep the order of names.
"""

from __future__ import annotations

import inspect
import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crash.disks import Call, Dead, WatchedDisk
from moorline.disk import Disk


@dataclass(frozen=True)
class Version:
    """What a file or directory says for itself at one moment."""

    mode: int
    data: bytes = b""
    mtime: int = 0


@dataclass(eq=False)
class Node:
    """A file, link or directory: how it is now, and the last version known to be durable."""

    kind: str
    share: bool
    now: Version
    durable: Version

    @property
    def pending(self) -> bool:
        return self.now != self.durable and self.kind != "l"


@dataclass(eq=False)
class Change:
    """One change of names: (directory, name, what it means from now on)."""

    parts: list[tuple[Node, bytes, Node | None]]
    waits: list[Node] = field(default_factory=list)  # directories that were not synced since

    def __post_init__(self) -> None:
        self.waits = [part[0] for part in self.parts]


class Outside(Exception):
    """Neither store nor target."""


State = dict[bytes, tuple[str, Version]]
"""Path -> kind and what is there, parents first."""


class JournalDisk(WatchedDisk):
    """Runs below `here`, where `store` is the share and everything else the local disk.

    With `dies_after` the process dies when it made that change, and power cuts are looked at only
    after `revive`.
    """

    def __init__(self, here: Path, seed: int, dies_after: int | None = None) -> None:
        super().__init__()
        self.dies_after = dies_after
        self.thorough = dies_after is None
        self.here = here
        self.chance = random.Random(seed)
        self.nodes: dict[tuple[int, int], Node] = {}
        self.changes: list[Change] = []
        self.first: dict[Node, dict[bytes, Node]] = {}
        self.root = self._scan(os.fsencode(here), share=False)
        self.states: list[tuple[int, State]] = []

    def _scan(self, path: bytes, *, share: bool) -> Node:
        node = self._met(os.lstat(path), path, share=share)
        if node.kind == "d":
            names = os.listdir(path) if path != os.fsencode(self.here) else [b"store", b"www"]
            self.first[node] = {
                name: self._scan(path + b"/" + name, share=share or name == b"store")
                for name in names
                if os.path.lexists(path + b"/" + name)
            }
        return node

    def _met(self, status: os.stat_result, path: bytes, *, share: bool) -> Node:
        """A node that was there from the first; one for all the names of an inode."""
        inode = (status.st_dev, status.st_ino)
        if inode not in self.nodes:
            kind = "d" if stat.S_ISDIR(status.st_mode) else "f"
            data = b""
            if stat.S_ISLNK(status.st_mode):
                kind, data = "l", os.readlink(path)
            elif kind == "f":
                data = Path(os.fsdecode(path)).read_bytes()
            version = Version(stat.S_IMODE(status.st_mode), data, int(status.st_mtime))
            self.nodes[inode] = Node(kind, share, version, version)
        return self.nodes[inode]

    def revive(self) -> None:
        """Another process goes on: nothing that the dead one left is more durable for that."""
        assert self.fired, "the process did not die"
        self.dies_after, self.seed = None, "revived"

    # -- what happens -------------------------------------------------------------------------

    def before(self, call: Call) -> None:
        if self.fired and self.dies_after is not None:
            raise Dead("the process is dead")

    def after(self, call: Call) -> None:
        self._note(call)
        if call.number == self.dies_after:
            self.fired = True
            raise Dead(f"after {call}")

    def _note(self, call: Call) -> None:
        handler = getattr(self, f"_{call.operation}", None)
        if handler is None:
            return
        bound = _SIGNATURES[call.operation].bind(None, *call.arguments, **call.options)
        bound.apply_defaults()
        try:
            handler(**{name: value for name, value in bound.arguments.items() if name != "self"})
        except Outside:  # a bundle, or moorline.toml: made last, and made again by whoever needs it
            return
        if call.operation not in ("sync", "sync_all") and self.dies_after is None:
            thorough = self.thorough and call.operation in ("rename", "unlink")
            self.states += [(call.number, s) for s in self.possible(thorough=thorough)]

    def _known(self, status: os.stat_result) -> Node:
        node = self.nodes.get((status.st_dev, status.st_ino))
        if node is None:
            raise Outside
        return node

    def _of(self, fd: int) -> Node:
        return self._known(os.fstat(fd))

    def _place(self, path: Any, at: int | None) -> tuple[Node, bytes]:
        """The directory node and the last name of a path."""
        folder, name = os.path.split(os.fsencode(path))
        above = self._known(os.stat(folder or b".", dir_fd=at))
        if above is self.root and name not in (b"store", b"www"):
            raise Outside
        return above, name

    def _new(self, path: Any, at: int | None, kind: str, data: bytes = b"") -> None:
        folder, name = self._place(path, at)
        status = os.stat(path, dir_fd=at, follow_symlinks=False)
        version = Version(stat.S_IMODE(status.st_mode), data, int(status.st_mtime))
        share = folder.share or name == b"store"
        node = Node(kind, share, version, replace(version, data=b""))
        if kind == "l":
            node.durable = version
        self.nodes[status.st_dev, status.st_ino] = node
        self.changes.append(Change([(folder, name, node)]))

    def _create(self, path: Any, mode: int, at: int | None, private: bool) -> None:
        self._new(path, at, "f")

    def _append(self, path: Any, at: int | None) -> None:
        status = os.stat(path, dir_fd=at, follow_symlinks=False)
        known = self.nodes.get((status.st_dev, status.st_ino))
        if known is None or not status.st_size:
            self._new(path, at, "f")

    def _make_directory(self, path: Any, mode: int, at: int | None) -> None:
        self._new(path, at, "d")

    def _make_link(self, target: bytes, path: Any, at: int | None) -> None:
        self._new(path, at, "l", target)

    def _hard_link(self, source: Any, path: Any, source_at: int | None, at: int | None) -> None:
        folder, name = self._place(path, at)
        status = os.stat(path, dir_fd=at, follow_symlinks=False)
        self.changes.append(Change([(folder, name, self._known(status))]))

    def _rename(self, source: Any, path: Any, source_at: int | None, at: int | None) -> None:
        above, before = self._place(source, source_at)
        folder, name = self._place(path, at)
        status = os.stat(path, dir_fd=at, follow_symlinks=False)
        node = self._known(status)
        self.changes.append(Change([(above, before, None), (folder, name, node)]))

    def _unlink(self, path: Any, at: int | None) -> None:
        folder, name = self._place(path, at)
        self.changes.append(Change([(folder, name, None)]))

    _remove_directory = _unlink

    def _write(self, fd: int, data: bytes) -> None:
        node = self._of(fd)
        node.now = replace(node.now, data=node.now.data + bytes(data))

    def _set_mode(self, fd: int, mode: int) -> None:
        node = self._of(fd)
        node.now = replace(node.now, mode=mode)

    def _set_times(self, fd: int, seconds: int | None) -> None:
        node = self._of(fd)
        node.now = replace(node.now, mtime=int(os.fstat(fd).st_mtime))

    def _sync(self, fd: int) -> None:
        node = self._of(fd)
        node.durable = node.now
        for change in self.changes:
            change.waits = [folder for folder in change.waits if folder is not node]

    def _sync_all(self, fd: int) -> None:
        share = self._of(fd).share
        for node in self.nodes.values():
            if node.share == share:
                node.durable = node.now
        for change in self.changes:
            change.waits = [folder for folder in change.waits if folder.share != share]

    # -- what may be left ---------------------------------------------------------------------

    def possible(self, *, thorough: bool) -> Iterator[State]:
        """States after a power cut now: all of them when there are few, else a sample with all,
        nothing, and when `thorough` all but one and only one."""
        changes = [change for change in self.changes if change.waits]
        nodes = [node for node in self.nodes.values() if node.pending]
        units: list[Change | Node] = [*changes, *nodes]
        if len(units) <= 3:
            for bits in range(1 << len(units)):
                yield self._state({u for i, u in enumerate(units) if bits >> i & 1})
            return
        yield self._state(set(units))
        yield self._state(set())
        for part in (0.2, 0.5, 0.8):
            yield self._state({unit for unit in units if self.chance.random() < part})
        if thorough:
            for unit in units:
                yield self._state(set(units) - {unit})
                yield self._state({unit})

    def _state(self, kept: set[Change | Node]) -> State:
        names = {folder: dict(inside) for folder, inside in self.first.items()}
        for change in self.changes:
            if not change.waits or change in kept:
                for folder, name, node in change.parts:
                    inside = names.setdefault(folder, {})
                    if node is not None:
                        inside[name] = node
                    else:
                        inside.pop(name, None)
        state: State = {}
        self._describe(self.root, b".", names, kept, state)
        return state

    def _describe(
        self, node: Node, path: bytes, names: dict[Node, dict[bytes, Node]],
        kept: set[Change | Node], state: State,
    ) -> None:  # fmt: skip
        version = node.now if node in kept or not node.pending else node.durable
        if node.pending and node not in kept and self.chance.random() < 0.3:
            whole, least = node.now.data, len(node.durable.data)
            version = replace(node.now, data=whole[: (least + len(whole)) // 2])
        state[path] = (node.kind, version)
        for name, below in sorted(names.get(node, {}).items()):
            self._describe(below, path + b"/" + name, names, kept, state)


_SIGNATURES = {
    name: inspect.signature(getattr(Disk, name))
    for name in vars(Disk)
    if hasattr(JournalDisk, f"_{name}")
}


def materialise(state: State, here: Path) -> None:
    """Make it so below `here`, where nothing of it is now. Names of one file become copies."""
    top = os.fsencode(here)
    folders = []
    for path, (kind, version) in state.items():
        full = top + b"/" + path
        if kind == "d":
            if path != b".":
                os.mkdir(full, 0o700)
                folders.append((full, version.mode))
        elif kind == "l":
            os.symlink(version.data, full)
        else:
            fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, version.data)
            os.fchmod(fd, version.mode)
            os.utime(fd, (version.mtime, version.mtime))
            os.close(fd)
    for full, mode in reversed(folders):
        os.chmod(full, mode)
