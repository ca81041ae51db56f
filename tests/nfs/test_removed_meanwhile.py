"""Machine a removes what machine b reads, or replaces records that it reads: exact to the
operation, and on real NFS with caches warm.

A removal steps back when a target may need the build (I4); else whoever reads it hears that it was
removed, and not of damage or of a stale handle. Nothing waits for the grace period here: what is
removed is deleted at once, as an administrator might do it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest

from counts import Count
from nfs.machine import MODULES
from nfs.solo import SoloRig

pytestmark = pytest.mark.slow

SEED = 3
TIMES = {
    "remove-deploy": 14,
    "remove-publish": 7,
    "remove-verify": 6,
    "remove-verifyall": 4,
    "remove-show": 3,
    "remove-export": 4,
    "remove-diff": 3,
    "remove-builds": 3,
    "replace-status": 3,
    "replace-builds": 3,
    "replace-deploy": 3,
}
"""How often each verb is disturbed, by the action of the other machine and the verb."""

Told = list[tuple[str, str, str, str, str]]


@pytest.fixture(scope="module")
def told(solo: SoloRig) -> Told:
    """All of it in one process: importing takes longer than a verb."""
    orders = [f"{name}-{times}" for name, times in TIMES.items()]
    command = [sys.executable, "-m", "nfs.guest_actors", str(SEED), *orders]
    answer = solo.guest.run(command, environment=MODULES)
    assert answer.code == 0, answer.err
    return [tuple(line) for line in json.loads(answer.out)]


def test_the_verbs_were_disturbed_in_the_middle(told: Told, count: Count) -> None:
    assert Counter(f"{line[0]}-{line[1]}" for line in told) == TIMES
    assert {line[2] for line in told} == {"removed", "Conflict", "replaced"}
    count.add("acts of another NFS client in the middle of a verb", len(told))


def test_a_deploy_goes_live_or_hears_of_the_removal(told: Told) -> None:
    deploys = [line for line in told if line[:2] == ("remove", "deploy")]
    for _, _, did, operation, came in deploys:
        gone = came.startswith("4: no build") or came.startswith("5: build")
        assert gone if did == "removed" else came == "done", f"{did} before {operation}: {came}"
    assert {line[2] for line in deploys} == {"removed", "Conflict"}


@pytest.mark.parametrize("verb", ["verify", "show", "export", "diff"])
def test_a_reader_is_told_of_the_removal_and_of_no_damage(told: Told, verb: str) -> None:
    for line in told:
        if line[:2] == ("remove", verb):
            assert line[4] == "done" or line[4].startswith("4: "), line


@pytest.mark.parametrize("verb", ["publish", "builds", "verifyall"])
def test_who_needs_other_builds_too_goes_on(told: Told, verb: str) -> None:
    for line in told:
        if line[:2] == ("remove", verb):
            assert line[4] == "done", line


def test_records_that_are_replaced_while_they_are_read_disturb_nobody(told: Told) -> None:
    for line in told:
        if line[0] == "replace":
            assert line[4] == "done", line
