"""Progress on stderr: a plain line every few seconds in a log. (On a terminal: `screen.Bar`.)

A meter is called as `scan.Progress` is: bytes done, bytes in all (0: not known), what is done,
and files done.
It has no thread of its own, because the library forks worker processes; whoever calls it draws it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

from moorline.wording import amount

LINE_EVERY_S = 5.0

Clock = Callable[[], float]


class Pace:
    """How far one piece of work is, as text: what, done of total, speed, what is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started = clock()
        self.what = ""
        self.done = 0

    def note(self, done: int, what: str) -> float:
        """The time; some callers are called ten thousand times a second, and show little of it."""
        now = self._clock()
        if what != self.what or done < self.done:
            self.what, self.started = what, now
        self.done = done
        return now

    def text(self, done: int, total: int, files: int = 0) -> str:
        """Of what was noted last."""
        elapsed_s = self._clock() - self.started
        speed = done / elapsed_s if elapsed_s > 0 else 0.0
        parts = [f"{amount(done)} of {amount(total)}" if total else amount(done)]
        if speed:
            parts.append(f"{speed / 1e6:,.1f} MB/s")
        if files and elapsed_s > 0:
            parts.append(f"{files / elapsed_s:,.0f} files/s")
        if speed and total > done:
            parts.append(f"{(total - done) / speed:,.0f} s left")
        return ", ".join(parts)


class Meter(Protocol):
    """Shows progress; `close` takes it off the screen."""

    def __call__(self, done: int, total: int, what: str, files: int = 0, /) -> None: ...
    def close(self) -> None: ...


class Silent:
    """For --quiet."""

    def __call__(self, done: int, total: int, what: str, files: int = 0, /) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """For a log: one plain line every LINE_EVERY_S seconds, none for what is over sooner."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pace = Pace(clock)
        self._last = clock()

    def __call__(self, done: int, total: int, what: str, files: int = 0, /) -> None:
        now = self._pace.note(done, what)
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            text = self._pace.text(done, total, files)
            self._stream.write(f"{what}: {text}\n" if done or total else f"{what}\n")
            self._stream.flush()

    def close(self) -> None:
        pass
