"""`python -m benchmarks`: measure, write the results as JSON, write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import latency
from benchmarks.classic import add_npm_programs, classics
from benchmarks.growth import WEEK_BUILDS, WEEK_SCALE, grow, peaks, small, week
from benchmarks.machine import Machine, file_system
from benchmarks.measuring import clear_away
from benchmarks.ours import ours
from benchmarks.peers import peers
from benchmarks.report import write_report
from benchmarks.results import add_section
from benchmarks.rounds import Plan, Rounds, say_to_stderr
from benchmarks.trees import SHAPES, Pair, make_pair, size_of

HERE = Path(__file__).resolve().parent
TRIAL = HERE.parent / "build/benchmarks"
SECTIONS = {  # rounds, those of slow contenders, and the share of the time
    "gatsby": (5, 2, 0.25),
    "small": (10, 10, 0.02),
    "latency": (3, 1, 0.24),
    "node_modules": (3, 1, 0.28),
    "memory": (1, 1, 0.06),
    "week": (1, 1, 0.05),
    "growth": (2, 2, 0.10),
}
"""In the order of their weight: when the time is up, it is the last ones that are not measured."""
CHANGES = {
    "gatsby": "B is A with one page edited (two files) and one image added.",
    "node_modules": "B is A with 3 % of the packages changed.",
    "named": "Builds that were named.",
}
GROWTH_FILES = (1_000, 10_000, 100_000)


def main() -> None:
    options = _parser().parse_args()
    trial = bool(options.only or options.a or options.scale != 1)
    results = options.results or (TRIAL / "results.json" if trial else HERE / "results.json")
    docs = options.docs or (TRIAL if trial else HERE.parent / "docs")
    if options.sections != ["report"]:
        add_npm_programs(options.npm)
        work = Path(tempfile.mkdtemp(prefix="moorline-bench-", dir=options.work))
        try:
            _run(options, work, results)
        finally:
            clear_away(work)
    write_report(json.loads(results.read_text()), docs)
    say_to_stderr(f"written: {results} and {docs}/benchmarks.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; or only: report")
    parser.add_argument("--rounds", type=int, help="of every part (default: each has its own)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="after which no new part begins; each has its share of rounds",
    )
    parser.add_argument("--scale", type=float, default=1, help="of the trees, to try something out")
    parser.add_argument("--only", default="", help="contenders whose name has one of these words,")
    parser.add_argument("--a", type=Path, help="a build of your own, with --b")
    parser.add_argument("--b", type=Path, help="the build after it")
    parser.add_argument(
        "--work", type=Path, help="a folder on the disk to measure (default TMPDIR)"
    )
    parser.add_argument(
        "--npm", type=Path, default=HERE.parent / "build/npm", help="where s3rver is"
    )
    parser.add_argument("--results", type=Path, help="the JSON file, which is added to")
    parser.add_argument("--docs", type=Path, help="where benchmarks.md goes")
    return parser


def _run(options: argparse.Namespace, work: Path, results: Path) -> None:
    if options.scale == 1 and file_system(work) == "tmpfs":
        sys.exit(f"{work} is in memory: name a folder on a disk with --work")
    until = time.monotonic() + options.minutes * 60
    sections = options.sections or (["named"] if options.a else list(SECTIONS))
    todo = _sections(options, work)
    unknown = [name for name in sections if name not in todo]
    if unknown:
        sys.exit(f"no part {', '.join(unknown)}: there are {', '.join(todo)}")
    for name in sections:
        if time.monotonic() > until:
            say_to_stderr(f"no time for {name}")
            continue
        before, started = os.getloadavg()[0], time.monotonic()
        try:
            found = todo[name](_plan(options, name, until))
        except Exception as error:  # what the other parts found is worth hours
            say_to_stderr(f"FAILED: {name}: {error!r}")
            continue
        section = {
            "found": found,
            "load": (before, os.getloadavg()[0]),
            "seconds": time.monotonic() - started,
        }
        add_section(results, name, section, Machine.here(work).record())


def _plan(options: argparse.Namespace, name: str, until: float) -> Plan:
    rounds, slow_rounds, share = SECTIONS.get(name, (5, 2, 1.0))
    if options.rounds:
        rounds, slow_rounds = options.rounds, min(slow_rounds, options.rounds)
    minutes = options.minutes * (1 if options.sections else share)
    until = min(until, time.monotonic() + minutes * 60)
    return Plan(rounds, slow_rounds, until, large=name == "node_modules")


def _sections(options: argparse.Namespace, work: Path) -> dict[str, Callable[[Plan], Any]]:
    say, scale = say_to_stderr, options.scale
    counts = sorted({max(200, round(count * scale)) for count in GROWTH_FILES})
    builds, of_site = max(40, round(WEEK_BUILDS * min(scale, 1))), WEEK_SCALE * min(scale, 1)
    words = options.only.split(",")
    todo: dict[str, Callable[[Plan], Any]] = {
        "small": lambda plan: small(work, plan.rounds, say),
        "growth": lambda plan: grow(work, counts, plan.rounds, say),
        "memory": lambda plan: peaks(work, counts[-1], say),
        "week": lambda plan: week(work, builds, of_site, say),
        "latency": lambda plan: latency.tables(work, scale, words, plan, say),
    }
    for shape in SHAPES:
        todo[shape] = partial(_shape, shape, options, work)
    if options.a and options.b:
        pair = Pair("named", options.a.resolve(), options.b.resolve())
        todo["named"] = partial(_compare, pair, options, work)
    return todo


def _shape(shape: str, options: argparse.Namespace, work: Path, plan: Plan) -> dict[str, Any]:
    say_to_stderr(f"{shape}: making the builds")
    pair = make_pair(shape, work / shape, scale=options.scale)
    try:
        return _compare(pair, options, work, plan)
    finally:
        clear_away(work / shape)


def _compare(pair: Pair, options: argparse.Namespace, work: Path, plan: Plan) -> dict[str, Any]:
    contenders = [*ours(), *classics(), *peers()]
    words = options.only.split(",")
    chosen = [c for c in contenders if any(word in c.name for word in words)]
    found = asdict(Rounds(pair, work).run(chosen, plan))
    return {**found, "size": asdict(size_of(pair.a)), "change": CHANGES[pair.name]}


if __name__ == "__main__":
    main()
