"""Fixtures that many tests share; fakes are in fakes.py, trees in trees.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from trees import SITE, write_tree

# No deadline: two cores are shared with other jobs, and a slow example is no finding.
settings.register_profile(
    "moorline", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moorline")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small build with a bit of everything, as CI would have made it."""
    return write_tree(tmp_path / "site", SITE)


@pytest.fixture(params=["pack", "tree"])
def layout(request: pytest.FixtureRequest) -> str:
    """Each layout of a store in turn."""
    name: str = request.param
    return name
