"""Fixtures that many tests share; fakes are in fakes.py, trees in trees.py.

The hooks of counts.py and one_worker.py are imported here and nowhere else: with xdist only this
conftest is loaded in the process that hands out the tests and prints the summary.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from counts import Count, pytest_runtest_logreport, pytest_terminal_summary
from moorline import wanted
from one_worker import pytest_xdist_make_scheduler
from trees import SITE, write_tree
from world import World

__all__ = [
    "pytest_runtest_logreport",
    "pytest_terminal_summary",
    "pytest_xdist_make_scheduler",
]

# No deadline: two cores are shared with other jobs, and a slow example is no finding.
settings.register_profile(
    "moorline", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moorline")

# Else an agent that a test starts keeps code below /var/cache; zipapps.py gives it another place.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small build with a bit of everything, as CI would have made it."""
    return write_tree(tmp_path / "site", SITE)


@pytest.fixture(params=["pack", "tree"])
def layout(request: pytest.FixtureRequest) -> str:
    """Each layout of a store in turn."""
    name: str = request.param
    return name


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a short name, which every user may enter."""
    with tempfile.TemporaryDirectory(prefix="m.", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        monkeypatch.setattr(wanted, "HOST_FILE", str(folder / "etc-moorline.toml"))
        yield folder


@pytest.fixture
def world(here: Path) -> World:
    """An application with an empty store of layout pack."""
    return World(here)


@pytest.fixture
def tree_world(here: Path) -> World:
    """The same with layout tree, which mode link needs."""
    return World(here, "tree")


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Adds to the numbers that the session prints at its end, in one line: "tried: ..."."""
    return Count(request.node.user_properties)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def no_descriptor_is_lost() -> Iterator[None]:
    """Whatever fails, what was opened is closed. For `pytest.mark.usefixtures`."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
