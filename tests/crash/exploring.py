"""Run a scenario once for every point at which it can end, and look at what is left each time."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from counts import Count
from crash.disks import (
    Call,
    Dead,
    DyingDisk,
    FaultyDisk,
    InterruptedDisk,
    RetriedDisk,
    WatchedDisk,
    changes,
    faults,
    retried,
)
from crash.ground import Ground
from crash.invariants import Truth, documented
from crash.scenarios import Scenario, world_of
from world import World


class Exploration:
    """One scenario on its ground. What two runs leave alike is looked at once."""

    def __init__(self, scenario: Scenario, here: Path, truth: Truth, count: Count) -> None:
        self.scenario = scenario
        self.truth = truth
        self.count = count
        self.world: World = world_of(scenario, here)
        self.ground = Ground(here)
        self._seen: set[tuple[str, str]] = set()
        self.calls = self._measured()

    def _measured(self) -> list[Call]:
        """The operations of an undisturbed run, which also has to end as it should."""
        disk = RecordingDisk(str(self.world.store))
        with self._descriptors_kept():
            self.scenario.run(self.world, disk)
        self.truth.holds(self.world, self.scenario, done=True)
        self.truth.recovers(self.world, self.scenario)
        self.on_share, self.changed = disk.on_share, disk.changed
        return disk.calls

    @contextlib.contextmanager
    def _descriptors_kept(self) -> Iterator[None]:
        """Nothing stays open, however a verb ends."""
        before = len(os.listdir("/proc/self/fd"))
        yield
        if len(os.listdir("/proc/self/fd")) != before:
            gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before, "a file was left open"

    def crashes(self, *, after: bool) -> None:
        """Process death before every operation, or after each that changes something."""
        for call in self.calls:
            if after and call.number not in self.changed:
                continue
            disk = DyingDisk(call.number, after=after)
            self._run(disk, f"died {'after' if after else 'before'} {call}", died=True)
            self.count.add("crash points")

    def interrupts(self) -> None:
        """Ctrl-C after each operation that changes something: cleaning up runs, and is right."""
        for call in self.calls:
            if call.number in self.changed:
                self._run(InterruptedDisk(call.number), f"interrupted after {call}")
                self.count.add("interrupts")

    def faults(self, codes: Callable[[Call], tuple[int, ...]] = faults) -> None:
        for call in self.calls:
            for code in codes(call):
                disk = FaultyDisk(call.number, code)
                self._run(disk, f"{errno.errorcode[code]} at {call}")
                self.count.add("faults")

    def retries(self) -> None:
        """On the share only: a local disk does not try again."""
        for call in self.calls:
            if call.number in self.on_share:
                self._run(RetriedDisk(call.number), f"retried {call}")
                self.count.add("retried operations")

    def _run(self, disk: WatchedDisk, what: str, *, died: bool = False) -> None:
        self.ground.restore()
        try:
            with self._descriptors_kept():
                ended = self._ended(disk, died=died)
            assert disk.fired, "the planned event never came"
            state = self.ground.fingerprint()
            if (state, ended) in self._seen:
                return
            self.truth.holds(self.world, self.scenario, done=ended == "done")
            if (state, "") not in self._seen:
                self.truth.recovers(self.world, self.scenario)
            self._seen |= {(state, ""), (state, ended)}
        except BaseException as error:
            error.add_note(f"{self.scenario}: {what}")
            raise

    def _ended(self, disk: WatchedDisk, *, died: bool) -> str:
        try:
            self.scenario.run(self.world, disk)
        except Dead:
            assert died
            return "failed"
        except KeyboardInterrupt:
            return "failed"
        except Exception as error:
            if not documented(error):
                raise
            return "failed"
        assert not died, "a dead process finished its work"
        return "done"


class RecordingDisk(WatchedDisk):
    """Notes which operations changed something, and which of them NFS could have tried twice."""

    def __init__(self, share: str) -> None:
        super().__init__()
        self.share = share
        self.on_share: set[int] = set()
        self.changed: set[int] = set()

    def after(self, call: Call) -> None:
        if changes(call):
            self.changed.add(call.number)
            if retried(call, self.share):
                self.on_share.add(call.number)
