"""Builds that go live one after another while a server is asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from fakes import CountingDisk
from moorline.errors import PutBack
from moorline.history import previous_of
from moorline.target import Target
from serving.daemons import wait_until
from serving.load import Load
from serving.pages import PATHS, build, page
from serving.timeline import Timeline
from serving.visits import Connection, get
from trees import Content
from world import World

GOOD = range(1, 13)
BAD = range(13, 15)
"""Builds whose check fails."""

LAYOUT = {"copy": "pack", "link": "tree"}
"""The layout of a store whose builds are placed so."""

ROUNDS = 500
"""Of the load, 7 requests each: enough for thousands of bare switches."""

MOST_ROUNDS = 40_000
"""After so many, what was to go wrong will not."""


class Going:
    """Deploys and rollbacks of one target, told to a timeline before and after."""

    def __init__(self, world: World, mode: str) -> None:
        self.world = world
        self.mode = mode
        for number in (*GOOD, *BAD):
            hooks = {"check": [{"run": ["false"]}]} if number in BAD else {}
            world.publish(str(number), build(number), hooks=hooks)
        self.world.deploy("1", mode=mode)

    def chance(self, load: Load, chance: random.Random) -> str:
        """Any step; what it was."""
        previous = self.previous()
        kind = chance.choices(("deploy", "rollback", "put back"), (6, 4, 1))[0]
        if kind == "rollback" and previous:
            self.rollback(load, previous)
        elif kind == "put back":
            self.put_back(load, chance.choice(BAD))
        else:
            others = [number for number in GOOD if number != load.timeline.live]
            self.deploy(load, chance.choice(others))
            kind = "deploy"
        return kind

    def deploy(self, load: Load, number: int) -> None:
        load.timeline.begin(number)
        self.world.deploy(str(number), mode=self.mode)
        load.timeline.settle()

    def previous(self) -> int:
        """What a rollback would make live; 0 when there is nothing to go back to."""
        with self.world.target() as target:
            row = previous_of(target.history(), target.live_id())
        return int(row.id) if row else 0

    def rollback(self, load: Load, number: int) -> None:
        load.timeline.begin(number)
        assert self.world.rollback().id == str(number)
        load.timeline.settle()

    def put_back(self, load: Load, number: int) -> None:
        load.timeline.begin(number, load.timeline.live)
        with pytest.raises(PutBack):
            self.world.deploy(str(number), mode=self.mode)
        load.timeline.settle()


def two_releases(
    here: Path, specs: Sequence[Mapping[str, Content]] = (build(1), build(2)), mode: str = "copy",
    ids: Sequence[str] = ("1", "2"),
) -> World:  # fmt: skip
    """Builds 1 and 2 on one target; 1 is live."""
    world = World(here, LAYOUT[mode])
    for id, spec in zip(ids, specs, strict=True):
        world.publish(id, spec)
    for id in (*ids, ids[0]):
        world.deploy(id, mode=mode)
    return world


def flip(
    world: World, load: Load, switch: Callable[[Target, str], None], stay: int = 0,
    until_wrong: int = 0,
) -> None:  # fmt: skip
    """Nothing but the switch, between the releases of builds 1 and 2, as fast as it can be done: a
    gap of microseconds is met again and again.

    Ends when the load has asked `ROUNDS` times, or when it has found so many answers wrong. With
    `stay`, each build stays live until the load has asked so often.
    """
    times = load.timeline
    most = MOST_ROUNDS if until_wrong else ROUNDS
    with world.target(CountingDisk()) as target:
        places = {int(row.id): row.place for row in target.history()}
        while times.rounds < most and (not until_wrong or times.wrong < until_wrong):
            number = 3 - times.live
            times.begin(number)
            switch(target, places[number])
            times.settle()
            wait_until(partial(_asked, times, times.rounds + stay))


def _asked(timeline: Timeline, rounds: int) -> bool:
    return timeline.rounds >= rounds


def assert_all_new(port: int, open_before: Connection, number: int) -> int:
    """Whoever asks from now on, on a new connection or on one from before, gets this build; the
    number of requests."""
    for path in PATHS:
        for answer in (get(port, path), open_before.get(path)):
            assert (answer.status, answer.body) == (200, page(number, path)), path
    return 2 * len(PATHS)
