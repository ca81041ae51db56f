"""A run that ends at any of its operations leaves what is live alone, and a second run mends all.

Process death, Ctrl-C, every error that a disk can give, and NFS that tries an operation twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from counts import Count
from crash.exploring import Exploration
from crash.invariants import Truth
from crash.scenarios import SCENARIOS

FAST = ("publish-second-pack",)
ANYWHERE = (*FAST, "deploy-copy-later-pack", "rollback-copy-pack", "clean-tree")


def scenarios() -> list[object]:
    return [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SCENARIOS
    ]


@pytest.mark.parametrize("name", scenarios())
def test_whatever_happens_at_any_operation(
    name: str, here: Path, truth: Truth, count: Count
) -> None:
    exploration = Exploration(SCENARIOS[name], here, truth, count)
    exploration.deaths()
    exploration.interrupts()
    exploration.faults()
    exploration.retries()


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name == ANYWHERE[1] else pytest.mark.slow) for name in ANYWHERE
])  # fmt: skip
def test_only_what_changes_the_disk_changes_what_a_death_leaves(
    name: str, here: Path, truth: Truth, count: Count
) -> None:
    Exploration(SCENARIOS[name], here, truth, count).deaths_anywhere()
