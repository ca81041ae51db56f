"""What may be live at this moment: the test that switches writes it, the load reads it.

A switch from one build to the next takes a moment, in which a request may meet either. The writer
says `begin` before it and `settle` after it. A request that began when generation `settled` was
done, and ended when generation `begun` had started, may have met any of those, and nothing else.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

MOST = 1 << 20
"""Generations that a timeline can hold."""

_BEGUN, _SETTLED, _STOPPED, _ROUNDS, _WRONG, _FIRST = range(6)


class Timeline:
    """Numbers of builds by generation, in a file that two processes share.

    A number is written by one store of the processor: nobody reads a half of it.
    """

    def __init__(self, path: Path, first: int | None = None) -> None:
        """With `first`, a new timeline on which that build is live."""
        if first is not None:
            with path.open("xb") as file:
                file.truncate(4 * (_FIRST + MOST))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("I")
        if first is not None:
            self._numbers[_FIRST] = first

    # -- switches -----------------------------------------------------------------------------

    @property
    def settled(self) -> int:
        """The newest generation that is surely live, when no other was begun."""
        return self._numbers[_SETTLED]

    @property
    def begun(self) -> int:
        """The newest generation that may be live."""
        return self._numbers[_BEGUN]

    @property
    def live(self) -> int:
        """The build of the settled generation."""
        return self._numbers[_FIRST + self.settled]

    def begin(self, *builds: int) -> None:
        """These builds will go live now, one after another."""
        begun = self.begun
        assert begun == self.settled, "the last switch is not settled"
        for at, build in enumerate(builds, _FIRST + begun + 1):
            self._numbers[at] = build
        self._numbers[_BEGUN] = begun + len(builds)

    def settle(self) -> None:
        """The last of them is live, and the others are not any more."""
        self._numbers[_SETTLED] = self.begun

    def allowed(self, settled: int) -> Sequence[int]:
        """The builds that a request may have met which began at generation `settled` and ends
        now."""
        return self._numbers[_FIRST + settled : _FIRST + self.begun + 1]

    # -- the load -----------------------------------------------------------------------------

    @property
    def rounds(self) -> int:
        """How often the load has asked and got all its answers."""
        return self._numbers[_ROUNDS]

    @property
    def wrong(self) -> int:
        """How many of them it found wrong so far."""
        return self._numbers[_WRONG]

    def round_done(self, wrong: int) -> None:
        self._numbers[_WRONG] = wrong
        self._numbers[_ROUNDS] += 1

    def stop(self) -> None:
        self._numbers[_STOPPED] = 1

    @property
    def stopped(self) -> bool:
        return bool(self._numbers[_STOPPED])
