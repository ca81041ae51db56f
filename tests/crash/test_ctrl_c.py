"""Ctrl-C while a deploy waits, for a lock, for a build or for a hook: it ends at once, says what
remains, and leaves what was live."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crash.scenarios import SPECS
from crash.watching import Watch
from world import World

pytestmark = pytest.mark.usefixtures("interrupts")

MOORLINE = str(Path(sys.executable).with_name("moorline"))
PATIENCE_S = 60.0
WAITING = ("sh", "-c", "touch $0/begun; exec sleep 300")


@pytest.fixture
def on_a(here: Path) -> World:
    world = World(here)
    world.publish("a", SPECS["a"])
    world.deploy("a")
    (here / "work").mkdir()
    return world


@contextmanager
def deploying(world: World, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [MOORLINE, "deploy", *words, "--target", str(world.root), "--store", str(world.store)],
        cwd=world.here / "work", env={"PATH": os.environ["PATH"]}, text=True,
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(
    world: World, words: tuple[str, ...], waits: Callable[[Watch], object]
) -> tuple[int, str]:
    """The exit code and what was said, after a Ctrl-C that came while the deploy waited."""
    with (
        Watch([world.store, world.root, world.here / "work"]) as watch,
        deploying(world, *words) as process,
    ):
        waits(watch)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def ends_as_before(world: World, code: int, said: str) -> None:
    assert (code, "Traceback" in said) == (130, False), said
    assert "as it was" in said or "a is live" in said, said
    assert world.link == "releases/a.1"
    assert world.releases() == ["a.1"]
    with world.target() as target:
        assert target.deploying() is None
        with target.lock(0):
            pass


def test_while_another_verb_holds_the_target(on_a: World) -> None:
    on_a.publish("b", SPECS["b"])
    with (on_a.inner / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, said = interrupted(
            on_a, (on_a.bundle("b"),), lambda watch: watch.wait_for("lock", PATIENCE_S)
        )
        fcntl.flock(lock, fcntl.LOCK_UN)
    ends_as_before(on_a, code, said)


def test_while_the_build_is_not_there_yet(on_a: World) -> None:
    on_a.publish("b", SPECS["b"], target={"store_wait_s": 300})
    (on_a.store / "builds" / "b").rename(on_a.here / "b")
    code, said = interrupted(
        on_a, (on_a.bundle("b"),), lambda watch: watch.wait_for("builds", PATIENCE_S)
    )
    ends_as_before(on_a, code, said)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_switch", "after_switch", "check"])
def test_while_a_hook_runs(on_a: World, moment: str) -> None:
    work = str(on_a.here / "work")
    on_a.publish("b", SPECS["b"], hooks={moment: [{"run": [*WAITING, work]}]})
    code, said = interrupted(
        on_a, (on_a.bundle("b"),), lambda watch: watch.wait_for("begun", PATIENCE_S)
    )
    if moment == "before_switch":
        ends_as_before(on_a, code, said)
    else:
        assert (code, on_a.link) == (6, "releases/a.1"), said
        assert "a is live again" in said and "Traceback" not in said
