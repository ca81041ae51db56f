"""Run a scenario once for every point at which it can end, and look at what is left each time."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from counts import Count
from crash.disks import (
    CODES,
    Call,
    Code,
    Dead,
    DyingDisk,
    FaultyDisk,
    InterruptedDisk,
    UnsureDisk,
    WatchedDisk,
    answers,
    changes,
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
        self._start = self.ground.fingerprint()
        self._state = ""  # of what is there now
        self._seen: set[tuple[str, str]] = set()
        self.calls = self._measured()

    def _measured(self) -> list[Call]:
        """The operations of an undisturbed run, which also has to end as it should."""
        disk = RecordingDisk(str(self.world.store))
        with self._descriptors_kept():
            self.scenario.run(self.world, disk)
        self.truth.holds(self.world, self.scenario, done=True)
        self.truth.recovers(self.world, self.scenario)
        self.answers, self.changed = disk.answers, disk.changed
        return disk.calls

    @contextlib.contextmanager
    def _descriptors_kept(self) -> Iterator[None]:
        """Nothing stays open, however a verb ends."""
        before = len(os.listdir("/proc/self/fd"))
        yield
        if len(os.listdir("/proc/self/fd")) != before:
            gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before, "a file was left open"

    def deaths(self) -> None:
        """The process dies after an operation, for every operation that changes something, and
        before the first. A death elsewhere leaves what the last change before it left:
        `deaths_anywhere` proves that."""
        self._run(DyingDisk(0), "died before anything", died=True)
        for call in self.calls:
            if call.number in self.changed:
                self._run(DyingDisk(call.number, after=True), f"died after {call}", died=True)
        self.count.add("operations at which a process died", len(self.calls) + len(self.changed))

    def deaths_anywhere(self) -> None:
        """A death before any operation leaves the state after the last one that changed it."""
        after = ""
        for call in self.calls:
            state = self._run(DyingDisk(call.number), f"died before {call}", died=True)
            assert after in ("", state), f"something else than the disk's operations: {call}"
            after = state
            if call.number in self.changed:
                disk = DyingDisk(call.number, after=True)
                after = self._run(disk, f"died after {call}", died=True)

    def interrupts(self) -> None:
        """Ctrl-C after each operation that changes something, before it returns, and before a
        fourth of all: cleaning up runs, and is right."""
        for call in self.calls:
            if self._has_its_turn(call, 4):
                self._run(InterruptedDisk(call.number), f"interrupted before {call}")
                self.count.add("operations that Ctrl-C interrupted")
            if call.number in self.changed:
                disk = InterruptedDisk(call.number, after=True)
                self._run(disk, f"interrupted after {call}")
                self.count.add("operations that Ctrl-C interrupted")

    def faults(self) -> None:
        """Each error at each operation that changes something, each sync and close, and at a third
        of the rest. Errors that the whole run never told apart are tried together."""
        for call in self.calls:
            telling = call.number in self.changed or call.operation in ("sync", "sync_all", "close")
            if not telling and not self._has_its_turn(call, 3):
                continue
            one = CODES[call.number % len(CODES)]
            first = Code(one)
            self._run(FaultyDisk(call.number, first), f"{errno.errorcode[one]} at {call}")
            if first.told_by:
                for code in CODES:
                    disk = FaultyDisk(call.number, code)
                    self._run(disk, f"{errno.errorcode[code]} at {call}")
            self.count.add("faults", len(CODES))

    def retries(self) -> None:
        """On the share only: a local disk does not try again."""
        for number, codes in self.answers.items():
            for code in codes:
                disk = UnsureDisk(number, code)
                self._run(disk, f"{errno.errorcode[code]} after {self.calls[number]}")
                self.count.add("operations that worked and reported an error")

    def _has_its_turn(self, call: Call, one_of: int) -> bool:
        """Whether this scenario tries it, one of so many: another scenario tries others,
        and most steps are in ten scenarios."""
        return (zlib.crc32(str(self.scenario).encode()) + call.number) % one_of == 0

    def _run(self, disk: WatchedDisk, what: str, *, died: bool = False) -> str:
        """The state that a run on `disk` leaves, after it was looked at."""
        if self._state != self._start:
            self.ground.restore()
        self._state = ""
        try:
            with self._descriptors_kept():
                ended = self._ended(disk, died=died)
            assert disk.fired, f"the planned event never came: {self._other_way(disk)}"
            changed = any(map(changes, disk.calls))
            state = self.ground.fingerprint() if changed else self._start
            if (state, ended) in self._seen:
                self._state = state
                return state
            self.truth.holds(self.world, self.scenario, done=ended == "done")
            if (state, "") not in self._seen:
                self.truth.recovers(self.world, self.scenario)
            self._seen |= {(state, ""), (state, ended)}
            return state
        except BaseException as error:
            error.add_note(f"{self.scenario}: {what}")
            raise

    def _other_way(self, disk: WatchedDisk) -> str:
        for planned, call in zip(self.calls, disk.calls, strict=False):
            if planned.operation != call.operation:
                return f"{call} instead of {planned}"
        return f"it ended after {len(disk.calls)} operations"

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
            live = getattr(error, "live", None)
            if live is not None:
                assert live == self.truth.live_id(self.world), f"not what is live: {error}"
            return "failed"
        assert not died, "a dead process finished its work"
        return "done"


class RecordingDisk(WatchedDisk):
    """Notes which operations changed something, and what NFS could have answered to them."""

    def __init__(self, share: str) -> None:
        super().__init__()
        self.share = share
        self.answers: dict[int, tuple[int, ...]] = {}
        self.changed: set[int] = set()

    def after(self, call: Call) -> None:
        if changes(call):
            self.changed.add(call.number)
            self.answers[call.number] = answers(call, self.share)
