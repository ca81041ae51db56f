"""A share that is full, for real: on the disk of the kernel's NFS server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from counts import Count
from nfs.shop import Shop
from nfs.solo import SoloRig
from trees import SITE

pytestmark = pytest.mark.slow

MB = 1 << 20
LEFT = 4 * MB
LARGE = SITE | {f"large{n}": b"%d" % n * MB for n in range(6)}


@pytest.fixture
def full(solo: SoloRig) -> Iterator[SoloRig]:
    """The share has LEFT bytes left."""
    ballast = solo.free_bytes() - LEFT
    solo.guest.shell(f"fallocate -l {ballast} /mnt/export/ballast")
    yield solo
    solo.guest.shell("rm -f /mnt/export/ballast")
    solo.a.forget_lost_writes()


def test_a_full_share_fails_a_publish_until_there_is_space(
    full: SoloRig, tmp_path: Path, layout: str, count: Count
) -> None:
    """What it had written is given back."""
    shop = Shop(full, tmp_path, layout=layout)
    shop.publish("one", SITE)
    large = shop.source("two", LARGE)
    before = full.free_bytes()

    refusal = shop.refused_publish("two", large)

    assert refusal["exit"] == 1
    assert "No space left on device" in refusal["error"]
    assert "The disk is full. Free space, then run the same command again." in refusal["error"]
    assert shop.ids(on=full.b) == ["one"]
    assert shop.left_over() == []
    assert full.free_bytes() >= before - MB // 2
    full.guest.shell("rm /mnt/export/ballast")
    full.a.moorline(*shop.publish_words("two", large, full.a))
    shop.verify("two", on=full.b)
    count.add("limits and errors of a server's disk, on NFS")
