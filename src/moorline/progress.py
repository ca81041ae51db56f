"""How long work tells what it does: a function that is called now and then."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with bytes done, bytes in all (0: not known), what is being done, and files done."""

    def __call__(self, done: int, total: int, what: str, files: int = 0, /) -> None: ...


def no_progress(done: int, total: int, what: str, files: int = 0, /) -> None:
    """Progress that nobody looks at."""
