"""A share that does not answer any more, or whose server is gone: FUSE, stopped or killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from baddisks.namespace import LIMIT_S, Namespace
from baddisks.shop import Shop, refusal
from counts import Count
from crash.ground import copy_tree
from nfs import needs
from nfs.simulator import CONTROL

pytestmark = pytest.mark.slow

ROLLBACK_S = 5.0
"""What design and documentation promise of a rollback to a release that the target holds, whatever
the share does. The store's own limit in these tests is 1 s, and a hook's is 2 s."""


class Share:
    """A share that a process serves: `strike` it, `heal` it."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.dead = shop, ""
        self.start()

    def start(self) -> None:
        self._mount = self.shop.space.fuse(self.shop.here / "backing", self.shop.share)
        self.server = self._mount.__enter__()

    def freeze(self) -> None:
        self.server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.server.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.server.kill()
        self.server.wait()

    def strike(self, how: str) -> None:
        self.dead = how
        (self.freeze if how == "freeze" else self.kill)()

    def heal(self) -> None:
        if self.dead == "freeze":
            self.thaw()
        else:
            self.end()
            self.start()

    def operations(self) -> dict[str, int]:
        """How often each operation was asked for; `getattr` is what looking at this costs."""
        seen = json.loads(os.getxattr(self.shop.space.see(self.shop.share), CONTROL))
        return {name: n for name, n in seen["operations"].items() if name != "getattr"}

    def end(self) -> None:
        self._mount.__exit__(None, None, None)


class Stock:
    """A shop as it is when a test begins: made once, then copied back."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.folders = (shop.here / "backing", shop.disk, shop.here / "bundles")

    @contextlib.contextmanager
    def begin(self, name: str, make: Callable[[Shop], None]) -> Iterator[Share]:
        self._put_back(self.shop.here / name, make)
        share = Share(self.shop)
        try:
            yield share
        finally:
            share.end()

    def _put_back(self, kept: Path, make: Callable[[Shop], None]) -> None:
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
            if kept.exists():
                copy_tree(kept / folder.name, folder)
            else:
                folder.mkdir()
        if kept.exists():
            return
        self.shop.space.do("mount", "--bind", self.folders[0], self.shop.share)
        make(self.shop)
        self.shop.space.unmount(self.shop.share)
        kept.mkdir()
        for folder in self.folders:
            copy_tree(folder, kept / folder.name)


@pytest.fixture(scope="module")
def stock(space: Namespace) -> Iterator[Stock]:
    needs.need_fuse()
    with tempfile.TemporaryDirectory(prefix="m.", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Stock(Shop(space, Path(name).resolve()))


@pytest.fixture
def serving(stock: Stock) -> Iterator[Share]:
    """Build two is live in mode copy, one is what a rollback takes, three is published."""

    def make(shop: Shop) -> None:
        shop.layout = "pack"
        shop.init()
        shop.publish("one", "two", "three")
        shop.deploy("one")
        shop.deploy("two")

    stock.shop.configure()
    with stock.begin("serving", make) as share:
        yield share


def processes_of(session: int) -> list[str]:
    """What still runs of a session: names and states."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(f"{name}) {fields[0]}")
    return found


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pyz(shop: Shop) -> Path:
    (agent,) = (shop.space.see(shop.root) / ".moorline" / "agents").iterdir()
    return shop.root / ".moorline" / "agents" / agent.name


@pytest.mark.parametrize("how", ["freeze", "kill"])
@pytest.mark.parametrize("program", ["moorline", "agent"])
def test_a_rollback_does_not_wait_for_the_share(
    how: str, program: str, serving: Share, count: Count
) -> None:
    shop = serving.shop
    words: tuple[object, ...] = (sys.executable, "-I", pyz(shop), "rollback")
    serving.strike(how)
    began = time.monotonic()
    if program == "agent":
        done = shop.space.run(*words)
    else:
        done = shop.moorline("rollback", "--target", shop.root)
    took_s = time.monotonic() - began

    assert done.returncode == 0, done.stderr
    assert took_s < ROLLBACK_S
    shop.serves("one")
    count.add("disk failures")


def test_the_agent_s_rollback_touches_nothing_of_the_share(serving: Share, count: Count) -> None:
    shop = serving.shop
    before = serving.operations()
    shop.space.do(sys.executable, "-I", pyz(shop), "rollback")
    assert serving.operations() == before
    count.add("disk failures")


# -- deploys --------------------------------------------------------------------------------------


def fails(share: Share, result: subprocess.CompletedProcess[str]) -> str:
    """It said what is the matter, what was live is live, and nobody is left behind."""
    shop = share.shop
    said = refusal(result)
    assert DEAD[share.dead] in said, said
    assert shop.target_litter() == []
    return said


DEAD = {
    "freeze": "the share did not answer for 1 s",
    "kill": "The mount is dead. Mount it again, then run the same command again.",
}


@pytest.mark.parametrize("how", list(DEAD))
def test_a_deploy_fails_within_its_limit(how: str, serving: Share, count: Count) -> None:
    """Twice, so the first has let go of the lock; then the share is back."""
    shop = serving.shop
    serving.strike(how)
    for _ in range(2):
        process = shop.start(*shop.deploy_words("three"))
        out, err = process.communicate(timeout=LIMIT_S)
        assert processes_of(process.pid) == [], "somebody is left behind"
        fails(serving, subprocess.CompletedProcess([], process.returncode, out, err))
        shop.serves("two")
        count.add("disk failures")
    serving.heal()
    shop.deploy("three")


