"""The configurations of docs/serving.md, for a target of a test: what is tested is what is told."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
ROOT = "/srv/shop"
"""The target in the page."""


def recipe(name: str, root: Path) -> str:
    """The block of the page whose first line is a comment that says `name`, for the target `root`.

    What it says about port 80 is for `daemons.nginx` to replace.
    """
    blocks = re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (found,) = [block for block in blocks if re.match(rf"(?:#|//|;) {re.escape(name)}\b", block)]
    assert isinstance(found, str)
    return found.replace(ROOT, str(root))


def hooks_of(name: str, instead: Mapping[tuple[str, ...], Sequence[str]]) -> dict[str, Any]:
    """The hooks of such a block, with other commands in place of those of a whole system."""
    hooks: dict[str, Any] = tomllib.loads(recipe(name, Path(ROOT)))["hooks"]
    for hook in (hook for moment in hooks.values() for hook in moment):
        hook["run"] = list(instead[tuple(hook["run"])])
    return hooks
