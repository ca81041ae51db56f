"""The numbers that the design promises, each beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

PACK, TREE = "moorline pack", "moorline tree"
CLASSIC = "classic zip, a folder"
FLOOR = "one file of that size"
TARGETS = 8  # four stages of two targets
BUNDLE_BYTES = 1_000
PEAK_BYTES = 150 * 10**6
STARTUP_CPU_S = 0.15
SWITCH_MS = 5
REQUESTS = 60
WORKERS = 64  # requests that a client has under way at most


@dataclass(frozen=True)
class Goal:
    """What was not measured is no goal."""

    what: str
    limit: str
    measured: str
    met: bool


class Medians:
    """The medians of one comparison's steps; None is what was not measured."""

    def __init__(self, comparison: dict[str, Any]) -> None:
        self.floor: float | None = median(comparison["floor"]) if comparison["floor"] else None
        self.steps: dict[str, dict[str, list[dict[str, Any]]]] = comparison["steps"]

    def of(self, step: str, contender: str, field: str = "seconds") -> float | None:
        samples = self.steps.get(step, {}).get(contender, [])
        values = [sample[field] for sample in samples if field in sample]
        return median(values) if values else None

    def durable(self, step: str, contender: str) -> float | None:
        """Seconds until the result is on the disk."""
        seconds = self.of(step, contender)
        return None if seconds is None else seconds + (self.of(step, contender, "flush_s") or 0)

    def requests(self, step: str, contender: str) -> float | None:
        samples = self.steps.get(step, {}).get(contender, [])
        return median(sum(s["requests"].values()) for s in samples) if samples else None


def goals(sections: dict[str, Any]) -> list[Goal]:
    """Every goal that these results can answer, in the design's order."""
    parts: dict[str, Callable[[Any], Iterator[Goal]]] = {
        "gatsby": _of_gatsby, "node_modules": _of_node_modules, "small": _of_small,
        "week": _of_week, "memory": _of_memory, "latency": _of_latency,
    }  # fmt: skip
    return [goal for name, of in parts.items() if name in sections for goal in of(sections[name])]


def _at_most(
    what: str, seconds: float | None, against: float | None, most: float, unit: str
) -> Iterator[Goal]:
    if seconds is not None and against is not None:
        measured = f"{seconds / against:.2f} {unit} ({seconds:.2f} s)"
        yield Goal(what, f"at most {most:.1f} {unit}", measured, seconds <= most * against)


def _at_least(
    what: str, theirs: float | None, mine: float | None, least: float
) -> Iterator[Goal]:  # fmt: skip
    if theirs is not None and mine is not None:
        measured = f"{theirs / mine:.1f} x ({mine:.2f} s and {theirs:.1f} s)"
        yield Goal(what, f"at least {least:.0f} x faster", measured, theirs >= least * mine)


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _of_gatsby(comparison: dict[str, Any]) -> Iterator[Goal]:
    found = Medians(comparison)
    limits = (
        ("publish B after A, layout pack", "publish", PACK, 0.6),
        ("publish B after A, layout tree", "publish", TREE, 1.0),
        ("deploy B as a copy, target serves A", "copy", PACK, 1.0),
        ("deploy B as a link, fully verified", "link", TREE, 0.6),
    )
    for what, step, contender, most in limits:
        yield from _at_most(what, found.of(step, contender), found.floor, most, "T")
    first, against = found.of("first", PACK), _sum(found.of("first", "cp -a"), found.floor)
    yield from _at_most("first publish, layout pack", first, against, 1.3, "(cp -a + T)")
    mine, theirs = _pipeline(found, PACK), _pipeline(found, CLASSIC)
    what = f"one edit to {TARGETS} targets, computed from the medians, against the classic way"
    yield from _at_least(what, theirs, mine, 20)


def _pipeline(found: Medians, contender: str) -> float | None:
    """One publish and a deploy to each target."""
    deploy = found.of("copy", contender)
    return _sum(found.of("publish", contender), deploy and deploy * TARGETS)


