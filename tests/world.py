"""One application for tests of deploys: its store, its builds and bundles, and a target.

    world.publish("a", SITE)         a build, and its bundle in a folder
    world.deploy("a")                that bundle goes live on world.root
    world.deploy_id("a")             the same by the word of the ledger

All of it runs in this process on a disk that does not sync, so it is fast and can be counted,
stopped and failed.
"""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes import CountingDisk
from moorline import workflow
from moorline.build import BuildId, Release, TargetRecord
from moorline.bundle import read_bundle
from moorline.config import Config
from moorline.disk import Disk
from moorline.founding import init_store
from moorline.golive import GoLive
from moorline.ledger.directory import DirectoryLedger
from moorline.results import DeployResult, PublishResult
from moorline.settings import settings_of
from moorline.store import open_store
from moorline.target import LOCK_WAIT_S, Target, open_target
from moorline.wanted import from_bundle
from trees import SITE, Content, write_tree

B = {"index.html": b"<h1>two!</h1>", "new.txt": b"new"}
"""What build b changes in SITE: one file, and one more."""


NOBODY = 65534


class World:
    """`here` is a short path, because a store's path in a bundle has a limit."""

    def __init__(self, here: Path, layout: str = "pack") -> None:
        self.here = here
        self.layout = layout
        self.disk: Disk = CountingDisk()
        self.store = here / "store"
        self.root = here / "www"
        self.config = self.configured()
        self.published: dict[str, PublishResult] = {}
        init_store(self.disk, self.store, app="shop", layout=layout).close()

    def configured(
        self,
        *,
        target: Mapping[str, Any] | None = None,
        hooks: Mapping[str, Any] | None = None,
        groups: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Config:
        tables = {
            "target": {"root": str(self.root), "store_wait_s": 0, **(target or {})},
            "hooks": dict(hooks or {}),
            "groups": dict(groups or {}),
        }
        settings = settings_of(tables, app="shop")
        return Config(app="shop", store=str(self.store), settings=settings, **fields)

    # -- verbs --------------------------------------------------------------------------------

    def publish(self, id: str, spec: Mapping[str, Content] = SITE, **tables: Any) -> str:
        """Publish `spec` as build `id`, with the tables target, hooks and groups; its bundle."""
        source, bundle = self.here / "src" / id, str(self.here / "bundles" / id)
        self.config = self.configured(**tables)
        self.published[id] = workflow.publish(
            str(write_tree(source, spec)), config=self.config, id=id, bundle=bundle,
            disk=self.disk, environment={},
        )  # fmt: skip
        return bundle

    def bundle(self, id: str) -> str:
        return str(self.here / "bundles" / id)

    def deploy(self, id: str, root: Path | None = None, **options: Any) -> DeployResult:
        options = {"disk": self.disk, **options}
        return workflow.deploy(
            self.bundle(id), config=self.config, target=str(root or self.root), **options
        )

    def deploy_id(self, id: str, **options: Any) -> DeployResult:
        options = {"disk": self.disk, **options}
        return workflow.deploy(id, config=self.config, target=str(self.root), **options)

    def rollback(self, **options: Any) -> DeployResult:
        options = {"disk": self.disk, **options}
        return workflow.rollback(config=self.config, target=str(self.root), **options)

    # -- what is there ------------------------------------------------------------------------

    @property
    def live(self) -> Path:
        return (self.root / "current").resolve(strict=True)

    @property
    def link(self) -> str:
        """What `current` says; empty when there is none."""
        path = self.root / "current"
        return os.readlink(path) if path.is_symlink() else ""

    @property
    def inner(self) -> Path:
        return self.root / ".moorline"

    def releases(self) -> list[str]:
        return sorted(path.name for path in (self.root / "releases").iterdir())

    def rows(self) -> list[Release]:
        with self.target() as target:
            return target.history()

    def steps(self) -> list[tuple[str, str]]:
        return [(row.id, row.step) for row in self.rows()]

    @contextmanager
    def target(self, disk: Disk | None = None) -> Iterator[Target]:
        with open_target(disk or self.disk, str(self.root)) as target:
            yield target

    @contextmanager
    def going_live(
        self, id: str, disk: Disk | None = None, wait_s: float = LOCK_WAIT_S, **options: Any
    ) -> Iterator[GoLive]:
        """One deployment of build `id`, for its single steps."""
        disk = disk or self.disk
        bundle = read_bundle(disk, self.bundle(id))
        options = {"store": str(self.store), "root": str(self.root), **options}
        wanted = from_bundle(disk, bundle, **options)
        with open_target(disk, str(self.root)) as target, target.lock(wait_s):
            yield GoLive(disk, target, wanted)

    @contextmanager
    def ledger(self) -> Iterator[DirectoryLedger]:
        with open_store(self.disk, self.store) as store:
            yield DirectoryLedger(self.disk, store.root)

    def record(self) -> TargetRecord:
        """What the one target says in the ledger."""
        with self.ledger() as ledger:
            (record,) = ledger.targets()
            return record


def flip(path: Path, at: int = -1) -> None:
    """Change one byte of a file, and nothing else that anybody could see."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def row(id: str, n: int, step: str = "live", left: str = "", place: str = "") -> Release:
    """A row of a target's history."""
    place = place or f"releases/{id}.{n}"
    return Release(
        n, step, BuildId(id), "d1" * 32, "copy", "bundle", 1_700_000_000 + n, place, left=left
    )


def script(text: str) -> tuple[bytes, int]:
    """A program of a build."""
    return b"#!/bin/sh\n" + text.encode() + b"\n", 0o755


def as_user(uid: int, do: Callable[[], None]) -> str:
    """Run `do` in a child as another user; what it raised, as text."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            do()
        except BaseException as error:
            os.write(send, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


@contextmanager
def answering(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None],
) -> Iterator[str]:
    """A web server on this machine that calls `answer` for each GET; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, text: str = "") -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """An answer for `answering`."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(text.encode())))
        if 300 <= status < 400:
            request.send_header("Location", "/ok")
        request.end_headers()
        request.wfile.write(text.encode())

    return answer
