"""What the tests of this folder share: the ground and the truth of the crash tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.conftest import here, truth
from hostile.attacks import Outside

__all__ = ["here", "truth"]


@pytest.fixture
def outside(here: Path) -> Outside:
    """A folder beside the store and the target, which none of their programs may touch."""
    return Outside(here / "outside")
