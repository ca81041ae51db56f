"""The command line, with a command of a shell in the middle.

    python acting.py MARKER OPERATION SKIP COMMAND WORD...

runs `moorline WORD...`; just before its disk does OPERATION, SKIP of them having passed, COMMAND
runs, once. The file MARKER says that it did. OPERATION may name a path: `rename:*.tmp`.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
from typing import Any

from moorline.cli import main
from moorline.disk import Disk


def act(marker: str, operation: str, skip: int, command: str) -> None:
    left = skip
    wanted, _, glob = operation.partition(":")

    def step(disk: Disk, name: str, path: Any) -> None:
        nonlocal left
        if name != wanted or not fnmatch.fnmatch(os.fsdecode(path), glob or "*"):
            return
        left -= 1
        if left < 0 and not os.path.exists(marker):
            with open(marker, "x"):
                subprocess.run(["/bin/sh", "-c", command], check=True)

    Disk.step = step  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    act(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
    sys.argv = ["moorline", *sys.argv[5:]]
    main()
