"""With pytest-xdist's `--dist loadfile`: all tests of a folder that must not run beside each other
go to one worker, one after the other; and what takes long begins first. (xdist begins with the file
of the most tests, so that a file of few long ones kept one worker at the end.)

(Marks for `loadgroup` would do, but pytest-xdist 3.8.0 does not see them under pytest 9.2: issue
1386 of pytest-dev/pytest-xdist.)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # no stubs

TOGETHER = ("tests/nfs/",)
"""Machines of a rig are large, and two rigs at once would only slow each other down."""


FIRST = (
    *("tests/nfs/", "tests/crash/test_every_step.py", "tests/serving/", "tests/crash/"),
    *("tests/hostile/", "tests/baddisks/", "tests/test_benchmarks_run.py"),
)  # fmt: skip
"""What takes half a minute or more, longest first."""


def bring_forward(queue: OrderedDict[str, Any]) -> None:
    """Put what takes longest of all files and folders that wait to the front."""

    def turn(scope: str) -> int:
        return next((n for n, start in enumerate(FIRST) if scope.startswith(start)), len(FIRST))

    if queue:
        queue.move_to_end(min(queue, key=turn), last=False)


class LoadFolderScheduling(LoadFileScheduling):  # type: ignore[misc]  # untyped to mypy
    def _split_scope(self, nodeid: str) -> str:
        together = [folder for folder in TOGETHER if nodeid.startswith(folder)]
        return together[0] if together else str(super()._split_scope(nodeid))

    def _assign_work_unit(self, node: object) -> None:
        bring_forward(self.workqueue)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFolderScheduling | None:
    return LoadFolderScheduling(config, log) if config.getoption("dist") == "loadfile" else None
