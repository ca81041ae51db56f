"""Take builds and leftovers out of a store, so that nobody who may need them is hurt.

    remove   intent in the ledger -> all pins -> rename to trash/
    clean    stale publishes and notes -> trash/ ; what waited there long enough -> .deleting ;
             packs that nothing else names -> unlinked ; .deleting -> unlinked

Nothing is unlinked under a name that anybody else may use: it is renamed first, and a late commit
then fails. Ages are heartbeats and the times in names, both by the store's clock. Packs go when no
index in builds/, incoming/ or trash/ names them; before what named them goes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from moorline.build import BuildId
from moorline.disk import Descent
from moorline.errors import Conflict, Mismatch, NotFound
from moorline.files import remove_tree
from moorline.layout.index import packs_named
from moorline.ledger.directory import DirectoryLedger
from moorline.store import Store

STALE_S = 86_400
GRACE_S = 86_400

_WAITING = re.compile(rb"(.+)\.([0-9a-f]{16})\.([0-9]{1,12})")
_DELETING = b".deleting"
_TOKEN = re.compile(rb"[0-9a-f]{16}")
_SMALL = (b".", b"incoming", b"agent", b"settings", b"ledger/builds", b"ledger/targets",
          b"ledger/pins", b"ledger/removing")  # fmt: skip


@dataclass(frozen=True)
class Cleaned:
    """What was found and done, as names relative to the store."""

    stale: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()


def store_time(store: Store) -> int:
    """The present time by the clock of the machine that holds the store, in whole seconds."""
    name = b".clock.%s.tmp" % store.disk.token().encode()
    incoming = store.folder(b"incoming")
    fd = store.disk.create(name, at=incoming, private=True)
    try:
        return int(os.fstat(fd).st_mtime)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):  # taken for a leftover by another cleaner
            store.disk.unlink(name, incoming)


def remove(store: Store, id: BuildId, reason: str) -> None:
    """Move build `id` to trash/. Raises Conflict when a target or a person may need it.

    The intent is written before the pins are read, and a deploy writes its pin before it reads the
    intents: so one of the two always sees the other.
    """
    ledger = DirectoryLedger(store.disk, store.root)
    if id not in store.ids():
        raise NotFound(f"no build {id} in the store at {store.path}.")
    now = store_time(store)
    token = ledger.begin_removing(id, reason, now)
    try:
        needed = sorted({t.stage or t.root for t in ledger.targets() if id in t.pins()})
        needed += [f"{pin.by}: {pin.reason}" for pin in ledger.pins() if pin.id == id]
        if needed:
            raise Conflict(
                f"build {id} is needed and was not removed: {'; '.join(needed)}. "
                "Deploy another build there, or unpin it."
            )
        name = f"{id}.{store.disk.token()}.{now}"
        builds, trash = store.folder(b"builds"), store.folder(b"trash")
        try:
            store.disk.rename(id, name, builds, trash)
        except FileNotFoundError:
            raise NotFound(f"build {id} was removed by somebody else meanwhile.") from None
        store.disk.sync(trash)
        store.disk.sync(builds)
    finally:
        ledger.end_removing(id, token)


def clean(store: Store, now: int, *, stale_s: int = STALE_S, grace_s: int = GRACE_S) -> Cleaned:
    """Clean what is old enough at `now`, by the store's clock. Safe beside everything else."""
    _settle(store)
    stale = (*_retire(store, now, stale_s), *_retire_notes(store, now, stale_s))
    doomed = list(_doom(store, now, grace_s))
    packs: tuple[str, ...] = ()
    if store.layout == "pack":
        packs = tuple(_delete_packs(store, now, grace_s))
    return Cleaned(stale, tuple(_delete(store, doomed)), packs)


def _settle(store: Store) -> None:
    """Who moved a build to trash/ may have died before that was durable: nothing of the build goes
    while a power cut could list it again."""
    store.disk.sync(store.folder(b"trash"))
    store.disk.sync(store.folder(b"builds"))


def _retire(store: Store, now: int, stale_s: int) -> Iterator[str]:
    """Publishes whose heartbeat stopped go to trash/."""
    incoming, trash = store.folder(b"incoming"), store.folder(b"trash")
    for name, kind in store.listed(b"incoming"):
        if kind != "d" or now - _heartbeat(store, incoming, name) < stale_s:
            continue
        waiting = b"%s.%s.%d" % (name[:150], store.disk.token().encode(), now)
        with contextlib.suppress(FileNotFoundError):
            store.disk.rename(name, waiting, incoming, trash)
            yield f"incoming/{os.fsdecode(name)}"


