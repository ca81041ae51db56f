"""Results -> docs/benchmarks.md and its charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import curves, tables
from benchmarks.claims import SHAPES, Duel, by_peer, summary
from benchmarks.goals import Goal, goals
from benchmarks.scenario import STEPS

TITLE = """\
# Benchmarks

Written by `make bench` from `benchmarks/results.json`; every sentence with a number in it is
computed from there. How to run it: [benchmarks](../benchmarks/README.md).
"""
DUELS = """\
## Against each of the others

Every step that both do on the local disk, until the result is on the disk: seconds and flush
together. Layout pack, the default, speaks for Moorline; for a link, layout tree. The steps:

"""
HOW = """\
## How to read it

Each step is one program, or several in a row, started anew; the seconds are wall clock, the start
of the interpreter included: the median, with the least and the most in brackets. Everything lies on
one disk and in the page cache; nothing waits for a network. All take part in each round, in
another order; the slow ones only in the first rounds (column "rounds").

- then flush: what the program left for the disk to do after it had ended (`syncfs`). Moorline,
  OSTree and restic flush themselves; cp, rsync, casync and unzip do not.
- x ours: against Moorline with layout pack, the default; for a link, layout tree.
- x T: against T = `find | xargs -P2 -n 400 sha256sum` over the same files, the time that hashing
  them once takes with coreutils; measured before each contender.
- CPU: seconds of all cores together.
- written: pages made dirty, those of directories and inodes too. stored: growth on the disk of the
  store, or of the target.
- memory: the largest resident set of one process; "Memory" below has all of them together.
- hashed: what the step has read and proved. "nothing": a build that was damaged would go live.

"Back to A" is `ln` for the others, which proves nothing, and a full verification of A for
Moorline. No command of Moorline removes a build yet: that step calls its library.
"""


def write_report(results: dict[str, Any], docs: Path) -> None:
    """The page, and one SVG for each chart."""
    docs.mkdir(parents=True, exist_ok=True)
    sections: dict[str, Any] = {k: v["found"] for k, v in results["sections"].items()}
    reached = goals(sections)
    parts = [TITLE, _summary(sections, reached), _machine(results), _goals(reached)]
    shapes = [shape for shape in SHAPES if shape in sections]
    parts.append(DUELS + "; ".join(f"{key}: {title}" for key, title in STEPS.items()) + ".\n")
    parts += [_against(shape, by_peer(sections[shape])) for shape in shapes]
    parts.append(HOW)
    parts += [tables.shape(shape, sections[shape], docs) for shape in shapes]
    for name, write in (
        ("latency", lambda found: tables.delayed(found, docs)),
        ("small", curves.small),
        ("memory", curves.memory),
        ("growth", lambda found: curves.growth(found, docs)),
        ("week", lambda found: curves.week(found, docs)),
    ):
        if name in sections:
            parts.append(write(sections[name]))
    parts.append(_programs(results))
    (docs / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")


def _summary(sections: dict[str, Any], reached: list[Goal]) -> str:
    return "## In short\n\n" + "".join(f"- {line}\n" for line in summary(sections, reached))


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, {machine['file_system']} on a local disk, "
        f"{machine['system']}, Linux {machine['kernel']}, Python {machine['python']}. "
        "Programs and load: at the end.\n"
    )


def _goals(reached: list[Goal]) -> str:
    rows = [(g.what, g.limit, g.measured, "met" if g.met else "**missed**") for g in reached]
    text = "## The numbers that the design promises\n\n"
    return text + tables.table(("number", "goal", "measured", ""), rows)


def _against(shape: str, peers: dict[str, list[Duel]]) -> str:
    rows = [
        (
            peer,
            ", ".join(f"{d.step} {d.theirs_s / d.mine_s:.1f} x" for d in fought if d.won) or "-",
            "; ".join(_lost(d) for d in fought if not d.won) or "-",
        )
        for peer, fought in peers.items()
    ]
    columns = ("with", "Moorline is faster at", "Moorline is slower at")
    return f"### {shape}\n\n{tables.table(columns, rows, text=True)}"


def _lost(duel: Duel) -> str:
    return f"{duel.step}: {duel.mine_s:.2f} s, it {duel.theirs_s:.2f} s, and proves {duel.proof}"


def _programs(results: dict[str, Any]) -> str:
    versions = "".join(f"- {n}: {v}\n" for n, v in results["machine"]["versions"].items())
    rows = [
        (
            name, section["date"], section["source"], f"{section['seconds'] / 60:.1f}",
            f"{section['load'][0]:.2f}", f"{section['load'][1]:.2f}", "",
        )
        for name, section in results["sections"].items()
    ]  # fmt: skip
    columns = ("part", "date", "source", "minutes", "load before", "load at its end", "")
    return f"## Programs, load\n\n{versions}\n{tables.table(columns, rows)}"
