"""How much was tried: each test counts, and the end of the session prints the sums.

The numbers travel in the tests' reports, so they arrive from the workers of xdist as well.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

_PREFIX = "tried: "
_sums: Counter[str] = Counter()


class Count:
    """The numbers of one test, by what was tried."""

    def __init__(self, properties: list[tuple[str, object]]) -> None:
        self._properties = properties
        self._sums: Counter[str] = Counter()

    def add(self, what: str, number: int = 1) -> None:
        self._sums[what] += number
        self._properties[:] = [p for p in self._properties if p[0] != _PREFIX + what]
        self._properties.append((_PREFIX + what, self._sums[what]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for name, number in report.user_properties:
            if name.startswith(_PREFIX) and isinstance(number, int):
                _sums[name[len(_PREFIX) :]] += number


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _sums:
        counts = ", ".join(f"{what}: {number:,}" for what, number in sorted(_sums.items()))
        terminalreporter.write_line(f"tried: {counts}")
