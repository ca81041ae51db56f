"""What may be said of the results: computed from them, never typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.goals import FLOOR, PACK, TREE, Goal, Medians
from benchmarks.scenario import STEPS

SHORT = {
    "first": "first publish", "publish": "publish", "copy_new": "first copy", "copy": "copy",
    "link": "link", "verify": "verify", "rollback": "rollback", "remove": "removal", "list": "list",
}  # fmt: skip
SHAPES = ("gatsby", "node_modules", "named")


@dataclass(frozen=True)
class Duel:
    """Moorline and one peer at one step. Seconds until the result is on the disk."""

    step: str
    peer: str
    mine_s: float
    theirs_s: float
    proof: str

    @property
    def won(self) -> bool:
        return self.mine_s < self.theirs_s


def own(step: str) -> str:
    """The contender that speaks for Moorline: layout pack, the default; links need layout tree."""
    return TREE if step == "link" else PACK


def duels(comparison: dict[str, Any]) -> list[Duel]:
    """Every step that a peer does as well."""
    found = Medians(comparison)
    return [
        Duel(step, peer, mine, theirs, samples[0]["proof"] or "nothing")
        for step in STEPS
        for peer, samples in found.steps.get(step, {}).items()
        if not peer.startswith("moorline") and peer != FLOOR
        if (mine := found.durable(step, own(step))) is not None
        and (theirs := found.durable(step, peer)) is not None
    ]


def by_peer(comparison: dict[str, Any]) -> dict[str, list[Duel]]:
    found: dict[str, list[Duel]] = {}
    for duel in duels(comparison):
        found.setdefault(duel.peer, []).append(duel)
    return found


def summary(sections: dict[str, Any], reached: list[Goal]) -> list[str]:
    """The first lines of the page."""
    lines = []
    if reached:
        met = sum(goal.met for goal in reached)
        lines.append(f"{met} of the {len(reached)} numbers that the design promises are reached.")
    for shape in SHAPES:
        if shape in sections:
            lines += _of_shape(shape, sections[shape])
    for table in sections.get("latency", {}).get("tables", []):
        lines += _of_latency(table)
    return lines


def _of_shape(shape: str, comparison: dict[str, Any]) -> Iterator[str]:
    name = f"{shape}, {comparison['size']['files']:,} files"
    found = Medians(comparison)
    for step in ("publish", "copy"):
        mine = found.of(step, PACK)
        if mine is not None and found.floor:
            line = f"{name}: {STEPS[step]}: {mine:.2f} s, {mine / found.floor:.2f} x the time that "
            yield line + f"hashing all its files takes. {_times_others(found, step, mine)}"
    yield from _won_and_lost(name, by_peer(comparison))


def _won_and_lost(name: str, peers: dict[str, list[Duel]]) -> Iterator[str]:
    """A bare `ln` back to a build that nobody looks at is not what a rollback of ours does."""
    fair = {
        peer: [duel for duel in fought if duel.step != "rollback" or duel.proof != "nothing"]
        for peer, fought in peers.items()
    }
    lost = {peer: [duel for duel in fought if not duel.won] for peer, fought in fair.items()}
    won = [peer for peer, fought in fair.items() if fought and not lost[peer]]
    if won:
        yield (
            f"{name}: faster than {_and(won)} at every step that both do, until the result is on "
            "the disk (but for the way back to A where that is a bare `ln`, which proves nothing)."
        )
    slower = [_lost(peer, fought) for peer, fought in fair.items() if lost[peer]]
    if slower:
        yield f"{name}: slower than {_and(slower)}."


def _lost(peer: str, fought: list[Duel]) -> str:
    lost = [duel for duel in fought if not duel.won]
    worst = max(lost, key=lambda duel: duel.mine_s / duel.theirs_s)
    times = worst.mine_s / worst.theirs_s
    proved = ", which proves nothing" if worst.proof == "nothing" else ""
    return (
        f"{peer} at {len(lost)} of {len(fought)} steps ({SHORT[worst.step]}: {times:.1f} x its "
        f"time{proved})"
    )


def _times_others(found: Medians, step: str, mine: float) -> str:
    others = {
        peer: seconds / mine
        for peer in found.steps[step]
        if not peer.startswith("moorline") and (seconds := found.of(step, peer)) is not None
    }
    if not others:
        return ""
    ordered = sorted(others.items(), key=lambda item: item[1])
    return "In its place: " + ", ".join(f"{peer} {times:.1f} x" for peer, times in ordered) + "."


def _of_latency(table: dict[str, Any]) -> Iterator[str]:
    found = Medians(table["delayed"])
    for step in ("publish", "copy"):
        mine, asked = found.of(step, PACK), found.requests(step, PACK)
        if mine is not None:
            yield (
                f"A share with EFS's latency, {table['size']['files']:,} files: {STEPS[step]}: "
                f"{mine:.2f} s and {asked:.0f} requests. {_times_others(found, step, mine)}"
            )


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
