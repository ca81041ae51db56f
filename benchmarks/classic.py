"""The classic way: zip the build, put it into a bucket, get it on the target, unzip it, copy it.

With the programs that buildspec.yml and CodeDeploy's agent would use. The bucket is a folder on the
same disk, which stands for an S3 that is infinitely near, or an HTTP server on this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.measuring import Command, Failed
from benchmarks.scenario import Contender, Site, Step, command, make_folder

S3RVER = "s3rver"


class Bucket(Protocol):
    """Where the zip waits."""

    @property
    def name(self) -> str: ...

    @property
    def programs(self) -> tuple[str, ...]: ...

    def running(self, site: Site) -> contextlib.AbstractContextManager[None]: ...

    def put(self, site: Site, path: Path) -> Command: ...

    def get(self, site: Site, name: str, to: Path) -> Command: ...


@dataclass(frozen=True)
class FolderBucket:
    """A folder on the same disk."""

    name: str = "a folder"
    programs: tuple[str, ...] = ("cp",)

    def running(self, site: Site) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def put(self, site: Site, path: Path) -> Command:
        return command("cp", path, site.store / path.name, label="put")

    def get(self, site: Site, name: str, to: Path) -> Command:
        return command("cp", site.store / name, to, label="get")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as asked:
        port: int = asked.getsockname()[1]
        return port


@dataclass(frozen=True)
class HttpBucket:
    """s3rver (npm): the fastest S3 server at hand for one large object. One connection, as the
    agent uses; no signature is asked for."""

    port: int = field(default_factory=_free_port)
    name: str = "S3 over HTTP"
    programs: tuple[str, ...] = (S3RVER, "curl")

    @contextlib.contextmanager
    def running(self, site: Site) -> Iterator[None]:
        site.store.mkdir(parents=True, exist_ok=True)
        argv = (S3RVER, "--directory", site.store, "--address", "127.0.0.1", "--port",
                str(self.port), "--silent", "--configure-bucket", "bucket")  # fmt: skip
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_for(self.port, server)
            yield
        finally:
            server.terminate()
            server.wait()

    def put(self, site: Site, path: Path) -> Command:
        return command("curl", "-fsS", "-T", path, self._address(path.name), label="put")

    def get(self, site: Site, name: str, to: Path) -> Command:
        return command("curl", "-fsS", "-o", to, self._address(name), label="get")

    def _address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/bucket/{name}"


def _wait_for(port: int, server: subprocess.Popen[bytes], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise Failed(f"{S3RVER} did not start on port {port}")


@dataclass(frozen=True)
class Classic:
    """CodeBuild's artifact and CodeDeploy's `files:` section."""

    bucket: Bucket
    slow: bool = True

    @property
    def name(self) -> str:
        return f"classic zip, {self.bucket.name}"

    @property
    def programs(self) -> tuple[str, ...]:
        return ("zip", "unzip", *self.bucket.programs)

    def running(self, site: Site) -> contextlib.AbstractContextManager[None]:
        return self.bucket.running(site)

    def steps(self, site: Site) -> Iterator[Step]:
        store, one, two = site.store, site.target(1), site.target(2)
        yield Step(
            "first", self._publish(site, site.a, "a.zip"), (make_folder(store, one, two),),
            grows=store, proof="CRC",
        )  # fmt: skip
        yield Step("publish", self._publish(site, site.b, "b.zip"), grows=store, proof="CRC")
        yield self._deploy("copy_new", site, one, "b.zip", site.b)
        serving = (command("cp", "-a", site.a, two / "www"),)
        yield self._deploy("copy", site, two, "b.zip", site.b, serving)
        yield self._deploy("rollback", site, two, "a.zip", site.a)

    def _publish(self, site: Site, source: Path, name: str) -> tuple[Command, ...]:
        packed = site.work / name
        packing = command("zip", "-qry", packed, ".", label="zip", cwd=source)
        return (packing, self.bucket.put(site, packed))

    def _deploy(
        self, key: str, site: Site, target: Path, name: str, like: Path,
        serving: tuple[Command, ...] = (),
    ) -> Step:  # fmt: skip
        """Download and unzip beside it, remove what the last deploy copied, copy."""
        archive, packed, www = target / "archive", target / "download", target / "www"
        commands = [self.bucket.get(site, name, packed)]
        commands.append(command("unzip", "-qo", packed, "-d", archive, label="unzip"))
        if key != "copy_new":
            commands.append(command("rm", "-rf", www, label="remove"))
        commands.append(command("cp", "-a", archive, www, label="copy"))
        prepare = (command("rm", "-rf", archive), *serving)
        return Step(key, tuple(commands), prepare, grows=target, makes=www, like=like, proof="CRC")


def add_npm_programs(folder: Path) -> None:
    """Make programs found that `npm install s3rver` has put below `folder`."""
    found = folder / "node_modules/.bin"
    if shutil.which(S3RVER) is None and (found / S3RVER).exists():
        os.environ["PATH"] += f":{found}"


def classics() -> tuple[Contender, ...]:
    return (Classic(FolderBucket()), Classic(HttpBucket()))
