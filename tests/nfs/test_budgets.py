"""What the verbs cost a real NFS client in requests: counted by its kernel, never timed.

Layout pack has one budget for any number of files; layout tree has one for each file. Every step
begins with cold caches, as a fresh CI container does. Over budget? `python -m nfs.trace STEP` says
which functions of moorline cause the requests.
"""

from __future__ import annotations

import pytest

from counts import Count
from nfs.costs import FOLDERS, STEPS, costs
from nfs.machine import Cost
from nfs.solo import SoloRig

pytestmark = pytest.mark.slow

FEW, MANY = 200, 2000  # files of a pack's build; test_simulated has more
LESS, MORE = 20, 40  # files of a tree's build
GROWING = STEPS[: STEPS.index("verify") + 1]
"""The steps that read or write a build: these are counted for MANY files as well."""

BUDGETS = {
    "publish-first": 65,
    "deploy-first": 70,
    "publish": 60,
    "deploy": 60,
    "verify": 35,
    "status": 18,
    "builds": 48,
    "rollback": 1,
}
"""Each step stays below: of two builds, on a store with one target. A rollback to what the target
holds asks the share for nothing at all."""


@pytest.fixture(scope="module")
def pack(solo: SoloRig, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Cost]]:
    """By number of files and step."""
    return {
        n: costs(solo, tmp_path_factory.mktemp("pack"), files=n, steps=steps)
        for n, steps in ((FEW, STEPS), (MANY, GROWING))
    }


@pytest.fixture(scope="module")
def tree(solo: SoloRig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    """By step: what MORE files cost more than LESS in the same folders."""
    less, more = (
        costs(
            solo, tmp_path_factory.mktemp("tree"), files=n, layout="tree",
            steps=("publish", "deploy"),
        )
        for n in (LESS, MORE)
    )  # fmt: skip
    return {step: more[step] - less[step] for step in more}


def test_the_folders_of_the_site_are_as_many_for_every_number_of_files() -> None:
    assert min(FEW, LESS) > FOLDERS


@pytest.mark.parametrize("step", STEPS)
def test_pack_stays_below_its_budget(
    pack: dict[int, dict[str, Cost]], step: str, count: Count
) -> None:
    """On a machine that is slow the client looks again whether what it knows is still true: so the
    cheaper one of the two builds counts."""
    cheapest = min((cost[step] for cost in pack.values() if step in cost), key=lambda c: c.total)
    assert cheapest.total < BUDGETS[step], str(cheapest)
    count.add("steps whose NFS requests have a budget")


@pytest.mark.parametrize("step", GROWING)
def test_pack_costs_the_same_for_ten_times_the_files(
    pack: dict[int, dict[str, Cost]], step: str
) -> None:
    """But for one pack that is opened, read and closed: of a small build it may be folded."""
    few, many = pack[FEW][step], pack[MANY][step]
    assert many.steady <= few.steady + 3, f"{few}\n\n{many}"


def test_tree_publish_links_an_unchanged_file_by_one_request(tree: dict[str, Cost]) -> None:
    """Beside LINK the client itself looks: at the name's attributes and, because of Linux's
    protected_hardlinks, at the right to write the file."""
    more = MORE - LESS
    assert tree["publish"].requests["LINK"] == more, str(tree["publish"])
    assert tree["publish"].steady == more, str(tree["publish"])
    assert tree["publish"].total <= 4 * more, str(tree["publish"])


def test_tree_verify_is_open_read_close_for_each_file(tree: dict[str, Cost]) -> None:
    more = MORE - LESS
    assert tree["deploy"].requests["READ"] == more, str(tree["deploy"])
    assert tree["deploy"].steady == 3 * more, str(tree["deploy"])
