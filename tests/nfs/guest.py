"""One User-Mode Linux machine: boot it, run commands in it, cut its power.

Debian's `linux.uml` is an ordinary process: no privileges, no KVM. Its root is this host's tree,
read-only; `folder`, the rig's own, is writable in the guest as /mnt/host. The guest's /dev, /proc,
/sys, /run and /mnt hide the host's. Commands travel over a serial line on two pipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = "/mnt/host"  # where a guest sees the rig's folder, writable
SERVER = "/mnt/tmp/programs.socket"  # where guest_server listens
BOOT_S = 60
TIMEOUT_S = 100  # below pytest's own limit, so that a test which hangs says what hung
LINE_BYTES = 1024
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before the command of a process that must not outlive the tests, however these end."""
_WATCH = ("sh", "-c", 'read _; kill -KILL "-$1"', "sh")
"""Ends the group of a process when the tests have died: a kernel has helpers of its own, which
DIES_WITH_US does not reach."""
_HIDDEN = ("/dev/", "/proc/", "/sys/", "/run/", "/mnt/")


class GuestError(Exception):
    """A guest that does not boot, does not answer, or a command of a rig that failed in it."""


@dataclass(frozen=True)
class Answer:
    """What a command in a guest came to; code -1 when the guest's power went first."""

    code: int
    out: str
    err: str
    seconds: float


class Running:
    """A command that was begun and whose answer is still to come."""

    def __init__(self, guest: Guest, number: int, timeout_s: float) -> None:
        self.guest = guest
        self.number = number
        self.timeout_s = timeout_s
        self.answered = threading.Event()
        self.message: dict[str, Any] = {"code": -1, "err": "the guest is gone"}

    def wait(self) -> Answer:
        if not self.answered.wait(self.timeout_s + 10):
            raise GuestError(f"{self.guest.name} gives no answer; see {self.guest.log}")
        text = {}
        for name in ("out", "err"):
            text[name] = self.message.get(name, "")
            if file := self.message.get(f"{name}_file"):
                path = self.guest.folder / file
                text[name] = path.read_text(errors="replace")
                path.unlink()
        return Answer(self.message["code"], **text, seconds=self.message.get("seconds", 0.0))


