"""What systemd does with a service and its socket, in a process of its own; no tests for systemd
itself, which does not run where tests run.

    python -m serving.units UNIT PORT CONTROL [socket]

Runs ExecStart in WorkingDirectory. With `socket` it listens itself and hands that socket on, as
sd_listen_fds(3) says. Each connection to the socket CONTROL is a `systemctl restart`: SIGTERM, wait
for the end, start again; it is closed when that is done.
"""

from __future__ import annotations

import configparser
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.daemons import daemon, wait_until

TESTS = Path(__file__).resolve().parent.parent
LISTENING = 3
"""The number that the protocol gives to the first socket."""

SYSTEMCTL = """#!/bin/sh
exec {python} -c '
import socket
control = socket.socket(socket.AF_UNIX)
control.connect("{control}")
control.recv(1)'
"""


class Service:
    """One service; systemd in small."""

    def __init__(self, unit: str, port: str, listening: bool) -> None:
        text = configparser.ConfigParser()
        text.optionxform = str  # type: ignore[assignment,method-assign]
        text.read(unit)
        self.command = text["Service"]["ExecStart"].split()
        self.folder = text["Service"]["WorkingDirectory"]
        self.more: dict[str, str] = {"PORT": port}
        self.fds: list[int] = []
        if listening:
            held = socket.create_server(("127.0.0.1", int(port)), backlog=4096)
            os.dup2(held.detach(), LISTENING)
            self.fds = [LISTENING]
            self.more = {"LISTEN_FDS": "1"}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.more}
        return subprocess.Popen(
            self.command, cwd=self.folder, env=environment, pass_fds=self.fds
        )  # fmt: skip

    def stop(self, *_: Any) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def restart(self) -> None:
        self.stop()
        self.process = self._start()


@contextmanager
def service(here: Path, unit: str, port: int, listening: bool) -> Iterator[None]:
    """The service of the text `unit`, running; `here`/systemctl restarts it."""
    (here / "shop.service").write_text(unit)
    control = here / "control"
    (here / "systemctl").write_text(SYSTEMCTL.format(python=sys.executable, control=control))
    (here / "systemctl").chmod(0o755)
    command = [sys.executable, "-m", "serving.units", str(here / "shop.service"), str(port)]
    words = [*command, str(control), *(["socket"] if listening else [])]
    with daemon(words, here / "units", cwd=TESTS) as process:
        wait_until(control.exists, process, here / "units")
        yield


def main() -> None:
    unit, port, control, *listening = sys.argv[1:]
    one = Service(unit, port, bool(listening))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        with socket.socket(socket.AF_UNIX) as commands:
            commands.bind(control)
            commands.listen()
            while True:
                with commands.accept()[0]:
                    one.restart()
    finally:
        one.stop()


if __name__ == "__main__":
    main()
