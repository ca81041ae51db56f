"""A share and a target that are full, at every point where they can fill up."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from baddisks.namespace import Namespace
from baddisks.shop import Shop
from counts import Count
from nfs import needs
from trees import write_tree

pytestmark = pytest.mark.slow

KB, MB = 1 << 10, 1 << 20
LEFT = (0, 4 * KB, 16 * KB, 64 * KB, MB)
FULL = "No space left on device: {}"
CURE = "The disk is full. Free space, then run the same command again."


def fill(shop: Shop, folder: Path, left: int) -> Path:
    """A file that leaves `left` bytes, or a little more."""
    ballast = shop.space.see(folder) / "ballast"
    ballast.unlink(missing_ok=True)
    disk = os.statvfs(ballast.parent)
    size = disk.f_bavail * disk.f_frsize - left
    with ballast.open("wb") as file:
        while True:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return ballast
            except OSError as error:
                assert error.errno == errno.ENOSPC
                size -= 16 * KB  # the disk needs some for its own books


@pytest.fixture(params=["tmpfs", "ext4"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ext4":
        needs.need_loop()
    name: str = request.param
    return name


def mount(space: Namespace, kind: str, path: Path) -> None:
    if kind == "tmpfs":
        space.tmpfs(path, "16M")
    else:
        space.ext4(path.with_suffix(".img"), path, 16 * MB)


def test_a_share_that_fills_up_while_a_build_is_published(
    shop: Shop, kind: str, count: Count
) -> None:
    mount(shop.space, kind, shop.share)
    write_tree(shop.here / "two", {"large": b"0123456789abcdef" * (2 * MB // 16)})
    shop.init()
    shop.publish("one")
    for left in LEFT:
        ballast = fill(shop, shop.share, left)
        said = shop.refused(*shop.publish_words("two"))
        assert "publish failed: " + FULL.format(shop.store) in said and CURE in said, said
        assert shop.litter() == [], f"left with {left} bytes of room"
        shop.holds("one")
        count.add("disk failures")
    assert not shop.bundle("two").exists()
    ballast.unlink()
    shop.publish("two")
    shop.holds("one", "two")


def test_a_target_that_fills_up_while_a_build_is_copied(
    packs: Shop, kind: str, count: Count
) -> None:
    shop = packs
    mount(shop.space, kind, shop.disk)
    write_tree(shop.here / "two", {"large": b"0123456789abcdef" * (2 * MB // 16)})
    shop.init()
    shop.publish("one", "two")
    shop.deploy("one")
    for left in LEFT:
        ballast = fill(shop, shop.disk, left)
        said = shop.refused(*shop.deploy_words("two"))
        assert "deploy failed: " + FULL.format(shop.root) in said and CURE in said, said
        assert shop.target_litter() == [], f"left with {left} bytes of room"
        shop.serves("one")
        count.add("disk failures")
    ballast.unlink()
    shop.deploy("two")


def test_a_rollback_on_a_full_target(packs: Shop, kind: str, count: Count) -> None:
    """It writes a row of history and a link: done, or refused with what is live unchanged."""
    shop = packs
    mount(shop.space, kind, shop.disk)
    shop.init()
    shop.publish("one", "two")
    shop.deploy("one")
    shop.deploy("two")
    ballast = fill(shop, shop.disk, 0)
    result = shop.moorline("rollback", "--target", shop.root)
    count.add("disk failures")
    if result.returncode:
        assert CURE in result.stderr
        shop.serves("two")
        ballast.unlink()
        shop.done("rollback", "--target", shop.root)
    shop.serves("one")
