"""Machines and the server die or fall silent in the middle of the work; EFS's limit of links.

On the rig of two machines, whose server can be watched from here: `pair.share` is its disk.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nfs.guest import Running
from nfs.machine import Machine, told
from nfs.pair import Rig
from nfs.shop import Shop
from trees import SITE

pytestmark = pytest.mark.slow

MB = 1 << 20
LARGE = SITE | {f"large{n}": b"%d" % n * 6 * MB for n in range(4)}
LINKS = 177
PUBLISHES = 180


@pytest.fixture
def shop(pair: Rig, tmp_path: Path) -> Iterator[Shop]:
    """A store with build one, live on b."""
    if not pair.a.guest.runs:
        pair.restart(pair.a)
    shop = Shop(pair, tmp_path)
    shop.publish("one", SITE)
    shop.deploy("one")
    yield shop
    pair.shim.latency()
    if pair.a.guest.runs:
        pair.a.forget_lost_writes()


def test_a_power_cut_in_the_middle_of_a_publish_leaves_nothing_half(pair: Rig, shop: Shop) -> None:
    source = shop.source("two", LARGE)
    pair.shim.latency(WRITE=150_000)
    publishing = shop.begin_publish("two", source)
    _until(lambda: _pack_bytes(pair, shop) > 4 * MB, publishing)
    pair.a.guest.cut_power()
    pair.shim.latency()

    assert publishing.wait().code == -1
    assert shop.ids(on=pair.b) == ["one"]
    assert shop.deploy("one")["live"] == "one"
    pair.restart(pair.a)
    assert told(shop.begin_publish("two", source).wait())["already"] is False
    assert shop.deploy("two")["live"] == "two"


def test_a_power_cut_at_the_commit_leaves_a_whole_build_or_none(pair: Rig, shop: Shop) -> None:
    pair.shim.latency(RENAME=400_000)
    source = shop.source("two", LARGE)
    publishing = shop.begin_publish("two", source)
    _until(lambda: bool(list(pair.share.glob(f"{shop.name}/incoming/*/build.json"))), publishing)
    pair.a.guest.cut_power()
    pair.shim.latency()

    found = shop.ids(on=pair.b)
    assert found in (["one"], ["one", "two"])
    if "two" in found:
        shop.verify("two", on=pair.b)
    pair.restart(pair.a)
    told(shop.begin_publish("two", source).wait())
    assert shop.deploy("two")["live"] == "two"


def test_a_server_that_dies_in_the_middle_of_a_publish_is_waited_for(pair: Rig, shop: Shop) -> None:
    source = shop.source("two", LARGE)
    pair.shim.latency(WRITE=150_000)
    publishing = shop.begin_publish("two", source)
    _until(lambda: _pack_bytes(pair, shop) > 4 * MB, publishing)
    _restart_server(pair)
    told(publishing.wait())
    shop.verify("two", on=pair.b)


def test_an_error_of_the_servers_disk_fails_a_publish_and_the_next_one_works(
    pair: Rig, shop: Shop
) -> None:
    """The client hears of it at fsync or close: write itself succeeds."""
    source = shop.source("two", LARGE)
    pair.shim.fail("WRITE", errno.EIO, times=1000)
    refusal = shop.refused_publish("two", source)
    pair.shim.fail("WRITE", 0, times=0)

    assert (refusal["exit"], "Input/output error" in refusal["error"]) == (1, True)
    assert shop.ids(on=pair.b) == ["one"]
    told(shop.begin_publish("two", source).wait())
    assert shop.deploy("two")["live"] == "two"


def test_a_server_that_dies_while_it_is_read_is_a_pause(pair: Rig, shop: Shop) -> None:
    reading = _reading(pair, shop)
    _restart_server(pair)
    assert [told(each.wait()).get("live", "verified") for each in reading] == ["two", "verified"]


def test_a_partition_of_15_s_while_the_share_is_read_is_a_pause(pair: Rig, shop: Shop) -> None:
    reading = _reading(pair, shop)
    pair.cut_wire(pair.b)
    time.sleep(15)
    assert not any(each.answered.is_set() for each in reading)
    pair.mend_wire(pair.b)
    assert [told(each.wait()).get("live", "verified") for each in reading] == ["two", "verified"]


def test_a_pack_that_is_removed_while_it_is_read_is_read_to_its_end(pair: Rig, shop: Shop) -> None:
    """As on a local disk: the server keeps what a client has open. (Only as long as it lives, so
    moorline removes nothing that a target may be reading.)"""
    deploying = _copying(pair, shop)
    for pack in (pair.share / shop.name / "packs").iterdir():
        pack.unlink()
    pair.b.forget()
    assert told(deploying.wait())["live"] == "two"
    shop.verify_target()


def test_a_pack_that_is_cut_while_it_is_read_leaves_the_old_release_live(
    pair: Rig, shop: Shop
) -> None:
    deploying = _copying(pair, shop)
    for pack in (pair.share / shop.name / "packs").iterdir():
        os.truncate(pack, min(MB, pack.stat().st_size))
    pair.b.forget()
    refusal = json.loads(deploying.wait().out)
    assert (refusal["exit"], refusal["live"]) == (3, "one")
    assert "two" not in pair.b.shell(f"ls {shop.target(pair.b)}/releases")
    assert shop.served("index.html") == "<h1>one</h1>"


def test_after_177_links_a_fresh_file_is_written_and_linked_on(pair: Rig, tmp_path: Path) -> None:
    shop = Shop(pair, tmp_path, layout="tree")
    source = shop.source("site", {"index.html": b"<h1>one</h1>", "empty": b""})
    _publish_often(pair.a, shop, source)

    builds = pair.share / shop.name / "builds"
    links = [(builds / str(n) / "tree/index.html").stat().st_nlink for n in range(PUBLISHES)]
    assert links == [LINKS] * LINKS + [PUBLISHES - LINKS] * (PUBLISHES - LINKS)
    for build in ("0", str(LINKS - 1), str(LINKS), str(PUBLISHES - 1)):
        shop.verify(build, on=pair.b)


# -- how trouble is timed -------------------------------------------------------------------------


def _until(condition: Callable[[], bool], running: Running) -> None:
    """Wait for a moment in the middle of `running`."""
    while not condition():
        assert not running.answered.is_set(), f"it ended too early: {running.wait()}"
        time.sleep(0.02)


def _pack_bytes(rig: Rig, shop: Shop) -> int:
    """The size of the largest pack on the server's disk."""
    packs = (rig.share / shop.name / "packs").iterdir()
    return max((pack.stat().st_size for pack in packs), default=0)


