"""Two verbs in turns: A up to one of its steps, B up to one of its own, then A and B
to their ends.

`test_two_actors` runs whole verbs in the middle of others; here both are in the middle at once.
That is what the two-sided protocols are made for: pins and removals, packs and cleaners. The steps
are those at which a verb changes or lists what the other one looks at.
"""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from counts import Count
from crash.disks import ActingDisk, PathsDisk
from crash.ground import Ground
from crash.invariants import Truth
from crash.scenarios import clean, deploy, deployed, pin, publish, published, remove
from crash.test_two_actors import BUSY, GONE, Pair, Verb, ended, holds
from world import World

PATIENCE_S = 60.0
CLEANER = clean(0, grace_s=0)


class Paused:
    """A verb in a thread of its own, which waits before one of its steps until it may go on."""

    def __init__(self, world: World, pair: Pair, verb: Verb, seed: str, at: int) -> None:
        self.ended = ""
        self._reached, self._go = threading.Event(), threading.Event()
        fails = pair.fails if verb is pair.verb else pair.other_fails
        disk = ActingDisk(at, self._wait)
        disk.seed = seed
        self._problem: BaseException | None = None

        def work() -> None:
            try:
                self.ended = ended(verb, world, disk, fails)
            except BaseException as problem:
                self._problem = problem
            finally:
                self._reached.set()

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert self._reached.wait(PATIENCE_S)

    def _wait(self) -> None:
        self._reached.set()
        assert self._go.wait(PATIENCE_S)

    def finish(self) -> str:
        self._go.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self.ended


@dataclass(frozen=True)
class Halves:
    """`pair` in turns; of the first verb only the steps after the one on the path `since`."""

    pair: Pair
    since: str = ""


HALVES = (
    Halves(Pair("deploy, removal", deployed("a", "b", live=("a",), mode="copy"), deploy("b"),
                remove("b"), fails=GONE, other_fails=BUSY, live=("a", "b"), layouts=("pack",))),
    Halves(Pair("removal, deploy", deployed("a", "b", live=("a",), mode="copy"), remove("b"),
                deploy("b"), fails=BUSY, other_fails=GONE, live=("a", "b"), layouts=("pack",))),
    Halves(Pair("pin, removal", published("a", "b"), pin("b"), remove("b"), fails=GONE,
                other_fails=BUSY, needs="b", layouts=("pack",))),
    Halves(Pair("removal, pin", published("a", "b"), remove("b"), pin("b"), fails=BUSY,
                other_fails=GONE, other_needs="b", layouts=("pack",))),
    # A cleaner without any patience is safe for every publish that it can see in incoming/.
    Halves(Pair("publish, cleaner", published("a"), publish("b"), CLEANER, keeps=("a", "b"),
                layouts=("pack",)), since="incoming/.*/index"),
    Halves(Pair("folding publish, cleaner", published("a"), publish("folded"), CLEANER,
                keeps=("a", "folded"), layouts=("pack",)), since="incoming/.*/index"),
    Halves(Pair("publish, publish of the same", published("a"), publish("b"),
                publish("b", "again"), keeps=("a", "b"), layouts=("pack",)),
           since="incoming/.*/build.json"),
)  # fmt: skip


def steps(world: World, pair: Pair, verb: Verb, since: str = "") -> list[int]:
    """Where `verb` changes names in the store, or lists or opens what others may change there."""
    fails = pair.fails if verb is pair.verb else pair.other_fails
    disk = PathsDisk("first")
    with contextlib.suppress(*fails):
        verb(world, disk)
    telling = ("names", "open_file", "create", "rename", "unlink", "hard_link", "make_directory")
    inside = [
        number
        for number, path in disk.paths.items()
        if path.startswith(str(world.store)) and disk.calls[number].operation in telling
    ]
    made = (n for n in inside if since and re.search(since, disk.paths[n]))
    first = next(made, -1)
    return [number for number in inside if number > first]


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_waits")
@pytest.mark.parametrize(
    ("halves", "layout"),
    [
        pytest.param(halves, layout, id=f"{halves.pair.name}, {layout}")
        for halves in HALVES
        for layout in halves.pair.layouts
    ],
)
def test_two_verbs_in_turns(
    halves: Halves, layout: str, here: Path, truth: Truth, count: Count
) -> None:
    world, pair = World(here, layout), halves.pair
    pair.prepare(world)
    ground = Ground(here)
    firsts = steps(world, pair, pair.verb, halves.since)
    ground.restore()
    others = steps(world, pair, pair.other)
    seen: set[str] = set()
    for at in firsts:
        for other_at in others:
            ground.restore()
            try:
                first = Paused(world, pair, pair.verb, "first", at)
                other = Paused(world, pair, pair.other, "second", other_at)
                both = first.finish(), other.finish()
                count.add("interleavings in turns")
                state = f"{both} {ground.fingerprint()}"
                if state not in seen:
                    holds(world, pair, truth, *both)
                    seen.add(state)
            except BaseException as error:
                error.add_note(f"{pair.name}: the first before {at}, the other before {other_at}")
                raise
