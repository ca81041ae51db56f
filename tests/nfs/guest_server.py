"""In a guest: programs without a new interpreter for each.

    python guest_server.py SOCKET PROGRAM ...

To start Python and to import takes a guest longer (2 s) than the work that is tested. So one
process imports the programs that it is to run, listens on a Unix socket, and each run is a fork of
it. A request is a line of JSON, {"program", "arguments", "folder"}; the answer one with code, out
and err.
"""

from __future__ import annotations

import importlib
import json
import os
import socketserver
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import IO, Any

MODULES = {
    "moorline": ("moorline.cli", "moorline.agent_file", "moorline.asking", "pathspec", "zipfile"),
    "actors": ("nfs.guest_actors", "pathspec", "zipfile"),
    "power": ("nfs.guest_power", "pathspec", "zipfile"),
    "tracing": ("nfs.guest_tracing",),
}
"""By program: the one whose `main` it is, and what that imports only when it gets there."""


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 16

    def __init__(self, socket: str, programs: list[str]) -> None:
        self.programs = {name: imported(name) for name in programs}
        super().__init__(socket, Command)


def imported(program: str) -> Callable[[], object]:
    module, *_ = [importlib.import_module(name) for name in MODULES[program]]
    main: Callable[[], object] = module.main
    return main


class Command(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = run(self.server.programs[request["program"]], request, out, err)
            answer: dict[str, Any] = {"code": code}
            for name, file in (("out", out), ("err", err)):
                file.seek(0)
                answer[name] = file.read().decode("utf-8", "replace")
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def run(
    main: Callable[[], object], request: dict[str, Any], out: IO[bytes], err: IO[bytes]
) -> object:
    """The exit code of one run. This process serves no other: it need not be put right."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(request["folder"])
    sys.argv = [request["program"], *request["arguments"]]
    try:
        main()
    except SystemExit as done:
        return done.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    Server(sys.argv[1], sys.argv[2:]).serve_forever()
