"""The whole of `python -m benchmarks` on tiny builds, so that it cannot rot unseen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nfs import needs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
# The agent keeps its code in /var/cache where root runs it: here in one that vanishes.
OWN_CACHE = ("unshare", "--mount", "--propagation", "private", "sh", "-c",
             'mount -t tmpfs none /var/cache && exec "$@"', "sh")  # fmt: skip


def bench(folder: Path, *argv: str) -> dict[str, Any]:
    """What the parts have found; the page is beside it."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    options = ["--rounds", "1", "--scale", "0.002", "--work", str(work), "--docs", str(folder)]
    results = folder / "results.json"
    command = [*(() if os.geteuid() else OWN_CACHE), sys.executable, "-m", "benchmarks"]
    command += [*options, "--results", str(results), *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stderr, done.stderr
    assert os.listdir(work) == []
    sections: dict[str, Any] = json.loads(results.read_text())["sections"]
    return {name: section["found"] for name, section in sections.items()}


def test_moorline_is_compared_with_cp_and_rsync(tmp_path: Path) -> None:
    found = bench(tmp_path, "--only", "moorline,cp -a,rsync", "gatsby", "small")

    steps = found["gatsby"]["steps"]
    both = {"moorline pack", "moorline tree"}
    assert both | {"cp -a", "rsync"} == set(steps["publish"]) == set(steps["copy"])
    assert both == set(steps["steady"])
    assert {"moorline tree"} == set(steps["link"])
    (kept,) = steps["publish"]["moorline pack"]
    assert 0 < kept["grown_bytes"] < steps["publish"]["cp -a"][0]["grown_bytes"]
    assert 0 < found["small"]["bundle_bytes"] <= 1000
    page = (tmp_path / "benchmarks.md").read_text()
    assert "## Against each of the others" in page
    assert "| switch alone | under 5 ms |" in page


def test_what_grows_is_measured_and_drawn(tmp_path: Path) -> None:
    found = bench(tmp_path, "growth", "week", "memory")

    assert {row["percent"] for row in found["growth"]} == {None, 1, 10, 100}
    assert [len(found["week"][layout]) for layout in ("pack", "tree")] == [40, 40]
    assert all(1 <= row["packs"] <= 4 for row in found["week"]["pack"])
    assert all(0 < row["largest_bytes"] <= row["all_bytes"] for row in found["memory"])
    page = (tmp_path / "benchmarks.md").read_text()
    assert {path.name for path in tmp_path.glob("*.svg")} == set(re.findall(r"\((\S+svg)\)", page))


def test_the_page_is_written_again_from_the_results(tmp_path: Path) -> None:
    bench(tmp_path, "--only", "cp -a", "gatsby")
    results, page = tmp_path / "results.json", tmp_path / "benchmarks.md"
    before = json.loads(results.read_text())["sections"]
    page.unlink()
    command = [sys.executable, "-m", "benchmarks", "report", "--results", str(results)]
    subprocess.run([*command, "--docs", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    assert list(before) == ["gatsby"]
    assert "gatsby" in page.read_text()


def test_a_share_with_latency(tmp_path: Path) -> None:
    needs.need_fuse()
    found = bench(tmp_path, "--only", "moorline pack,one file,md5sum -c", "latency")

    (table,) = found["latency"]["tables"]
    requests = table["delayed"]["steps"]["publish"]["moorline pack"][0]["requests"]
    assert requests["create"] > 0
    assert set(table["delayed"]["steps"]["verify"]) == {
        "moorline pack", "one file of that size", "md5sum -c",
    }  # fmt: skip
    assert table["delayed"]["failed"] == table["at_once"]["failed"] == {}
    assert "## On a share with EFS's latency" in (tmp_path / "benchmarks.md").read_text()
