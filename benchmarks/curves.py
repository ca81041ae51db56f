"""What grows with what, as Markdown and charts: more files, more changes, a week; memory; start."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks import charts
from benchmarks.tables import table

Row = dict[str, Any]
Key = tuple[str, str, int, int | None]


def small(found: dict[str, Any]) -> str:
    """Start-up, the switch, the bundle."""
    rows = [
        (name, f"{row['seconds'] * 1000:.0f} ms", f"{row['cpu_s'] * 1000:.0f} ms", "")
        for name, row in found["startup"].items()
    ]
    switch = found["switch_ms"]
    rows.append(("switch alone (symlink, rename, fsync)", f"{median(switch):.2f} ms", "",
                 f"{len(switch)} switches, {min(switch):.2f}-{max(switch):.2f} ms"))  # fmt: skip
    rows.append(("bundle", "", "", f"{found['bundle_bytes']} bytes"))
    return "## Start-up and small things\n\n" + table(("", "wall", "CPU", ""), rows)


def growth(rows: list[Row], docs: Path) -> str:
    """Medians over the rounds; `percent` None is the first publish or deploy."""
    grouped: dict[Key, list[Row]] = defaultdict(list)
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
            str(len(found)),
        )
        for (step, layout, files, percent), found in sorted(
            grouped.items(), key=lambda item: [str(part or "").zfill(9) for part in item[0]]
        )
    ]  # fmt: skip
    columns = ("step", "files", "changed", "seconds", "written", "largest process", "rounds")
    return (
        "## What grows with the number of files and with what changed\n\n"
        "Files of 4 KB on average, 50 to a directory; medians. Both axes of the charts are "
        "logarithmic: a straight line at 45 degrees is time in proportion to the files.\n"
        f"{_growth_charts(seconds, docs)}\n{table(columns, lines)}"
    )


def _growth_charts(seconds: dict[Key, float], docs: Path) -> str:
    text = ""
    for step in ("publish", "deploy"):
        series: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (done, layout, files, percent), value in sorted(seconds.items(), key=str):
            if done == step and percent in (1, 100):
                series[f"layout {layout}, {percent} % changed"].append((files, value))
        ordered = {name: sorted(points) for name, points in series.items()}
        title = f"{step}: seconds by the number of files"
        drawn = charts.lines(title, "files", "seconds", ordered, log=True)
        text += charts.place(docs, f"benchmarks-growth-{step}", title, drawn)
    return text


def memory(rows: list[Row]) -> str:
    lines = [
        (
            row["step"], row["layout"], f"{row['files']:,}",
            f"{row['all_bytes'] / 1e6:.0f} MB", f"{row['largest_bytes'] / 1e6:.0f} MB",
        )
        for row in rows
    ]  # fmt: skip
    return (
        "## Memory\n\nThe most that all processes of a command had together (proportional set "
        "sizes, looked at every 20 ms, but no less than the largest resident set of one of them, "
        "which the kernel keeps).\n\n"
        + table(("step", "layout", "files", "all together", "largest process"), lines)
    )


def week(found: dict[str, Any], docs: Path) -> str:
    site, builds = found["site"], found["builds"]
    text = (
        f"## A week of builds\n\n{builds} publishes, as of 40 builds a day for a week, of a site "
        f"of {site['files']:,} files and {site['bytes'] / 1e6:.0f} MB: each edits one page (two "
        "files), every tenth adds an image. Nothing is removed. In one process, so the time is "
        "that of the library, without the start of an interpreter. All within minutes: the proof "
        "of old content, once in seven days, does not come into it. The folding of packs has to "
        "keep time, bytes and packs from growing with the number of builds; what the store gains "
        "with each, beside what changed, is its manifest, its times and its index, and in layout "
        "tree its directories.\n\n"
    )
    text += table(("", *_WEEK_COLUMNS), [_week_row(found, layout) for layout in ("pack", "tree")])
    for name, title, unit, scale in (
        ("store_bytes", "size of the store", "MB", 1e6),
        ("packs", "packs that a build reads from", "packs", 1),
        ("seconds", "time of a publish, medians of ten", "s", 1),
        ("written_bytes", "bytes written by a publish, means of ten", "MB", 1e6),
    ):
        series = {f"layout {lay}": _tens(found[lay], name, scale) for lay in ("pack", "tree")}
        if name == "store_bytes":
            series["the site's bytes"] = [
                (n, row["site_bytes"] / 1e6)
                for n, row in enumerate(found["pack"], 1)
                if n % 10 == 0
            ]
        if name == "packs":
            del series["layout tree"]
        drawn = charts.lines(title, "builds", unit, series)
        text += charts.place(docs, f"benchmarks-week-{name.split('_')[0]}", title, drawn)
    return text


_WEEK_COLUMNS = (
    "store at the end", "x one build", "publish, first forty", "publish, last forty",
    "written by one: mean", "most", "most packs of one",
)  # fmt: skip


def _week_row(found: dict[str, Any], layout: str) -> tuple[str, ...]:
    """The first publish, of everything, is left out of times and sums."""
    rows = found[layout]
    last = next(row for row in reversed(rows) if "store_bytes" in row)
    written = [row["written_bytes"] for row in rows[1:]]
    return (
        f"layout {layout}",
        f"{last['store_bytes'] / 1e6:.0f} MB",
        f"{last['store_bytes'] / last['site_bytes']:.2f}",
        f"{median(row['seconds'] for row in rows[1:41]):.3f} s",
        f"{median(row['seconds'] for row in rows[-40:]):.3f} s",
        f"{fmean(written) / 1e6:.2f} MB",
        f"{max(written) / 1e6:.2f} MB",
        str(max(row["packs"] for row in rows)) if layout == "pack" else "-",
    )


def _tens(rows: list[Row], name: str, scale: float) -> list[tuple[float, float]]:
    """One point for every ten builds; the first publish, of everything, is left out of sums."""
    if name in ("store_bytes", "packs"):
        return [(n, row[name] / scale) for n, row in enumerate(rows, 1) if n % 10 == 0]
    middle = median if name == "seconds" else fmean
    return [
        (n + 9, middle([row[name] for row in rows[n : n + 10]]) / scale)
        for n in range(1, len(rows) - 9, 10)
    ]
