"""End a process without taking the interpreter apart first.

At its end Python frees every module, function and object one by one, to give the memory to a
kernel that takes it anyway: 15 ms of the 70 that a small command takes.
"""

from __future__ import annotations

import contextlib
import os
import sys


def leave(code: int) -> None:
    """Exit with `code`, now. Never returns.

    For a program whose work is done: what it wrote is closed, its children have ended, and no
    thread does anything that counts. Whoever prints looks at the errors of printing there; what is
    left to flush here is what a library printed.
    """
    for stream in (sys.stdout, sys.stderr):  # each may be None, closed or full
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)
