"""Run one program and measure it: seconds, bytes written, peak memory, seconds of CPU.

Every step is a process of its own, so the start of an interpreter is part of it, as it is for the
person who waits. Before each one, what earlier steps left unwritten is flushed; after it, the flush
that is still due is timed apart: some programs return before their data are on the disk.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage, struct_rusage

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A program that is measured ended with an error."""


@dataclass(frozen=True)
class Command:
    """What to run. `label` names it in a step of several; `output` takes its stdout."""

    argv: tuple[str | Path, ...]
    label: str = ""
    cwd: Path | None = None
    output: Path | None = None
    variables: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Measured:
    """What a command cost, with the processes that it waited for.

    `written_bytes` are the pages made dirty, those of directories and inodes too (/proc/PID/io);
    `memory_bytes` is the largest resident set of any one of its processes, and never below
    `inherited_bytes`, that of this program, which Linux hands down; `flush_s` is what the disk
    needed afterwards to make the result durable, and not part of `seconds`.
    """

    label: str
    seconds: float
    flush_s: float
    cpu_s: float
    written_bytes: int
    memory_bytes: int
    inherited_bytes: int = 0

    def __add__(self, other: Measured) -> Measured:
        """Both, one after the other."""
        return Measured(
            self.label,
            self.seconds + other.seconds,
            self.flush_s + other.flush_s,
            self.cpu_s + other.cpu_s,
            self.written_bytes + other.written_bytes,
            max(self.memory_bytes, other.memory_bytes),
            max(self.inherited_bytes, other.inherited_bytes),
        )


def flush(folder: Path) -> float:
    """Seconds until all that was written to the file system of `folder` is on its disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        started = time.perf_counter()
        if _libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", str(folder))
        return time.perf_counter() - started
    finally:
        os.close(fd)


def run(command: Command, work: Path, environment: Mapping[str, str]) -> None:
    """A command that prepares something: not measured, but its failure counts."""
    _, status = _wait(_start(command, work, environment))
    _check(command, work, status)


def measure(command: Command, work: Path, environment: Mapping[str, str]) -> Measured:
    """Run the command with its output in `work`/log; raises Failed with the end of that."""
    flush(work)
    started = time.perf_counter()
    child = _start(command, work, environment)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    seconds = time.perf_counter() - started
    written = written_bytes(child.pid)  # of the dead child and all that it waited for
    usage, status = _wait(child)
    _check(command, work, status)
    return Measured(
        label=command.label,
        seconds=seconds,
        flush_s=flush(work),
        cpu_s=usage.ru_utime + usage.ru_stime,
        written_bytes=written,
        memory_bytes=usage.ru_maxrss * 1024,
        inherited_bytes=getrusage(RUSAGE_SELF).ru_maxrss * 1024,
    )


def _start(command: Command, work: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    variables = {**environment, **(command.variables or {})}
    with (
        (work / "log").open("wb") as log,
        (command.output or work / "log").open("ab" if command.output is None else "wb") as output,
    ):
        return subprocess.Popen(
            command.argv, cwd=command.cwd or work, stdin=subprocess.DEVNULL, stdout=output,
            stderr=log, env=variables,
        )  # fmt: skip


def _wait(child: subprocess.Popen[bytes]) -> tuple[struct_rusage, int]:
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage, child.returncode


def _check(command: Command, work: Path, status: int) -> None:
    if status != 0:
        log = (work / "log").read_bytes()[-2000:].decode("utf-8", "replace")
        shown = " ".join(map(str, command.argv))
        raise Failed(f"{shown}\nended with {status}:\n{log}")


def written_bytes(pid: int | str) -> int:
    """Of a process, living or dead, and of the children that it waited for."""
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:  # a kernel without I/O accounting
        return 0
    return int(text.split("write_bytes: ", 1)[1].split()[0])


def clear_away(folder: Path) -> None:
    """Remove a folder, several of the trees in it at once: an ext4 that discards at once, and has
    no journal, took 3 ms for each directory on a busy machine."""
    find = ("find", folder, "-mindepth", "2", "-maxdepth", "5", "-depth", "-type", "d", "-links",
            "+20", "-print0")  # fmt: skip
    found = subprocess.run(find, capture_output=True, check=True).stdout
    remove = ("xargs", "-0", "-r", "-P", "8", "-n", "1", "rm", "-rf")
    subprocess.run(remove, input=found, check=False, stderr=subprocess.DEVNULL)
    subprocess.run(("rm", "-rf", folder), check=True)


def disk_bytes(folder: Path) -> int:
    """What a folder occupies on its disk, directories included; hard links once."""
    seen: set[int] = set()
    total = 0
    for at, directories, files in os.walk(folder):
        for name in (".", *files, *(d for d in directories if os.path.islink(f"{at}/{d}"))):
            status = os.lstat(os.path.join(at, name))
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512
    return total


class Sampler(threading.Thread):
    """The most memory that a process and all its descendants have together, looked at every 20 ms.

    Proportional set sizes: pages that forked workers share count once.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak_bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, family_bytes(self.pid))

    def end(self) -> int:
        self._ended.set()
        self.join()
        return self.peak_bytes


def family_bytes(pid: int) -> int:
    """What a process and its descendants have now."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    own = int(text.split("\nPss:", 1)[1].split()[0]) * 1024 if "\nPss:" in text else 0
    return own + sum(family_bytes(int(child)) for child in children)


@dataclass(frozen=True)
class Peak:
    """The most memory that a command had: all its processes together, and its largest one."""

    all_bytes: int
    largest_bytes: int


def peak_memory(command: Command, work: Path, environment: Mapping[str, str]) -> Peak:
    """Run the command only to see how much memory it takes: looking slows it down."""
    child = _start(command, work, environment)
    sampler = Sampler(child.pid)
    sampler.start()
    usage, status = _wait(child)
    all_bytes = sampler.end()
    _check(command, work, status)
    largest_bytes = usage.ru_maxrss * 1024  # by the kernel: no look misses it
    return Peak(max(all_bytes, largest_bytes), largest_bytes)
