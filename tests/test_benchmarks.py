"""Benchmarks: what may be said of results, the page, the rounds. The contenders run in
test_benchmarks_run.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import charts
from benchmarks.claims import duels, summary
from benchmarks.goals import PACK, TREE, Goal, Medians, goals, tree_floor
from benchmarks.measuring import Command, Failed, family_bytes, measure, peak_memory
from benchmarks.peers import Alone
from benchmarks.report import write_report
from benchmarks.results import add_section
from benchmarks.rounds import Comparison, Plan, Rounds, clean_environment
from benchmarks.scenario import STEPS, Contender, Site, Step, command
from benchmarks.trees import make_pair

MACHINE = {
    "cpu": "fast", "cores": 2, "kernel": "6.1", "file_system": "ext4", "memory_bytes": 8e9,
    "system": "Debian", "python": "3.11", "date": "2026-11-25",
    "versions": {"moorline": "moorline 0.1.0", "source": "abc1234"},
}  # fmt: skip


def sample(seconds: float, *, flush_s: float = 0.0, proof: str = "source", **more: Any) -> Any:
    return {
        "seconds": seconds, "flush_s": flush_s, "cpu_s": seconds, "written_bytes": 1000,
        "memory_bytes": 40e6, "inherited_bytes": 20e6, "proof": proof, **more,
    }  # fmt: skip


def comparison(steps: dict[str, dict[str, list[Any]]], floor: float = 1.0) -> dict[str, Any]:
    found = Comparison(floor=[floor], floor_cpu=[2 * floor], steps=steps)
    return {
        **asdict(found), "change": "One page.",
        "size": {"files": 10, "directories": 3, "bytes": 1000},
    }  # fmt: skip


def delayed(**requests: int) -> dict[str, Any]:
    """A latency part of one table, where our publish made these requests."""
    steps = {
        "publish": {
            PACK: [sample(1.0, requests=requests, at_once=1)],
            TREE: [sample(9.0, requests={"mkdir": 640, "getattr": 64}, at_once=8)],
            "cp -r": [sample(50.0, requests={"create": 99}, at_once=1)],
            "rsync -a": [sample(49.0, requests={"create": 99}, at_once=1)],
        }
    }
    table = {
        **comparison(steps), "largest_directory": 10, "read_us": 1000, "write_us": 2700,
        "changing": ["mkdir"], "delayed": comparison(steps), "at_once": comparison(steps),
    }  # fmt: skip
    return {"absent": "", "tables": [table]}


def page(folder: Path, sections: dict[str, Any]) -> str:
    for name, found in sections.items():
        part = {"found": found, "load": [0.1, 0.2], "seconds": 3.0}
        add_section(folder / "results.json", name, part, MACHINE)
    write_report(json.loads((folder / "results.json").read_text()), folder / "docs")
    return (folder / "docs/benchmarks.md").read_text()


# -- what may be said -----------------------------------------------------------------------------


def verdicts(sections: dict[str, Any]) -> dict[str, bool]:
    return {goal.what: goal.met for goal in goals(sections)}


@pytest.mark.parametrize(("seconds", "met"), [(0.6, True), (0.61, False)])
def test_a_goal_is_met_up_to_its_limit(seconds: float, met: bool) -> None:
    found = comparison({"publish": {PACK: [sample(seconds)]}})
    assert verdicts({"gatsby": found}) == {"publish B after A, layout pack": met}


def test_a_goal_is_judged_by_the_median() -> None:
    found = comparison({"publish": {PACK: [sample(0.5), sample(9.0), sample(0.4)]}})
    assert verdicts({"gatsby": found}) == {"publish B after A, layout pack": True}


def test_no_goal_without_a_measurement() -> None:
    assert goals({"gatsby": comparison({"first": {"cp -a": [sample(1.0)]}})}) == []


@pytest.mark.parametrize(("theirs", "met"), [(20.0, True), (19.0, False)])
def test_the_pipeline_counts_one_publish_and_eight_deploys(theirs: float, met: bool) -> None:
    steps = {
        step: {PACK: [sample(1.0)], "classic zip, a folder": [sample(theirs)]}
        for step in ("publish", "copy")
    }
    (what,) = [what for what in verdicts({"gatsby": comparison(steps)}) if "8 targets" in what]
    assert verdicts({"gatsby": comparison(steps)})[what] is met


def test_sixty_requests_are_too_many() -> None:
    assert not verdicts({"latency": delayed(create=59, mkdir=1)})[
        "share with latency, 10 files, layout pack: publish of B"
    ]
    assert verdicts({"latency": delayed(create=59)})[
        "share with latency, 10 files, layout pack: publish of B"
    ]


def test_fifty_times_faster_than_each_peer() -> None:
    found = verdicts({"latency": delayed(create=1)})
    assert found["share with latency, 10 files, layout pack: publish of B, against cp -r"]
    assert not found["share with latency, 10 files, layout pack: publish of B, against rsync -a"]


def test_the_floor_of_a_tree_is_its_waits_or_its_largest_directory() -> None:
    (table,) = delayed()["tables"]
    found = Medians(table["delayed"])
    assert tree_floor(found, "publish", table) == pytest.approx((640 * 2.7 + 64) / 64 / 1000)
    assert tree_floor(found, "publish", {**table, "largest_directory": 3000}) == 8.1


def test_a_duel_counts_the_flush_that_is_still_due() -> None:
    rows = {PACK: [sample(1.0)], "rsync": [sample(0.9, flush_s=0.2)]}
    (duel,) = duels(comparison({"publish": rows}))
    assert duel.won


def test_layout_tree_speaks_for_links_and_layout_pack_for_the_rest() -> None:
    rows = {PACK: [sample(1.0)], TREE: [sample(3.0)], "ostree": [sample(2.0)]}
    found = {duel.step: duel.won for duel in duels(comparison({"publish": rows, "link": rows}))}
    assert found == {"publish": True, "link": False}


def test_the_summary_names_who_is_faster_and_who_is_not() -> None:
    rows = {PACK: [sample(1.0)], "rsync": [sample(2.0)], "restic": [sample(0.5)]}
    text = "\n".join(summary({"gatsby": comparison({"publish": rows})}, []))
    assert "faster than rsync at every step that both do" in text
    assert "slower than restic at 1 of 1 steps (publish: 2.0 x its time)" in text


def test_a_bare_link_back_is_no_rollback_to_compare_with() -> None:
    rows = {PACK: [sample(1.0)], "rsync": [sample(0.5, proof="nothing")]}
    text = "\n".join(summary({"gatsby": comparison({"rollback": rows, "publish": rows})}, []))
    assert "slower than rsync at 1 of 1 steps (publish: 2.0 x its time, which proves" in text


def test_the_summary_counts_the_goals() -> None:
    reached = [Goal("a", "", "", True), Goal("b", "", "", False)]
    assert summary({}, reached) == ["1 of the 2 numbers that the design promises are reached."]


# -- the page -------------------------------------------------------------------------------------


def test_the_page_holds_every_step_and_names_what_is_absent(tmp_path: Path) -> None:
    rows = {PACK: [sample(1.0), sample(3.0)], "rsync": [sample(2.0, proof="nothing")]}
    found = comparison({step: rows for step in STEPS})
    found["absent"], found["failed"] = {"casync": ["casync"]}, {"ostree": "no space\nat all"}
    text = page(tmp_path, {"gatsby": found})
    assert all(f"### {title}\n" in text for title in STEPS.values())
    assert "Absent: casync (casync is not installed)." in text
    assert "Failed: ostree: no space\n" in text
    assert "| **moorline pack** | 2 | 2.00 (1.00-3.00) |" in text


def test_each_chart_of_the_page_exists(tmp_path: Path) -> None:
    rows = {PACK: [sample(1.0)], "rsync": [sample(2.0)]}
    text = page(tmp_path, {"gatsby": comparison({"publish": rows, "copy": rows})})
    shown = re.findall(r"\((\S+\.svg)\)", text)
    assert len(shown) == 2
    assert sorted(shown) == sorted(path.name for path in (tmp_path / "docs").glob("*.svg"))


def test_memory_below_what_the_starter_hands_down_is_not_claimed(tmp_path: Path) -> None:
    small = sample(1.0) | {"memory_bytes": 20e6}
    text = page(
        tmp_path, {"gatsby": comparison({"publish": {PACK: [sample(1)], "cp -a": [small]}})}
    )
    assert "| under 20 MB |" in text
    assert "| 40 MB |" in text


def test_a_share_that_cannot_be_simulated_is_said(tmp_path: Path) -> None:
    text = page(tmp_path, {"latency": {"absent": "no /dev/fuse", "tables": []}})
    assert "Not measured: no /dev/fuse." in text


def test_the_page_of_latency_has_requests(tmp_path: Path) -> None:
    text = page(tmp_path, {"latency": delayed(create=1234)})
    assert re.search(r"\*\*moorline pack\*\* \| 1 \| 1\.00 \|.*\| 1,234 \|", text)


def test_parts_of_another_machine_do_not_stay_beside_new_ones(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    part = {"found": {}, "load": [0, 0], "seconds": 1}
    add_section(results, "small", part, MACHINE)
    add_section(results, "week", part, MACHINE)
    assert list(json.loads(results.read_text())["sections"]) == ["small", "week"]
    add_section(results, "memory", part, {**MACHINE, "cpu": "slow"})
    assert list(json.loads(results.read_text())["sections"]) == ["memory"]


SVG = "{http://www.w3.org/2000/svg}"


def numbers(svg: str, shape: str, name: str) -> list[float]:
    found = ElementTree.fromstring(svg).iter(SVG + shape)
    return [float(each.get(name, "0")) for each in found]


def corners(svg: str) -> list[tuple[float, float]]:
    lines = ElementTree.fromstring(svg).iter(SVG + "polyline")
    points = [point for line in lines for point in line.get("points", "").split()]
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points)]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("points", [[(1, 1)], [(10, 0.02), (1000, 30)], [(1, 7), (2, 7)]])
def test_lines_stay_in_their_frame(points: list[tuple[float, float]], log: bool) -> None:
    drawn = charts.lines("<title>", "x & y", "s", {"one": points, "two": points}, log=log)
    width, height = numbers(drawn, "rect", "width")[0], numbers(drawn, "rect", "height")[0]
    assert len(corners(drawn)) == 2 * len(points)
    assert all(0 < x < width and 0 < y < height for x, y in corners(drawn))


def test_a_larger_value_is_higher_and_further_right() -> None:
    (x1, y1), (x2, y2) = corners(charts.lines("t", "x", "y", {"a": [(1, 10), (2, 20)]}))
    assert x2 > x1
    assert y2 < y1


def test_bars_are_as_long_as_their_values_and_ours_stands_out() -> None:
    drawn = charts.bars("t", "s", {"other": 4.0, "our way": 1.0}, "our")
    _, ours, other = numbers(drawn, "rect", "width")
    assert other == 4 * ours
    assert drawn.index(">our way<") < drawn.index(">other<")
    _, own, peer = (rect.get("fill") for rect in ElementTree.fromstring(drawn).iter(SVG + "rect"))
    assert own != peer


# -- rounds ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copying(Alone):
    """Copies B to where it says; `argv` may be something else, which fails or does less."""

    name: str
    argv: tuple[str, ...] = ("cp", "-a")
    slow: bool = False
    programs: tuple[str, ...] = ("cp",)

    def steps(self, site: Site) -> Iterator[Step]:
        copy = command(*self.argv, site.b, site.work / "made")
        yield Step("copy", (copy,), makes=site.work / "made", like=site.b, also=("copy_new",))
        yield Step("list", (command("ls", site.b),), slow=True)


def run_rounds(folder: Path, plan: Plan, *contenders: Contender) -> tuple[Comparison, list[str]]:
    said: list[str] = []
    pair = make_pair("gatsby", folder, scale=0.001)
    return Rounds(pair, folder, said.append).run(contenders, plan), said


def counts(found: Comparison, step: str) -> dict[str, int]:
    return {name: len(samples) for name, samples in found.steps[step].items()}


def test_slow_contenders_and_slow_steps_take_part_in_fewer_rounds(tmp_path: Path) -> None:
    quick, slow = Copying("quick"), Copying("slow", slow=True)
    found, said = run_rounds(tmp_path, Plan(3, 1), quick, slow)
    assert counts(found, "copy") == {"quick": 3, "slow": 1}
    assert counts(found, "list") == {"quick": 1, "slow": 1}
    assert len(found.floor) == len(said) == 4


def test_on_a_large_build_every_peer_is_slow(tmp_path: Path) -> None:
    ours, peer = Copying("moorline pack"), Copying("peer")
    found, _ = run_rounds(tmp_path, Plan(2, 1, large=True), ours, peer)
    assert counts(found, "copy") == {"moorline pack": 2, "peer": 1}


def test_the_same_work_counts_for_both_steps(tmp_path: Path) -> None:
    found, _ = run_rounds(tmp_path, Plan(1, 1), Copying("one"))
    assert found.steps["copy_new"] == found.steps["copy"]


def test_contenders_take_turns_in_being_the_first(tmp_path: Path) -> None:
    _, said = run_rounds(tmp_path, Plan(2, 2), Copying("one"), Copying("two"))
    assert [line.split(": ")[1] for line in said] == ["one", "two", "two", "one"]


def test_no_new_round_after_the_time_is_up_but_one(tmp_path: Path) -> None:
    found, said = run_rounds(tmp_path, Plan(3, 3, until=0), Copying("one"))
    assert counts(found, "copy") == {"one": 1}
    assert said[-1] == "gatsby: no time for round 2 of 3"


@pytest.mark.parametrize("argv", [("false",), ("mkdir",), ("cp", "-a", "-t", "/nowhere")])
def test_who_does_not_make_the_build_has_failed_and_the_rest_goes_on(
    tmp_path: Path, argv: tuple[str, ...]
) -> None:
    """mkdir ends well and quickly: an empty folder is not B."""
    found, _ = run_rounds(tmp_path, Plan(2, 2), Copying("bad", argv), Copying("good"))
    assert list(found.failed) == ["bad"]
    assert counts(found, "copy") == {"good": 2}


def test_a_result_with_a_changed_byte_has_failed(tmp_path: Path) -> None:
    spoil = 'cp -a "$0" "$1" && printf X | dd of="$1/index.html" conv=notrunc status=none'
    found, _ = run_rounds(tmp_path, Plan(1, 1), Copying("bad", ("sh", "-c", spoil)))
    assert "index.html" in found.failed["bad"]


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    gone = Copying("gone", programs=("no-such-program",))
    found, _ = run_rounds(tmp_path, Plan(1, 1), gone)
    assert found.absent == {"gone": ("no-such-program",)}
    assert found.steps == {}


# -- one program ----------------------------------------------------------------------------------


def test_a_program_is_measured_with_its_children(tmp_path: Path) -> None:
    write = "head -c 3000000 /dev/zero > zeros; sync zeros; exit 0"
    found = measure(Command(("sh", "-c", write)), tmp_path, clean_environment(tmp_path))
    assert (tmp_path / "zeros").stat().st_size == 3_000_000
    assert found.seconds > 0
    assert found.memory_bytes >= found.inherited_bytes > 0


def test_memory_is_that_of_all_processes() -> None:
    take = "import os; b = b'x' * 40_000_000; os.write(1, b'taken,'); input()"
    one = f'{sys.executable} -c "{take}" <&3'
    both = f"exec 3<&0; {one} & {one}; wait"
    shell = subprocess.Popen(("sh", "-c", both), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with shell:
        assert shell.stdin and shell.stdout
        assert shell.stdout.read(12) == b"taken,taken,"
        assert 80_000_000 < family_bytes(shell.pid) < 200_000_000
        shell.communicate(b"end\nend\n")


def test_the_peak_is_no_less_than_the_largest_process(tmp_path: Path) -> None:
    take = Command((sys.executable, "-c", "b = b'x' * 40_000_000"))
    found = peak_memory(take, tmp_path, clean_environment(tmp_path))
    assert 40_000_000 < found.largest_bytes <= found.all_bytes


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    told = Command(("sh", "-c", "echo no room >&2; exit 3"))
    with pytest.raises(Failed, match=r"(?s)ended with 3:\nno room"):
        measure(told, tmp_path, clean_environment(tmp_path))


# -- builds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gatsby", "node_modules"])
def test_builds_are_the_same_for_one_seed_and_differ_where_they_say(
    tmp_path: Path, shape: str
) -> None:
    one = make_pair(shape, tmp_path / "one", scale=0.005)
    other = make_pair(shape, tmp_path / "other", scale=0.005)
    assert contents(one.a) == contents(other.a)
    assert contents(one.b) == contents(other.b)
    a, b = contents(one.a), contents(one.b)
    changed = {path for path in b if b[path] != a.get(path)}
    assert 3 <= len(changed) < len(b) / 2
    assert a.keys() <= b.keys()


def contents(root: Path) -> dict[str, tuple[bytes, float]]:
    return {
        os.path.relpath(path, root): (path.read_bytes(), path.stat().st_mtime)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
