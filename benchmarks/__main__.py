"""`python -m benchmarks`: measure, write the results as JSON, write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.classic import add_npm_programs, classics
from benchmarks.growth import WEEK_BUILDS, WEEK_SCALE, grow, peaks, small, week
from benchmarks.machine import Machine, file_system
from benchmarks.measuring import clear_away
from benchmarks.ours import ours
from benchmarks.peers import peers
from benchmarks.report import write_report
from benchmarks.rounds import Rounds, say_to_stderr
from benchmarks.trees import SHAPES, Pair, make_pair, size_of

HERE = Path(__file__).resolve().parent
TRIAL = HERE.parent / "build/benchmarks"
SECTIONS = ("gatsby", "node_modules", "small", "growth", "memory", "week")
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
    parser.add_argument("--rounds", type=int, default=5, help="of the shapes (default 5)")
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
    if file_system(work) == "tmpfs":
        sys.exit(f"{work} is in memory: name a folder on a disk with --work")
    sections = options.sections or (["named"] if options.a else list(SECTIONS))
    todo = _sections(options, work)
    unknown = [name for name in sections if name not in todo]
    if unknown:
        sys.exit(f"no section {', '.join(unknown)}: there are {', '.join(todo)}")
    for name in sections:
        before, started = os.getloadavg()[0], time.monotonic()
        found = todo[name]()
        section = {
            "found": found,
            "load": (before, os.getloadavg()[0]),
            "seconds": time.monotonic() - started,
        }
        _add(results, name, section, Machine.here(work))


def _add(results: Path, name: str, section: dict[str, Any], machine: Machine) -> None:
    """Each section is kept as soon as it is there: a long run may be stopped."""
    whole: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    whole["format"], whole["machine"] = 1, machine.record()
    whole.setdefault("sections", {})[name] = section
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(whole, indent=1) + "\n")


def _sections(options: argparse.Namespace, work: Path) -> dict[str, Callable[[], Any]]:
    say, scale = say_to_stderr, options.scale
    counts = [max(200, round(count * scale)) for count in GROWTH_FILES]
    builds = max(40, round(WEEK_BUILDS * min(scale, 1)))
    todo: dict[str, Callable[[], Any]] = {
        "small": lambda: small(work, 10, say),
        "growth": lambda: grow(work, counts, 3, say),
        "memory": lambda: peaks(work, counts[-1], say),
        "week": lambda: week(work, builds, WEEK_SCALE, say),
    }
    for shape in SHAPES:
        todo[shape] = partial(_shape, shape, options, work)
    if options.a and options.b:
        pair = Pair("named", options.a.resolve(), options.b.resolve())
        todo["named"] = lambda: _compare(pair, options, work)
    return todo


def _shape(shape: str, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    say_to_stderr(f"{shape}: making the builds")
    pair = make_pair(shape, work / shape, scale=options.scale)
    try:
        return _compare(pair, options, work)
    finally:
        clear_away(work / shape)


def _compare(pair: Pair, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    contenders = [*ours(), *classics(), *peers()]
    words = options.only.split(",")
    chosen = [c for c in contenders if any(word in c.name for word in words)]
    found = asdict(Rounds(pair, work).run(chosen, options.rounds))
    size, change = asdict(size_of(pair.a)), CHANGES[pair.name]
    return {**found, "size": size, "change": change, "rounds": options.rounds}


if __name__ == "__main__":
    main()
