"""Run all contenders in alternation, several rounds: nobody always runs first, or on a warm disk.

T is measured before each contender of each round, so that it sees the same machine as they do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    Command,
    Failed,
    Measured,
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


class Rounds:
    """Compares contenders on one pair of builds below the folder `work`."""

    def __init__(self, pair: Pair, work: Path, say: Say = say_to_stderr) -> None:
        self.pair = pair
        self.work = work
        self.say = say
        self.found = Comparison()
        self.environment = clean_environment(work)

    def run(self, contenders: Sequence[Contender], count: int) -> Comparison:
        present = [c for c in contenders if not self._absent(c)]
        for number in range(count):
            turn = number % len(present)
            self.found.load.append(os.getloadavg()[0])
            for contender in present[turn:] + present[:turn]:
                if contender.name in self.found.failed:
                    continue
                self.say(f"{self.pair.name}, round {number + 1} of {count}: {contender.name}")
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
            measured = self._measure(step.commands, site)
            self.found.floor.append(measured.seconds)
            self.found.floor_cpu.append(measured.cpu_s)
        clear_away(site.work)

    def _contend(self, contender: Contender, *, first: bool) -> None:
        site = self._site()
        try:
            with contender.running(site):
                for step in contender.steps(site):
                    if first or not step.slow:
                        self._step(contender, site, step, check=first)
        except (Failed, OSError) as error:
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
        for command in step.prepare:
            run(command, site.work, self.environment)
        before = disk_bytes(step.grows) if step.grows else 0
        parts = [measure(command, site.work, self.environment) for command in step.commands]
        whole = sum(parts[1:], parts[0])
        sample = {k: v for k, v in asdict(whole).items() if k != "label"}
        if step.grows:
            sample["grown_bytes"] = disk_bytes(step.grows) - before
        if len(parts) > 1:
            sample["parts"] = {part.label: part.seconds for part in parts}
        sample["proof"] = step.proof
        rows = self.found.steps.setdefault(step.key, {}).setdefault(contender.name, [])
        rows.append(sample)
        if check and step.makes and step.like:
            self._compare(site, step.makes, step.like)

    def _measure(self, commands: Iterable[Command], site: Site) -> Measured:
        parts = [measure(command, site.work, self.environment) for command in commands]
        return replace(sum(parts[1:], parts[0]), label="")

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
