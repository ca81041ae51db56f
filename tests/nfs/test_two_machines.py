"""Publish on one machine, deploy on another: what NFS caches must not be believed.

With EFS's options a client may take a name for missing, or a folder for unchanged, for up to a
minute. Each test warms the caches that would mislead it first.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from nfs.machine import told
from nfs.shop import Shop
from nfs.solo import SoloRig
from trees import SITE

pytestmark = pytest.mark.slow

NEXT = {**SITE, "index.html": b"<h1>two</h1>", "new.txt": b"new"}


def test_a_build_is_deployed_at_once_and_costs_what_changed(
    solo: SoloRig, tmp_path: Path, layout: str
) -> None:
    shop = Shop(solo, tmp_path, layout=layout)
    shop.publish("one", SITE)
    assert shop.deploy("one")["live"] == "one"

    empty = 1 if layout == "tree" else 0  # empty files are never linked
    assert shop.publish("two", NEXT)["new_files"] == 2 + empty
    deployed = shop.deploy("two")

    assert (deployed["live"], deployed["previous"], deployed["pinned"]) == ("two", "one", True)
    assert shop.served("index.html") == "<h1>two</h1>"
    if layout == "pack":
        assert (deployed["copied_files"], deployed["reused_files"]) == (2, len(NEXT) - 4)


def test_a_build_that_was_looked_for_too_early_is_there_at_once(
    solo: SoloRig, tmp_path: Path
) -> None:
    shop = Shop(solo, tmp_path)
    store = shop.store(solo.b)
    shop.publish("one", SITE)
    shop.deploy("one")
    solo.b.shell(f"ls -l {store}/builds {store}/builds/two {store}/packs || true")
    assert shop.refused_deploy_of_id("two")["exit"] == 4

    shop.publish("two", NEXT)

    assert shop.deploy("two")["live"] == "two"


def test_a_build_is_waited_for_by_listing(solo: SoloRig, tmp_path: Path) -> None:
    """A target that is asked before CI has finished, as a new instance may be."""
    shop = Shop(solo, tmp_path, wait_s=60)
    shop.publish("one", SITE)
    store = shop.store(solo.a)
    solo.a.shell(f"mv {store}/builds/one {store}/incoming/one.held")
    waiting = shop.begin_deploy("one")
    solo.b.shell(f"until ls {shop.target(solo.b)}/.moorline/deploying.json; do sleep .2; done")

    solo.a.shell(f"mv {store}/incoming/one.held {store}/builds/one")

    assert told(waiting.wait())["live"] == "one"


def test_a_record_that_was_replaced_is_read_fresh_at_once(solo: SoloRig, tmp_path: Path) -> None:
    shop = Shop(solo, tmp_path)
    shop.publish("one", SITE)
    for number in range(3):
        reason = f"reason {number}"
        solo.a.moorline("pin", "one", "--reason", reason, *shop.store_words(solo.a))
        (build,) = solo.b.moorline("builds", *shop.store_words(solo.b))["builds"]
        assert build["pins"] == [reason]


def test_deploys_go_on_while_another_machine_publishes(solo: SoloRig, tmp_path: Path) -> None:
    shop = Shop(solo, tmp_path)
    shop.publish("0", SITE)
    for number in range(1, 3):
        page = {"index.html": b"%d" % number, "more": b"x" * (4 << 20)}
        publishing = shop.begin_publish(str(number), shop.source(str(number), SITE | page))
        assert shop.deploy(str(number - 1))["live"] == str(number - 1)
        told(publishing.wait())
    assert shop.ids(on=solo.b) == ["0", "1", "2"]


def test_two_machines_that_publish_at_once_take_a_number_each(
    solo: SoloRig, tmp_path: Path
) -> None:
    shop = Shop(solo, tmp_path)
    running = [
        shop.begin_publish(f"{machine.name}{turn}", shop.source(f"{machine.name}{turn}", SITE),
                           on=machine)
        for turn in range(2) for machine in (solo.a, solo.b)
    ]  # fmt: skip
    for publish in running:
        told(publish.wait())
    for machine in (solo.a, solo.b):
        assert sorted(shop.ids(on=machine)) == ["a0", "a1", "b0", "b1"]
    numbers = solo.a.shell(f"ls {shop.store(solo.a)}/sequence").split()
    assert sorted(numbers) == ["1", "2", "3", "4"]