def _copying(rig: Rig, shop: Shop) -> Running:
    """A copy of a large build to b, in the middle."""
    shop.publish("two", LARGE)
    rig.b.forget()
    rig.shim.latency(READ=200_000)
    deploying = shop.begin_deploy("two")
    copy = f"ls {shop.target(rig.b)}/releases/two.*/large0"
    _until(lambda: rig.b.guest.run(copy).code == 0, deploying)
    return deploying


def _reading(rig: Rig, shop: Shop) -> list[Running]:
    """A copy and a verify of a large build, both on b and both in the middle."""
    deploying = _copying(rig, shop)
    verifying = rig.b.begin("verify", "two", *shop.store_words(rig.b))
    time.sleep(1)
    for each in (deploying, verifying):
        assert not each.answered.is_set(), f"it ended too early: {each.wait()}"
    return [deploying, verifying]


def _restart_server(rig: Rig) -> None:
    rig.stop_server()
    time.sleep(1)
    rig.start_server()
    rig.shim.latency()


def _publish_often(machine: Machine, shop: Shop, source: Path) -> None:
    """PUBLISHES builds of one source, in one process: starting Python takes longer than a build."""
    code = (
        "import sys\n"
        "from moorline import workflow\n"
        "from moorline.config import load_config\n"
        "source, store, number = sys.argv[1:]\n"
        "config = load_config(None, {}, {'store': store})\n"
        "for n in range(int(number)):\n"
        "    workflow.publish(source, config=config, id=str(n))\n"
    )
    machine.python(code, str(source), shop.store(machine), str(PUBLISHES))
