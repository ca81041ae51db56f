"""Ask an address whether a release works: a check hook with a URL.

A module of its own, because `http.client` costs 20 ms to import (email, ssl) and most deploys ask
nothing: `hooks` imports this when it is needed, the one import that is not at the top of a file.
"""

from __future__ import annotations

import http.client
import time
import urllib.parse
from typing import Optional

from moorline.settings import Hook

ANSWER_BYTES = 1 << 20


def ask(hook: Hook) -> str:
    """Empty when the address answers 2xx, with the wanted text if there is one."""
    deadline = time.monotonic() + hook.timeout_s
    connection: Optional[http.client.HTTPConnection] = None
    try:
        address = urllib.parse.urlsplit(hook.url)
        secure = address.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        path = urllib.parse.urlunsplit(("", "", address.path or "/", address.query, ""))
        connection = kind(address.hostname or "", address.port, timeout=hook.timeout_s)
        connection.request("GET", path, headers={"User-Agent": "moorline", "Connection": "close"})
        answer = connection.getresponse()
        body = _body(answer, deadline)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer: {error}"
    finally:
        if connection is not None:
            connection.close()
    if not 200 <= answer.status < 300:
        return f"answered {answer.status}"
    if hook.contains and hook.contains.encode() not in body:
        return f"answered without the text {hook.contains!r}"
    return ""


def _body(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The beginning of an answer. Each piece has its time limit; so have all of them together, or
    an address that streams would be read for ever."""
    data = b""
    while len(data) < ANSWER_BYTES:
        piece = answer.read1(1 << 16)
        if not piece:
            break
        data += piece
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    return data
