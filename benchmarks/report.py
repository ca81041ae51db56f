"""Results -> docs/benchmarks.md and its charts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import charts
from benchmarks.goals import PACK, TREE, Medians, goals, slower_than_a_peer
from benchmarks.scenario import STEPS

INTRODUCTION = """\
# Benchmarks

Written by `make bench`. How to run it and how to read it: [benchmarks](../benchmarks/README.md).
Every time is wall-clock seconds of whole processes, started anew for each step; medians, with the
least and the most in brackets. T is `find | xargs -P2 sha256sum` over the same files, the time that
hashing them once takes with coreutils.
"""
COLUMNS = (
    "with", "seconds", "then flush", "x ours", "x T", "CPU", "written", "stored", "memory",
    "hashed",
)  # fmt: skip


def write_report(results: dict[str, Any], docs: Path) -> None:
    """The page, and one SVG for each chart."""
    docs.mkdir(parents=True, exist_ok=True)
    sections: dict[str, Any] = {k: v["found"] for k, v in results["sections"].items()}
    parts = [INTRODUCTION, _machine(results), _goals(sections)]
    for shape in ("gatsby", "node_modules", "named"):
        if shape in sections:
            parts.append(_shape(shape, results["sections"][shape], docs))
    if "small" in sections:
        parts.append(_small(sections["small"]))
    if "growth" in sections:
        parts.append(_growth(sections["growth"], docs))
    if "memory" in sections:
        parts.append(_memory(sections["memory"]))
    if "week" in sections:
        parts.append(_week(sections["week"], docs))
    (docs / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; all columns but the first and the last are numbers."""
    rule = ["---", *["---:"] * (len(columns) - 2), "---"]
    lines = [columns, tuple(rule), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# -- what it was measured on ----------------------------------------------------------------------


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = "; ".join(f"{n}: {v}" for n, v in machine["versions"].items())
    loads = ", ".join(
        f"{name} {section['load'][0]:.1f}-{section['load'][1]:.1f}"
        for name, section in results["sections"].items()
    )
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, {machine['file_system']} on a local disk, "
        f"{machine['system']}, Linux {machine['kernel']}, Python {machine['python']}. "
        f"Date: {machine['date']}.\n\n"
        f"Load average at the start and the end of each part: {loads}.\n\nPrograms: {versions}.\n"
    )


def _goals(sections: dict[str, Any]) -> str:
    rows = [
        (g.what, g.limit, g.measured, "met" if g.met else "**missed**") for g in goals(sections)
    ]
    text = "## The numbers that the design promises\n\n"
    text += table(("number", "goal", "measured", ""), rows)
    slower = slower_than_a_peer(sections)
    if slower:
        text += "\nSteps at which another program was faster, the flush to the disk included:\n\n"
        text += "".join(f"- {line}\n" for line in slower)
    return text


# -- one pair of builds ---------------------------------------------------------------------------


def _shape(name: str, section: dict[str, Any], docs: Path) -> str:
    shape, found = section["found"], Medians(section["found"])
    size = shape["size"]
    text = (
        f"## {name}: {size['files']:,} files, {size['directories']:,} directories, "
        f"{size['bytes'] / 1e6:.0f} MB\n\n{shape['change']} {shape['rounds']} rounds. "
        f"T = {found.floor:.2f} s ({min(shape['floor']):.2f}-{max(shape['floor']):.2f}), "
        f"with {median(shape['floor_cpu']):.2f} s of CPU.\n"
    )
    for gone, programs in shape["absent"].items():
        text += f"\nAbsent: {gone} ({', '.join(programs)} is not installed).\n"
    for failed, why in shape["failed"].items():
        text += f"\nFailed: {failed}: {why.splitlines()[0]}\n"
    text += _bars(name, found, docs)
    for step, title in STEPS.items():
        if step in found.steps:
            text += f"\n### {title}\n\n{table(COLUMNS, _rows(found, step))}"
    return text


def _rows(found: Medians, step: str) -> list[tuple[str, ...]]:
    ours = found.of(step, TREE if step == "link" else PACK)
    rows: list[tuple[str, ...]] = []
    for name in sorted(found.steps[step], key=lambda name: found.seconds(step, name)):
        samples = found.steps[step][name]
        seconds = found.seconds(step, name)
        taken = [sample["seconds"] for sample in samples]
        grown = found.of(step, name, "grown_bytes")
        rows.append(
            (
                f"**{name}**" if name.startswith("moorline") else name,
                f"{seconds:.2f} ({min(taken):.2f}-{max(taken):.2f}){_parts(samples)}",
                f"{found.of(step, name, 'flush_s') or 0:.2f}",
                f"{seconds / ours:.1f}" if ours else "",
                f"{seconds / found.floor:.2f}",
                f"{found.of(step, name, 'cpu_s') or 0:.2f}",
                f"{(found.of(step, name, 'written_bytes') or 0) / 1e6:.1f} MB",
                "" if grown is None else f"{grown / 1e6:.1f} MB",
                f"{(found.of(step, name, 'memory_bytes') or 0) / 1e6:.0f} MB",
                samples[0]["proof"],
            )
        )
    return rows


def _parts(samples: list[dict[str, Any]]) -> str:
    """How a step of several programs divides, when more than one of them counts."""
    parts = {n: median(s["parts"][n] for s in samples) for n in samples[0].get("parts", {})}
    counting = {n: s for n, s in parts.items() if s >= 0.02}
    if len(counting) < 2:
        return ""
    return ": " + ", ".join(f"{n} {s:.2f}" for n, s in counting.items())


