"""Many processes at once on one store and two targets: nothing torn, nothing lost, nobody stuck."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from counts import Count
from crash.crowd import TARGETS
from crash.disks import WatchedDisk
from crash.invariants import store_litter
from moorline import agent
from moorline.disk import Disk
from moorline.errors import NotFound
from moorline.founding import init_store
from moorline.store import open_store
from moorline.target import open_target

ROLES = ("publisher",) * 3 + ("deployer",) * 3 + ("rollbacker", "verifier", "cleaner", "cleaner")
SECONDS = 30.0  # for each layout
PATIENCE_S = 100


@pytest.fixture
def here() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="m.", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.mark.slow
def test_many_at_once(layout: str, here: Path, count: Count) -> None:
    init_store(Disk(), here / "store", app="shop", layout=layout).close()
    if layout == "tree":
        (here / "tree").touch()
    told = _crowd(here, SECONDS, count)
    published = {id for one in told for id in one["published"]}
    with open_store(Disk(), here / "store") as store:
        ids = set(store.ids())
        removed = {path.name for path in (here / "store" / "ledger" / "builds").iterdir()}
        assert {f"{id}.json" for id in published} <= removed, "a published build has no record"
        for id in ids:
            with store.open_build(id) as opened:
                problems = opened.verify(opened.manifest()).problems
                assert not problems, f"I1: {id}: {problems}"
        assert len({build.sequence for build in store.builds()}) == len(ids)
    _targets_are_right(here, {str(id) for id in ids})
    assert not [name for name in store_litter_of(here) if name.startswith("ledger/removing")]
    assert published, "nobody published"


def _crowd(here: Path, seconds: float, count: Count) -> list[dict[str, list[str]]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    crowd = [
        (role, subprocess.Popen(
            [sys.executable, "-m", "crash.crowd", role, str(here), str(seed), str(seconds)],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))
        for seed, role in enumerate(ROLES)
    ]  # fmt: skip
    told = []
    for role, process in crowd:
        out, problem = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"{role}: {problem}"
        told.append(json.loads(out))
        did = Counter(told[-1]["did"])
        count.add("verbs in a crowd", did["done"] + did["removed"])
        count.add(
            "verbs that gave way in a crowd", sum(did.values()) - did["done"] - did["removed"]
        )
    return told


def _targets_are_right(here: Path, ids: set[str]) -> None:
    """What is live is whole; in mode link, where it is served from the store, it is there."""
    for name in TARGETS:
        try:
            with open_target(WatchedDisk(), str(here / name), make=False) as target:
                live = agent.verify_live(WatchedDisk(), target)
                if target.current().startswith("/"):
                    assert live in ids, f"I4: {live} is live on {name} and gone"
        except NotFound:
            assert not (here / name / "current").is_symlink()


def store_litter_of(here: Path) -> list[str]:
    class Place:
        store = here / "store"

    return store_litter(Place)  # type: ignore[arg-type]
