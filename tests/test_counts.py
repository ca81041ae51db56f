"""The sums of what was tried are printed once, whoever ran the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from counts import Count

ROOT = Path(__file__).resolve().parent.parent
TWO = (
    "tests/crash/test_every_step.py::test_whatever_happens_at_any_operation[init-pack]",
    "tests/crash/test_every_step.py::test_whatever_happens_at_any_operation[init-tree]",
)


def test_a_test_has_one_number_for_each_thing_that_it_tried() -> None:
    properties: list[tuple[str, object]] = []
    count = Count(properties)

    count.add("kills")
    count.add("kills", 4)
    count.add("faults", 2)

    assert properties == [("tried: kills", 5), ("tried: faults", 2)]


@pytest.mark.slow
def test_the_sums_of_all_workers_are_printed_once_before_the_last_line() -> None:
    told = [_printed("-n", workers, *TWO) for workers in ("2", "0")]

    sums = [re.findall(r"^tried: .*: (\d+)$", text, re.MULTILINE) for text in told]
    assert sums[0] == sums[1] and len(sums[0]) == 1
    assert all(text.strip().splitlines()[-1].startswith("=") for text in told)


def _printed(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    return run.stdout
