"""What only a terminal shows: a bar, a table with a line under its titles, colour.

Imported when there is a terminal: to import rich takes longer than a small publish.
"""

from __future__ import annotations

import time
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from moorline.meter import Clock, Pace
from moorline.wording import Listing

BAR_AFTER_S = 0.5
BAR_EVERY_S = 0.1


class Bar:
    """For a terminal: a bar that is drawn at most ten times a second, and gone at the end. What is
    over within BAR_AFTER_S seconds shows none."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace(clock)
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

    def __call__(self, done: int, total: int, what: str, files: int = 0, /) -> None:
        now = self._pace.note(done, what)
        if now < self._next:
            return
        self._next = now + BAR_EVERY_S
        pace = self._pace.text(done, total, files)
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


def talk_console() -> Console:
    return Console(stderr=True, highlight=False)


def data_console(*, as_json: bool, quiet: bool) -> Console:
    """For what a verb prints itself: stdout, but stderr when that is for JSON."""
    return Console(stderr=as_json, highlight=False, quiet=quiet and as_json)


def say(prefix: str, text: str) -> None:
    talk_console().print(Text.assemble((prefix, "bold red"), text), soft_wrap=True)


def rendered(listing: Listing) -> str:
    """A table with a line under its titles."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in listing.columns:
        justify: Any = "right" if title in listing.right else "left"
        table.add_column(title, justify=justify, overflow="fold")
    for row in listing.rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
