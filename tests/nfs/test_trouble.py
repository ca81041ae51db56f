"""A full share, and files that vanish from it while they are read: on the kernel's NFS server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nfs.guest import Running
from nfs.shop import Shop
from nfs.solo import SoloRig
from trees import SITE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("solo")]

MB = 1 << 20
LEFT = 12 * MB


@pytest.fixture
def full(solo: SoloRig) -> Iterator[SoloRig]:
    """The share has LEFT bytes left."""
    ballast = solo.free_bytes() - LEFT
    solo.guest.shell(f"fallocate -l {ballast} /mnt/export/ballast")
    yield solo
    solo.guest.shell("rm -f /mnt/export/ballast")


def test_a_full_share_fails_a_publish_and_nothing_of_it_stays(
    full: SoloRig, tmp_path: Path, layout: str
) -> None:
    shop = Shop(full, tmp_path, layout=layout)
    shop.publish("one", SITE)
    before = full.free_bytes()
    large = shop.source("two", SITE | {f"large{n}": b"%d" % n * 3 * MB for n in range(6)})

    refusal = shop.refused_publish("two", large)

    assert refusal["exit"] == 1
    assert "No space left on device" in refusal["error"]
    assert "The disk is full. Free space, then run the same command again." in refusal["error"]
    assert shop.ids(on=full.b) == ["one"]
    assert shop.left_over() == []
    assert _freed(full) >= before - MB

    full.guest.shell("rm /mnt/export/ballast")
    full.a.moorline(*shop.publish_words("two", large, full.a))
    assert shop.verify("two", on=full.b)["verify"][0]["ok"]


def test_a_pack_that_vanishes_while_it_is_copied_leaves_the_old_release_live(
    solo: SoloRig, tmp_path: Path
) -> None:
    """Never remove what another machine may have open: this is what it would meet. The kernel's
    server answers EBADF or ESTALE, and moorline says so and changes nothing."""
    shop = Shop(solo, tmp_path)
    shop.publish("one", SITE)
    shop.deploy("one")
    shop.publish("two", SITE | {f"large{n}": b"%d" % n * 8 * MB for n in range(6)})
    deploying = shop.begin_deploy("two")
    _halt(shop, deploying)
    solo.a.shell(f"rm {shop.store(solo.a)}/packs/*")
    solo.b.forget()
    solo.guest.shell("pkill -CONT -f 'mai[n].. deploy '")
    answer = deploying.wait()

    assert answer.code in (1, 3), answer
    assert "two" not in solo.b.shell(f"ls {shop.target(solo.b)}/releases")
    assert shop.served("index.html") == "<h1>one</h1>"


def _halt(shop: Shop, deploying: Running) -> None:
    """Stop the deploy on b when the first large file begins to arrive."""
    target = shop.target(shop.rig.b)
    while not deploying.answered.is_set():
        halted = f"ls {target}/releases/two.*/large0 && pkill -STOP -f 'mai[n].. deploy '"
        if shop.rig.b.guest.run(halted).code == 0:
            return
        time.sleep(0.05)
    pytest.fail(f"it ended too early: {deploying.wait()}")


def _freed(rig: SoloRig) -> int:
    """What is free, once the server has given back what was removed."""
    rig.guest.shell("sync")
    return rig.free_bytes()
