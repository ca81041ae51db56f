"""Runs as PID 1 of a guest: JSON lines on /dev/ttyS0 are commands; answers go back the same way.

A serial line and not the network, so that a machine whose network is cut can still be asked. A
request with a `program` is handed to guest_server, which listens at `server`.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import threading
import time
from typing import Any

LINE_BYTES = 512  # what the serial line takes at once without loss
SHORT_BYTES = 2000  # longer output goes through the shared folder: the line is slow
STARTING_S = 60
POWER_OFF = 0x4321FEDC  # linux/reboot.h; a minimal Debian has no poweroff command


def serve(port: int) -> None:
    lock = threading.Lock()
    send(port, lock, {"id": 0, "code": 0})
    held = b""
    while True:
        *lines, held = (held + os.read(port, 4096)).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["command"] == "poweroff":
                os.sync()
                ctypes.CDLL(None).reboot(POWER_OFF)
            threading.Thread(target=answer, args=(port, lock, request), daemon=True).start()


def send(port: int, lock: threading.Lock, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    with lock:
        while data:
            data = data[os.write(port, data[:LINE_BYTES]) :]


def answer(port: int, lock: threading.Lock, request: dict[str, Any]) -> None:
    started = time.monotonic()
    code, out, err = (ask if request["program"] else run)(request)
    message: dict[str, Any] = {"id": request["id"], "code": code}
    message["seconds"] = time.monotonic() - started
    for name, text in (("out", out), ("err", err)):
        message[name] = text.decode("utf-8", "replace")
        if len(text) > SHORT_BYTES:
            file = f"{request['reply']}.{name}"
            with open(f"/mnt/host/{file}", "wb") as stream:
                stream.write(text)
            message[name], message[f"{name}_file"] = "", file
    send(port, lock, message)


def run(request: dict[str, Any]) -> tuple[int, bytes, bytes]:
    command = request["command"]
    try:
        done = subprocess.run(
            command, shell=isinstance(command, str), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=request["timeout_s"], cwd=request["folder"],
            env={**os.environ, **request["environment"]},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        return 124, late.stdout or b"", (late.stderr or b"") + b"\n[time limit]"
    except OSError as error:
        return 127, b"", str(error).encode()


def ask(request: dict[str, Any]) -> tuple[int, bytes, bytes]:
    line = {name: request[name] for name in ("program", "folder")}
    line["arguments"] = request["command"]
    try:
        with connected(request["server"]) as server:
            server.settimeout(request["timeout_s"])
            server.sendall(json.dumps(line).encode() + b"\n")
            answer = json.loads(server.makefile("rb").readline())
            return answer["code"], answer["out"].encode(), answer["err"].encode()
    except TimeoutError:
        return 124, b"", b"[time limit]"
    except (OSError, ValueError) as error:
        return 127, b"", f"{request['server']}: {error}".encode()


def connected(path: str) -> socket.socket:
    """A server that was started just now may take a few seconds to listen."""
    deadline = time.monotonic() + STARTING_S
    while True:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(path)
            return server
        except OSError:
            server.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    serve(os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY))
