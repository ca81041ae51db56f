"""Whatever is changed on a target: found, listed, and deploying the same build again repairs it."""

from __future__ import annotations

import pytest

from counts import Count
from damages import DAMAGES
from fakes import CountingDisk
from moorline import agent
from moorline.errors import Problem
from moorline.results import hint
from moorline.scan import scan
from moorline.verifying import verify as verify_tree
from tamper.acts import ACTS, FOLDER_ACTS, Spot
from tamper.cells import FINE, KEPT, Answer, Kept
from tamper.stage import Stages, answer, deploy, publish, same, verify_target
from world import World


def differs(world: World, id: str) -> tuple[Problem, ...]:
    """What differs between what is served and what was published, whatever manifests say."""
    source = world.here / "src" / id
    return verify_tree(CountingDisk(), world.live, scan(CountingDisk(), source).manifest).problems


def marked(names: object, *fast: str) -> list[object]:
    return [
        pytest.param(name, id=str(name), marks=() if name in fast else pytest.mark.slow)
        for name in names  # type: ignore[attr-defined]
    ]


def agent_says(world: World) -> Answer:
    def run() -> None:
        with world.target(CountingDisk()) as target:
            agent.verify_live(target.disk, target)

    return answer(run)


def hinted(problems: dict[str, str]) -> dict[str, str]:
    return {path: text + hint(Problem(path, text)) for path, text in problems.items()}


# -- what is live ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", marked(DAMAGES, "changed byte", "extra file"))
def test_a_changed_live_release(damage: str, stage: Stages, count: Count) -> None:
    world = stage("pack", ("b",))
    act, problems = DAMAGES[damage]
    place = world.link
    act(world.live)

    same(agent_says(world), Answer(3, problems, "Deploy its bundle again: that repairs it"))
    same(verify_target(world), Answer(3, hinted(problems)))

    same(deploy(world, "b"), FINE)
    assert world.link != place
    same(verify_target(world), FINE)
    assert differs(world, "b") == ()
    same(deploy(world, "a"), FINE)
    count.add("tamper cells")


LOST = {".": "the release is missing or no directory"}


@pytest.mark.parametrize("act", marked(FOLDER_ACTS, "remove", "to a link"))
def test_a_live_release_whose_folder_is_changed(act: str, stage: Stages, count: Count) -> None:
    """An identical folder behind a link is one that somebody else may change."""
    expected = {
        "add": {"added": 'extra file (if the application writes it: linked = ["added"])'},
        "chmod": {".": "mode is 777, should be 755"},
    }
    world = stage("pack", ("b",))
    FOLDER_ACTS[act](Spot(world.live, world.live))
    if act in ("empty", "to a full directory"):
        found = verify_target(world)
        assert found.exit == 3 and {"bin", "img", "index.html"} < set(found.problems)
    else:
        same(verify_target(world), Answer(3, expected.get(act, LOST)))

    same(deploy(world, "b"), FINE)
    same(verify_target(world), FINE)
    assert differs(world, "b") == ()
    count.add("tamper cells")


@pytest.mark.parametrize("damage", marked(DAMAGES, "changed byte", "extra file"))
def test_a_changed_tree_that_mode_link_serves(damage: str, stage: Stages, count: Count) -> None:
    """It lies in the store: deploying it again is refused, publishing it again repairs it."""
    world = stage("tree", ("a", "b"), "link")
    act, problems = DAMAGES[damage]
    act(world.live)

    same(verify_target(world), Answer(3, hinted(problems)))
    same(deploy(world, "b", "link"), Answer(3, problems, "Publish the same build again"))

    publish(world, "b")
    same(verify_target(world), FINE)
    assert differs(world, "b") == ()
    same(deploy(world, "b", "link"), FINE)
    count.add("tamper cells")


# -- what a rollback would take -------------------------------------------------------------------


@pytest.mark.parametrize("damage", marked(DAMAGES, "changed byte", "link target"))
def test_a_changed_release_is_not_rolled_back_to(damage: str, stage: Stages, count: Count) -> None:
    """Without the share nothing can repair it; with the share it is placed anew."""
    world = stage("pack", ("b", "a"))
    before = world.link, world.rows()
    DAMAGES[damage][0](world.root / "releases" / "b.1")
    away = world.store.rename(world.here / "away")

    same(back(world), Answer(4, says="holds no whole copy of build b"))

    assert (world.link, world.rows()) == before
    assert differs(world, "a") == ()
    away.rename(world.store)
    same(answer(lambda: world.rollback(disk=CountingDisk())), FINE)
    assert (world.rows()[-1].id, differs(world, "b")) == ("b", ())
    same(verify_target(world), FINE)
    count.add("tamper cells")


def back(world: World) -> Answer:
    """As the agent does it where no store is named."""

    def run() -> None:
        options = agent._parser().parse_args(["rollback", "--target", str(world.root)])
        options.run(CountingDisk(), options)

    return answer(run)


# -- what the target keeps ------------------------------------------------------------------------


def kept(world: World, folder: str) -> Spot:
    """The file of what is live, and one that it can be swapped with."""
    row = world.rows()[-1]
    names = {"manifests": row.digest, "settings": f"{row.settings}.json",
             "agents": f"{row.agent}.pyz"}  # fmt: skip
    other = {"manifests": "settings", "settings": "manifests", "agents": "settings"}[folder]
    return Spot(world.inner / folder / names[folder], world.inner / other / names[other])


def swapped(cell: Kept) -> Answer:
    """Both files of a swap are found."""
    if cell.act != "swap" or not cell.verify.exit:
        return cell.verify
    other = "manifests/#" if cell.place == "settings" else "settings/#.json"
    return Answer(3, {**cell.verify.problems, f".moorline/{other}": "missing or damaged"})


@pytest.mark.parametrize("cell", marked(KEPT))
def test_a_changed_file_of_what_a_target_keeps(cell: Kept, stage: Stages, count: Count) -> None:
    world = stage("pack", ("a",))
    ACTS[cell.act](kept(world, cell.place))

    same(verify_target(world), swapped(cell))
    same(deploy(world, "a"), FINE)

    same(verify_target(world), FINE)
    assert differs(world, "a") == ()
    same(deploy(world, "b"), FINE)
    assert not litter(world), "left over"
    same(back(world), FINE)
    assert world.rows()[-1].id == "a"
    count.add("tamper cells")


def litter(world: World) -> list[str]:
    named = {row.digest for row in world.rows()} | {f"{row.agent}.pyz" for row in world.rows()}
    named |= {f"{row.settings}.json" for row in world.rows()}
    folders = ("manifests", "settings", "agents")
    return [p.name for f in folders for p in (world.inner / f).iterdir() if p.name not in named]


@pytest.mark.parametrize("cell", marked(KEPT))
def test_a_rollback_without_what_the_target_kept(cell: Kept, stage: Stages, count: Count) -> None:
    world = stage("pack", ("a",))
    where = kept(world, cell.place)
    same(deploy(world, "b"), FINE)
    before = world.link, world.rows()
    ACTS[cell.act](where)

    found = back(world)

    same(found, cell.rollback)
    if found.exit:
        assert (world.link, world.rows()) == before
        assert differs(world, "b") == ()
        same(deploy(world, "a"), FINE)
    assert differs(world, "a") == ()
    count.add("tamper cells")
