"""Any order of verbs and crashes, against a model that is a few sets and a list.

The model knows which builds are listed, which one is live, and which would be gone back to. After
a crash in the middle of a verb it may be as before or as after; then the model asks what it is.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from counts import Count
from crash.conftest import MEMORY
from crash.disks import Dead, DyingDisk, WatchedDisk
from crash.invariants import Truth
from crash.scenarios import SPECS, clean, deploy, publish, remove, rollback
from crash.test_two_actors import publish_other
from moorline.bundle import read_bundle
from moorline.disk import Disk
from moorline.errors import Conflict, Error, NotFound, PutBack
from moorline.settings import Hook
from moorline.store import open_store
from world import World, flip

Verb = Callable[[World, Disk], object]
IDS = st.sampled_from(["a", "b", "c", "folded"])


class Machine(RuleBasedStateMachine):
    """One store and one target; subclasses say which layout."""

    layout = "pack"
    truth: Truth
    count: Count

    def __init__(self) -> None:
        super().__init__()
        self.here = Path(tempfile.mkdtemp(prefix="mc.", dir=MEMORY if MEMORY.is_dir() else None))
        self.here.chmod(0o755)
        self.world = World(self.here, self.layout)
        (self.here / "bundles").mkdir()
        self.listed: set[str] = set()
        self.live = ""
        self.good: list[str] | None = []  # None: a crash made it unknown
        self.kept_here = False
        self.places: set[str] = set()
        self.turn = 0

    def teardown(self) -> None:
        shutil.rmtree(self.here)

    def _disk(self) -> WatchedDisk:
        self.turn += 1
        self.count.add("steps of the model")
        return WatchedDisk(f"turn {self.turn}")

    # -- verbs --------------------------------------------------------------------------------

    @rule(id=IDS)
    def publish(self, id: str) -> None:
        publish(id)(self.world, self._disk())
        self.listed.add(id)

    @rule(id=IDS)
    def publish_something_else(self, id: str) -> None:
        if id in self.listed:
            with pytest.raises(Conflict):
                publish_other(id)(self.world, self._disk())

    @rule(id=IDS, link=st.booleans())
    def deploy(self, id: str, link: bool) -> None:
        if not self._has_bundle(id):
            self.publish(id)
        mode = "link" if link and self.layout == "tree" else "copy"
        try:
            deploy(id, mode)(self.world, self._disk())
        except NotFound:
            assert id not in self.listed
            return
        except Conflict:
            assert id in self._removing(), "nobody is removing it"
            return
        self._went_live(id)

    def _went_live(self, id: str) -> None:
        self.live = id
        self.kept_here = id not in self.listed  # a copy that the target held needs no store
        self.places.add(self.world.link)
        if self.good is not None:
            self.good = [*(one for one in self.good if one != id), id]

    @rule(id=IDS)
    def deploy_and_put_back(self, id: str) -> None:
        """A check fails once the build is live; of what was live before, nothing changes."""
        if not self._has_bundle(id) or id == self.live:
            return
        with pytest.raises((PutBack, NotFound, Conflict)) as caught:
            self.world.deploy(id, disk=self._disk(), checks=(Hook(run=("false",)),))
        self.count.add("put-backs in the model", int(caught.type is PutBack))
        if caught.type is PutBack and self.good is not None:
            self.good = [one for one in self.good if one != id]
        self.places |= {f"releases/{path.name}" for path in self._releases()}

    def _releases(self) -> list[Path]:
        folder = self.world.root / "releases"
        return list(folder.iterdir()) if folder.exists() else []

    @rule(id=IDS)
    def damage_and_repair(self, id: str) -> None:
        """What publishing the same again mends; in a pack other builds may share the damage."""
        if id not in self.listed or self.layout != "tree":
            return
        flip(self.world.store / "builds" / id / "tree" / "index.html", 3)
        with open_store(WatchedDisk(), self.world.store) as store, pytest.raises(AssertionError):
            self.truth.build_is_whole(store, id)
        for one in sorted(self.listed):  # the file may be a link to those of other builds
            publish(one)(self.world, self._disk())
        self.count.add("repairs in the model")

    @rule()
    def rollback(self) -> None:
        left = self.live
        try:
            rollback(self.world, self._disk())
        except NotFound:
            before = [id for id in self.good or () if id != left]
            assert not before or before[-1] not in self.listed, f"{before} were good"
            return
        except Conflict:
            assert self._removing(), "nobody is removing anything"
            return
        now = self.truth.live(self.world)
        assert now != left
        if self.good is not None:
            assert now == [id for id in self.good if id != left][-1]
            self.good = [id for id in self.good if id != left]
        self._went_live(now)

    @rule(id=IDS)
    def remove(self, id: str) -> None:
        try:
            remove(id)(self.world, self._disk())
        except Conflict:
            return
        self.listed.discard(id)

    @rule(days=st.integers(0, 3), stale=st.booleans())
    def clean(self, days: int, stale: bool) -> None:
        options = {"stale_s": 0} if stale else {}
        clean(days * 86_400, **options)(self.world, self._disk())

    @rule(
        at=st.integers(0, 250), after=st.booleans(), id=IDS,
        what=st.sampled_from(["publish", "deploy", "rollback", "remove", "clean"]),
    )  # fmt: skip
    def crash(self, what: str, id: str, at: int, after: bool) -> None:
        if what == "deploy" and not self._has_bundle(id):
            return
        verbs: dict[str, Verb] = {
            "publish": publish(id), "deploy": deploy(id), "rollback": rollback,
            "remove": remove(id), "clean": clean(),
        }  # fmt: skip
        disk = DyingDisk(at, after=after)
        self.turn += 1
        disk.seed = f"turn {self.turn}"
        with contextlib.suppress(Dead, Error):
            verbs[what](self.world, disk)
        self._look_again(what, id)

    def _look_again(self, what: str, id: str) -> None:
        """After a crash: as it was, or as the verb would have made it."""
        listed = self._listed()
        assert listed ^ self.listed <= ({id} if what in ("publish", "remove") else set())
        live = self.truth.live(self.world)
        assert live == self.live or what in ("deploy", "rollback")
        assert what != "deploy" or live in (self.live, id)
        if what in ("deploy", "rollback"):
            self.good = None
        if live != self.live:
            # A copy that was held from before goes live without the share: its pin comes last.
            self.kept_here = live not in listed or self.world.link in self.places
        self.places.add(self.world.link)
        self.listed, self.live = listed, live
        self.count.add("crashes in the model")

    def _has_bundle(self, id: str) -> bool:
        """A publish that died may have left none, or a part of one."""
        try:
            read_bundle(WatchedDisk(), self.world.bundle(id))
        except Error:
            return False
        return True

    def _listed(self) -> set[str]:
        with open_store(WatchedDisk(), self.world.store) as store:
            return {str(id) for id in store.ids()}

    def _removing(self) -> set[str]:
        """What a crashed removal keeps deploys away from, until somebody cleans."""
        with self.world.ledger() as ledger:
            return ledger.removing()

    # -- always -------------------------------------------------------------------------------

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        assert self._listed() == self.listed
        with open_store(WatchedDisk(), self.world.store) as store:
            for id in self.listed:
                self.truth.build_is_whole(store, id)
        if self.world.root.exists():
            assert self.truth.live(self.world) == self.live
        assert not self.live or self.kept_here or self.live in self.listed, "I4: it is live"


def run(layout: str, examples: int, steps: int, truth: Truth, count: Count) -> None:
    machine = type("Machine", (Machine,), {"layout": layout, "truth": truth, "count": count})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


@pytest.mark.usefixtures("here")
def test_any_order_of_verbs_and_crashes(layout: str, truth: Truth, count: Count) -> None:
    assert set(SPECS) >= {"a", "b", "c", "folded"}
    run(layout, 20, 16, truth, count)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_many_orders_of_verbs_and_crashes(layout: str, truth: Truth, count: Count) -> None:
    run(layout, 50, 50, truth, count)
