"""A disk that lets somebody act before one operation, and does all of them for real, syncs too."""

from __future__ import annotations

import os
from collections.abc import Callable

from moorline.disk import AnyPath, Disk


class SteppingDisk(Disk):
    """Calls `act` before operation `at`, counted from 0; `operations` are those so far."""

    forks = False

    def __init__(self, at: int = -1, act: Callable[[], object] = lambda: None) -> None:
        self.at = at
        self.act = act
        self.operations: list[str] = []

    def step(self, operation: str, path: AnyPath) -> None:
        if len(self.operations) == self.at:
            self.act()
        self.operations.append(f"{operation} {os.fsdecode(path)}")
