"""Which packs a publish folds into its own. Pure: sizes and live bytes decide, nothing else.

A build may use four packs at most, its own included: with its folder they are the five paths that
AWS Backup restores at a time. Pack sizes fall into four classes by powers of `RATIO` below the
build's size, and a build keeps at most one pack of each class. So a content is rewritten about
RATIO / 2 times in a class before it moves up, and RATIO times in the largest. However long the
history, a published byte is written at most 2 * RATIO times, and a publish costs at most
1 / RATIO**3 of the build besides, which is the price of piling up tiny ones
(`tests/test_packing.py` holds both for any history).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOST_PACKS = 4
RATIO = 12


class PackUse(NamedTuple):
    """A pack as one build would use it: its size, and how much of it that build needs, in bytes."""

    token: str
    size: int
    live: int


def to_fold(packs: Sequence[PackUse], new_bytes: int) -> frozenset[str]:
    """The packs of the newest build whose live contents the next one writes into its own pack.

    `new_bytes` are the contents that no pack holds. Afterwards at least half of every kept pack is
    live, no two packs are of one size class, and there are at most `MOST_PACKS`.
    """
    total = new_bytes + sum(pack.live for pack in packs)
    kept = {}
    folded = {pack.token for pack in packs if pack.live * 2 < pack.size}
    for pack in sorted(packs, key=lambda pack: (-pack.live, pack.token)):
        if pack.token in folded:
            continue
        level = size_class(pack.live, total)
        if level in kept:
            folded.add(pack.token)
        else:
            kept[level] = pack.token
    live = {pack.token: pack.live for pack in packs}
    while folded or new_bytes:
        own = size_class(new_bytes + sum(live[token] for token in folded), total)
        joined = {token for level, token in kept.items() if level >= own and token not in folded}
        if not joined:
            break
        folded |= joined
    return frozenset(folded)


def size_class(size: int, total: int) -> int:
    """0 for a pack of the order of the whole build, up to MOST_PACKS - 1 for all small ones."""
    for level in range(MOST_PACKS - 1):
        if size * RATIO ** (level + 1) > total:
            return level
    return MOST_PACKS - 1
