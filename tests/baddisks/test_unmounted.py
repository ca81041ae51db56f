"""A share that is not mounted, or is unmounted while somebody works on it."""

from __future__ import annotations

import os
import shutil

import pytest

from baddisks.shop import Shop, refusal
from counts import Count
from crash.ground import copy_tree

pytestmark = pytest.mark.slow

PUBLISH = (("make_directory", 0), ("create:index", 0), ("write", 0), ("sync", 1),
           ("hard_link:[0-9]*", 0), ("rename:two", 0), ("hard_link:*two.json", 0))  # fmt: skip
DEPLOY = (("make_directory:two.*", 0), ("write", 0), ("sync_all", 0), ("append", 0),
          ("rename:current", 0), ("append", 1))  # fmt: skip


def mount(shop: Shop) -> None:
    backing = shop.here / "backing"
    backing.mkdir(exist_ok=True)
    shop.space.do("mount", "--bind", backing, shop.share)


def nothing_was_written_beneath(shop: Shop) -> None:
    assert os.listdir(shop.space.see(shop.share)) == []


def test_a_mount_point_without_its_share_stays_empty(shop: Shop, count: Count) -> None:
    """Nobody fills the local disk in its place."""
    mount(shop)
    shop.init()
    shop.publish("one", "two")
    shop.deploy("one")
    shop.space.unmount(shop.share)
    asks = "the folder is empty. Is the share mounted there?"
    for words in (shop.publish_words("two"), ("builds",), ("verify", "--all"), ("status",)):
        said = shop.refused(*words, code=4)
        assert "there is no such folder. Mount the share" in said or asks in said, said
    said = shop.refused(*shop.deploy_words("two"), code=4)
    assert "no store at" in said and "ount" in said, said
    shop.serves("one")
    assert shop.target_litter() == []
    shop.deploy("one")  # what the target holds needs no share
    nothing_was_written_beneath(shop)
    mount(shop)
    shop.deploy("two")
    count.add("disk failures", 5)


def test_a_share_unmounted_during_a_publish(shop: Shop, count: Count) -> None:
    """What was open stays usable: the build may be complete, on the share and nowhere else."""
    mount(shop)
    shop.init()
    shop.publish("one")
    kept = shop.here / "kept"
    copy_tree(shop.here / "backing", kept)
    shop.space.unmount(shop.share)
    for at in PUBLISH:
        shutil.rmtree(shop.here / "backing")
        copy_tree(kept, shop.here / "backing")
        mount(shop)
        done = shop.acting(at, f"umount -l {shop.share}", *shop.publish_words("two"))
        nothing_was_written_beneath(shop)
        mount(shop)
        if done.returncode:
            assert "no store at" in refusal(done, done.returncode)
        else:
            shop.holds("one", "two")
        shop.publish("two")
        shop.holds("one", "two")
        assert shop.litter() == [], at
        shop.space.unmount(shop.share)
        count.add("disk failures")


def test_a_share_unmounted_during_a_deploy(packs: Shop, count: Count) -> None:
    """Mode copy goes on with what is open, or does not begin."""
    shop = packs
    mount(shop)
    shop.init()
    shop.publish("one", "two")
    for at in DEPLOY:
        shop.space.do("rm", "-rf", shop.root)
        shop.deploy("one")
        done = shop.acting(at, f"umount -l {shop.share}", *shop.deploy_words("two"))
        nothing_was_written_beneath(shop)
        mount(shop)
        if done.returncode:  # it was not even opened
            assert "no store at" in refusal(done, 4)
            shop.serves("one")
            assert shop.target_litter() == []
        else:
            shop.serves("two")
        count.add("disk failures")


def test_mode_link_is_not_switched_to_a_share_that_is_gone(packs: Shop, count: Count) -> None:
    """What serves now may need none."""
    shop = packs
    shop.layout = "tree"
    mount(shop)
    shop.init()
    shop.publish("one", "two")
    shop.deploy("one")
    prepared = ("rename:deploying.json", 1)
    link = (*shop.deploy_words("two"), "--mode", "link")
    done = shop.acting(prepared, f"umount -l {shop.share}", *link)
    assert "No such file or directory" in refusal(done)
    shop.serves("one")
    assert shop.target_litter() == []
    mount(shop)
    shop.done(*link)
    shop.serves("two")
    count.add("disk failures")
