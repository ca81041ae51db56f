"""At every step of one verb somebody else runs a whole other verb: nothing that is needed is lost.

The second verb runs on its own disk, in the same process, just before each operation of the first.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from counts import Count
from crash.disks import ActingDisk, PathsDisk, WatchedDisk, changes
from crash.ground import Ground
from crash.invariants import Truth, documented
from crash.scenarios import (
    SPECS,
    clean,
    deploy,
    deployed,
    events,
    export,
    in_turn,
    litter,
    pin,
    publish,
    published,
    remove,
    rollback,
    run_event,
    verify,
)
from moorline import workflow
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch, NotFound, PutBack
from moorline.ledger.directory import DirectoryLedger
from moorline.store import open_store
from trees import write_tree
from world import World, flip

Verb = Callable[[World, Disk], object]


@dataclass(frozen=True)
class Pair:
    """`other` runs inside of `verb`. `fails` and `other_fails` are how each may end instead of
    well; `keeps` are builds that stay whatever happens, `needs` and `other_needs` those that are
    there when that verb went well; `both` says that both may fail at once."""

    name: str
    prepare: Callable[[World], object]
    verb: Verb
    other: Verb
    fails: tuple[type[Exception], ...] = ()
    other_fails: tuple[type[Exception], ...] = ()
    keeps: tuple[str, ...] = ("a",)
    needs: str = ""
    other_needs: str = ""
    live: tuple[str, ...] = ("",)
    layouts: tuple[str, ...] = ("pack", "tree")
    both: bool = True


def publish_other(id: str) -> Verb:
    """Other content under the id of another publish."""

    def verb(world: World, disk: Disk) -> object:
        source = write_tree(world.here / "src" / "foreign", SPECS["other"])
        config, bundle = world.config, world.bundle("foreign")
        return workflow.publish(
            str(source), config=config, id=id, bundle=bundle, disk=disk, environment={}
        )

    return verb


def switch_and_check(id: str) -> Verb:
    def verb(world: World, disk: Disk) -> None:
        for event in ("ApplicationStart", "ValidateService"):
            run_event(world, disk, id, "d-1", event)

    return verb


def prepared_b(world: World) -> None:
    """Build a is live, and CodeDeploy has prepared b."""
    deployed("a", "b", "c", live=("a",), mode="copy")(world)
    run_event(world, WatchedDisk("prepare"), "b", "d-1", "BeforeInstall")


def went_back_and_prepared_b(world: World) -> None:
    """Build a is live after c, and CodeDeploy has prepared b."""
    deployed("a", "b", "c", live=("c", "a"), mode="copy")(world)
    run_event(world, WatchedDisk("prepare"), "b", "d-1", "BeforeInstall")


def removed_b(world: World) -> None:
    published("a", "b")(world)
    remove("b")(world, WatchedDisk("remove"))


def damaged_a(world: World) -> None:
    published("a")(world)
    if world.layout == "tree":
        flip(world.store / "builds/a/tree/index.html")
    else:
        flip(max((world.store / "packs").iterdir(), key=lambda path: path.stat().st_size), 5)


failing_b = deployed("a", "b", live=("a",), mode="copy", hooks={"check": [{"run": ["false"]}]})
now = clean(0, stale_s=0)
patient = clean(0, grace_s=60)
"""Younger packs may belong to a publish that began after it had looked."""
later = clean()
BUSY = (Conflict,)
GONE = (Conflict, NotFound)
LOST = (Error, OSError)

PAIRS = (
    Pair("publish, cleaner without patience", published("a"), publish("b"), now,
         fails=LOST),
    Pair("publish, cleaner a week later", published("a"), publish("b"), later, fails=LOST),
    Pair("folding publish, cleaner", published("a"), publish("folded"), now, fails=LOST),
    Pair("publish, cleaner beside live publishes", published("a"), publish("b"),
         clean(0, grace_s=0)),
    Pair("publish, removal of its base and cleaning", published("a", "base"), publish("d"),
         in_turn(remove("base"), clean(0))),
    Pair("publish, cleaner of a removed base", published("a", "base"), publish("d"),
         in_turn(remove("base"), clean(0, grace_s=0)), fails=LOST),
    Pair("publish twice", published("a"), publish("b"), publish("b", "again"),
         keeps=("a", "b")),
    Pair("publish, other content", published("a"), publish("b"), publish_other("b"),
         fails=BUSY, other_fails=BUSY),
    Pair("publish, another publish", published("a"), publish("b"), publish("c"),
         keeps=("a", "b", "c")),
    Pair("publish, removal of the same", published("a"), publish("b"), remove("b"), fails=LOST),
    Pair("publish, verify", deployed("a", live=("a",), mode="copy"), publish("b"), verify,
         keeps=("a", "b"), live=("a",)),
    Pair("verify, publish", deployed("a", live=("a",), mode="copy"), verify, publish("folded"),
         keeps=("a", "folded"), live=("a",)),
    Pair("verify, removal", deployed("a", "b", live=("a",), mode="copy"), verify,
         in_turn(remove("b"), clean(0, grace_s=0)), fails=(*GONE, Mismatch, AssertionError),
         live=("a",)),
    Pair("first deploy, removal", published("a", "b"), deploy("b"), remove("b"),
         fails=GONE, other_fails=BUSY, live=("", "b"), both=False),
    Pair("deploy, removal", deployed("a", "b", live=("a",), mode="copy"), deploy("b"),
         remove("b"), fails=GONE, other_fails=BUSY, live=("a", "b"), both=False),
    Pair("removal, deploy", deployed("a", "b", live=("a",), mode="copy"), remove("b"),
         deploy("b"), fails=BUSY, other_fails=GONE, live=("a", "b"), both=False),
    Pair("deploy, removal of what was live", deployed("a", "b", live=("a",), mode="copy"),
         deploy("b"), remove("a"), other_fails=BUSY, keeps=("a", "b"), live=("b",)),
    Pair("removal, removal and deploy", deployed("a", "b", live=("a",), mode="copy"),
         remove("b"), in_turn(remove("b"), deploy("b")), fails=GONE, other_fails=GONE,
         live=("a", "b")),
    Pair("deploy by link, removal", deployed("a", "b", live=("a",), mode="link"),
         deploy("b", "link"), remove("b"), fails=GONE, other_fails=BUSY, live=("a", "b"),
         layouts=("tree",), both=False),
    Pair("deploy, rollback", deployed("a", "b", "c", live=("a", "b"), mode="copy"), deploy("c"),
         rollback, fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"), live=("a", "c")),
    Pair("rollback, deploy", deployed("a", "b", "c", live=("a", "b"), mode="copy"), rollback,
         deploy("c"), fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"), live=("a", "b", "c")),
    Pair("deploy, folding publish", published("a", "b"), deploy("a"),
         in_turn(publish("folded"), clean(0, grace_s=0)), keeps=("a", "b", "folded"), live=("a",)),
    Pair("deploy, repair of what it reads", published("a"), deploy("a"), publish("a"),
         live=("a",)),
    Pair("events of b, deploy of c", prepared_b, switch_and_check("b"), deploy("c"),
         fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"), live=("b", "c")),
    Pair("events of b, the next deployment of c", prepared_b, switch_and_check("b"),
         events("c", "d-2"), fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"),
         live=("b", "c")),
    Pair("cleaner, publish", litter, patient, publish("c"), keeps=("a", "b", "c")),
    Pair("cleaner, folding publish", litter, patient, publish("folded"),
         keeps=("a", "b", "folded")),
    Pair("cleaner, cleaner", litter, clean(), clean(), keeps=("a", "b")),
    Pair("cleaner, removal", published("a", "b"), patient, remove("b")),
    Pair("cleaner, deploy", deployed("a", "b", live=("a",), mode="copy"), patient,
         deploy("b"), keeps=("a", "b"), live=("b",)),
    Pair("publish of what was removed, cleaner", removed_b, publish("b"), patient,
         keeps=("a", "b")),
    Pair("cleaner, publish of what was removed", removed_b, patient, publish("b"),
         keeps=("a", "b")),
    Pair("removal and publish of the same, cleaner", published("a", "b"),
         in_turn(remove("b"), publish("b")), patient, keeps=("a", "b")),
    Pair("cleaner, removal and publish of the same", published("a", "b"), patient,
         in_turn(remove("b"), publish("b")), keeps=("a", "b")),
    Pair("removal, publish of the same", published("a", "b"), remove("b"), publish("b")),
    Pair("repair, cleaner", damaged_a, publish("a"), patient),
    Pair("cleaner, repair", damaged_a, patient, publish("a")),
    Pair("repair, repair", damaged_a, publish("a"), publish("a", "again")),
    Pair("repair, the next publish", damaged_a, publish("a"), publish("b"), keeps=("a", "b"),
         layouts=("tree",)),
    Pair("publish, repair of its base", damaged_a, publish("b"), publish("a"), keeps=("a", "b"),
         layouts=("tree",)),
    Pair("repair, removal of the same", damaged_a, publish("a"), remove("a"), fails=LOST, keeps=()),
    Pair("repair, deploy", damaged_a, publish("a"), deploy("a"), other_fails=(Mismatch,),
         live=("", "a")),
    Pair("deploy, repair of what is damaged", damaged_a, deploy("a"), publish("a"),
         fails=(Mismatch,), live=("", "a")),
    Pair("deploy by link, repair of what is damaged", damaged_a, deploy("a", "link"),
         publish("a"), fails=(Mismatch,), live=("", "a"), layouts=("tree",)),
    Pair("deploy, removal and cleaner", deployed("a", "b", live=("a",), mode="copy"),
         deploy("b"), in_turn(remove("b"), patient), fails=GONE, other_fails=BUSY,
         live=("a", "b"), both=False),
    Pair("put-back, removal of what comes back", failing_b, deploy("b"), remove("a"),
         fails=(PutBack,), other_fails=BUSY, keeps=("a", "b"), live=("a",)),
    Pair("rollback, removal of where it goes", deployed("a", "b", live=("a", "b"), mode="copy"),
         rollback, remove("a"), other_fails=BUSY, keeps=("a", "b"), live=("a",)),
    Pair("rollback by link, removal of where it goes",
         deployed("a", "b", live=("a", "b"), mode="link"), rollback, remove("a"),
         other_fails=BUSY, keeps=("a", "b"), live=("a",), layouts=("tree",)),
    Pair("events of b, removal of b", prepared_b, switch_and_check("b"), remove("b"),
         other_fails=BUSY, keeps=("a", "b", "c"), live=("b",)),
    Pair("events of b, rollback", went_back_and_prepared_b, switch_and_check("b"), rollback,
         fails=BUSY, other_fails=GONE, keeps=("a", "b", "c"), live=("b", "c")),
    Pair("pin, removal", published("a", "b"), pin("b"), remove("b"), fails=GONE,
         other_fails=BUSY, needs="b", layouts=("pack",)),
    Pair("removal, pin", published("a", "b"), remove("b"), pin("b"), fails=BUSY,
         other_fails=GONE, other_needs="b", layouts=("pack",)),
    Pair("export, removal and cleaner", published("a", "b"), export("b"),
         in_turn(remove("b"), patient), fails=LOST),
)  # fmt: skip


def every() -> list[object]:
    fast = ("deploy, removal", "publish twice")
    return [
        pytest.param(
            pair, layout, id=f"{pair.name}, {layout}",
            marks=() if pair.name in fast and layout == "pack" else pytest.mark.slow,
        )
        for pair in PAIRS for layout in pair.layouts
    ]  # fmt: skip


@pytest.mark.usefixtures("nobody_waits")
@pytest.mark.parametrize(("pair", "layout"), every())
def test_another_verb_at_any_step(
    pair: Pair, layout: str, here: Path, truth: Truth, count: Count
) -> None:
    world = World(here, layout)
    pair.prepare(world)
    ground = Ground(here)
    measured = PathsDisk("first")
    with contextlib.suppress(*pair.fails):
        pair.verb(world, measured)
    ground.restore()
    other = PathsDisk("second")
    with contextlib.suppress(*pair.other_fails):
        pair.other(world, other)
    seen: set[str] = set()
    half = zlib.crc32(f"{pair.name}, {layout}".encode()) % 2
    for at in meetings(world, measured, other, half):
        ground.restore()
        try:
            both = _meet(world, pair, at)
            count.add("interleavings")
            state = f"{both} {ground.fingerprint()}"
            if state not in seen:
                holds(world, pair, truth, *both)
                seen.add(state)
        except BaseException as error:
            error.add_note(f"before {measured.calls[at]}")
            raise


def meetings(world: World, first: PathsDisk, other: PathsDisk, half: int) -> list[int]:
    """Before which operations of the first the other verb runs: all that change something, and one
    half of the rest; the other half in other pairs, which share most steps.

    Not before one that could as well have come before it, because it neither changes nor sees a
    name or a content, or only those of a target on which the other does nothing.
    """

    def local(path: str | None) -> bool:
        return path is not None and path.startswith(f"{world.root}/")

    both_local = any(map(local, other.paths.values()))
    return [
        call.number
        for call in first.calls
        if call.operation not in ("sync", "sync_all", "close", "set_mode")
        and (changes(call) or call.number % 2 == half)
        and (both_local or not local(first.paths.get(call.number)))
    ]


def _meet(world: World, pair: Pair, at: int) -> tuple[str, str]:
    """How both ended: done, or failed with a documented error."""
    ends = [""]

    def other() -> None:
        ends[0] = ended(pair.other, world, WatchedDisk("second"), pair.other_fails)

    disk = ActingDisk(at, other)
    first = ended(pair.verb, world, disk, pair.fails)
    if not ends[0]:  # the clock decides about some last steps
        assert len(disk.calls) <= at, "the other verb never ran"
        other()
    assert pair.both or "done" in (first, ends[0]), "each stepped back for the other"
    return first, ends[0]


def ended(verb: Verb, world: World, disk: Disk, fails: tuple[type[Exception], ...]) -> str:
    try:
        verb(world, disk)
    except fails as error:
        assert documented(error) or isinstance(error, AssertionError)
        return "failed"
    return "done"


def holds(world: World, pair: Pair, truth: Truth, first: str, other: str) -> None:
    """The invariants, after both verbs ended as they say."""
    needs = {pair.needs} if first == "done" else set()
    needs |= {pair.other_needs} if other == "done" else set()
    with open_store(WatchedDisk(), world.store) as store:
        ids = set(store.ids())
        keeps = ({*pair.keeps} | needs) - {""}
        assert ids >= keeps, f"I4: lost {keeps - ids}"
        for id in ids:
            foreign = world.store / "builds" / id / "build.json"
            if truth.manifests[id].digest in foreign.read_text():
                truth.build_is_whole(store, id)
            else:
                assert pair.name.endswith("other content"), f"I6: {id} is another build"
        needed = {id for record in DirectoryLedger(store.disk, store.root).targets()
                  for id in (record.current,) if id}  # fmt: skip
        assert needed <= ids, f"I4: a target serves {needed - ids}, which is gone"
    live = truth.live(world)
    assert live in pair.live, f"I3: {live!r} is live"
    assert not live or live in ids, f"I4: {live} is live and gone"
