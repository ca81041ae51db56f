"""Python looks for cycles of dead objects whenever some hundred new ones were made.

What a large build is made of, a few hundred thousand tuples that all stay, is looked at again and
again: a fifth of the time that a publish takes after hashing.
"""

from __future__ import annotations

import contextlib
import gc


class uncollected(contextlib.ContextDecorator):
    """While this is entered, or the function decorated with it runs, nobody looks for cycles."""

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(gc.isenabled())
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._before.pop():
            gc.enable()
