"""Ask a server: what is sent and what comes back, byte by byte, with nothing in between that
repeats, caches or forgives."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

LIMIT_S = 30.0
"""Only a server that hangs takes so long."""


class Broken(Exception):
    """No whole answer: refused, cut off, or not HTTP."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection to a server on this machine, for one request after another."""

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        except OSError as error:
            raise Broken(f"no connection: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, path: str, **headers: str) -> None:
        """A GET; `if_none_match="..."` is the header If-None-Match."""
        host = headers.pop("host", "localhost")
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        try:
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        except OSError as error:
            raise Broken(f"cannot send: {error}") from None

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers, names in lower case, of the answer that comes next."""
        while b"\r\n\r\n" not in self._left:
            self._more("the headers")
        text, _, self._left = self._left.partition(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        if version != "HTTP/1.1":
            raise Broken(f"no answer in HTTP/1.1: {first[:80]}")
        pairs = (line.partition(":")[::2] for line in lines)
        return int(status), {name.lower(): value.strip() for name, value in pairs}

    def body(self, size: int) -> bytes:
        """Exactly so many bytes."""
        parts, missing = [self._left[:size]], size - len(self._left)
        self._left = self._left[size:]
        while missing > 0:
            part = self._received(f"{missing} of {size} bytes of the body", missing)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def chunks(self) -> bytes:
        """A body that comes in chunks (RFC 9112, section 7.1)."""
        parts = []
        while True:
            while b"\r\n" not in self._left:
                self._more("the size of a chunk")
            size, _, self._left = self._left.partition(b"\r\n")
            parts.append(self.body(int(size, 16)))
            if self.body(2) != b"\r\n":
                raise Broken("a chunk does not end where it says")
            if not parts[-1]:
                return b"".join(parts)

    def answer(self) -> Answer:
        status, headers = self.head()
        if status == 304:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self.chunks())
        if "content-length" not in headers:
            raise Broken(f"an answer without a length: {status} {headers}")
        return Answer(status, headers, self.body(int(headers["content-length"])))

    def get(self, path: str, **headers: str) -> Answer:
        self.send(path, **headers)
        return self.answer()

    def _more(self, missing: str) -> None:
        self._left += self._received(missing, 1 << 16)

    def _received(self, missing: str, most: int) -> bytes:
        try:
            data = self._socket.recv(min(most, 1 << 20))
        except OSError as error:
            raise Broken(f"{missing} did not come: {error}") from None
        if not data:
            raise Broken(f"{missing} did not come: the connection was closed")
        return data


def get(port: int, path: str, **headers: str) -> Answer:
    """One request on a connection of its own."""
    with Connection(port) as connection:
        return connection.get(path, connection="close", **headers)
