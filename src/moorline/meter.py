"""Progress on stderr: a bar on a terminal, a plain line every few seconds in a log.

A meter is called as `scan.Progress` is: bytes done, bytes in all (0: not known), what is done.
It has no thread of its own, because the library forks worker processes; whoever calls it draws it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from moorline.wording import amount

BAR_AFTER_S = 0.5
BAR_EVERY_S = 0.1
LINE_EVERY_S = 5.0

Clock = Callable[[], float]


class _Pace:
    """How far one piece of work is, as text: what, done of total, speed, what is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started = clock()
        self.what = ""
        self.done = 0

    def text(self, done: int, total: int, what: str) -> str:
        now = self._clock()
        if what != self.what or done < self.done:
            self.what, self.started, self.done = what, now, 0
        self.done = done
        elapsed_s = now - self.started
        speed = done / elapsed_s if elapsed_s > 0 else 0.0
        parts = [f"{amount(done)} of {amount(total)}" if total else amount(done)]
        if speed:
            parts.append(f"{speed / 1e6:,.1f} MB/s")
            if total > done:
                parts.append(f"{(total - done) / speed:,.0f} s left")
        return ", ".join(parts)


class Silent:
    """For --quiet."""

    def __call__(self, done: int, total: int, what: str) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """For a log: one plain line every LINE_EVERY_S seconds, none for what is over sooner."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._pace = _Pace(clock)
        self._last = clock()

    def __call__(self, done: int, total: int, what: str) -> None:
        text = self._pace.text(done, total, what)
        now = self._clock()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            self._stream.write(f"{what}: {text}\n" if done or total else f"{what}\n")
            self._stream.flush()

    def close(self) -> None:
        pass


class Bar:
    """For a terminal: a bar that is drawn at most ten times a second, and gone at the end. What is
    over within BAR_AFTER_S seconds shows none."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._pace = _Pace(clock)
        self._next = clock() + BAR_AFTER_S
        self._running = False
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[pace]}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None, pace="")

    def __call__(self, done: int, total: int, what: str) -> None:
        pace = self._pace.text(done, total, what)
        now = self._clock()
        if now < self._next:
            return
        self._next = now + BAR_EVERY_S
        self._progress.update(
            self._task, completed=done, total=total or None, description=what, pace=pace
        )
        if self._running:
            self._progress.refresh()
        else:
            self._running = True
            self._progress.start()

    def close(self) -> None:
        """Take the bar off the screen; a later call shows it again."""
        if self._running:
            self._running = False
            self._progress.stop()


Meter = Silent | Lines | Bar
