"""Run all contenders in alternation, several rounds: nobody always runs first, or on a warm disk.

T is measured before each contender of each round, so that it sees the same machine as they do.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Command,
    Failed,
    clear_away,
    disk_bytes,
    flush,
    measure,
    run,
)
from benchmarks.peers import Floor
from benchmarks.scenario import Contender, Site, Step, missing_programs
from benchmarks.trees import Pair, size_of

Say = Callable[[str], None]


def say_to_stderr(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@dataclass
class Comparison:
    """All samples of one pair of builds: `steps[key][contender]` is a list, one for each round."""

    floor: list[float] = field(default_factory=list)
    floor_cpu: list[float] = field(default_factory=list)
    steps: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    load: list[float] = field(default_factory=list)

    def add(self, other: Comparison) -> None:
        """What another run of the same pair of builds has found, of other contenders."""
        for key, contenders in other.steps.items():
            self.steps.setdefault(key, {}).update(contenders)
        self.absent |= other.absent
        self.failed |= other.failed


@dataclass(frozen=True)
class Plan:
    """How often: `slow_rounds` for contenders that are slow. After the moment `until`, of the
    monotonic clock, no new round begins, but for the first. On a `large` build every peer is slow:
    minutes for each."""

    rounds: int
    slow_rounds: int
    until: float = math.inf
    large: bool = False

    def has(self, contender: Contender, number: int) -> bool:
        """Whether the contender takes part in this round, counted from 0."""
        slow = contender.slow or (self.large and not contender.name.startswith("moorline"))
        return number < (self.slow_rounds if slow else self.rounds)

    def is_over(self) -> bool:
        return time.monotonic() > self.until


class Rounds:
    """Compares contenders on one pair of builds below the folder `work`."""

    def __init__(self, pair: Pair, work: Path, say: Say = say_to_stderr) -> None:
        self.pair = pair
        self.work = work
        self.say = say
        self.found = Comparison()
        self.environment = clean_environment(work)

    def run(self, contenders: Sequence[Contender], plan: Plan) -> Comparison:
        present = [c for c in contenders if not self._absent(c)]
        for number in range(plan.rounds):
            if number and plan.is_over():
                self.say(f"{self.pair.name}: no time for round {number + 1} of {plan.rounds}")
                break
            turn = number % max(1, len(present))
            self.found.load.append(os.getloadavg()[0])
            for contender in present[turn:] + present[:turn]:
                if plan.has(contender, number) and contender.name not in self.found.failed:
                    self.say(f"{self.pair.name}, round {number + 1} of {plan.rounds}: "
                             f"{contender.name}")  # fmt: skip
                    self._floor()
                    self._contend(contender, first=number == 0)
        return self.found

    def _absent(self, contender: Contender) -> bool:
        missing = missing_programs(contender)
        if missing:
            self.found.absent[contender.name] = missing
        return bool(missing)

    def _floor(self) -> None:
        site = self._site()
        for step in Floor().steps(site):
            measured = self._sample(step, site)
            self.found.floor.append(measured["seconds"])
            self.found.floor_cpu.append(measured["cpu_s"])
        clear_away(site.work)

    def _contend(self, contender: Contender, *, first: bool) -> None:
        site = self._site()
        try:
            with contender.running(site):
                for step in contender.steps(site):
                    if first or not step.slow:
                        self._step(contender, site, step, check=first)
        except (Failed, OSError, subprocess.SubprocessError, AssertionError) as error:
            self.found.failed[contender.name] = str(error)
            self.say(f"FAILED: {contender.name}: {error}")
        finally:
            clear_away(site.work)
            flush(self.work)

    def _site(self) -> Site:
        site = Site.of(self.pair, self.work / "site")
        site.work.mkdir()
        return site

    def _step(self, contender: Contender, site: Site, step: Step, *, check: bool) -> None:
        self._prepare(step, site)
        before = disk_bytes(step.grows) if step.grows else 0
        sample = self._sample(step, site)
        if step.grows:
            sample["grown_bytes"] = disk_bytes(step.grows) - before
        if check and step.makes and step.like:
            self._compare(site, step.makes, step.like)
        for key in (step.key, *step.also):
            rows = self.found.steps.setdefault(key, {}).setdefault(contender.name, [])
            rows.append(sample)

    def _prepare(self, step: Step, site: Site) -> None:
        for command in step.prepare:
            run(command, site.work, self.environment)

    def _sample(self, step: Step, site: Site) -> dict[str, Any]:
        parts = [measure(command, site.work, self.environment) for command in step.commands]
        sample = {k: v for k, v in asdict(sum(parts[1:], parts[0])).items() if k != "label"}
        if len(parts) > 1:
            sample["parts"] = {part.label: part.seconds for part in parts}
        return {**sample, "proof": step.proof}

    def _compare(self, site: Site, made: Path, like: Path) -> None:
        """What was deployed has to be the build: a quick contender that did not do it is none."""
        if size_of(made.resolve()) != size_of(like):
            raise Failed(f"{made} holds {size_of(made.resolve())}, not {size_of(like)}")
        compare = ("diff", "-rq", "--no-dereference", like, made.resolve())
        run(Command(compare), site.work, self.environment)


def clean_environment(work: Path) -> Mapping[str, str]:
    """What every program gets: nothing of CI's variables, and a home of its own."""
    home = work / "home"
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
