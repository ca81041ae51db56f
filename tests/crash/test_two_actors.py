"""At every step of one verb somebody else runs a whole other verb: nothing that is needed is lost.

The second verb runs on its own disk, in the same process, just before each operation of the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from counts import Count
from crash.disks import ActingDisk, WatchedDisk
from crash.ground import Ground
from crash.invariants import Truth, documented
from crash.scenarios import (
    SPECS,
    clean,
    deploy,
    deployed,
    events,
    publish,
    published,
    remove,
    rollback,
    run_event,
    verify,
)
from moorline import workflow
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch, NotFound
from moorline.ledger.directory import DirectoryLedger
from moorline.store import open_store
from moorline.target import Target
from trees import write_tree
from world import World

Verb = Callable[[World, Disk], object]


@dataclass(frozen=True)
class Pair:
    """`other` runs inside of `verb`. `fails` and `other_fails` are how each may end instead of
    well; `keeps` are builds that stay whatever happens; `both` says that both may fail at once."""

    name: str
    prepare: Callable[[World], object]
    verb: Verb
    other: Verb
    fails: tuple[type[Exception], ...] = ()
    other_fails: tuple[type[Exception], ...] = ()
    keeps: tuple[str, ...] = ("a",)
    live: tuple[str, ...] = ("",)
    layouts: tuple[str, ...] = ("pack", "tree")
    both: bool = True


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy target says so at once: both verbs run in one thread."""
    lock = getattr(Target.lock, "__wrapped__")  # noqa: B009
    monkeypatch.setattr(lock, "__defaults__", (0.0,))


def publish_other(id: str) -> Verb:
    """Other content under the id of another publish."""

    def verb(world: World, disk: Disk) -> object:
        source = write_tree(world.here / "src" / "foreign", SPECS["other"])
        config, bundle = world.config, world.bundle("foreign")
        return workflow.publish(
            str(source), config=config, id=id, bundle=bundle, disk=disk, environment={}
        )

    return verb


def then(*verbs: Verb) -> Verb:
    def verb(world: World, disk: Disk) -> None:
        for one in verbs:
            one(world, disk)

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


now = clean(0, stale_s=0)
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
    Pair("publish, removal of its base and cleaning", published("a", "b"), publish("c"),
         then(remove("b"), clean(0))),
    Pair("publish, cleaner of a removed base", published("a", "b"), publish("c"),
         then(remove("b"), clean(0, grace_s=0)), fails=LOST),
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
         then(remove("b"), clean(0, grace_s=0)), fails=(*GONE, Mismatch, AssertionError),
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
         remove("b"), then(remove("b"), deploy("b")), fails=GONE, other_fails=GONE,
         live=("a", "b")),
    Pair("deploy by link, removal", deployed("a", "b", live=("a",), mode="link"),
         deploy("b", "link"), remove("b"), fails=GONE, other_fails=BUSY, live=("a", "b"),
         layouts=("tree",), both=False),
    Pair("deploy, rollback", deployed("a", "b", "c", live=("a", "b"), mode="copy"), deploy("c"),
         rollback, fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"), live=("a", "c")),
    Pair("rollback, deploy", deployed("a", "b", "c", live=("a", "b"), mode="copy"), rollback,
         deploy("c"), fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"), live=("a", "b", "c")),
    Pair("deploy, folding publish", published("a", "b"), deploy("a"),
         then(publish("folded"), clean(0, grace_s=0)), keeps=("a", "b", "folded"), live=("a",)),
    Pair("deploy, repair of what it reads", published("a"), deploy("a"), publish("a"),
         live=("a",)),
    Pair("events of b, deploy of c", prepared_b, switch_and_check("b"), deploy("c"),
         fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"), live=("b", "c")),
    Pair("events of b, the next deployment of c", prepared_b, switch_and_check("b"),
         events("c", "d-2"), fails=BUSY, other_fails=BUSY, keeps=("a", "b", "c"),
         live=("b", "c")),
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


@pytest.mark.parametrize(("pair", "layout"), every())
def test_another_verb_at_any_step(
    pair: Pair, layout: str, here: Path, truth: Truth, count: Count
) -> None:
    world = World(here, layout)
    pair.prepare(world)
    ground = Ground(here)
    measured = WatchedDisk("first")
    with contextlib.suppress(*pair.fails):
        pair.verb(world, measured)
    seen: set[str] = set()
    for at in range(len(measured.calls)):
        ground.restore()
        try:
            ended = _meet(world, pair, at)
            count.add("interleavings")
            state = f"{ended} {ground.fingerprint()}"
            if state not in seen:
                _holds(world, pair, truth)
                seen.add(state)
        except BaseException as error:
            error.add_note(f"before {measured.calls[at]}")
            raise


def _meet(world: World, pair: Pair, at: int) -> str:
    """How both ended: well, or with a documented error."""
    ends = ["other: never"]

    def other() -> None:
        ends[0] = "other: " + _ended(pair.other, world, WatchedDisk("second"), pair.other_fails)

    disk = ActingDisk(at, other)
    first = _ended(pair.verb, world, disk, pair.fails)
    assert disk.fired, "the other verb never ran"
    assert pair.both or "done" in (first, ends[0][7:]), "each stepped back for the other"
    return f"first: {first}, {ends[0]}"


def _ended(verb: Verb, world: World, disk: Disk, fails: tuple[type[Exception], ...]) -> str:
    try:
        verb(world, disk)
    except fails as error:
        assert documented(error) or isinstance(error, AssertionError)
        return "failed"
    return "done"


def _holds(world: World, pair: Pair, truth: Truth) -> None:
    with open_store(WatchedDisk(), world.store) as store:
        ids = set(store.ids())
        assert ids >= set(pair.keeps), f"I4: lost {set(pair.keeps) - ids}"
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
