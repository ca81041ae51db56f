"""A disk that turns read-only in the middle, as ext4 does when it meets an error.

`mount -o remount,abort` makes the kernel take that path: what is open for writing fails too. Then
it is mounted anew, journal and all, as an operator would.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from baddisks.shop import Shop, refusal
from counts import Count
from nfs import needs

pytestmark = pytest.mark.slow

MB = 1 << 20
FAILED = ("Read-only file system", "Input/output error")
PUBLISH = (
    ("make_directory", 0), ("create", 0), ("write", 1), ("sync", 0), ("sync", 3), ("close", 1),
    ("hard_link:[0-9]*", 0), ("rename:two", 0), ("hard_link:*two.json", 0),
)  # fmt: skip
DEPLOY = (
    ("make_directory:two.*", 0), ("write", 0), ("sync_all", 0), ("rename:deploying.json", 0),
    ("append", 0), ("make_link:.current*", 0), ("rename:current", 0), ("append", 1),
    ("unlink:deploying.json", 0),
)  # fmt: skip


@pytest.fixture(autouse=True)
def loop() -> None:
    needs.need_loop()


class Device:
    """An ext4 image, mounted at `path`; `reset` puts back what it was like at `keep`."""

    def __init__(self, shop: Shop, path: Path) -> None:
        self.space, self.path = shop.space, path
        self.image, self.kept = path.with_suffix(".img"), path.with_suffix(".kept")
        self.space.ext4(self.image, path, 8 * MB)

    def keep(self) -> None:
        self.space.unmount(self.path)
        shutil.copyfile(self.image, self.kept)

    def reset(self) -> None:
        shutil.copyfile(self.kept, self.image)
        self.space.ext4(self.image, self.path)

    def mount_again(self) -> None:
        self.space.unmount(self.path)
        self.space.ext4(self.image, self.path)


def test_a_share_that_turns_read_only_during_a_publish(shop: Shop, count: Count) -> None:
    device = Device(shop, shop.share)
    shop.init()
    shop.publish("one")
    device.keep()
    for at in PUBLISH:
        device.reset()
        done = shop.acting(at, f"mount -o remount,abort {shop.share}", *shop.publish_words("two"))
        device.mount_again()
        if done.returncode:
            said = refusal(done)
            assert said.startswith("publish failed: "), said
            assert any(words in said for words in FAILED), said
        else:
            shop.holds("one", "two")
        shop.publish("two")
        shop.holds("one", "two")
        assert shop.litter_that_stays() == [], at
        shop.space.unmount(shop.share)
        count.add("disk failures")


def test_a_target_that_turns_read_only_during_a_deploy(packs: Shop, count: Count) -> None:
    """Whatever the journal kept: a whole release is live, and the same command succeeds."""
    shop, device = packs, Device(packs, packs.disk)
    shop.init()
    shop.publish("one", "two")
    shop.deploy("one")
    device.keep()
    for at in DEPLOY:
        device.reset()
        done = shop.acting(at, f"mount -o remount,abort {shop.disk}", *shop.deploy_words("two"))
        device.mount_again()
        live = "two" if "/two." in shop.link else "one"
        shop.serves(live)
        if done.returncode:
            said = refusal(done, done.returncode)
            assert done.returncode in (1, 7) and any(words in said for words in FAILED), said
        else:
            assert live == "two"
        shop.deploy("two")
        assert shop.target_litter() == [], at
        shop.space.unmount(shop.disk)
        count.add("disk failures")
