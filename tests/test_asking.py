"""Checks that ask an address: what is a good answer, and how long may it take."""

from __future__ import annotations

import http.server
import socket
from collections.abc import Callable
from typing import Any

import pytest

from fakes import CountingDisk
from moorline.asking import ask
from moorline.errors import HookFailed
from moorline.hooks import Moment, run_hook
from moorline.manifest import Manifest
from moorline.settings import Hook
from trees import directory_entry
from world import answering, says


def asked(address: str, **fields: Any) -> str:
    """What is wrong with the answer; empty when nothing is."""
    return ask(Hook(url=address, **fields))


def check(address: str, **fields: Any) -> None:
    """The same as a hook, with its retries."""
    manifest = Manifest.of([directory_entry()])
    moment = Moment("b", "a", "/", "PROD", "deploy", manifest, False)
    run_hook(CountingDisk(), Hook(url=address, **fields), moment, "check")


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_is_good(status: int) -> None:
    with answering(says(status)) as address:
        assert asked(address) == ""


@pytest.mark.parametrize("status", [301, 302, 304, 404, 500, 503])
def test_everything_else_is_not_and_redirects_are_not_followed(status: int) -> None:
    paths: list[str] = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        paths.append(request.path)
        says(200 if request.path == "/ok" else status)(request)

    with answering(answer) as address:
        assert asked(f"{address}/x?y=1") == f"answered {status}"
    assert paths == ["/x?y=1"]


def test_an_answer_must_have_the_text_that_is_wanted() -> None:
    with answering(says(200, "build b \u00e9")) as address:
        assert asked(address, contains="b \u00e9") == ""
        assert asked(address, contains="build c") == "answered without the text 'build c'"


def test_an_address_that_nobody_listens_to() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert "no answer" in asked(address)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:99999/", "http://[::1", "http://a b/", "http://nowhere.invalid/"]
)
def test_a_bad_address_is_a_failure_and_not_a_crash(address: str) -> None:
    assert "no answer" in asked(address)


def test_a_server_that_does_not_answer_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert asked(address, timeout_s=1) == "no answer: timed out"


def test_an_answer_that_never_ends_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of events, for example."""
    clock = [0.0]
    monkeypatch.setattr("moorline.asking.time.monotonic", lambda: clock[0])

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            clock[0] += 1
            try:
                request.wfile.write(b"event\n")
            except OSError:
                return

    with answering(answer) as address:
        assert "did not end in time" in asked(address, timeout_s=5)


@pytest.mark.parametrize("body", [b"HTTP/1.1 2", b"rubbish\n", b""])
def test_an_answer_that_is_no_http(body: bytes) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(body)

    with answering(answer) as address:
        assert asked(address)


def failing_first(*statuses: int) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    left = iter(statuses)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        says(next(left))(request)

    return answer


def test_a_check_of_an_address_can_be_tried_again() -> None:
    with answering(failing_first(500, 404, 200)) as address:
        check(address, retries=2, retry_wait_s=0)
    with (
        answering(failing_first(500, 404)) as address,
        pytest.raises(HookFailed, match=r"check hook failed \(2 times\): .*: answered 404"),
    ):
        check(address, retries=1, retry_wait_s=0)
