"""Mode link serves from the share: what may change between the proof and the use, measured.

A file that is changed before the proof reads it is refused, one that is changed later goes live
unseen, until the next `verify` names it. Nothing but the tree can change: what root runs is proved
again each time, and what the target keeps is its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from counts import Count
from crash.ground import Ground
from crash.invariants import Truth
from crash.scenarios import SPECS, deployed, run_event
from hostile.attacks import ON_FILES, Outside
from hostile.fence import FencedDisk
from moorline import workflow
from moorline.errors import Error, Mismatch
from moorline.preparing import FRESH_S
from world import World, script

FILES = ("img/a.png", "index.html", "bin/run")


class Served:
    """Build a is served from the share, and b is to be."""

    def __init__(self, here: Path, outside: Outside, **tables: object) -> None:
        self.world = World(here, "tree")
        self.outside = outside
        deployed("a", live=("a",), mode="link")(self.world)
        self.world.publish("b", {**SPECS["b"], "bin/run": script("true")}, **tables)
        self.tree = self.world.store / "builds" / "b" / "tree"
        self.ground = Ground(here)

    def disk(self, at: int = -1, action: Callable[[], object] = lambda: None) -> FencedDisk:
        here = self.world.here
        return FencedDisk([self.world.store, self.world.root, here / "bundles"],
                          [here], at=at, action=action)  # fmt: skip

    def deploy(self, disk: FencedDisk) -> str:
        """Which build is live afterwards."""
        try:
            self.world.deploy("b", mode="link", disk=disk)
        except Mismatch as error:
            assert error.exit_code == 3
        return Path(self.world.link).parent.name

    def read_at(self, disk: FencedDisk, name: str) -> int:
        """The operation at which the proof opened a file of the tree."""
        return next(c.number for c in disk.calls
                    if disk.places[c.number] == str(self.tree / name)
                    and c.operation == "open_file")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_window_opens_when_a_file_was_read(
    name: str, here: Path, outside: Outside, count: Count
) -> None:
    served = Served(here, outside)
    undisturbed = served.disk()
    assert served.deploy(undisturbed) == "b"
    read = served.read_at(undisturbed, name)
    switch = next(c.number for c in undisturbed.calls
                  if c.operation == "rename" and str(c.arguments[1]) == "b'current'")  # fmt: skip
    seen_until, unseen_from = -1, len(undisturbed.calls)
    for at in range(read - 6, switch + 1):
        served.ground.restore()
        disk = served.disk(at, lambda: ON_FILES["flipped"](served.tree / name, outside.folder))
        live = served.deploy(disk)
        assert disk.fired and not disk.escapes
        count.add("changes in the window of mode link")
        if live == "a":
            seen_until = at
            continue
        unseen_from = min(unseen_from, at)
        found = workflow.verify(config=served.world.config, target=str(served.world.root),
                                disk=served.disk())[0]  # fmt: skip
        assert [problem.path for problem in found.problems] == [name]
    assert read <= seen_until < unseen_from <= read + 3, "seen until it is read, and not later"


@pytest.mark.parametrize("after_s, live", [(FRESH_S, "b"), (FRESH_S + 1, "a")])
def test_between_codedeploy_s_processes_the_window_is_ten_seconds(
    after_s: int, live: str, here: Path, outside: Outside, count: Count
) -> None:
    """ApplicationStart may come much later than BeforeInstall: then everything is read again."""
    served = Served(here, outside, target={"mode": "link"})
    run_event(served.world, served.disk(), "b", "d-1", "BeforeInstall")
    ON_FILES["flipped"](served.tree / "index.html", outside.folder)
    disk = served.disk()
    late = disk.now() + after_s
    with mock.patch.object(FencedDisk, "now", lambda self: late):
        try:
            run_event(served.world, disk, "b", "d-1", "ApplicationStart")
        except Error as error:
            assert error.exit_code == 3
    assert Path(served.world.link).parent.name == live
    count.add("changes in the window of mode link")


@pytest.mark.slow
def test_a_program_that_root_runs_is_proved_again(
    here: Path, outside: Outside, truth: Truth, count: Count
) -> None:
    """At every operation after the proof, until it runs."""
    served = Served(here, outside, hooks={"after_switch": [{"run": ["./bin/run"]}]})
    undisturbed = served.disk()
    assert served.deploy(undisturbed) == "b"
    mark = here / "mark"

    def swap() -> None:
        path = served.tree / "bin" / "run"
        path.write_text(f"#!/bin/sh\necho run >> {mark}\n")

    for at in range(served.read_at(undisturbed, "bin/run") + 1, len(undisturbed.calls)):
        served.ground.restore()
        disk = served.disk(at, swap)
        try:
            served.deploy(disk)
        except Error as error:
            assert "was changed" in error.message
        assert not mark.exists(), f"it was run, at {at}"
        count.add("changes in the window of mode link")


@pytest.mark.slow
def test_in_mode_copy_there_is_no_window(
    here: Path, outside: Outside, truth: Truth, count: Count
) -> None:
    """The same change at the same moments: what goes live is what was proved, or nothing."""
    served = Served(here, outside)
    undisturbed = served.disk()
    served.world.deploy("b", mode="copy", disk=undisturbed)
    for at in range(len(undisturbed.calls)):
        served.ground.restore()
        disk = served.disk(at, lambda: ON_FILES["flipped"](served.tree / "index.html",
                                                           outside.folder))  # fmt: skip
        try:
            served.world.deploy("b", mode="copy", disk=disk)
            live = served.world.live
            assert live.is_relative_to(served.world.root)
            assert (live / "index.html").read_bytes() == SPECS["b"]["index.html"]
        except Mismatch:
            assert "/a/" in served.world.link
        count.add("changes in the window of mode link")
    assert os.path.lexists(served.world.root / "current")
