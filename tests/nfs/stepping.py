"""A disk that lets somebody act before one operation, and does all of them for real, syncs too."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from moorline.disk import AnyPath, Disk

Moment = int | re.Pattern[str]


class SteppingDisk(Disk):
    """Calls `act` once: before operation `at`, counted from 0, or after the first one that a
    pattern matches. `operations` are those so far, `before` is the one that it came before."""

    forks = False

    def __init__(self, at: Moment = -1, act: Callable[[], object] = lambda: None) -> None:
        self.at = at
        self.act = act
        self.operations: list[str] = []
        self.before = ""

    def step(self, operation: str, path: AnyPath) -> None:
        text = f"{operation} {os.fsdecode(path)}"
        if not self.before and self._is_due():
            self.before = text
            self.act()
        self.operations.append(text)

    def _is_due(self) -> bool:
        if isinstance(self.at, int):
            return len(self.operations) == self.at
        return bool(self.operations and self.at.fullmatch(self.operations[-1]))