def _of_node_modules(comparison: dict[str, Any]) -> Iterator[Goal]:
    found, files = Medians(comparison), f"{comparison['size']['files']:,} files"
    yield from _at_most(f"{files}: publish B", found.of("publish", PACK), found.floor, 1.2, "T")
    yield from _at_most(f"{files}: copy, serving A", found.of("copy", PACK), found.floor, 2.0, "T")


def _of_small(small: dict[str, Any]) -> Iterator[Goal]:
    switch = median(small["switch_ms"])
    yield Goal("switch alone", f"under {SWITCH_MS} ms", f"{switch:.2f} ms", switch < SWITCH_MS)
    size = small["bundle_bytes"]
    yield Goal(
        "bundle as our zip", f"at most {BUNDLE_BYTES} bytes", f"{size} bytes", size <= BUNDLE_BYTES
    )
    for name in ("moorline --version", "agent's deploy, 10 files"):
        cpu_s = small["startup"][name]["cpu_s"]
        yield Goal(
            f"CPU of {name}", f"under {STARTUP_CPU_S * 1000:.0f} ms", f"{cpu_s * 1000:.0f} ms",
            cpu_s < STARTUP_CPU_S,
        )  # fmt: skip


def _of_week(week: dict[str, Any]) -> Iterator[Goal]:
    """One build is the bytes of its files, without what a disk needs for them."""
    for layout, most in (("pack", 1.1), ("tree", 3.2)):
        rows = week.get("day", week)[layout]
        row = rows[min(40, len(rows)) - 1]
        if "store_bytes" in row:
            times = row["store_bytes"] / row["site_bytes"]
            yield Goal(
                f"store of 40 builds, layout {layout}", f"under {most} x one build",
                f"{times:.2f} x", times < most,
            )  # fmt: skip


def _of_memory(rows: list[dict[str, Any]]) -> Iterator[Goal]:
    worst = max(rows, key=lambda row: int(row["all_bytes"]))
    size = worst["all_bytes"]
    yield Goal(
        f"peak memory at {worst['files']:,} files ({worst['step']}, layout {worst['layout']})",
        f"under {PEAK_BYTES // 10**6} MB", f"{size / 1e6:.0f} MB", size < PEAK_BYTES,
    )  # fmt: skip


def _of_latency(latency: dict[str, Any]) -> Iterator[Goal]:
    for table in latency["tables"]:
        found, share = Medians(table["delayed"]), f"share with latency, {table['size']['files']:,}"
        for step, name in (("publish", "publish of B"), ("copy", "copy of B")):
            requests = found.requests(step, PACK)
            if requests is not None:
                yield Goal(
                    f"{share} files, layout pack: {name}", f"fewer than {REQUESTS} requests",
                    f"{requests:.0f}", requests < REQUESTS,
                )  # fmt: skip
            for peer in ("cp -r", "rsync -a", "rsync -a --link-dest"):
                yield from _at_least(
                    f"{share} files, layout pack: {name}, against {peer}",
                    found.of(step, peer), found.of(step, PACK), 50,
                )  # fmt: skip
        for step, name in (("first", "first publish"), ("copy_new", "first copy")):
            yield from _at_most(
                f"{share} files, layout pack: {name}", found.of(step, PACK),
                found.of(step, FLOOR), 1.5, "one file",
            )  # fmt: skip
        for step, name in (("first", "first publish"), ("publish", "publish of B")):
            yield from _at_most(
                f"{share} files, layout tree: {name}", found.of(step, TREE),
                tree_floor(found, step, table), 1.5, "the floor",
            )  # fmt: skip


def tree_floor(found: Medians, step: str, table: dict[str, Any]) -> float | None:
    """What a plain tree cannot go below: its requests, as many at once as a client sends; or, when
    it is made, the entries of its largest directory, which a client makes one after the other."""
    samples = found.steps.get(step, {}).get(TREE)
    if not samples:
        return None
    read_s, write_s = table["read_us"] / 1e6, table["write_us"] / 1e6
    changing = frozenset(table["changing"])
    waits = sum(
        count * (write_s if name in changing else read_s)
        for name, count in samples[0]["requests"].items()
    )
    made = table["largest_directory"] if step in ("first", "publish") else 0
    return float(max(waits / WORKERS, made * write_s))