def _bars(name: str, found: Medians, docs: Path) -> str:
    text = ""
    for step, own in (("publish", PACK), ("copy", PACK)):
        rows = {n: found.seconds(step, n) for n in found.steps.get(step, {}) if "library" not in n}
        if own not in rows:
            continue
        ordered = {own: rows.pop(own), **rows, "T: hashing it once": found.floor}
        title = f"{name}: {STEPS[step]}"
        text += _chart(docs, f"benchmarks-{name}-{step}", title, charts.bars(title, "s", ordered))
    return text


def _chart(docs: Path, name: str, title: str, svg: str) -> str:
    (docs / f"{name}.svg").write_text(svg, encoding="utf-8")
    return f"\n![{title}]({name}.svg)\n"


# -- what grows -----------------------------------------------------------------------------------


def _small(small: dict[str, Any]) -> str:
    rows = [
        (name, f"{row['seconds'] * 1000:.0f} ms", f"{row['cpu_s'] * 1000:.0f} ms", "")
        for name, row in small["startup"].items()
    ]
    switch = small["switch_ms"]
    rows.append(("switch alone (symlink, rename, fsync)", f"{median(switch):.2f} ms", "",
                 f"{len(switch)} switches, {min(switch):.2f}-{max(switch):.2f} ms"))  # fmt: skip
    rows.append(("bundle", "", "", f"{small['bundle_bytes']} bytes"))
    return "## Start-up and small things\n\n" + table(("", "wall", "CPU", ""), rows)


def _growth(rows: list[dict[str, Any]], docs: Path) -> str:
    """Medians over the rounds; `percent` None is the first publish or deploy."""
    grouped: dict[tuple[str, str, int, int | None], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["step"], row["layout"], row["files"], row["percent"]].append(row)
    seconds = {key: median(r["seconds"] for r in found) for key, found in grouped.items()}
    lines = [
        (
            f"{step}, layout {layout}", f"{files:,}",
            "first" if percent is None else f"{percent} %",
            f"{seconds[step, layout, files, percent]:.2f} s",
            f"{median(r['written_bytes'] for r in found) / 1e6:.1f} MB",
            f"{median(r['memory_bytes'] for r in found) / 1e6:.0f} MB",
        )
        for (step, layout, files, percent), found in sorted(
            grouped.items(), key=lambda item: [str(part or "").zfill(9) for part in item[0]]
        )
    ]  # fmt: skip
    text = "## What grows with the number of files and with what changed\n\n"
    text += "Files of 4 KB on average, 50 to a directory; the median of the rounds.\n"
    text += _growth_charts(seconds, docs) + "\n"
    return text + table(("step", "files", "changed", "seconds", "written", "memory"), lines)


def _growth_charts(seconds: dict[tuple[str, str, int, int | None], float], docs: Path) -> str:
    text = ""
    for step in ("publish", "deploy"):
        series: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (done, layout, files, percent), value in sorted(seconds.items(), key=str):
            if done == step and percent in (1, 100):
                series[f"layout {layout}, {percent} % changed"].append((files, value))
        ordered = {name: sorted(points) for name, points in series.items()}
        title = f"{step}: seconds by the number of files"
        svg = charts.lines(title, "files", "seconds", ordered, log=True)
        text += _chart(docs, f"benchmarks-growth-{step}", title, svg)
    return text


def _memory(rows: list[dict[str, Any]]) -> str:
    lines = [
        (row["step"], row["layout"], f"{row['files']:,}", f"{row['all_bytes'] / 1e6:.0f} MB")
        for row in rows
    ]
    return (
        "## Memory\n\nThe most that all processes of a command had together (proportional set "
        "sizes, every 20 ms).\n\n" + table(("step", "layout", "files", "peak"), lines)
    )


def _week(week: dict[str, Any], docs: Path) -> str:
    site, builds = week["site"], week["builds"]
    text = (
        f"## A week of builds\n\n{builds} publishes, 40 a day for a week, of a site of "
        f"{site['files']} files and {site['bytes'] / 1e6:.0f} MB: each edits one page (two files), "
        "every tenth adds an image. Nothing is removed.\n"
    )
    for name, title, unit, scale in (
        ("store_bytes", "size of the store", "MB", 1e6),
        ("packs", "packs in the store", "packs", 1),
        ("seconds", "time of a publish, medians of ten", "s", 1),
        ("written_bytes", "bytes written by a publish, means of ten", "MB", 1e6),
    ):
        series = {f"layout {lay}": _tens(week[lay], name, scale) for lay in ("pack", "tree")}
        if name == "store_bytes":
            full = week["site_disk_bytes"] / 1e6
            series["one build"] = [(0, full), (builds, full)]
        if name == "packs":
            del series["layout tree"]
        svg = charts.lines(title, "builds", unit, series)
        text += _chart(docs, f"benchmarks-week-{name.split('_')[0]}", title, svg)
    return text


def _tens(rows: list[dict[str, Any]], name: str, scale: float) -> list[tuple[float, float]]:
    """One point for every ten builds; the first publish, of everything, is left out of sums."""
    if name in ("store_bytes", "packs"):
        return [(n, row[name] / scale) for n, row in enumerate(rows) if n % 10 == 0]
    middle = median if name == "seconds" else lambda values: sum(values) / len(values)
    return [
        (n + 9, middle([row[name] for row in rows[n : n + 10]]) / scale)
        for n in range(1, len(rows) - 9, 10)
    ]
