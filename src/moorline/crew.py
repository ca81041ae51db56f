"""Workers for a share: each operation waits for the network, so many have to wait at once.

Threads, each of which has open directories of its own. On a local disk nothing waits, and threads
would only get into each other's way: `read_latency` and its like tell the two apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from moorline.disk import Descent, Disk
from moorline.hashing import waiting_workers
from moorline.manifest import Entry

H = TypeVar("H")
P = TypeVar("P")
FEW_FILES = 64  # are read or made one after the other, whatever a share takes for each


class Crew(Generic[H]):
    """Some workers; what each needs is in `hands`, which the caller opens and closes."""

    def __init__(self, hands: Sequence[H]) -> None:
        self._count = len(hands)
        self._idle: SimpleQueue[H] = SimpleQueue()
        for each in hands:
            self._idle.put(each)

    def run(
        self, work: Callable[[H, P], Any], pieces: Iterable[P],
        done: Callable[[P, Any], Iterable[P]],
    ) -> None:  # fmt: skip
        """Do all pieces, in no order. `done` is told of each in this thread, and what can be done
        from then on. Raises what `work` raised, once all that is under way has ended."""

        def job(piece: P) -> Any:
            hands = self._idle.get()
            try:
                return work(hands, piece)
            finally:
                self._idle.put(hands)

        pool = waiting_workers(job, self._count)
        try:
            for piece in pieces:
                pool.put(piece)
            for piece, result in pool.finish():
                for more in done(piece, result):
                    pool.put(more)
        finally:
            pool.close()


def read_latency(disk: Disk, root: int, entries: Sequence[Entry]) -> float:
    """Seconds to open one of these files below `root`, the least of three."""
    times = []
    with Descent(disk, root) as descent:
        for entry in entries[:3]:
            directory, _, name = entry.path.rpartition(b"/")
            start = time.perf_counter()
            try:
                os.close(disk.open_file(name, at=descent.enter(directory or b"."))[0])
            except OSError:
                continue
            times.append(time.perf_counter() - start)
    return min(times, default=0.0)


def depth(entries: Iterable[Entry]) -> int:
    """How many directories are open at once to reach the deepest of these."""
    return 1 + max((entry.path.count(b"/") for entry in entries), default=0)
