"""In a guest: `moorline` commands without a new interpreter for each.

To start Python and to import takes a guest longer (1 s) than the work that is tested. So one
process imports moorline, listens on a Unix socket, and each command is a fork of it. A request is a
line of JSON, {"arguments": [...], "folder": ...}; the answer one with code, out and err.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import tempfile
from typing import IO, Any

from moorline import cli


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 16


class Command(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = run(request, out, err)
            answer: dict[str, Any] = {"code": code}
            for name, file in (("out", out), ("err", err)):
                file.seek(0)
                answer[name] = file.read().decode("utf-8", "replace")
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def run(request: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> object:
    """The exit code of one command. This process serves no other: it need not be put right."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(request["folder"])
    sys.argv = ["moorline", *request["arguments"]]
    try:
        cli.main()
    except SystemExit as done:
        return done.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    Server(sys.argv[1], Command).serve_forever()
