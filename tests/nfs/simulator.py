"""Drives `fuse_share`: a mount that imitates EFS, quick and under control.

with Simulator(directory, mountpoint) as share:
    share.order(latency=EFS_LATENCY)
    share.fail("rename", "EIO", path="*/builds/*")
    ... os.listdir(mountpoint) ...
    share.operations()
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from nfs.guest import HERE

CONTROL = "user.moorline.simulator"
_END_S = 5
EFS_LATENCY = {"meta": 600, "read": 600, "change": 2700, "write": 2700}
"""Microseconds by kind of operation, as measured on EFS (facts in DESIGN.md)."""
ALWAYS = 1 << 30
_START_S = 60


class Simulator:
    """One client's mount of `directory` at `mountpoint`; two of one directory are two clients."""

    def __init__(self, directory: Path, mountpoint: Path) -> None:
        self.directory = directory
        self.mountpoint = mountpoint
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Simulator:
        for path in (self.directory, self.mountpoint):
            path.mkdir(exist_ok=True)
        command = [sys.executable, str(HERE / "fuse_share.py")]
        self._process = subprocess.Popen(
            [*command, str(self.directory), str(self.mountpoint)], stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + _START_S
        while not self.mountpoint.is_mount():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                _, said = self._process.communicate()
                raise AssertionError(f"no FUSE mount: {said.decode(errors='replace')}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        subprocess.run(["fusermount3", "-u", str(self.mountpoint)], check=True)
        try:
            self._process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:  # a mount namespace made meanwhile still holds the share
            self._process.kill()
            self._process.communicate()

    # -- control ------------------------------------------------------------------------------

    def order(self, **what: Any) -> None:
        """`latency` by kind in microseconds, `links`, or `rules`."""
        os.setxattr(self.mountpoint, CONTROL, json.dumps(what).encode())

    def fail(self, operation: str, error: str, *, path: str = "*", skip: int = 0) -> None:
        """Every such operation on such a path fails from now on, after the first `skip`; `error` is
        an errno's name."""
        rule = {"operation": operation, "error": error, "path": path, "skip": skip}
        self.order(rules=[{**rule, "times": ALWAYS}])

    def mend(self) -> None:
        self.order(rules=[])

    def operations(self) -> Counter[str]:
        """How often each operation was asked for so far."""
        return Counter(self._seen()["operations"])

    def most_in_flight(self) -> int:
        """The most operations that were under way at the same time."""
        return int(self._seen()["most_in_flight"])

    def faults(self) -> int:
        """How many operations the present rule has failed."""
        return sum(ALWAYS - rule["times"] for rule in self._seen()["rules"])

    def _seen(self) -> dict[str, Any]:
        seen: dict[str, Any] = json.loads(os.getxattr(self.mountpoint, CONTROL))
        return seen
