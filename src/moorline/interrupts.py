"""Ctrl-C and SIGTERM wait while a process is forked.

The interpreter runs work of its own around a fork (locks of `logging`, the random numbers), and
what is raised there is printed and lost: a Ctrl-C at that moment would go unheard, and a child
would begin with the exception of its parent.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Optional

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Held:
    """From here until `release` both signals are only noted; then what came is handled. Parent and
    child both release, where they are ready for an exception."""

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # only there are they handled
            for number in _ENDING:
                self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self._noted.append(number)

    def fork(self) -> int:
        try:
            return os.fork()
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in self._noted:
            os.kill(os.getpid(), number)
