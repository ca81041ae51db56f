"""What grows with what: more files, more changes, a week of builds; and memory, and start-up.

Only Moorline runs here. Every step is a process of its own, but for the week: 280 publishes in one
process, so that the curve shows the store and not the start of an interpreter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import Command, clear_away, disk_bytes, measure, peak_memory, run
from benchmarks.ours import MOORLINE, library, own_program
from benchmarks.rounds import Say, clean_environment
from benchmarks.trees import Writer, edit_flat, make_flat, make_gatsby, size_of

PERCENTS = (1, 10, 100)
WEEK_BUILDS = 280
DAY_BUILDS = 40
WEEK_SCALE = 0.1
SWITCHES = 50


class Growing:
    """One store and one target below `work`, which grow."""

    def __init__(self, work: Path, layout: str, environment: Mapping[str, str]) -> None:
        self.work = work
        self.layout = layout
        self.environment = environment
        self.store, self.target, self.tree = work / "store", work / "target", work / "tree"
        work.mkdir()
        self._prepare(library("init", store=str(self.store), layout=layout))

    def publish(self, id: str) -> Command:
        return Command((MOORLINE, "publish", self.tree, "--id", id, "--store", self.store,
                        "--bundle", self._bundle(id)))  # fmt: skip

    def deploy(self, id: str, target: Path | None = None) -> Command:
        return Command((MOORLINE, "deploy", self._bundle(id), "--store", self.store,
                        "--target", target or self.target))  # fmt: skip

    def verify(self, id: str) -> Command:
        return Command((MOORLINE, "verify", id, "--store", self.store))

    def _bundle(self, id: str) -> Path:
        return self.work / f"{id}.zip"

    def _prepare(self, command: Command) -> None:
        run(command, self.work, self.environment)

    def measured(self, command: Command) -> dict[str, Any]:
        return asdict(measure(command, self.work, self.environment))

    def peak(self, command: Command) -> dict[str, int]:
        return asdict(peak_memory(command, self.work, self.environment))


def grow(work: Path, counts: list[int], rounds: int, say: Say) -> list[dict[str, Any]]:
    """Publish and deploy trees of so many files, then with a part of them changed."""
    rows: list[dict[str, Any]] = []
    for count in counts:
        for layout in ("pack", "tree"):
            for number in range(rounds if count < 50_000 else 1):
                say(f"growth: {count} files, layout {layout}, round {number + 1}")
                rows += _grow_once(work / "growing", layout, count)
    return rows


def _grow_once(work: Path, layout: str, count: int) -> Iterator[dict[str, Any]]:
    growing = Growing(work, layout, clean_environment(work.parent))
    make_flat(growing.tree, count, seed=1)
    row = {"layout": layout, "files": count}
    yield {**row, "percent": None, "step": "publish", **growing.measured(growing.publish("a"))}
    yield {**row, "percent": None, "step": "deploy", **growing.measured(growing.deploy("a"))}
    for percent in PERCENTS:
        edit_flat(growing.tree, count, percent, seed=2)
        for step, command in (
            ("publish", growing.publish(f"b{percent}")),
            ("deploy", growing.deploy(f"b{percent}")),
        ):
            yield {**row, "percent": percent, "step": step, **growing.measured(command)}
    clear_away(work)


def peaks(work: Path, count: int, say: Say) -> list[dict[str, Any]]:
    """Peak memory of each verb at `count` files: of its largest process, and of all together."""
    rows = []
    for layout in ("pack", "tree"):
        say(f"memory: {count} files, layout {layout}")
        growing = Growing(work / "growing", layout, clean_environment(work))
        make_flat(growing.tree, count, seed=1)
        for step, command in _memory_steps(growing, count):
            row = {"layout": layout, "files": count, "step": step}
            rows.append({**row, **growing.peak(command)})
        clear_away(growing.work)
    return rows


def _memory_steps(growing: Growing, count: int) -> Iterator[tuple[str, Command]]:
    yield "first publish", growing.publish("a")
    yield "deploy, empty target", growing.deploy("a")
    edit_flat(growing.tree, count, 1, seed=2)
    yield "publish, 1 % changed", growing.publish("b")
    yield "deploy, 1 % changed", growing.deploy("b")
    yield "verify", growing.verify("b")


def week(work: Path, builds: int, scale: float, say: Say) -> dict[str, Any]:
    """`builds` publishes of a small edit each, on a small site; one row a publish. And a day's of
    the whole site, for what does not shrink with a site: content that changes."""
    result: dict[str, Any] = {"builds": builds}
    for layout in ("pack", "tree"):
        say(f"a week: {builds} publishes, layout {layout}")
        growing = Growing(work / "growing", layout, clean_environment(work))
        make_gatsby(growing.tree, scale, seed=1)
        result["site"] = asdict(size_of(growing.tree))
        result["site_disk_bytes"] = disk_bytes(growing.tree)
        result[layout] = _publish_week(growing, builds)
        clear_away(growing.work)
    result["day"] = {layout: _day(work, layout, 10 * scale, say) for layout in ("pack", "tree")}
    return result


def _day(work: Path, layout: str, scale: float, say: Say) -> list[dict[str, Any]]:
    """How much a store of 40 builds of the whole site holds."""
    say(f"a day: {DAY_BUILDS} builds of the whole site, layout {layout}")
    growing = Growing(work / "growing", layout, clean_environment(work))
    make_gatsby(growing.tree, scale, seed=1)
    rows = _publish_week(growing, DAY_BUILDS)
    clear_away(growing.work)
    return rows


def _publish_week(growing: Growing, builds: int) -> list[dict[str, Any]]:
    pages = sorted(
        str(p.relative_to(growing.tree)) for p in growing.tree.glob("posts/*/index.html")
    )[: builds + 1]  # 128 KB is the most that one argument may have
    output = growing.work / "week.jsonl"
    options = {"site": str(growing.tree), "store": str(growing.store), "builds": builds,
               "pages": pages, "added": "images/photo-0000.png"}  # fmt: skip
    command = own_program("benchmarks.week", json.dumps(options))
    run(replace(command, output=output), growing.work, growing.environment)
    return [json.loads(line) for line in output.read_text().splitlines()]


def small(work: Path, rounds: int, say: Say) -> dict[str, Any]:
    """What does not depend on the build: start-up, a deploy of 10 files, the switch, the bundle."""
    say("small: start-up, a build of 10 files, switches")
    growing = Growing(work / "growing", "pack", clean_environment(work))
    writer = Writer(growing.tree, seed=1)
    for number in range(10):
        writer.text(f"page-{number}.html", 4_000)
    growing.measured(growing.publish("a"))
    writer.text("page-0.html", 5_000, "edited")
    growing.measured(growing.publish("b"))
    commands = _starts(growing)
    result: dict[str, Any] = {
        "startup": {},
        "bundle_bytes": (growing.work / "a.zip").stat().st_size,
    }
    for name, command in commands.items():
        samples = [growing.measured(command(number)) for number in range(rounds)]
        result["startup"][name] = {
            key: median(sample[key] for sample in samples) for key in ("seconds", "cpu_s")
        }
    result["switch_ms"] = _switches(growing)
    clear_away(growing.work)
    return result


def _starts(growing: Growing) -> dict[str, Callable[[int], Command]]:
    """What is started again and again; the number makes names that were not used before. The first
    start of the agent is one of many: the later ones use the code that it keeps in /var/cache."""
    python, bundle = sys.executable, growing.work / "a.zip"
    agent = next((growing.store / "agent").glob("*.pyz"))

    def agents_deploy(number: int) -> Command:
        target = growing.work / f"agent-{number}"
        return Command((python, "-I", agent, "deploy", bundle, growing.store, "--target", target))

    return {
        "python3 -I -c pass": lambda number: Command((python, "-I", "-c", "pass")),
        "moorline --version": lambda number: Command((MOORLINE, "--version")),
        "moorline publish, 10 files": lambda number: growing.publish(f"c{number}"),
        "moorline deploy, 10 files": lambda number: growing.deploy(
            "a", growing.work / f"command-{number}"
        ),
        "agent's deploy, 10 files": agents_deploy,
    }


def _switches(growing: Growing) -> list[float]:
    growing.measured(growing.deploy("a"))
    growing.measured(growing.deploy("b"))
    output = growing.work / "switches.json"
    command = library("switch", target=str(growing.target), times=SWITCHES)
    run(replace(command, output=output), growing.work, growing.environment)
    lasted: list[float] = json.loads(output.read_text())
    return lasted
