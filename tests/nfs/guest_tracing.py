"""In a guest: run one moorline command and say which calls of it cost which NFS requests.

    python -m nfs.guest_tracing MOUNT publish DIR ...      prints {caller: {operation: number}}

A disk that reads the client's own counters before each operation and books what came since on the
operation before. So whoever exceeds a budget reads where the requests come from.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from moorline import cli, workflow
from moorline.disk import AnyPath, Disk
from nfs.machine import mount_requests

_PLUMBING = ("disk.py", "contextlib.py", "guest_tracing.py")
Spent = dict[str, Counter[str]]


class TracingDisk(Disk):
    """Books requests by caller, in `spent`."""

    forks = False

    def __init__(self, mount: str) -> None:
        self.mount = mount
        self.spent: Spent = {}
        self._caller = "before the first operation"
        self._seen = self._requests()

    def step(self, operation: str, path: AnyPath) -> None:
        self.book()
        self._caller = f"{_caller(sys._getframe(1))}: {operation}"

    def book(self) -> None:
        now = self._requests()
        if new := now - self._seen:
            self.spent.setdefault(self._caller, Counter()).update(new)
        self._seen = now

    def _requests(self) -> Counter[str]:
        return mount_requests(Path("/proc/self/mountstats").read_text(), self.mount)


def _caller(frame: FrameType | None) -> str:
    """The two innermost functions of moorline that are no plumbing, as file:function."""
    found: list[str] = []
    while frame is not None and len(found) < 2:
        code = frame.f_code
        path = Path(code.co_filename)
        if path.name not in _PLUMBING and "moorline" in path.parts:
            found.append(f"{path.name}:{code.co_name}")
        frame = frame.f_back
    return " < ".join(found)


def main() -> None:
    mount, *arguments = sys.argv[1:]
    disk = TracingDisk(mount)
    for verb in vars(workflow).values():
        if "disk" in (getattr(verb, "__kwdefaults__", None) or ()):
            verb.__kwdefaults__["disk"] = disk
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.moorline.main(arguments)
    disk.book()
    json.dump(disk.spent, sys.stdout)


if __name__ == "__main__":
    main()
