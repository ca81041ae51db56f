"""Ctrl-C in the middle of a fork is neither lost nor printed, and ends what it should end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from moorline.interrupts import Held

PROGRAM = """
import os, signal, sys
from moorline.disk import Disk
from moorline.guard import guarded
from moorline.hashing import _Processes

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.default_int_handler)
os.register_at_fork({where}=lambda: os.kill(os.getpid(), {number}))

def by_guard():
    return guarded(
        Disk(), lambda progress: "done", stall_s=30, where="", progress=lambda *said: None
    )

def by_hashing():
    pool = _Processes(lambda piece: piece, count=1)
    pool.put(1)
    return list(pool.finish())

try:
    print("ended well:", {way}())
except KeyboardInterrupt:
    print("interrupted")
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", ["by_guard", "by_hashing"])
def test_a_signal_while_the_interpreter_forks_is_heard(way: str, number: int) -> None:
    assert _printed("after_in_parent", way, number) == "interrupted\n"


@pytest.mark.parametrize("way", ["by_guard", "by_hashing"])
def test_a_child_that_is_interrupted_at_its_birth_ends_quietly(way: str) -> None:
    assert "ended early" in _printed("after_in_child", way, signal.SIGINT)


def _printed(where: str, way: str, number: int) -> str:
    program = PROGRAM.format(where=where, way=way, number=int(number))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr == ""
    return run.stdout


@pytest.mark.usefixtures("interrupts")
def test_a_signal_that_is_held_comes_at_the_release() -> None:
    held = Held()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        held.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_fork_that_fails_holds_nothing_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", fails)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(BlockingIOError):
        Held().fork()
    assert signal.getsignal(signal.SIGTERM) is before
