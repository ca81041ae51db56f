"""Wait for an event, never for a time: what does not come meets pytest's own limit."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from nfs.guest import Running


def until(condition: Callable[[], bool], running: Running | None = None) -> None:
    """Wait for a moment, in the middle of `running`."""
    while not condition():
        if running is not None and running.answered.is_set():
            pytest.fail(f"it ended too early: {running.wait()}")
        time.sleep(0.02)
