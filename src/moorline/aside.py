"""One more thread for what waits: the next piece is read, the last one written, or all that was
written gets to the disk, meanwhile."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any, Callable, Optional, TypeVar

from moorline.disk import Disk

T = TypeVar("T")
FLUSH_BYTES = 64 << 20


class Aside:
    """Does one piece of work after the other, in order, while the caller goes on.

    Where every operation has to happen in the caller's thread, each waits until it is asked for.
    """

    def __init__(self, disk: Disk) -> None:
        self._threads = disk.forks
        self._todo: SimpleQueue[Any] = SimpleQueue()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> Aside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, work: Callable[[], T]) -> Callable[[], T]:
        """Call what this returns to have what `work` gives or raises."""
        if not self._threads:
            return work
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        done: SimpleQueue[tuple[Any, Optional[BaseException]]] = SimpleQueue()
        self._todo.put((work, done))

        def outcome() -> T:
            result, error = done.get()
            if error is not None:
                raise error
            given: T = result
            return given

        return outcome

    def _run(self) -> None:
        while (todo := self._todo.get()) is not None:
            work, done = todo
            try:
                done.put((work(), None))
            except BaseException as error:
                done.put((None, error))
            del todo, work, done  # results are large, and the next piece may be long in coming

    def close(self) -> None:
        """Wait for what was begun."""
        if self._thread is not None:
            self._todo.put(None)
            with contextlib.suppress(RuntimeError):  # Ctrl-C came in the middle of starting it
                self._thread.join()
            self._thread = None


class Flushing:
    """Sends what is written to the disk while more is made and hashed: whoever waits for all of it
    at the end has little to wait for. `at` is any open directory of the file system."""

    def __init__(self, disk: Disk, at: int) -> None:
        self._aside = Aside(disk)
        self._work = partial(disk.sync_all, at)
        self._begun: list[Callable[[], None]] = []
        self._size = 0

    def written(self, size: int) -> None:
        """So many bytes more."""
        self._size += size
        if self._size >= FLUSH_BYTES:
            self.begin()

    def begin(self) -> None:
        self._size = 0
        self._begun.append(self._aside.begin(self._work))

    def finish(self) -> None:
        """Wait for what was begun. Raises what it met: a disk tells of a lost write only once."""
        begun, self._begun = self._begun, []
        for outcome in begun:
            outcome()

    def close(self) -> None:
        self._aside.close()
