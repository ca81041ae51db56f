"""Whatever is changed in the store: found, listed, nothing switched; and the same build published
again repairs it."""

from __future__ import annotations

import contextlib

import pytest

from counts import Count
from crash.invariants import store_litter
from crash.scenarios import LATER_S, clean
from damages import DAMAGES
from fakes import CountingDisk, Stopped, StoppingDisk
from moorline.errors import Problem
from moorline.scan import scan
from moorline.verifying import verify as verify_tree
from tamper.acts import ACTS, FOLDER_ACTS
from tamper.cells import FINE, STORE, TREES, Cell
from tamper.stage import Stages, deploy, publish, same, spot, verify
from trees import snapshot
from world import World

KEPT = ("settings", "agent")


def served(world: World) -> object:
    """All that a target serves and knows, but for what hard links change."""
    release = {path: (*facts[:3], facts[5]) for path, facts in snapshot(world.live).items()}
    return world.link, world.rows(), world.releases(), release


def check(world: World, cell: Cell, mode: str) -> None:
    """One cell, once its act is done."""
    before = served(world)
    same(verify(world) if cell.place in KEPT else verify(world, "b"), cell.verify)
    same(deploy(world, "b", mode), cell.deploy)
    if cell.deploy.exit:
        assert served(world) == before, "something was switched, or left"
        assert not list((world.root / "releases").glob("b.*"))
    else:
        assert live_problems(world) == ()
    publish(world, "b")
    publish(world, "a")  # what was swapped with it
    if not (cell.place.startswith("builds/b") and cell.act == "rename"):
        same(verify(world), FINE)
    same(verify(world, "b"), FINE)
    same(deploy(world, "b", mode), FINE)
    assert live_problems(world) == ()


def live_problems(world: World) -> tuple[Problem, ...]:
    """What differs between what is served and what was published, whatever manifests say."""
    source = world.here / "src" / "b"
    return verify_tree(CountingDisk(), world.live, scan(CountingDisk(), source).manifest).problems


def marked(cells: tuple[Cell, ...], *fast: str) -> list[object]:
    return [
        pytest.param(cell, id=str(cell), marks=() if cell.act in fast else pytest.mark.slow)
        for cell in cells
    ]


@pytest.mark.parametrize("cell", marked(STORE, "flip a bit", "to a directory", "to a file"))
def test_a_changed_file_of_the_store(cell: Cell, stage: Stages, count: Count) -> None:
    world = stage("tree" if cell.place.endswith("tree") else "pack")
    acts = FOLDER_ACTS if cell.place.startswith("builds/") else ACTS
    acts[cell.act](spot(world, cell.place))
    check(world, cell, "copy")
    count.add("tamper cells")


@pytest.mark.parametrize("cell", marked(TREES, "changed byte", "link target"))
def test_a_changed_tree_of_the_store(cell: Cell, stage: Stages, count: Count) -> None:
    world = stage("tree")
    DAMAGES[cell.act][0](world.store / "builds/b/tree")
    check(world, cell, cell.place.rpartition(" ")[2])
    count.add("tamper cells")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["manifest.gz", "build.json", "index"])
def test_a_repair_that_stops_anywhere_leaves_nothing_for_good(
    name: str, stage: Stages, count: Count
) -> None:
    """A folder stands where a record should: it is renamed away, and goes later if need be."""
    world, at, fired = stage("pack"), 0, True
    while fired:
        world = stage("pack")
        ACTS["to a full directory"](spot(world, name))
        disk = StoppingDisk(at)
        world.disk = disk
        with contextlib.suppress(Stopped):
            publish(world, "b")
        fired, at = disk.fired, at + 1
        world.disk = CountingDisk()
        publish(world, "b")
        same(verify(world), FINE)
        for later in (1, 2, 3):
            clean(later * LATER_S)(world, CountingDisk())
        assert store_litter(world) == []
        count.add("crash points")
