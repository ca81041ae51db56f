"""Run something in a child that may not take more memory, time or open files than is reasonable.

The limits are generous: what keeps to its bounds needs a small part of them, and what does not
needs many times more. A hang is killed by an alarm, and told from an answer.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 60
MIB = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How it ended: what it returned, or the type and text of what it raised; and its memory."""

    value: object = None
    error: str = ""
    text: str = ""
    peak_mib: int = 0


def limited(
    call: Callable[[], object], *, mib: int = 1024, seconds: int = SECONDS, files: int = 256
) -> Ended:
    """`mib` is what may be added to the memory that this process has now."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _run(call, send, mib, seconds, files)
    os.close(send)
    with open(receive, "rb") as answer:
        said = answer.read()
    _, status, usage = os.wait4(child, 0)
    assert not os.WIFSIGNALED(status), f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    value, error, text = pickle.loads(said)
    return Ended(value, error, text, usage.ru_maxrss // 1024)


def _run(call: Callable[[], object], send: int, mib: int, seconds: int, files: int) -> None:
    """Never returns."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)  # pytest's own
        signal.alarm(seconds)
        most = _size() + mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        try:
            answer = pickle.dumps((call(), "", ""))
        except BaseException as error:
            answer = pickle.dumps((None, type(error).__name__, str(error)[:2000]))
        with open(send, "wb") as out:
            out.write(answer)
    finally:
        os._exit(0)


def _size() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
