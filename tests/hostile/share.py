"""The attacker who can write the share: what there is to attack, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crash.disks import Call
from crash.ground import Ground
from crash.invariants import Truth, documented
from crash.scenarios import Scenario, world_of
from hostile.attacks import ON_ANYTHING, ON_FILES, ON_FOLDERS, Outside, Way
from hostile.fence import FencedDisk
from moorline.bundle import read_bundle
from world import World

FOLDERS = (
    "builds", "builds/a", "builds/b", "builds/b/tree", "builds/b/tree/img", "packs", "agent",
    "settings", "ledger", "ledger/targets", "ledger/removing", "ledger/builds", "ledger/pins",
    "incoming", "incoming/*", "trash", "trash/*", "sequence",
)  # fmt: skip
FILES = (
    "moorline-store.json", "builds/a/build.json", "builds/a/manifest*", "builds/a/index",
    "builds/b/build.json", "builds/b/manifest*", "builds/b/index",
    "builds/b/tree/index.html", "builds/b/tree/img/a.png",
    "builds/b/tree/img/logo.png", "builds/b/tree/bin/run", "builds/a/tree/img/a.png", "packs/*",
    "agent/*", "settings/*", "ledger/targets/*", "ledger/builds/b.json", "ledger/removing/*",
    "sequence/*", "sequence/1", "incoming/*/index", "incoming/*/build.json",
    "incoming/*/manifest*", "trash/*/index",
)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """`way` done to everything in the store that `where` names."""

    where: str
    name: str
    way: Way

    def run(self, world: World, outside: Outside) -> None:
        found = sorted(world.store.glob(self.where)) if "*" in self.where else []
        for path in found or [world.store / self.where.replace("*", "x")]:
            self.way(path, outside.folder)

    def __str__(self) -> str:
        return f"{self.where} is {self.name}"


def attacks() -> list[Attack]:
    """Every way on everything, in an order that mixes them."""
    plan = [(where, {**ON_ANYTHING, **ON_FOLDERS}) for where in FOLDERS]
    plan += [(where, {**ON_ANYTHING, **ON_FILES}) for where in FILES]
    every = [Attack(where, name, way) for where, ways in plan for name, way in ways.items()]
    step = 61  # no divisor of their number: neighbours in time are different places and ways
    assert len(every) % step
    return [every[i * step % len(every)] for i in range(len(every))]


class Siege:
    """One scenario, attacked at every operation that touches the share."""

    def __init__(self, scenario: Scenario, here: Path, outside: Outside, truth: Truth) -> None:
        self.scenario = scenario
        self.truth = truth
        self.outside = outside
        self.world = world_of(scenario, here)
        self.ground = Ground(here)
        disk = self.disk()
        scenario.run(self.world, disk)
        assert not disk.escapes, disk.escapes
        self.steps = disk.steps_on(self.world.store)
        self.calls: list[Call] = disk.calls

    def disk(self, at: int = -1, action: Callable[[], object] = lambda: None) -> FencedDisk:
        world = self.world
        inside = (world.store, world.root, world.here / "src", world.here / "bundles")
        return FencedDisk(inside, [world.here], at=at, action=action)

    def attack(self, at: int, attack: Attack) -> str:
        """How the verb ended: done, or the name of its error."""
        self.ground.restore()
        disk = self.disk(at, lambda: attack.run(self.world, self.outside))
        try:
            ended = self._ended(disk)
            assert disk.fired, "the attack never came"
            assert not disk.escapes, disk.escapes
            assert self.outside.unharmed(), "something outside was changed"
            if ended == "done" and self.scenario.adds:
                bundle = read_bundle(disk, self.world.bundle(self.scenario.adds))
                assert bundle.digest == self.truth.manifests[bundle.id].digest
            if self.scenario.target:
                live = self.truth.live(self.world)  # I2 and I5: whole, by the source's own word
                assert live in self.scenario.live, f"I3: {live!r} is live"
                assert ended != "done" or live == self.scenario.ends
        except BaseException as error:
            error.add_note(f"{self.scenario}: before {self.calls[at]}: {attack}")
            raise
        return ended

    def _ended(self, disk: FencedDisk) -> str:
        try:
            self.scenario.run(self.world, disk)
        except Exception as error:
            if not documented(error):
                raise
            return type(error).__name__
        return "done"

    def turns(self, each: int, start: int = 0) -> Iterator[tuple[int, Attack]]:
        """At every step `each` attacks, a different part of them each time."""
        every = attacks()
        for number, at in enumerate(self.steps):
            for i in range(each):
                yield at, every[(start + number * each + i) % len(every)]
