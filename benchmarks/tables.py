"""Comparisons as Markdown: one table for each step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import charts
from benchmarks.claims import own
from benchmarks.goals import FLOOR, PACK, TREE, Medians, tree_floor
from benchmarks.scenario import STEPS

Sample = dict[str, Any]
COLUMNS = (
    "with", "rounds", "seconds", "then flush", "x ours", "x T", "CPU", "written", "stored",
    "memory", "hashed",
)  # fmt: skip
DELAYED_COLUMNS = (
    "with", "rounds", "seconds", "x ours", "x floor", "requests", "at once", "CPU",
    "without latency", "hashed",
)  # fmt: skip


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, text: bool = False) -> str:
    """A Markdown table; all columns but the first and the last are numbers, or `text`."""
    rule = ["---", *["---" if text else "---:"] * (len(columns) - 2), "---"]
    lines = [columns, tuple(rule), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shape(name: str, comparison: dict[str, Any], docs: Path) -> str:
    """One pair of builds on the local disk."""
    found, size = Medians(comparison), comparison["size"]
    text = (
        f"## {name}: {size['files']:,} files, {size['directories']:,} directories, "
        f"{size['bytes'] / 1e6:.0f} MB\n\n{comparison['change']}"
    )
    if found.floor:
        low, high = min(comparison["floor"]), max(comparison["floor"])
        text += (
            f" T = {found.floor:.2f} s ({low:.2f}-{high:.2f}, {len(comparison['floor'])} times), "
            f"with {median(comparison['floor_cpu']):.2f} s of CPU.\n"
        )
    text += missing(comparison) + _bars(name, found, docs)
    for step, title in STEPS.items():
        if step in found.steps:
            text += f"\n### {title}\n\n{table(COLUMNS, _rows(found, step))}"
    return text


def missing(comparison: dict[str, Any]) -> str:
    """Whoever did not take part, and why."""
    text = ""
    for gone, programs in comparison["absent"].items():
        text += f"\nAbsent: {gone} ({', '.join(programs)} is not installed).\n"
    for failed, why in comparison["failed"].items():
        text += f"\nFailed: {failed}: {why.splitlines()[0]}\n"
    return text


def _rows(found: Medians, step: str) -> list[tuple[str, ...]]:
    ours = found.of(step, own(step))
    rows: list[tuple[str, ...]] = []
    for name, samples in _quickest_first(found, step):
        seconds = median(sample["seconds"] for sample in samples)
        grown = found.of(step, name, "grown_bytes")
        rows.append(
            (
                _bold(name),
                str(len(samples)),
                f"{_range(samples)}{_parts(samples)}",
                f"{found.of(step, name, 'flush_s') or 0:.2f}",
                f"{seconds / ours:.1f}" if ours else "",
                f"{seconds / found.floor:.2f}" if found.floor else "",
                f"{found.of(step, name, 'cpu_s') or 0:.2f}",
                f"{(found.of(step, name, 'written_bytes') or 0) / 1e6:.1f} MB",
                "" if grown is None else f"{grown / 1e6:.1f} MB",
                _memory(samples),
                samples[0]["proof"],
            )
        )
    return rows


def _quickest_first(found: Medians, step: str) -> list[tuple[str, list[Sample]]]:
    contenders = found.steps[step].items()
    return sorted(contenders, key=lambda item: median(s["seconds"] for s in item[1]))


def _bold(name: str) -> str:
    return f"**{name}**" if name.startswith("moorline") else name


def _range(samples: list[Sample]) -> str:
    taken = [sample["seconds"] for sample in samples]
    spread = f" ({min(taken):.2f}-{max(taken):.2f})" if len(taken) > 1 else ""
    return f"{median(taken):.2f}{spread}"


def _memory(samples: list[Sample]) -> str:
    most = median(sample["memory_bytes"] for sample in samples)
    inherited = max(sample["inherited_bytes"] for sample in samples)
    return f"under {inherited / 1e6:.0f} MB" if most <= inherited else f"{most / 1e6:.0f} MB"


def _parts(samples: list[Sample]) -> str:
    """How a step of several programs divides, when more than one of them counts."""
    parts = {n: median(s["parts"][n] for s in samples) for n in samples[0].get("parts", {})}
    counting = {n: s for n, s in parts.items() if s >= 0.02}
    if len(counting) < 2:
        return ""
    return ": " + ", ".join(f"{n} {s:.2f}" for n, s in counting.items())


def _bars(name: str, found: Medians, docs: Path) -> str:
    text = ""
    for step in ("publish", "copy"):
        rows = {
            n: median(s["seconds"] for s in all) for n, all in found.steps.get(step, {}).items()
        }
        if PACK in rows and found.floor:
            shown = {**rows, "T: hashing it once": found.floor}
            title = f"{name}: {STEPS[step]}"
            drawn = charts.bars(title, "s", shown, "moorline")
            text += charts.place(docs, f"benchmarks-{name}-{step}", title, drawn)
    return text


# -- on a share with latency ----------------------------------------------------------------------


def delayed(found: dict[str, Any], docs: Path) -> str:
    """All steps of all numbers of files."""
    if found["absent"]:
        return f"## On a share with EFS's latency\n\nNot measured: {found['absent']}.\n"
    first = found["tables"][0]
    text = DELAYED.format(read_ms=first["read_us"] / 1000, write_ms=first["write_us"] / 1000)
    for each in found["tables"]:
        text += _delayed_table(each, docs)
    return text


DELAYED = """\
## On a share with EFS's latency

