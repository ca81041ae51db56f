"""nginx serves `current` under load while hundreds of builds go live, back, and are put back: not
one request fails, not one answer is mixed, cut or late. And the naive ways fail the same test."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from counts import Count
from moorline.target import Target
from serving.daemons import nginx
from serving.going import BAD, GOOD, LAYOUT, Going, assert_all_new, flip, two_releases
from serving.load import PAUSE_S, under_load
from serving.recipes import recipe
from serving.visits import Connection
from world import World

SWITCHES = 200


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "link"])
def test_no_request_fails_while_builds_go_live(here: Path, mode: str, count: Count) -> None:
    world = World(here, LAYOUT[mode])
    going = Going(world, mode)
    chance = random.Random(20261125)
    with (
        nginx(here / "nginx", recipe("/etc/nginx/conf.d/shop.conf", world.root)) as port,
        Connection(port) as open_before,
        under_load(here, port, pause_s=PAUSE_S) as load,
    ):
        for _ in range(SWITCHES):
            kind = going.chance(load, chance)
            count.add(f"switches under load, {kind}")
            asked = assert_all_new(port, open_before, load.timeline.live)
            count.add("requests right after a switch", asked)
    assert not load.wrong, (here / "nginx/error.log").read_text()[-2000:]
    assert load.builds >= len(GOOD) and load.responses > 10 * SWITCHES
    count.add("responses under load checked", load.responses)
    assert not (here / "nginx/error.log").read_text()


@pytest.mark.slow
def test_no_request_fails_between_the_events_of_codedeploy(here: Path, count: Count) -> None:
    """deploy.sh and the agent as real processes, one for each event, and the rollback on a host
    that has nothing but the agent."""
    going = Going(World(here), "copy")
    with (
        nginx(here / "nginx", recipe("/etc/nginx/conf.d/shop.conf", here / "www")) as port,
        Connection(port) as open_before,
        under_load(here, port, pause_s=PAUSE_S) as load,
    ):
        for number in (2, 3, *BAD):
            assert event(going, number, "BeforeInstall") == 0
            load.timeline.begin(number)
            assert event(going, number, "ApplicationStart") == 0
            load.timeline.settle()
            assert_all_new(port, open_before, number)
            load.timeline.begin(*([3] if number in BAD else []))
            assert event(going, number, "ValidateService") == (6 if number in BAD else 0)
            load.timeline.settle()
        load.timeline.begin(2)
        (agent,) = (here / "www/.moorline/agents").iterdir()
        assert run("python3", "-I", str(agent), "rollback") == 0
        load.timeline.settle()
        assert_all_new(port, open_before, 2)
    assert not load.wrong, (here / "nginx/error.log").read_text()[-2000:]
    count.add("switches under load, by CodeDeploy's events", 5 + len(BAD))
    count.add("responses under load checked", load.responses)


def event(going: Going, number: int, name: str) -> int:
    """One of CodeDeploy's events for the bundle of a build; its exit status."""
    script = f"{going.world.bundle(str(number))}/deploy.sh"
    return run("sh", script, LIFECYCLE_EVENT=name, DEPLOYMENT_ID=f"d-{number}")


def run(*command: str, **environment: str) -> int:
    environment |= {"PATH": os.environ["PATH"], "DEPLOYMENT_GROUP_NAME": "PROD"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(command, env=environment, cwd="/", stdin=subprocess.DEVNULL).returncode


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "link"])
def test_the_switch_itself_has_no_gap(here: Path, mode: str, count: Count) -> None:
    world = two_releases(here, mode=mode)
    with (
        nginx(here / "nginx", recipe("/etc/nginx/conf.d/shop.conf", world.root)) as port,
        under_load(here, port) as load,
    ):
        flip(world, load, Target.switch)
    assert not load.wrong, (here / "nginx/error.log").read_text()[-2000:]
    assert load.builds == 2
    count.add("bare switches under load", load.timeline.settled)
    count.add("responses under load checked", load.responses)


# -- the load would notice ------------------------------------------------------------------------


def unlink_then_link(target: Target, place: str) -> None:
    Path(target.root, "current").unlink()
    Path(target.root, "current").symlink_to(place)


def busybox_ln(target: Target, place: str) -> None:
    command = ["busybox", "ln", "-sfn", place, "current"]
    subprocess.run(command, cwd=target.root, check=True)


def copied_in_place(target: Target, place: str) -> None:
    """As cp and rsync --inplace do: the files that are served are written over."""
    shutil.copytree(source_of(target, place), Path(target.root, "current"), dirs_exist_ok=True)


def only_the_page_is_new(target: Target, place: str) -> None:
    """A deploy that says it is done before all of it is live."""
    new = shutil.copy(source_of(target, place) / "index.html", Path(target.root, "new"))
    os.replace(new, Path(target.root, "current/index.html"))


def source_of(target: Target, place: str) -> Path:
    """What CI made of the build of a release."""
    return Path(target.root).parent / "src" / Path(place).stem


NAIVE: dict[Callable[[Target, str], None], tuple[int, str]] = {
    unlink_then_link: (0, "status 404"),
    busybox_ln: (0, "status 404"),
    copied_in_place: (0, "bytes that are of no build"),
    only_the_page_is_new: (2, "a build that is not live"),
}


@pytest.mark.slow
@pytest.mark.parametrize("naive", NAIVE, ids=lambda naive: naive.__name__)
def test_the_load_notices_a_naive_switch(
    here: Path, naive: Callable[[Target, str], None], count: Count
) -> None:
    world = two_releases(here)
    stay, symptom = NAIVE[naive]
    with (
        nginx(here / "nginx", recipe("/etc/nginx/conf.d/shop.conf", world.root)) as port,
        under_load(here, port) as load,
    ):
        flip(world, load, naive, stay, until_wrong=20)
    count.add("failures of naive switches noticed", load.wrong.total())
    assert any(symptom in wrong for wrong in load.wrong), load.wrong
