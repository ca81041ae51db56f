"""Machine a removes what machine b reads, or replaces records that it reads, or the server loses
its power: exact to the operation, and on real NFS with caches warm.

A removal steps back when a target may need the build (I4); else whoever reads it hears that it was
removed, and not of damage or of a stale handle. Nothing waits for the grace period here: what is
removed is deleted at once, as an administrator might do it.
"""

from __future__ import annotations

import json

import pytest

from counts import Count
from nfs.solo import SoloRig

pytestmark = pytest.mark.slow

SEED = 3
Told = list[tuple[str, str, str]]


def disturbed(solo: SoloRig, count: Count, action: str, verb: str, times: int) -> Told:
    """(what the action came to, the operation that it came before, what the verb came to), for each
    of so many runs of the verb on b."""
    answer = solo.guest.run([str(SEED), action, verb, str(times)], program="actors")
    assert answer.code == 0, answer.err
    told: Told = [(did, operation, came) for did, operation, came in json.loads(answer.out)]
    assert len(told) == times
    what = "power cuts of an NFS server" if action == "cut" else "acts of another NFS client"
    count.add(f"{what} in the middle of a verb", times)
    return told


def test_a_deploy_goes_live_or_hears_of_the_removal(solo: SoloRig, count: Count) -> None:
    deploys = disturbed(solo, count, "remove", "deploy", 8)
    for did, operation, came in deploys:
        gone = came.startswith("4: no build") or came.startswith("5: build")
        assert gone if did == "removed" else came == "done", f"{did} before {operation}: {came}"
    assert {did for did, _, _ in deploys} == {"removed", "Conflict"}


def test_a_removal_steps_back_from_a_deploy_or_stops_it(solo: SoloRig, count: Count) -> None:
    removals = disturbed(solo, count, "deploy", "remove", 6)
    for did, operation, came in removals:
        if did == "live":
            assert came.startswith("5: build"), f"removed under a deploy, before {operation}"
        else:
            assert did.startswith(("4: no build", "5: build")), did
            assert came == "done", came
    assert {did[0] for did, _, _ in removals} >= {"l", "5"}


@pytest.mark.parametrize(("verb", "times"), [("verify", 3), ("export", 3)])
def test_a_reader_is_told_of_the_removal_and_of_no_damage(
    solo: SoloRig, count: Count, verb: str, times: int
) -> None:
    readers = disturbed(solo, count, "remove", verb, times)
    for line in readers:
        assert line[2] == "done" or line[2].startswith("4: "), line
    assert any(came != "done" for _, _, came in readers)


def test_who_looks_at_other_builds_too_goes_on(solo: SoloRig, count: Count) -> None:
    for line in disturbed(solo, count, "remove", "verifyall", 3):
        assert line[2] == "done", line


def test_a_publish_whose_base_is_removed_is_whole_or_asks_to_be_run_again(
    solo: SoloRig, count: Count
) -> None:
    """Which it is when the base goes within its few reads of it; removed builds wait for a day."""
    publishes = disturbed(solo, count, "remove", "publish", 5)
    again = [line for line in publishes if line[2].endswith("Run the same command again.")]
    assert all(line[2] == "done" for line in publishes if line not in again), publishes
    assert len(again) < len(publishes) / 2, again


def test_records_that_are_replaced_while_they_are_read_disturb_nobody(
    solo: SoloRig, count: Count
) -> None:
    for verb, times in (("status", 3), ("deploy", 2)):
        for line in disturbed(solo, count, "replace", verb, times):
            assert line[2] == "done", line


def test_a_server_that_loses_its_power_is_waited_for_and_had_what_was_reported(
    solo: SoloRig, count: Count
) -> None:
    """Its disk was looked at before a client could send anything again: every build on it was
    whole, and the one that publish had reported was there."""
    at_end, in_the_middle = disturbed(solo, count, "cut", "publish", 2)
    assert at_end == ("cut: here", "the end", "done")
    assert (in_the_middle[0], in_the_middle[2]) == ("cut: not", "done"), in_the_middle
