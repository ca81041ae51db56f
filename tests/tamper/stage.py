"""Worlds that are made once and put back for every cell, and what a verb answers there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from crash.ground import Ground
from fakes import CountingDisk
from moorline import workflow
from moorline.errors import Error
from moorline.layout.index import Index
from moorline.results import VerifyResult
from tamper.acts import Spot
from tamper.cells import Answer
from trees import SITE, Content
from world import World

A: dict[str, Content] = {"index.html": b"zero" * 1000}
TABLES = {"a": {}, "b": {"keep_releases": 4}}  # so that their settings differ
_TOKENS = re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{16})\b")


class Stages:
    """Builds a (one file) and b (trees.SITE) are published; those in `live` went live in turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[str, tuple[str, ...], str], tuple[World, Ground]] = {}

    def __call__(self, layout: str, live: tuple[str, ...] = ("a",), mode: str = "copy") -> World:
        key = (layout, live, mode)
        if key not in self._made:
            here = self.folder / str(len(self._made))
            here.mkdir(mode=0o755)
            world = World(here, layout)
            publish(world, "a", A)
            publish(world, "b", SITE)
            for id in live:
                world.deploy(id, mode=mode)
            self._made[key] = world, Ground(here)
        world, ground = self._made[key]
        ground.restore()
        return world


def publish(world: World, id: str, spec: dict[str, Content] | None = None) -> int:
    """Publish build `id`, or the same once more; what was repaired."""
    world.publish(id, spec or {}, target=TABLES[id])
    return world.published[id].repaired


def answer(run: Callable[[], object]) -> Answer:
    """What a verb says: exit code, problems and message, with `#` for every token and digest."""
    try:
        result = run()
    except Error as error:
        found = {p.path: p.problem for p in error.problems}
        return Answer(error.exit_code, _plain(found), _TOKENS.sub("#", error.message))
    problems: dict[str, str] = {}
    if isinstance(result, tuple):
        for one in result:
            assert isinstance(one, VerifyResult) and one.ok == (not one.problems)
            problems |= {p.path: p.problem for p in one.problems}
    return Answer(3 if problems else 0, _plain(problems))


def _plain(problems: dict[str, str]) -> dict[str, str]:
    return {_TOKENS.sub("#", path): _TOKENS.sub("#", text) for path, text in problems.items()}


def verify(world: World, id: str = "") -> Answer:
    """Of one build, else of all that the store holds."""
    return answer(
        lambda: workflow.verify(
            config=world.config, id=id or None, everything=not id, disk=CountingDisk()
        )
    )


def verify_target(world: World) -> Answer:
    return answer(
        lambda: workflow.verify(config=world.config, target=str(world.root), disk=CountingDisk())
    )


def deploy(world: World, id: str, mode: str = "copy") -> Answer:
    return answer(lambda: world.deploy(id, mode=mode, disk=CountingDisk()))


def same(found: Answer, expected: Answer) -> None:
    assert (found.exit, found.problems) == (expected.exit, expected.problems), found.says
    assert re.search(expected.says, found.says), found.says


# -- where things lie -----------------------------------------------------------------------------


def spot(world: World, place: str) -> Spot:
    """The file or folder of build b that a cell is about."""
    name, builds = place.partition(",")[0], world.store / "builds"
    if name == "pack":
        return Spot(_pack(world, "b"), _pack(world, "a"), -1)
    if name == "settings":
        return Spot(_settings(world, "b"), _agent(world))
    if name == "agent":
        return Spot(_agent(world), _settings(world, "b"))
    if name == "builds/b":
        return Spot(builds / "b", builds / "a")
    if name == "digest in build.json":
        record = builds / "b" / "build.json"
        digits = re.search(rb'"digest":"[a-f]*([0-9])', record.read_bytes())
        assert digits
        return Spot(record, record, digits.start(1))
    return Spot(builds / "b" / name, builds / "a" / name)


def _pack(world: World, id: str) -> Path:
    text = (world.store / "builds" / id / "index").read_bytes()
    (token,) = Index.parse(text).packs
    return world.store / "packs" / token


def _settings(world: World, id: str) -> Path:
    keep = b'"keep_releases":4'
    files = (world.store / "settings").iterdir()
    (found,) = (path for path in files if (keep in path.read_bytes()) == (id == "b"))
    return found


def _agent(world: World) -> Path:
    (found,) = (world.store / "agent").iterdir()
    return found