class Guest:
    """One machine of a rig. `enter` is put before the kernel's command (a network namespace),
    `settings` are further words on its command line."""

    def __init__(
        self, folder: Path, name: str, *, memory: str, enter: Sequence[str] = (),
        settings: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.folder = folder
        self.name = name
        self.memory = memory
        self.enter = tuple(enter)
        self.settings = tuple(settings)
        self.log = folder / f"{name}.console"
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._lock = threading.Lock()
        self._number = 0
        self._line = -1
        self._waiting: dict[int, Running] = {}

    # -- power --------------------------------------------------------------------------------

    def start(self) -> Running:
        """Begin to boot; what this returns is answered when the guest can take commands."""
        guest_reads, self._line = os.pipe()
        answers, guest_writes = os.pipe()
        ready = self._waiting[0] = Running(self, 0, BOOT_S)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(guest_reads, guest_writes), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, pass_fds=(guest_reads, guest_writes), start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder),
                     "TMPDIR": _memory_folder(self.folder)},
            )  # fmt: skip
        os.close(guest_reads)
        os.close(guest_writes)
        self._watch = subprocess.Popen(
            [*_WATCH, str(self._process.pid)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._pump = threading.Thread(target=self._receive, args=(answers,), daemon=True)
        self._pump.start()
        return ready

    def boot(self, ready: Running | None = None) -> None:
        """Start, unless that was done, and wait until commands are taken."""
        ready = ready or self.start()
        if ready.wait().code:
            raise GuestError(f"{self.name} did not boot:\n{self.log.read_text(errors='replace')}")

    def _command(self, reads: int, writes: int) -> list[str]:
        return [
            *DIES_WITH_US, *self.enter, "linux.uml", f"mem={self.memory}", f"umid={self.name}",
            "quiet", "panic=-1", "rootfstype=hostfs", "root=/dev/root", "ro",
            f"init={HERE}/guest_init.sh",
            "con=null", "con0=null,fd:2", f"ssl0=fd:{reads},fd:{writes}", *self.settings,
            f"RIG_NAME={self.name}", f"RIG_FOLDER={self.folder}",
            f"RIG_PYTHON={os.path.realpath(sys.executable)}", f"RIG_AGENT={HERE}/guest_agent.py",
        ]  # fmt: skip

    @property
    def runs(self) -> bool:
        return self._process is not None

    def cut_power(self) -> None:
        """The machine is gone without a word to anyone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._gone(self._process)

    def stop(self) -> None:
        """Shut down; a guest that will not is cut off."""
        if self._process is None:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.begin("poweroff")
            self._process.wait(5)
        self.cut_power()

    def _gone(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._process = None
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
        if self._pump is not None:
            self._pump.join()
        os.close(self._line)

    # -- commands -----------------------------------------------------------------------------

    def begin(
        self, command: str | Sequence[str], *, timeout_s: float = TIMEOUT_S, folder: str = "/",
        environment: Mapping[str, str] | None = None, program: str = "",
    ) -> Running:  # fmt: skip
        """Begin a command: a text is a shell line, a list a program with its arguments, or the
        arguments of a `program` of guest_server."""
        with self._lock:
            self._number += 1
            running = self._waiting[self._number] = Running(self, self._number, timeout_s)
            request = {
                "id": self._number, "command": command, "timeout_s": timeout_s, "folder": folder,
                "environment": dict(environment or {}), "program": program, "server": SERVER,
                "reply": f"{self.name}.{self._number}",
            }  # fmt: skip
            data = json.dumps(request).encode() + b"\n"
            while data:
                data = data[os.write(self._line, data[:LINE_BYTES]) :]
        return running

    def run(self, command: str | Sequence[str], **how: Any) -> Answer:
        return self.begin(command, **how).wait()

    def shell(self, line: str, **how: Any) -> str:
        """What a shell line prints. Raises when it fails."""
        answer = self.run(line, **how)
        if answer.code:
            raise GuestError(f"{self.name}: {line}\nexit {answer.code}\n{answer.out}{answer.err}")
        return answer.out

    def _receive(self, answers: int) -> None:
        """Hand each answer to whoever waits for it, until the guest is gone."""
        with open(answers, "rb") as lines:
            for line in lines:
                start = line.find(b"{")  # the kernel may have written before it on the line
                with contextlib.suppress(ValueError):
                    message = json.loads(line[start:])
                    running = self._waiting.pop(message["id"])
                    running.message = message
                    running.answered.set()
        for running in list(self._waiting.values()):
            running.answered.set()
        self._waiting.clear()


def _memory_folder(otherwise: Path) -> str:
    """Where a guest's memory is a file: on a disk the kernel would write it out again and again."""
    memory = "/dev/shm"  # containers have little of it, and no programs may be mapped there
    if not os.path.isdir(memory) or shutil.disk_usage(memory).free < 2 << 30:
        return str(otherwise)
    return str(otherwise) if os.statvfs(memory).f_flag & os.ST_NOEXEC else memory


def lay_folder(folder: Path) -> Path:
    """Prepare a rig's folder: the modules of the guests' kernel lie beside the host's."""
    folder = folder.resolve()
    for path in (folder, HERE):
        if f"{path}/".startswith(_HIDDEN):
            raise GuestError(f"{path} is hidden in a guest. Use a path outside of {_HIDDEN}.")
    (folder / "modules/lib").mkdir(parents=True)
    (folder / "modules/lib/modules").symlink_to("/usr/lib/uml/modules")
    return folder


def remove_folder(folder: Path) -> None:
    """Consoles and images of a rig that ended well are of no more use."""
    shutil.rmtree(folder, ignore_errors=True)
