"""The power goes at any moment: what was reported as done is there, and `current` leads to whole
files, whatever was lost of all that had not been made durable."""

from __future__ import annotations

from pathlib import Path

import pytest

from counts import Count
from crash.ground import Ground
from crash.invariants import Truth
from crash.powerloss import JournalDisk, State, materialise
from crash.scenarios import SCENARIOS, Scenario, world_of
from world import World

FAST = ("publish-second-pack", "deploy-copy-later-pack")
SKIPPED = ("verify", "publish-again", "publish-records", "publish-manifest")
"""They change nothing, or what they mend was lost before."""

MOST = 400
NAMES = [name for name in SCENARIOS if not name.startswith(SKIPPED)]


def scenarios() -> list[object]:
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", scenarios())
def test_the_power_goes_at_any_moment(name: str, here: Path, truth: Truth, count: Count) -> None:
    scenario = SCENARIOS[name]
    world = world_of(scenario, here)
    ground = Ground(here)
    disk = JournalDisk(here, seed=7)
    scenario.run(world, disk)
    ends = list(disk.possible(thorough=True))
    states = [(number, False, state) for number, state in disk.states]
    states = _distinct([(len(disk.calls), True, state) for state in ends] + states)
    kept = states[: len(ends)] + disk.chance.sample(states, min(MOST, len(states)))
    for turn, (number, done, state) in enumerate(kept):
        call = disk.calls[number] if number < len(disk.calls) else "the end"
        try:
            _survives(world, ground, scenario, truth, state, done=done, again=turn % 5 == 0)
        except BaseException as error:
            error.add_note(f"{name}: the power went after {call}")
            raise
        count.add("power cuts")


def _distinct(states: list[tuple[int, bool, State]]) -> list[tuple[int, bool, State]]:
    """Each state once, with the first word on what had been promised by then."""
    found = {repr(state): (number, done, state) for number, done, state in reversed(states)}
    return list(reversed(found.values()))


def _survives(
    world: World, ground: Ground, scenario: Scenario, truth: Truth, state: State, *,
    done: bool, again: bool,
) -> None:  # fmt: skip
    ground.clear(("store", "www"))
    materialise(state, ground.folder)
    truth.holds(world, scenario, done=done)
    if again:
        truth.recovers(world, scenario)
