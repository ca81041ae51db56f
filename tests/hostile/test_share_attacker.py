"""Who can write the share cannot make a changed byte go live in mode copy, whenever he strikes; and
nobody who works on the share reads, writes or removes anything outside of it for him.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counts import Count
from crash.invariants import Truth
from crash.scenarios import SCENARIOS, Scenario, deployed
from hostile.attacks import Outside
from hostile.share import Siege
from moorline import workflow
from moorline.disk import Disk
from moorline.errors import Error
from world import World


def look(world: World, disk: Disk) -> None:
    """Every verb that only looks. One that is refused does not keep the next from looking."""
    options: Any = {"config": world.config, "disk": disk}
    verbs: list[Callable[[], object]] = [
        lambda: workflow.status(**options),
        lambda: workflow.builds(**options),
        lambda: workflow.show("b", **options),
        lambda: workflow.diff("a", "b", **options),
        lambda: workflow.verify(everything=True, **options),
        lambda: workflow.pin("b", reason="a test", **options),
        lambda: workflow.unpin("b", **options),
        lambda: workflow.export("b", str(world.here / "bundles" / "export"), **options),
    ]
    for verb in verbs:
        with contextlib.suppress(Error, OSError):
            verb()
    shutil.rmtree(world.here / "bundles" / "export", ignore_errors=True)


def slow_but(fast: str, names: tuple[str, ...]) -> list[object]:
    """All of them; one belongs to the fast tests."""
    return [pytest.param(n, marks=() if n == fast else pytest.mark.slow) for n in names]


def gone(world: World) -> None:
    """Build a is what a rollback goes to, and the target holds it no longer."""
    deployed("a", "b", live=("a", "b"), mode="copy")(world)
    for path in (world.root / "releases").glob("a.*"):
        shutil.rmtree(path)


MORE = {
    str(scenario): scenario
    for layout in ("pack", "tree")
    for scenario in (
        Scenario("look", layout, deployed("a", "b", live=("a",), mode="copy"), look,
                 live=("a",), ends="a"),
        Scenario("rollback-from-share", layout, gone, lambda w, d: w.rollback(disk=d),
                 live=("a", "b"), ends="a"),
    )
}  # fmt: skip
DEPLOYS = (
    "deploy-copy-first-pack", "deploy-copy-later-pack", "deploy-copy-later-tree",
    "codedeploy-later-pack", "codedeploy-later-tree", "deploy-copy-again-pack",
    "rollback-from-share-pack", "rollback-from-share-tree",
)  # fmt: skip
OTHERS = (
    "publish-second-pack", "publish-second-tree", "publish-folding-pack", "publish-repair-pack",
    "publish-repair-tree", "publish-records-tree", "remove-pack", "clean-pack", "clean-tree",
    "look-pack", "look-tree",
)  # fmt: skip


@pytest.mark.parametrize("name", slow_but("deploy-copy-later-pack", DEPLOYS))
def test_an_attack_at_any_step_of_a_deploy(
    name: str, here: Path, outside: Outside, truth: Truth, count: Count
) -> None:
    siege = Siege({**SCENARIOS, **MORE}[name], here, outside, truth)
    for at, attack in siege.turns(2):
        siege.attack(at, attack)
        count.add("attacks on the share")


@pytest.mark.parametrize("name", slow_but("clean-pack", OTHERS))
def test_an_attack_at_any_step_of_a_verb_that_works_on_the_share(
    name: str, here: Path, outside: Outside, truth: Truth, count: Count
) -> None:
    siege = Siege({**SCENARIOS, **MORE}[name], here, outside, truth)
    for at, attack in siege.turns(1):
        siege.attack(at, attack)
        count.add("attacks on the share")
