"""Servers for tests, each with its own folder, configuration and port: never the system's."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S = 30.0
"""What is waited for comes within moments, or never."""

_NGINX = """\
daemon off;
{user}
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    default_type text/plain;
    client_body_temp_path {folder}/temp-body;
    proxy_temp_path {folder}/temp-proxy;
    fastcgi_temp_path {folder}/temp-fastcgi;
    uwsgi_temp_path {folder}/temp-uwsgi;
    scgi_temp_path {folder}/temp-scgi;
{http}
}}
"""

_PHP_FPM = """\
[global]
error_log = {folder}/error.log
{fpm}
[shop]
user = nobody
group = nogroup
listen = {folder}/socket
listen.mode = 0666
pm = static
pm.max_children = 3
catch_workers_output = yes
"""


@contextmanager
def nginx(folder: Path, http: str) -> Iterator[int]:
    """nginx with the server in `http`, which listens on port 80 there; its real port."""
    folder.mkdir()
    port = free_port()
    text = _NGINX.format(
        folder=folder,
        user="user nobody nogroup;" if os.geteuid() == 0 else "",
        http=http.replace("listen 80;", f"listen 127.0.0.1:{port};"),
    )
    assert str(port) in text, "the server does not listen on port 80"
    (folder / "nginx.conf").write_text(text)
    shutil.copy("/etc/nginx/fastcgi.conf", folder)
    options = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with daemon(["nginx", *options], folder / "output", stop=signal.SIGQUIT) as process:
        wait_until(lambda: listens(port), process, folder / "error.log")
        yield port


@contextmanager
def php_fpm(folder: Path, ini: str = "", fpm: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """php-fpm with opcache, the lines `ini` in its php.ini and `fpm` in its [global] section; it
    listens on `folder`/socket. Its cache takes files at once, not only when they are 2 s old."""
    folder.mkdir()
    opcache = "zend_extension = opcache\nopcache.file_update_protection = 0\n"
    (folder / "php.ini").write_text(opcache + ini)
    (folder / "fpm.conf").write_text(_PHP_FPM.format(folder=folder, fpm=fpm))
    program = sorted(Path("/usr/sbin").glob("php-fpm[0-9]*"))[-1]
    options = ["--nodaemonize", "-c", str(folder / "php.ini"), "-y", str(folder / "fpm.conf")]
    environment = {**os.environ, "PHP_INI_SCAN_DIR": ""}
    with daemon([str(program), *options], folder / "output", env=environment) as process:
        wait_until((folder / "socket").exists, process, folder / "output")
        yield process


@contextmanager
def daemon(
    command: Sequence[str], output: Path, stop: int = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that stays in the foreground, in a session of its own; gone at the end."""
    with output.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            **options,
        )  # fmt: skip
    try:
        yield process
    finally:
        try:
            _end(process, stop)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _end(process: subprocess.Popen[bytes], stop: int) -> None:
    """A signal that comes while php-fpm starts itself anew, for a reload, is lost."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        process.send_signal(stop)
        try:
            process.wait(1)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise


def free_port() -> int:
    """A port on which nobody listens now, and which no outgoing connection is given meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> None:  # fmt: skip
    """Wait for an event; fail when it does not come, or when the process that it is to come from
    has ended."""
    deadline = time.monotonic() + LIMIT_S
    while not ready():
        said = log.read_text(errors="replace")[-2000:] if log and log.exists() else ""
        assert process is None or process.poll() is None, f"{process.args!r} ended: {said}"
        assert time.monotonic() < deadline, f"nothing came of it: {said}"
        time.sleep(0.01)
