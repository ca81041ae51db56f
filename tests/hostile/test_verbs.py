"""Every command, over a store, a target and bundles of which one file was damaged.

The exit code is a documented one, nothing is shown that a terminal would obey, nothing outside is
touched, and what is live is whole.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from counts import Count
from crash.invariants import Truth
from hostile.verbs import Field

DAMAGES = 45


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pack", "tree"])
def test_every_command_over_damaged_files(
    layout: str, here: Path, truth: Truth, count: Count
) -> None:
    field = Field(here, layout, truth)
    for seed in range(DAMAGES):
        count.add("commands over damaged files", field.run(Random(f"{layout} {seed}")))
