"""A full share, and files that vanish from it while they are read: on the kernel's NFS server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfs.guest import Answer, Running
from nfs.machine import told
from nfs.shop import Shop
from nfs.solo import SoloRig
from trees import SITE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("solo")]

MB = 1 << 20
LEFT = 12 * MB
_DEPLOY = "'mai[n].. deploy '"  # a pattern that does not find the shell it is written in


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


def test_a_pack_that_is_removed_while_it_is_read_is_read_to_its_end(
    solo: SoloRig, tmp_path: Path
) -> None:
    """As on a local disk: the server keeps what a client has open. (Only as long as it lives, so
    moorline removes nothing that a target may be reading.)"""
    shop, deploying = _halted_in_copy(solo, tmp_path)
    solo.a.shell(f"rm {shop.store(solo.a)}/packs/*")
    assert told(_go_on(solo, deploying))["live"] == "two"
    assert solo.b.moorline("verify", "--target", shop.target(solo.b))["verify"][0]["ok"]


def test_a_pack_that_is_cut_while_it_is_read_leaves_the_old_release_live(
    solo: SoloRig, tmp_path: Path
) -> None:
    shop, deploying = _halted_in_copy(solo, tmp_path)
    solo.a.shell(f"truncate -s 1M {shop.store(solo.a)}/packs/*")
    refusal = json.loads(_go_on(solo, deploying).out)
    assert (refusal["exit"], refusal["live"]) == (3, "one")
    assert "two" not in solo.b.shell(f"ls {shop.target(solo.b)}/releases")
    assert shop.served("index.html") == "<h1>one</h1>"


def _halted_in_copy(rig: SoloRig, folder: Path) -> tuple[Shop, Running]:
    """Release one is live on b, and a deploy of two is halted when its first large file begins to
    arrive."""
    shop = Shop(rig, folder)
    shop.publish("one", SITE)
    shop.deploy("one")
    shop.publish("two", SITE | {f"large{n}": b"%d" % n * 8 * MB for n in range(6)})
    deploying = shop.begin_deploy("two")
    halt = f"ls {shop.target(rig.b)}/releases/two.*/large0 && pkill -STOP -f {_DEPLOY}"
    while rig.guest.run(halt).code:
        assert not deploying.answered.is_set(), f"it ended too early: {deploying.wait()}"
        time.sleep(0.05)
    return shop, deploying


def _go_on(rig: SoloRig, deploying: Running) -> Answer:
    """Let it go on, with nothing of the pack left in the client's memory."""
    rig.b.forget()
    rig.guest.shell(f"pkill -CONT -f {_DEPLOY}")
    return deploying.wait()


def _freed(rig: SoloRig) -> int:
    """What is free, once the server has given back what was removed."""
    rig.guest.shell("sync")
    return rig.free_bytes()