@pytest.mark.parametrize("how", list(DEAD))
@pytest.mark.parametrize("at", [("open_file:manifest.gz", 0), ("read", 2), ("write", 1)], ids=str)
def test_a_share_that_dies_while_a_deploy_reads_it(
    at: tuple[str, int], how: str, serving: Share, count: Count
) -> None:
    shop = serving.shop
    act = f"kill -{ {'freeze': 'STOP', 'kill': 'KILL'}[how] } {serving.server.pid}"
    serving.dead = how
    done = shop.acting(at, act, *shop.deploy_words("three"))
    fails(serving, done)
    shop.serves("two")
    serving.heal()
    shop.deploy("three")
    count.add("disk failures")


@pytest.mark.parametrize("how", list(DEAD))
def test_codedeploy_s_event_ends_when_the_share_is_dead(
    how: str, serving: Share, count: Count
) -> None:
    """Its output is at its end, so the event is, too; the next deployment can begin at once."""
    shop = serving.shop
    serving.strike(how)
    for deployment in ("d-1", "d-2"):
        done = shop.event("three", "BeforeInstall", deployment)
        assert done.returncode == 1
        assert DEAD[how] in done.stdout.splitlines()[-1], done.stdout
        shop.serves("two")
        count.add("disk failures")
    serving.heal()
    for event in ("BeforeInstall", "ApplicationStart", "ValidateService"):
        assert shop.event("three", event, "d-3").returncode == 0
    shop.serves("three")


def test_a_killed_deploy_leaves_no_child_that_waits_for_the_share(
    serving: Share, count: Count
) -> None:
    """It would hold the target's lock for as long as the share is dead."""
    shop = serving.shop
    shop.configure({"store_timeout_s": 3600})
    shop.publish("three")
    serving.strike("freeze")
    process = shop.start(*shop.deploy_words("three"))
    wait_until(lambda: len(processes_of(process.pid)) == 2)
    process.kill()
    process.communicate(timeout=LIMIT_S)
    wait_until(lambda: processes_of(process.pid) == [])
    shop.done("rollback", "--target", shop.root)
    shop.serves("one")
    count.add("disk failures")


def test_a_publish_waits_until_the_share_is_back(serving: Share, count: Count) -> None:
    """As with a hard mount of NFS: nothing is lost, and CI has a limit of its own."""
    shop = serving.shop
    serving.strike("freeze")
    process = shop.start(*shop.publish_words("four"))
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
    serving.heal()
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    shop.holds("one", "two", "three", "four")
    count.add("disk failures")


@pytest.mark.parametrize("at", [("create:index", 0), ("write", 2), ("rename:four", 0)], ids=str)
def test_a_share_that_is_gone_while_a_build_is_published(
    at: tuple[str, int], serving: Share, count: Count
) -> None:
    shop = serving.shop
    serving.dead = "kill"
    done = shop.acting(at, f"kill -KILL {serving.server.pid}", *shop.publish_words("four"))
    said = refusal(done)
    assert DEAD["kill"] in said
    assert str(shop.store) in said
    serving.heal()
    shop.publish("four")
    shop.holds("one", "two", "three", "four")
    assert shop.litter_that_stays() == []
    count.add("disk failures")


# -- mode link ------------------------------------------------------------------------------------


@pytest.fixture
def linked(stock: Stock) -> Iterator[Share]:
    """The target serves build one from the share; two is published."""

    def make(shop: Shop) -> None:
        shop.layout = "tree"
        shop.init()
        shop.publish("one", "two")
        shop.deploy("one")

    stock.shop.configure({"mode": "link"})
    with stock.begin("linked", make) as share:
        yield share


@pytest.mark.parametrize("how", list(DEAD))
def test_mode_link_fails_within_its_limit(how: str, linked: Share, count: Count) -> None:
    shop, link = linked.shop, linked.shop.link
    linked.strike(how)
    for words in (shop.deploy_words("two"), ("verify", "--target", shop.root)):
        process = shop.start(*words)
        out, err = process.communicate(timeout=LIMIT_S)
        assert processes_of(process.pid) == [], "somebody is left behind"
        said = refusal(subprocess.CompletedProcess([], process.returncode, out, err))
        assert DEAD[how] in said, said
        assert shop.link == link
        count.add("disk failures")
    linked.heal()
    shop.deploy("two")


@pytest.mark.parametrize("moment", ["before_switch", "after_switch", "check"])
def test_hooks_of_mode_link_have_their_limit_on_a_frozen_share(
    moment: str, linked: Share, count: Count
) -> None:
    """The first hook freezes the share and waits until nobody believes what he saw of it; the
    second has to enter the release there."""
    shop = linked.shop
    freeze = f"kill -STOP {linked.server.pid}; while timeout -s KILL .2 ls -d $MOORLINE_RELEASE;"
    hooks = [(f"{freeze} do sleep .2; done", 20), ("true", 1)]
    shop.configure({"mode": "link"}, **{moment: hooks})
    shop.publish("three")
    linked.dead = "freeze"

    process = shop.start(*shop.deploy_words("three"))
    out, err = process.communicate(timeout=LIMIT_S)

    code = 1 if moment == "before_switch" else 6
    said = refusal(subprocess.CompletedProcess([], process.returncode, out, err), code)
    assert f"{moment} hook failed" in said and "did not end within 1 s" in said, said
    assert "/one/" in shop.link
    assert processes_of(process.pid) == [], "somebody is left behind"
    linked.heal()
    shop.serves("one")
    count.add("disk failures")
