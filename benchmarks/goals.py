"""The numbers that the design promises, each beside what this run measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

PACK, TREE = "moorline pack", "moorline tree"
CLASSIC = "classic zip, a folder"
TARGETS = 8  # four stages of two targets
BUNDLE_BYTES = 1_000
PEAK_BYTES = 150 * 10**6
STARTUP_CPU_S = 0.15
SWITCH_MS = 5


@dataclass(frozen=True)
class Goal:
    """`met` is None where this run did not measure it."""

    what: str
    limit: str
    measured: str
    met: bool


class Medians:
    """The medians of one shape's steps."""

    def __init__(self, shape: dict[str, Any]) -> None:
        self.floor = median(shape["floor"])
        self.steps: dict[str, dict[str, list[dict[str, Any]]]] = shape["steps"]

    def of(self, step: str, contender: str, field: str = "seconds") -> float | None:
        samples = self.steps.get(step, {}).get(contender, [])
        values = [sample[field] for sample in samples if field in sample]
        return median(values) if values else None

    def seconds(self, step: str, contender: str) -> float:
        value = self.of(step, contender)
        if value is None:
            raise KeyError(f"{contender} has no step {step}")
        return value

    def durable(self, step: str, contender: str) -> float:
        """Seconds until the result is on the disk."""
        return self.seconds(step, contender) + (self.of(step, contender, "flush_s") or 0)


def goals(sections: dict[str, Any]) -> list[Goal]:
    """Every goal that these results can answer, in the design's order."""
    found: list[Goal] = []
    if "gatsby" in sections:
        found += _of_gatsby(Medians(sections["gatsby"]))
    if "node_modules" in sections:
        found += _of_node_modules(Medians(sections["node_modules"]))
    if "small" in sections:
        found += _of_small(sections["small"])
    if "week" in sections:
        found += _of_week(sections["week"])
    if "memory" in sections:
        found += _of_memory(sections["memory"])
    return found


def _times(what: str, seconds: float, floor: float, most: float, unit: str = "T") -> Goal:
    ratio = seconds / floor
    measured = f"{ratio:.2f} {unit} ({seconds:.2f} s)"
    return Goal(what, f"at most {most:.1f} {unit}", measured, ratio <= most)


def _of_gatsby(found: Medians) -> Iterator[Goal]:
    floor = found.floor
    limits = (
        ("publish B after A, layout pack", "publish", PACK, 0.6),
        ("publish B after A, layout tree", "publish", TREE, 1.0),
        ("deploy B as a copy, target serves A", "copy", PACK, 1.0),
        ("deploy B as a link, fully verified", "link", TREE, 0.6),
    )
    for what, step, contender, most in limits:
        yield _times(what, found.seconds(step, contender), floor, most)
    if found.of("first", "cp -a") is not None:
        against = found.seconds("first", "cp -a") + floor
        first = found.seconds("first", PACK)
        yield _times("first publish, layout pack", first, against, 1.3, "(cp -a + T)")
    if found.of("publish", CLASSIC) is not None:
        yield _of_pipeline(found)


def _of_pipeline(found: Medians) -> Goal:
    """Computed: one publish and eight deploys, of both ways."""
    mine = found.seconds("publish", PACK) + TARGETS * found.seconds("copy", PACK)
    theirs = found.seconds("publish", CLASSIC) + TARGETS * found.seconds("copy", CLASSIC)
    times = theirs / mine
    return Goal(
        f"one edit to {TARGETS} targets, computed from the medians, against the classic way",
        "at least 20 x faster", f"{times:.1f} x ({mine:.1f} s and {theirs:.0f} s)", times >= 20,
    )  # fmt: skip


def _of_node_modules(found: Medians) -> Iterator[Goal]:
    floor = found.floor
    yield _times("60,000 files: publish B", found.seconds("publish", PACK), floor, 1.2)
    yield _times("60,000 files: copy, serving A", found.seconds("copy", PACK), floor, 2.0)


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
    for layout, most in (("pack", 1.1), ("tree", 3.2)):
        row = week[layout][min(40, len(week[layout]) - 1)]
        if "store_bytes" in row:
            one = week["site_disk_bytes"]
            times = row["store_bytes"] / (one + row["site_bytes"] - week["site"]["bytes"])
            yield Goal(
                f"store after 40 builds, layout {layout}", f"under {most} x one build",
                f"{times:.2f} x", times < most,
            )  # fmt: skip


def _of_memory(rows: list[dict[str, Any]]) -> Iterator[Goal]:
    worst = max(rows, key=lambda row: int(row["all_bytes"]))
    size = worst["all_bytes"]
    yield Goal(
        f"peak memory at {worst['files']:,} files ({worst['step']}, layout {worst['layout']})",
        f"under {PEAK_BYTES // 10**6} MB", f"{size / 1e6:.0f} MB", size < PEAK_BYTES,
    )  # fmt: skip


def slower_than_a_peer(sections: dict[str, Any]) -> list[str]:
    """Each step at which a peer was faster, the flush counted for both: the honest part."""
    lines = []
    for shape in ("gatsby", "node_modules", "named"):
        if shape in sections:
            found = Medians(sections[shape])
            lines += [line for step in found.steps if (line := _slower(shape, found, step))]
    return lines


def _slower(shape: str, found: Medians, step: str) -> str:
    rows = found.steps[step]
    own = [found.durable(step, name) for name in (PACK, TREE) if name in rows]
    faster = [
        f"{name} {found.durable(step, name):.2f} s (proves {rows[name][0]['proof'] or 'nothing'})"
        for name in rows
        if own and not name.startswith("moorline") and found.durable(step, name) < min(own)
    ]
    return f"{shape}, {step}, ours {min(own):.2f} s: {', '.join(faster)}" if faster else ""
