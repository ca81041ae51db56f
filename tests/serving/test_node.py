"""An application of Node behind nginx, restarted by systemd or reloaded by pm2, as docs/serving.md
sets them up, and what happens without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from counts import Count
from moorline.errors import PutBack
from serving.daemons import LIMIT_S, free_port, nginx, wait_until
from serving.going import LAYOUT
from serving.load import Load, under_load
from serving.pages import page
from serving.recipes import hooks_of, recipe
from serving.units import service
from serving.visits import Connection, get
from trees import Content
from world import World

PATH = "/index.html"
PAUSE_S = 0.005
APP = b"""
const fs = require('fs'), page = fs.readFileSync(__dirname + '/index.html')
const end = (folder, response) =>
  fs.existsSync(folder + '/go') ? response.end(page) : setTimeout(end, 5, folder, response)
module.exports = (request, response) => {
  const [path, folder] = request.url.split('?')
  if (path != '/slow') return response.end(page)
  process.on('SIGTERM', () => fs.writeFileSync(folder + '/ending', ''))
  fs.writeFileSync(folder + '/begun', '')
  end(folder, response)
}
"""
"""Shows its page; at /slow, only when the file `go` is there."""

SERVER = "/etc/nginx/conf.d/shop-node.conf"
UPSTREAM = "127.0.0.1:8077"


def build(number: int, root: Path) -> dict[str, Content]:
    content = page(number, PATH)
    return {"server.js": recipe("server.js", root).encode(), "app.js": APP, "index.html": content}


def published(here: Path, hooks: Mapping[str, Any], mode: str = "copy") -> World:
    """Builds 1 to 3, and 4, whose check fails."""
    world = World(here, LAYOUT[mode])
    for number in (1, 2, 3):
        world.publish(str(number), build(number, world.root), hooks=hooks)
    world.publish("4", build(4, world.root), hooks={**hooks, "check": [{"run": ["false"]}]})
    return world


def shows(port: int, number: int) -> bool:
    answer = get(port, PATH)
    return (answer.status, answer.body) == (200, page(number, PATH))


def go_round(world: World, load: Load, port: int, mode: str, rounds: int = 3) -> int:
    """Deploys, put-backs and rollbacks, each seen at once by whoever asks; how many."""
    steps = 0
    for _ in range(rounds):
        for number in (2, 3):
            load.timeline.begin(number)
            world.deploy(str(number), mode=mode)
            load.timeline.settle()
            assert shows(port, number)
        load.timeline.begin(4, 3)
        with pytest.raises(PutBack):
            world.deploy("4", mode=mode)
        load.timeline.settle()
        assert shows(port, 3)
        load.timeline.begin(2)
        assert world.rollback().id == "2"
        load.timeline.settle()
        assert shows(port, 2)
        steps += 4
    return steps


# -- systemd --------------------------------------------------------------------------------------


@contextmanager
def running(here: Path, listening: bool, mode: str = "copy") -> Iterator[tuple[World, int]]:
    """Build 1, live as a service behind nginx; the port of nginx."""
    port = free_port()
    restart = ("systemctl", "restart", "shop.service")
    hooks = hooks_of(
        "moorline.toml: a restart for each release",
        {restart: [str(here / "systemctl"), *restart[1:]]},
    )
    world = published(here, hooks, mode)
    unit = recipe("/etc/systemd/system/shop.service", world.root)
    unit = unit.replace("/usr/bin/node", str(shutil.which("node")))
    world.publish("0", build(1, world.root))  # a first one, without the hook: nothing runs yet
    world.deploy("0", mode=mode)
    server = recipe(SERVER, world.root).replace(UPSTREAM, f"127.0.0.1:{port}")
    with service(here, unit, port, listening), nginx(here / "nginx", server) as front:
        wait_until(lambda: shows(front, 1))
        yield world, front


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "link"])
def test_a_restart_behind_a_socket_drops_no_request(here: Path, mode: str, count: Count) -> None:
    with (
        running(here, listening=True, mode=mode) as (world, port),
        under_load(here, port, paths=[PATH], pause_s=PAUSE_S) as load,
    ):
        steps = go_round(world, load, port, mode)
    assert not load.wrong
    assert load.builds >= 3
    count.add("switches under load with Node restarted", steps)
    count.add("responses of Node checked", load.responses)


def test_a_request_under_way_ends_before_the_restart(here: Path) -> None:
    with (
        running(here, listening=True) as (world, port),
        Connection(port) as slow,
        ThreadPoolExecutor(1) as other,
    ):
        slow.send(f"/slow?{here}")
        wait_until((here / "begun").exists)
        deployed = other.submit(world.deploy, "2")
        wait_until((here / "ending").exists)
        assert not deployed.done()
        (here / "go").touch()
        assert slow.answer().body == page(1, PATH)
        assert deployed.result(LIMIT_S).id == "2"
        assert shows(port, 2)


@pytest.mark.slow
def test_a_restart_without_one_drops_some(here: Path, count: Count) -> None:
    with (
        running(here, listening=False) as (world, port),
        under_load(here, port, paths=[PATH]) as load,
    ):
        for number in (2, 3, 1) * 5:
            load.timeline.begin(number)
            world.deploy(str(number))
            load.timeline.settle()
            if load.timeline.wrong:
                break
    assert any("status 502" in wrong for wrong in load.wrong), load.wrong
    count.add("failures of other configurations noticed", load.wrong.total())


# -- pm2 ------------------------------------------------------------------------------------------

PM2 = Path(sys.prefix, "pm2/node_modules/pm2/bin/pm2")
ECOSYSTEM = "/srv/shop/ecosystem.config.js"


@contextmanager
def pm2(here: Path) -> Iterator[list[str]]:
    """The command pm2, with a daemon of its own that ends with the test."""
    assert PM2.exists(), "pm2 is missing: run make .venv/.pm2-stamp"
    command = ["env", f"PM2_HOME={here}/home", str(shutil.which("node")), str(PM2)]
    try:
        yield command
    finally:
        subprocess.run([*command, "kill"], check=True, capture_output=True)


@contextmanager
def cluster(here: Path, started_in: str = "") -> Iterator[tuple[World, int]]:
    """Build 1, live under pm2 behind nginx; the port of nginx. With `started_in`, as everybody
    starts it first: in that folder, by the name of the script."""
    port = free_port()
    with pm2(here) as command:
        reload = ("pm2", "reload", "shop")
        name = "moorline.toml: pm2 reloads each release"
        world = published(here, hooks_of(name, {reload: [*command, *reload[1:]]}))
        world.publish("0", build(1, world.root))
        world.deploy("0")
        config = here / "ecosystem.config.js"
        config.write_text(recipe(ECOSYSTEM, world.root).replace("8077", str(port)))
        start = ["start", str(config)]
        if started_in:
            start = ["start", "server.js", "--name", "shop", "--instances", "2"]
        subprocess.run(
            [*command, *start], cwd=world.root / started_in, check=True, capture_output=True,
            env={**os.environ, "PORT": str(port)},
        )  # fmt: skip
        server = recipe(SERVER, world.root).replace(UPSTREAM, f"127.0.0.1:{port}")
        with nginx(here / "nginx", server) as front:
            wait_until(lambda: shows(front, 1))
            yield world, front


@pytest.mark.slow
def test_pm2_reloads_the_new_build_and_drops_no_request(here: Path, count: Count) -> None:
    with (
        cluster(here) as (world, port),
        under_load(here, port, paths=[PATH], pause_s=PAUSE_S) as load,
    ):
        steps = go_round(world, load, port, "copy", rounds=1)
    assert not load.wrong
    count.add("switches under load with Node reloaded by pm2", steps)
    count.add("responses of Node checked", load.responses)


@pytest.mark.slow
def test_pm2_started_inside_of_a_release_stays_there(here: Path) -> None:
    with cluster(here, started_in="current") as (world, port):
        world.deploy("2")
        assert shows(port, 1)
