"""Machines and the server die or fall silent in the middle of the work; EFS's limit of links.

On the rig of two machines. The server holds an operation until the test has seen that it got there:
so the moment of a cut is an event, however slow this machine is.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from counts import Count
from nfs.guest import Running
from nfs.machine import told
from nfs.pair import Rig
from nfs.shop import Shop
from nfs.waiting import until
from trees import SITE

pytestmark = pytest.mark.slow

MB = 1 << 20
LARGE = SITE | {f"large{n}": b"%d" % n * 2 * MB for n in range(4)}
AFTER = 2  # large requests; the next one is held
LINKS = 177
OUTAGE_S = 1.0
PARTITION_S = 15.0  # longer than a lease of the server


@pytest.fixture
def shop(pair: Rig, tmp_path: Path) -> Iterator[Shop]:
    """A store with build one, live on b."""
    if not pair.a.guest.runs:
        pair.restart(pair.a)
    shop = Shop(pair, tmp_path)
    shop.publish("one", SITE)
    shop.deploy("one")
    yield shop
    pair.shim.fail("WRITE", 0, times=0)
    pair.shim.release()
    if pair.a.guest.runs:
        pair.a.forget_lost_writes()
    pair.b.shell(f"rm -rf {shop.target(pair.b)}")  # its disk is memory, and small


@pytest.fixture
def large(shop: Shop) -> Shop:
    """The same with a large build two."""
    shop.publish("two", LARGE)
    return shop


def test_an_error_of_the_servers_disk_fails_a_publish_and_the_next_one_works(
    pair: Rig, shop: Shop, count: Count
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
    count.add("limits and errors of a server's disk, on NFS")


def test_a_server_that_dies_in_the_middle_of_the_work_is_a_pause(
    pair: Rig, large: Shop, count: Count
) -> None:
    """A publish, a copy and a verify go on when it is back."""
    three = large.source("three", LARGE | {"large0": b"three" * MB})
    pair.shim.hold("WRITE", after=AFTER)
    writing = large.begin_publish("three", three)
    until(lambda: pair.shim.held("WRITE") > 0, writing)
    reading = _reading(pair, large)
    pair.stop_server()
    time.sleep(OUTAGE_S)
    pair.start_server()
    assert told(writing.wait())["already"] is False
    assert [told(each.wait()).get("live", "verified") for each in reading] == ["two", "verified"]
    large.verify("three", on=pair.b)
    count.add("verbs that an NFS server's restart made wait", 3)


def test_a_partition_while_the_share_is_read_is_a_pause(
    pair: Rig, large: Shop, count: Count
) -> None:
    reading = _reading(pair, large)
    pair.cut_wire(pair.b)
    pair.shim.release()
    time.sleep(PARTITION_S)
    assert not any(each.answered.is_set() for each in reading)
    pair.mend_wire(pair.b)
    assert [told(each.wait()).get("live", "verified") for each in reading] == ["two", "verified"]
    count.add("verbs that a partition of 15 s made wait", 2)


def test_a_pack_that_is_removed_while_it_is_read_is_read_to_its_end(
    pair: Rig, large: Shop, count: Count
) -> None:
    """As on a local disk: this server keeps what a client has open. (Only as long as it lives, and
    others do not, so moorline removes nothing that a target may be reading.)"""
    deploying = _copying(pair, large)
    for pack in (pair.share / large.name / "packs").iterdir():
        pack.unlink()
    pair.b.forget()
    pair.shim.release()
    assert told(deploying.wait())["live"] == "two"
    large.verify_target()
    count.add("packs unlinked or cut under a copy, on NFS")


def test_a_pack_that_is_cut_while_it_is_read_leaves_the_old_release_live(
    pair: Rig, large: Shop, count: Count
) -> None:
    deploying = _copying(pair, large)
    for pack in (pair.share / large.name / "packs").iterdir():
        os.truncate(pack, min(MB, pack.stat().st_size))
    pair.b.forget()
    pair.shim.release()
    refusal = json.loads(deploying.wait().out)
    assert (refusal["exit"], refusal["live"]) == (3, "one"), refusal
    assert "two" not in pair.b.shell(f"ls {large.target(pair.b)}/releases")
    assert large.served("index.html") == "<h1>one</h1>"
    count.add("packs unlinked or cut under a copy, on NFS")


def test_after_177_links_a_fresh_file_is_written_and_linked_on(
    pair: Rig, tmp_path: Path, count: Count
) -> None:
    """Names for 175 of the links are made on the server's disk: as good as builds, and quicker."""
    shop = Shop(pair, tmp_path, layout="tree")
    site = {"index.html": b"<h1>one</h1>", "empty": b""}
    shop.publish("0", site)
    builds = pair.share / shop.name / "builds"
    others = pair.share / f"{shop.name}.others"
    others.mkdir()
    for number in range(LINKS - 2):
        os.link(builds / "0/tree/index.html", others / str(number))
    for id in ("1", "2", "3"):
        shop.publish(id, site)
    links = [(builds / id / "tree/index.html").stat().st_nlink for id in "0123"]
    assert links == [LINKS, LINKS, 2, 2]
    for id in "0123":
        shop.verify(id, on=pair.b)
    count.add("limits and errors of a server's disk, on NFS")


