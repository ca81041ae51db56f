"""With pytest-xdist's `--dist loadfile`: all tests of a folder that must not run beside each other
go to one worker, one after the other.

(Marks for `loadgroup` would do, but pytest-xdist 3.8.0 does not see them under pytest 9.2: issue
1386 of pytest-dev/pytest-xdist.)
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # no stubs

TOGETHER = ("tests/nfs/",)
"""Machines of a rig are large, and two rigs at once would only slow each other down."""


class LoadFolderScheduling(LoadFileScheduling):  # type: ignore[misc]  # untyped to mypy
    def _split_scope(self, nodeid: str) -> str:
        together = [folder for folder in TOGETHER if nodeid.startswith(folder)]
        return together[0] if together else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFolderScheduling | None:
    return LoadFolderScheduling(config, log) if config.getoption("dist") == "loadfile" else None