The share is simulated: a FUSE mount where a request that reads takes {read_ms:g} ms and one that
writes {write_ms:g} ms (each MB of a large file is one), so nothing of EFS but its latency. Builds
are Gatsby sites; they and the targets lie on the local disk. Each step meets a mount of its own:
nothing is cached. What asks for one thing after the other waits nearly all the time: cp, rsync,
md5sum and layout tree ran beside each other, once.

- requests: what the share was asked for, and "at once" how many were under way at most. FUSE asks
  for every part of a path; what it asks before a name is made is not counted, since an NFS client
  leaves that to the server. So these are about the numbers of a real client, which `tests/nfs`
  counts and holds below 60 as well.
- x floor: for layout pack against one file with the bytes of the build, copied by `cp` (where a
  step moves all of them); for layout tree all its waits divided by 64 or, if it makes them, the
  entries of the largest directory times {write_ms:g} ms, whichever is more.
- without latency: the same step, once, on a mount where nothing waits. What remains is our own work
  on the local disk (hashing, thousands of local files) and that of the simulator, one Python
  process that manages a few thousand requests and some hundred MB a second. Where this column is
  near the seconds, those are the limit and not the latency.
- cp and rsync without links do the same work for a first publish or deploy and for the following
  ones: it was measured once and stands in both tables.
"""


def _delayed_table(each: dict[str, Any], docs: Path) -> str:
    found, size = Medians(each["delayed"]), each["size"]
    text = (
        f"\n### {size['files']:,} files, {size['directories']:,} directories "
        f"({each['largest_directory']:,} entries in the largest), {size['bytes'] / 1e6:.0f} MB\n"
    )
    text += missing(each["delayed"])
    for step in ("publish", "copy", "first", "copy_new", "verify"):
        if step in found.steps:
            rows = _delayed_rows(each, found, step)
            text += f"\n{STEPS[step]}\n\n{table(DELAYED_COLUMNS, rows)}"
    return text


def _delayed_rows(each: dict[str, Any], found: Medians, step: str) -> list[tuple[str, ...]]:
    ours, at_once = found.of(step, PACK), Medians(each["at_once"])
    rows: list[tuple[str, ...]] = []
    for name, samples in _quickest_first(found, step):
        seconds = median(sample["seconds"] for sample in samples)
        undelayed, floor = at_once.of(step, name), _floor(each, found, step, name)
        rows.append(
            (
                _bold(name),
                str(len(samples)),
                _range(samples),
                f"{seconds / ours:.1f}" if ours else "",
                f"{seconds / floor:.1f}" if floor else "",
                f"{found.requests(step, name) or 0:,.0f}",
                str(max(sample["at_once"] for sample in samples)),
                f"{found.of(step, name, 'cpu_s') or 0:.2f}",
                "" if undelayed is None else f"{undelayed:.2f}",
                samples[0]["proof"],
            )
        )
    return rows


def _floor(each: dict[str, Any], found: Medians, step: str, name: str) -> float | None:
    if name == PACK:
        return found.of(step, FLOOR)
    return tree_floor(found, step, each) if name == TREE else None
