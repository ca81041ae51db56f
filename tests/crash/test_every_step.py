"""A run that ends at any of its operations leaves what is live alone, and a second run mends all.

Process death, Ctrl-C, every error that a disk can give, and NFS that tries an operation twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from counts import Count
from crash.disks import Call, faults
from crash.exploring import Exploration
from crash.invariants import Truth
from crash.scenarios import SCENARIOS

FAST = ("publish-second-pack", "deploy-copy-later-pack", "rollback-copy-pack")


def scenarios(fast: tuple[str, ...] = FAST) -> list[object]:
    return [
        pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in SCENARIOS
    ]


@pytest.mark.parametrize("name", scenarios())
def test_a_death_at_any_operation(name: str, here: Path, truth: Truth, count: Count) -> None:
    exploration = Exploration(SCENARIOS[name], here, truth, count)
    exploration.crashes(after=False)
    exploration.crashes(after=True)


@pytest.mark.parametrize("name", scenarios(FAST[:2]))
def test_ctrl_c_after_any_change(name: str, here: Path, truth: Truth, count: Count) -> None:
    Exploration(SCENARIOS[name], here, truth, count).interrupts()


@pytest.mark.parametrize("name", scenarios(FAST[:1]))
def test_an_error_of_the_disk_at_any_operation(
    name: str, here: Path, truth: Truth, count: Count
) -> None:
    def turns(call: Call) -> tuple[int, ...]:
        codes = faults(call)
        return (codes[call.number % len(codes)],)

    Exploration(SCENARIOS[name], here, truth, count).faults(turns)


@pytest.mark.slow
@pytest.mark.parametrize("name", (*FAST, "publish-second-tree", "clean-pack", "init-pack"))
def test_each_error_of_the_disk_at_any_operation(
    name: str, here: Path, truth: Truth, count: Count
) -> None:
    Exploration(SCENARIOS[name], here, truth, count).faults(faults)


@pytest.mark.parametrize("name", scenarios())
def test_an_operation_that_nfs_tried_twice(
    name: str, here: Path, truth: Truth, count: Count
) -> None:
    Exploration(SCENARIOS[name], here, truth, count).retries()
