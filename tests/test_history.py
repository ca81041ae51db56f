"""Which release to go back to: decided from the rows of a target's history alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.build import Release
from moorline.history import Deploying, find_release, previous_of
from world import row


def good(*steps: tuple[str, str]) -> list[Release]:
    """Live rows of builds, each with what it left."""
    return [row(id, n, left=left) for n, (id, left) in enumerate(steps, 1)]


@pytest.mark.parametrize(
    ("rows", "live", "previous"),
    [
        ([], None, None),
        (good(("a", "")), "a", None),
        (good(("a", ""), ("b", "")), "b", "a"),
        (good(("a", ""), ("b", ""), ("a", "")), "a", "b"),
        (good(("a", ""), ("b", ""), ("a", "b")), "a", None),
        (good(("a", ""), ("b", ""), ("c", ""), ("b", "c")), "b", "a"),
        (good(("a", ""), ("b", ""), ("a", "b"), ("b", "")), "b", "a"),
        (good(("a", ""), ("b", ""), ("a", "b"), ("b", ""), ("c", "")), "c", "b"),
        ([row("a", 1), row("b", 2, "intended"), row("b", 2, "failed")], "a", None),
        ([row("a", 1), row("b", 2, "intended")], "b", "a"),
        # b was good once, came back after c, failed then, and c was put back
        ([*good(("a", ""), ("b", ""), ("c", "")), row("c", 3, "restored", "b")], "c", "a"),
        # nothing is live: a first deploy failed after an older release was good
        (good(("a", ""), ("b", "")), None, "b"),
    ],
)
def test_previous_is_the_newest_good_release_of_another_build(
    rows: list[Release], live: str | None, previous: str | None
) -> None:
    found = previous_of(rows, live)
    assert (found.id if found else None) == previous


_few = st.sampled_from("abcd")
_rows = st.lists(
    st.tuples(_few, st.sampled_from(("intended", "live", "failed", "restored")), st.one_of(_few)),
    max_size=12,
)


@given(_rows, st.lists(st.booleans(), min_size=12, max_size=12), st.none() | _few)
def test_previous_agrees_with_its_definition(
    steps: list[tuple[str, str, str]], leaves: list[bool], live: str | None
) -> None:
    rows = [
        row(id, n, step, left if leaves[n] and left != id else "")
        for n, (id, step, left) in enumerate(steps)
    ]
    candidates = [
        one
        for at, one in enumerate(rows)
        if one.step == "live"
        and one.id != live
        and not any(later.left == one.id for later in rows[at + 1 :])
    ]
    assert previous_of(rows, live) == (candidates[-1] if candidates else None)


def test_a_release_is_found_by_its_id_only_if_it_was_good() -> None:
    rows = [row("a", 1), row("a", 3), row("b", 4, "intended"), row("b", 4, "failed")]
    assert find_release(rows, "a") == rows[1]
    assert find_release(rows, "b") is None


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
def test_a_deployment_under_way_comes_back_from_its_text(flags: tuple[bool, bool]) -> None:
    under_way = Deploying("d-1", "QA", row("b", 2), "releases/a.1", "prepared", 5, 7, *flags)
    assert Deploying.parse(under_way.text(), "deploying.json") == under_way
