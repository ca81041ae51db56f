"""The three ways that `hashing.workers` chooses from, for tests that try them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moorline import hashing
from moorline.hashing import Job, Workers

WAYS: dict[str, Callable[[Job], Workers]] = {
    "inline": hashing._Inline,
    "threads": lambda job: hashing._Threads(job, count=3),
    "processes": lambda job: hashing._Processes(job, count=3),
}


def always(name: str) -> Callable[..., Workers]:
    """What stands for `workers`: one way, whatever the work."""

    def chosen(job: Job, **_: Any) -> Workers:
        return WAYS[name](job)

    return chosen
