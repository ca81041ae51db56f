"""Work that touches the share runs in a child that can be left behind.

A hard NFS mount whose server is gone hangs whoever touches it, beyond any signal. So the process
that decides never touches the share: it starts a child, watches for signs of life, and goes on
without it when there are none.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
from typing import Any, Callable, TypeVar

from moorline.disk import Disk, end_with_parent
from moorline.errors import Error, ShareDead
from moorline.interrupts import Held
from moorline.progress import Progress

Result = TypeVar("Result")

_BEAT_S = 0.2
_LAST_WORD_S = 1.0


def guarded(
    disk: Disk, work: Callable[[Progress], Result], *, stall_s: float, where: str,
    progress: Progress,
) -> Result:  # fmt: skip
    """What `work` returns; its errors are raised here. Raises ShareDead after `stall_s` seconds
    without progress. `work` must call the progress that it is given often enough."""
    if not disk.forks:
        return work(progress)
    receive, send = os.pipe()
    parent = os.getpid()
    held = Held()
    child = held.fork()
    if child == 0:
        _child(work, receive, send, parent, held)
    os.close(send)
    try:
        held.release()
        result: Result = _watch(child, receive, stall_s, where, progress)
        return result
    finally:
        os.close(receive)
        _end(child)


def _child(
    work: Callable[[Progress], Any], receive: int, send: int, parent: int, held: Held
) -> None:
    """Never returns: everything this process says goes through the pipe. It keeps nobody waiting
    for the output of its parent, and goes when that goes: the share may hold it for hours."""
    try:
        end_with_parent(parent)
        os.close(receive)
        _let_go_of_output()
        last = 0.0

        def beat(done: int, total: int, what: str, files: int = 0, /) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _BEAT_S:
                last = now
                _send(send, ("progress", (done, total, what, files)))

        try:
            held.release()
            _send(send, ("result", work(beat)))
        except (Error, OSError) as error:
            _send(send, ("error", error))
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            _send(send, ("error", Error(f"{type(error).__name__}: {error}")))
    finally:
        os._exit(0)


def _let_go_of_output() -> None:
    """Where the parent was started without one of them, its number may be a file of ours."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd, stream in enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        if stream is not None:
            os.dup2(null, fd)


def _send(fd: int, message: tuple[str, Any]) -> None:
    data = pickle.dumps(message)
    view = memoryview(len(data).to_bytes(4, "little") + data)
    while view:
        view = view[os.write(fd, view) :]


def _watch(child: int, fd: int, stall_s: float, where: str, progress: Progress) -> Any:
    held = bytearray()  # a report may list a million differences
    while True:
        ready, _, _ = select.select([fd], [], [], stall_s)
        if not ready:
            raise ShareDead(
                f"the share did not answer for {stall_s:g} s: {where}. The old release stays live. "
                "Look at the mount, then deploy again."
            )
        data = os.read(fd, 1 << 16)
        if not data:
            raise Error("the process that reads the share ended early. Try again.")
        held += data
        while len(held) >= 4:
            size = int.from_bytes(held[:4], "little")
            if len(held) < 4 + size:
                break
            kind, value = pickle.loads(held[4 : 4 + size])
            del held[: 4 + size]
            if kind == "progress":
                progress(*value)
            elif kind == "error":
                raise value
            else:
                return value


def _end(child: int) -> None:
    """Collect a child that has ended; kill one that has not, and do not wait for the share."""
    deadline = time.monotonic() + _LAST_WORD_S
    if os.waitpid(child, os.WNOHANG)[0]:
        return
    if _ends(child, time.monotonic() + 0.05):
        return
    os.kill(child, signal.SIGKILL)
    _ends(child, deadline)


def _ends(child: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    return False
