"""What has to be true wherever a run ended, and what once somebody has cleaned up after it.

`Truth` knows what every build should be from the sources alone: no manifest of the store is taken
at its word. Every failed assertion names the invariant of DESIGN.md that it belongs to.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from crash.disks import WatchedDisk
from crash.scenarios import LATER_S, SPECS, Scenario, clean, clean_target
from moorline.bundle import read_bundle
from moorline.errors import Error
from moorline.layout.index import packs_named
from moorline.ledger.directory import DirectoryLedger
from moorline.manifest import Manifest
from moorline.proof import prove
from moorline.scan import Rules, scan
from moorline.store import Store, open_store
from moorline.target import open_target
from moorline.verifying import verify
from trees import write_tree
from world import World

_PLACE = re.compile(r"releases/([^/]+)\.[0-9]+|.*/builds/([^/]+)/tree")
_TOKEN = re.compile(r"[0-9a-f]{16}")


class Truth:
    """What each build holds, made once from its source."""

    def __init__(self, folder: Path) -> None:
        self.manifests: dict[str, Manifest] = {}
        for id, spec in SPECS.items():
            source = write_tree(folder / id, spec)
            self.manifests[id] = scan(WatchedDisk(), source, Rules()).manifest

    # -- the store ----------------------------------------------------------------------------

    def store_is_right(self, world: World, scenario: Scenario, *, done: bool) -> set[str]:
        """The builds that are listed; each of them is whole, and what is needed is among them."""
        if not (world.store / "moorline-store.json").exists():
            assert not done and scenario.name == "init", "I7: the store is gone"
            return set()
        with open_store(WatchedDisk(), world.store, app="shop") as store:
            ids = set(store.ids())
            assert ids >= set(scenario.builds), f"I4: lost {set(scenario.builds) - ids}"
            for id in ids:
                if id not in scenario.spoilt and (done or id != scenario.damaged):
                    self.build_is_whole(store, id)
            whole = [build.sequence for build in store.builds()]
            assert len(whole) == len(set(whole)), "two builds have one sequence number"
            if done and scenario.removes:
                assert scenario.removes not in ids, "what was reported as removed is listed"
            if done and scenario.adds:
                assert scenario.adds in ids, "I1: what publish reported as done is not listed"
                bundle = read_bundle(store.disk, world.bundle(scenario.adds))
                store.get(b"settings", f"{bundle.settings}.json", bundle.settings)
                store.get(b"agent", f"{bundle.agent}.pyz", bundle.agent)
        return {str(id) for id in ids}

    def build_is_whole(self, store: Store, id: str) -> None:
        manifest = self.manifests[id]
        with store.open_build(id) as opened:  # type: ignore[arg-type]
            assert opened.build.digest == manifest.digest, f"I6: {id} is another build"
            ticket = store.read_ticket(opened.build.sequence)
            assert ticket == opened.build, f"I1: {id} has no ticket: {ticket}"
            assert opened.manifest(manifest.digest).text == manifest.text
            found = opened.verify(manifest).problems
            assert not found, f"I1: {id} is listed and not whole: {found}"
            times = opened.times(manifest)
            assert all(times[entry.path] >= 1 for entry in manifest.files)

    # -- the target ---------------------------------------------------------------------------

    def live_id(self, world: World) -> str:
        """The build that `current` names; empty for none."""
        path = world.root / "current"
        if not path.is_symlink():
            assert not path.exists(), "I2: current is no link"
            return ""
        place = os.readlink(path)
        match = _PLACE.fullmatch(place)
        assert match, f"I2: current says {place!r}"
        return match.group(1) or match.group(2)

    def live(self, world: World, *, damaged: bool = False, mended: bool = False) -> str:
        """The same: whole, known to the history, and right by the target's own word. An agent that
        could not be kept stops no deploy: it is told, and `mended` by the next."""
        id = self.live_id(world)
        if not id:
            return ""
        path = world.root / "current"
        place = os.readlink(path)
        if not damaged:
            found = verify(WatchedDisk(), path.resolve(strict=True), self.manifests[id]).problems
            assert not found, f"I2, I5: {id} is live and not whole: {found}"
        with open_target(WatchedDisk(), str(world.root), make=False) as target:
            row = target.live(target.history())
            assert row is not None and row.id == id, f"the history does not know {place}"
            assert row.digest == self.manifests[id].digest
            if not damaged:
                wrong = [p.path for p in prove(WatchedDisk(), target)[1].problems]
                lost = [path for path in wrong if path.startswith(".moorline/agents/")]
                assert wrong == ([] if mended else lost), f"I5: {id} is live, and wrong: {wrong}"
        return id

    def target_is_right(
        self, world: World, scenario: Scenario, *, done: bool, mended: bool = False
    ) -> None:
        damaged = scenario.damaged_live and not done
        live = self.live(world, damaged=damaged, mended=mended)
        allowed = (scenario.ends,) if done else scenario.live
        assert live in allowed, f"I3: {live!r} is live, not one of {allowed}"
        if (world.root / ".moorline").exists() and not scenario.damaged_live:
            self._good_releases_are_whole(world)

    def _good_releases_are_whole(self, world: World) -> None:
        """Whatever has the name of a release that passed is all of it, or is gone."""
        with open_target(WatchedDisk(), str(world.root)) as target:
            last = {row.place: row for row in target.history()}
        for path in (world.root / "releases").iterdir():
            row = last.get(f"releases/{path.name}")
            live = world.link == f"releases/{path.name}"  # looked at already
            if row is not None and row.step in ("live", "restored") and not live:
                found = verify(WatchedDisk(), path, self.manifests[row.id]).problems
                assert not found, f"I7: {row.place} passed once and is not whole: {found}"

    # -- both ---------------------------------------------------------------------------------

    def holds(
        self, world: World, scenario: Scenario, *, done: bool = False, mended: bool = False
    ) -> None:
        """`done` says that the verb went well, `mended` that it went well without any fault."""
        self.store_is_right(world, scenario, done=done)
        if scenario.target:
            self.target_is_right(world, scenario, done=done, mended=mended)
        if done and scenario.proves is not None:
            scenario.proves(world)

    def recovers(self, world: World, scenario: Scenario, seed: str = "again") -> None:
        """The same verb once more, and then nothing is left over but what belongs there. All is
        verified when the cleaners are through: they make nothing whole."""
        scenario.run_again(world, WatchedDisk(seed))
        if scenario.target and (world.root / ".moorline").exists():
            if scenario.raises:  # then the next deploy does it
                clean_target(world, WatchedDisk("clean"))
            left = target_litter(world)
            assert not left, f"I7: left on the target: {left}"
        self._store_can_be_cleaned(world)
        self.holds(world, scenario, done=True, mended=True)
        if scenario.back:
            world.rollback(disk=WatchedDisk("back"))
            assert self.live(world) == scenario.back, "no way back"

    def _store_can_be_cleaned(self, world: World) -> None:
        found, said = store_litter(world), set()
        for later in (2, 3):  # what is retired now waits in trash/ until the next time
            cleaned = clean(later * LATER_S)(world, WatchedDisk(f"clean {later}"))
            said |= {*cleaned.stale, *cleaned.deleted, *cleaned.packs}
        left = store_litter(world)
        assert not left, f"I7: left in the store: {left}"
        names = {name.removesuffix(".deleting") for name in found}
        folders = re.compile("(incoming|trash|packs)/[^/]+")
        silent = set(filter(folders.fullmatch, names)) - said
        assert not silent, f"I7: cleaned and not reported: {silent}"


def store_litter(world: World) -> list[str]:
    """Everything in a store that no build, no ledger and no bundle names."""
    used: set[str] = set()
    found: list[str] = []
    with open_store(WatchedDisk(), world.store) as store:
        for id in store.ids():
            with store.open_build(id) as opened:
                if store.layout == "pack":
                    used |= packs_named(store.disk, opened.folder, complete=True)
        removing = DirectoryLedger(store.disk, store.root).removing()
        found += [f"ledger/removing/{id}" for id in sorted(removing)]
    for folder in ("incoming", "trash"):
        found += [f"{folder}/{path.name}" for path in (world.store / folder).iterdir()]
    packs = {path.name for path in (world.store / "packs").iterdir()}
    found += [f"packs/{name}" for name in sorted(packs - used)]
    return found + [str(path.relative_to(world.store)) for path in world.store.rglob(".*")]


def target_litter(world: World) -> list[str]:
    """Everything on a target that its history does not name as good."""
    with open_target(WatchedDisk(), str(world.root)) as target:
        rows = target.history()
        places = {row.place for row in rows if row.step in ("live", "restored")}
        found = [
            f"releases/{path.name}"
            for path in (world.root / "releases").iterdir()
            if f"releases/{path.name}" not in places
        ]
        names = {row.digest for row in rows} | {f"{row.agent}.pyz" for row in rows}
        names |= {f"{row.settings}.json" for row in rows}
        for folder in ("manifests", "agents", "settings"):
            kept = {path.name for path in (world.inner / folder).iterdir()}
            found += [f"{folder}/{name}" for name in kept - names]
        if target.deploying() is not None:
            found.append("deploying.json")
    temporary = [*world.root.glob(".*.tmp"), *world.inner.rglob(".*.tmp")]
    return found + [path.name for path in temporary]


def documented(error: BaseException) -> bool:
    """Whether a verb may end so: an error for its user, or one of the disk."""
    return isinstance(error, Error | OSError)
