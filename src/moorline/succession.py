"""What the next build comes after: the order of builds, and the one to take over from."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from moorline.build import Build, BuildId
from moorline.disk import DAMAGE, STALE
from moorline.errors import Mismatch
from moorline.layout.draft import Base, read_base
from moorline.store import Store


@dataclass(frozen=True)
class Newest:
    """What the next build comes after: the highest sequence number and time given out (0: none),
    and the newest build that is there and whole."""

    sequence: int
    created: int
    base: Base | None = None


def newest(store: Store, ids: Collection[BuildId], most: int = 16) -> Newest:
    """What the next build comes after; `ids` are the builds that are listed."""
    numbers, created = store.tickets(), 0
    for number in numbers[:most]:
        ticket = store.read_ticket(number)
        if ticket is None:
            continue
        created = max(created, ticket.created)
        base = _base(store, ticket) if ticket.id in ids else None
        if base is not None or not ids:
            return Newest(numbers[0], created, base)
    return Newest(numbers[0] if numbers else 0, created)


def _base(store: Store, ticket: Build) -> Base | None:
    """The build that `ticket` speaks of; None when it is gone, damaged, or another one, which
    was faster to take the id."""
    try:
        folder = store.disk.open_directory(ticket.id, store.folder(b"builds"))
    except OSError as error:
        if error.errno not in DAMAGE | STALE:
            raise
        return None
    try:
        return read_base(store.disk, folder, ticket.digest)
    except BaseException as error:
        os.close(folder)
        damaged = isinstance(error, OSError) and error.errno in DAMAGE | STALE
        if damaged or isinstance(error, Mismatch):
            return None
        raise