def test_a_power_cut_of_the_publisher_leaves_whole_builds_only(
    pair: Rig, shop: Shop, tmp_path: Path, count: Count
) -> None:
    """One publish has written some of its contents, another is at its commit: that request is on
    its way, and arrives. The last test here: a is not booted again for it."""
    other = Shop(pair, tmp_path)
    other.publish("one", SITE)
    large, small = shop.source("two", LARGE), other.source("two", {"index.html": b"two"})
    pair.shim.hold("WRITE", after=AFTER)
    writing = shop.begin_publish("two", large)
    until(lambda: pair.shim.held("WRITE") > 0, writing)
    pair.shim.hold("RENAME")
    committing = other.begin_publish("two", small)
    until(lambda: pair.shim.held("RENAME") > 0, committing)
    pair.a.guest.cut_power()
    pair.shim.release()

    assert [each.wait().code for each in (writing, committing)] == [-1, -1]
    until((pair.share / other.name / "builds/two").exists)
    assert other.ids(on=pair.b) == ["one", "two"]
    other.verify("two", on=pair.b)
    assert shop.ids(on=pair.b) == ["one"]
    assert shop.deploy("one")["live"] == "one"
    assert told(other.begin_publish("two", small, on=pair.b).wait())["already"] is True
    assert told(shop.begin_publish("two", large, on=pair.b).wait())["already"] is False
    assert shop.deploy("two")["live"] == "two"
    count.add("publishes whose machine lost its power, on NFS", 2)


# -- how trouble is timed -------------------------------------------------------------------------


def _readers(rig: Rig, shop: Shop) -> int:
    """How many processes of b have build two open. (Not its pack: the server lets nobody open a
    file of which it holds a READ.)"""
    found = rig.b.shell(f"find /proc/[0-9]*/fd -lname '*/{shop.name}/builds/two' 2>&1 || true")
    return len({line.split("/")[2] for line in found.splitlines() if line.startswith("/proc/")})


def _copying(rig: Rig, shop: Shop) -> Running:
    """A copy of build two to b: some of it is there, the rest waits in the server."""
    rig.b.forget()
    rig.shim.hold("READ", after=AFTER)
    deploying = shop.begin_deploy("two")
    until(lambda: rig.shim.held("READ") > 0, deploying)
    return deploying


def _reading(rig: Rig, shop: Shop) -> list[Running]:
    """A copy and a verify of build two, both on b and both in the middle."""
    deploying = _copying(rig, shop)
    before = _readers(rig, shop)
    verifying = rig.b.begin("verify", "two", *shop.store_words(rig.b))
    until(lambda: _readers(rig, shop) > before > 0, verifying)
    return [deploying, verifying]
