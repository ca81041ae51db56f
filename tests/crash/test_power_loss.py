"""The power goes at any moment: what was reported as done is there, and `current` leads to whole
files, whatever was lost of all that had not been made durable."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from counts import Count
from crash.disks import Dead
from crash.exploring import RecordingDisk
from crash.ground import Ground
from crash.invariants import Truth
from crash.powerloss import JournalDisk, State, materialise
from crash.scenarios import SCENARIOS, Scenario, world_of
from world import World

FAST = ("publish-second-pack", "deploy-copy-later-pack")
SKIPPED = ("verify", "publish-again", "publish-records", "publish-manifest", "export")
"""They change nothing, mend what was lost before, or write outside of store and target."""

MOST = 400
NAMES = [name for name in SCENARIOS if not name.startswith(SKIPPED)]
MOST_AFTER_A_DEATH = 12
AFTER_A_DEATH = (
    *("publish-first-pack", "publish-second-tree", "publish-folding-pack", "publish-repair-tree"),
    *("deploy-copy-first-pack", "deploy-link-later-tree", "deploy-link-first-tree"),
    *("rollback-copy-pack", "codedeploy-later-pack", "putback-check-copy-pack"),
    *("remove-and-clean-pack", "init-pack"),
)


def scenarios() -> list[object]:
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("name", scenarios())
def test_the_power_goes_at_any_moment(name: str, here: Path, truth: Truth, count: Count) -> None:
    scenario = SCENARIOS[name]
    world = world_of(scenario, here)
    ground = Ground(here)
    disk = JournalDisk(here, seed=7)
    scenario.run(world, disk)
    for turn, (number, done, state) in enumerate(_states(disk, MOST, MOST)):
        call = disk.calls[number] if number < len(disk.calls) else "the end"
        try:
            _survives(world, ground, scenario, truth, state, done=done, again=turn % 5 == 0)
        except BaseException as error:
            error.add_note(f"{name}: the power went after {call}")
            raise
        count.add("power cuts")


@pytest.mark.slow
@pytest.mark.parametrize("name", AFTER_A_DEATH)
def test_the_power_goes_while_a_run_takes_up_what_a_dead_one_left(
    name: str, here: Path, truth: Truth, count: Count
) -> None:
    """What the dead process had not made durable is still not durable when the next one meets it,
    and the next one promises all of it."""
    scenario = SCENARIOS[name]
    world = world_of(scenario, here)
    ground = Ground(here)
    whole = RecordingDisk(str(world.store))
    scenario.run(world, whole)
    for at in _deaths(whole):
        ground.restore()
        disk = JournalDisk(here, seed=at, dies_after=at)
        with contextlib.suppress(Dead):
            scenario.run(world, disk)
        disk.revive()
        scenario.run_again(world, disk)
        for number, done, state in _states(disk, MOST_AFTER_A_DEATH, MOST_AFTER_A_DEATH):
            call = disk.calls[number] if number < len(disk.calls) else "the end"
            try:
                _survives(world, ground, scenario, truth, state, done=done, again=False)
            except BaseException as error:
                error.add_note(f"{name}: died after {whole.calls[at]}, the power went after {call}")
                raise
            count.add("power cuts after a death")


def _deaths(disk: RecordingDisk) -> list[int]:
    """After each change of names that others could take for done, and after some of the rest."""
    telling = ("rename", "hard_link", "make_directory", "append")
    named = [n for n in disk.changed if disk.calls[n].operation in telling]
    return sorted({*named, *sorted(disk.changed)[::8]})


def _states(
    disk: JournalDisk, most_at_the_end: int, most_before: int
) -> list[tuple[int, bool, State]]:
    """What may be left at the end, all and nothing first, and a sample of what may be before."""
    ends = [(len(disk.calls), True, state) for state in disk.possible(thorough=True)]
    before = [(number, False, state) for number, state in disk.states]
    states = _distinct(ends + before)
    first = [state for state in states if state[1]]
    rest = states[len(first) :]
    kept = disk.chance.sample(first[2:], min(most_at_the_end, len(first[2:])))
    return [*first[:2], *kept, *disk.chance.sample(rest, min(most_before, len(rest)))]


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