def _heartbeat(store: Store, incoming: int, name: bytes) -> int:
    """When the publish was last seen alive; without a heartbeat, when its folder changed."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        folder = store.disk.open_directory(name, incoming)  # a link may stand there by now
        try:
            return int(store.disk.stat(b"index", folder).st_mtime)
        finally:
            os.close(folder)
    with contextlib.suppress(FileNotFoundError):
        return int(store.disk.stat(name, incoming).st_mtime)
    return 1 << 62


def _retire_notes(store: Store, now: int, stale_s: int) -> Iterator[str]:
    """Small files that a crash left half-written, or a removal in the ledger, where it would keep
    every deploy of that build away."""
    trash = store.folder(b"trash")
    with Descent(store.disk, store.root) as descent:
        for folder in (*_SMALL, *(b"builds/" + id.encode() for id in store.ids())):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = descent.enter(folder)
                for name, kind in store.disk.names(fd):
                    if kind not in "fd" or not _is_note(folder, name):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        if now - int(store.disk.stat(name, fd).st_mtime) < stale_s:
                            continue
                        waiting = b"note.%s.%d" % (store.disk.token().encode(), now)
                        store.disk.rename(name, waiting, fd, trash)
                        yield os.fsdecode(folder + b"/" + name)


def _is_note(folder: bytes, name: bytes) -> bool:
    return folder == b"ledger/removing" or (name.startswith(b".") and name.endswith(b".tmp"))


def _doom(store: Store, now: int, grace_s: int) -> Iterator[bytes]:
    """The names of what waited in trash/ for `grace_s` seconds: from here on it has no way back."""
    trash = store.folder(b"trash")
    for name, _ in store.listed(b"trash"):
        if name.endswith(_DELETING):
            yield name
            continue
        match = _WAITING.fullmatch(name)
        if match is None or now - int(match.group(3)) < grace_s:
            continue
        doomed = name[-200:] + _DELETING  # what tells it apart stands at its end
        with contextlib.suppress(FileNotFoundError):
            store.disk.rename(name, doomed, trash, trash)
            yield doomed


def _delete(store: Store, doomed: list[bytes]) -> Iterator[str]:
    for name in doomed:
        remove_tree(store.disk, name, store.folder(b"trash"))
        yield f"trash/{os.fsdecode(name[: -len(_DELETING)])}"


def _delete_packs(store: Store, now: int, grace_s: int) -> Iterator[str]:
    """Packs that no index and no publish in flight names, once they are old enough."""
    used = _used_packs(store)
    packs, trash = store.folder(b"packs"), store.folder(b"trash")
    for name, _ in store.listed(b"packs"):
        if _TOKEN.fullmatch(name) is None or os.fsdecode(name) in used:
            continue
        with contextlib.suppress(FileNotFoundError):
            if now - int(store.disk.stat(name, packs).st_mtime) < grace_s:
                continue
            doomed = b"pack.%s.%d%s" % (name, now, _DELETING)
            store.disk.rename(name, doomed, packs, trash)
            remove_tree(store.disk, doomed, trash)  # it may be a folder: the share is not ours
            yield f"packs/{os.fsdecode(name)}"


def _used_packs(store: Store) -> set[str]:
    """Every pack that may be needed. Raises Mismatch when the index of a build cannot be read:
    then nobody knows, and nothing is removed."""
    used: set[str] = set()
    ids = set(store.ids())
    for folder in (b"incoming", b"builds", b"trash"):  # the way that a build goes
        for name, kind in store.listed(folder):
            if kind == "d" and not (folder == b"trash" and name.endswith(_DELETING)):
                published = folder == b"builds" and os.fsdecode(name) in ids
                used |= _packs_of(store, folder, name, published=published)
    return used


def _packs_of(store: Store, folder: bytes, name: bytes, *, published: bool) -> set[str]:
    """The packs of a published build, or all that something else may need: a publish in flight,
    what lies in trash/, and a folder in builds/ whose name is no build's, which only somebody else
    can have put there and must not be able to stop every cleaner."""
    try:
        fd = store.disk.open_directory(name, store.folder(folder))
    except FileNotFoundError:
        return set()
    try:
        return packs_named(store.disk, fd, complete=published)
    except Mismatch as error:
        raise Mismatch(
            f"{os.fsdecode(name)} has a damaged index, so nobody knows which packs it needs: "
            f"no pack was removed. Publish that build again, or remove it. ({error})"
        ) from None
    finally:
        os.close(fd)
