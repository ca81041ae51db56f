"""Keep compiled code for the agent's next start on this machine; no deploy fails because of it."""

from __future__ import annotations

import contextlib
import os

from moorline import compiled
from moorline.disk import Disk
from moorline.files import move_over, remove_tree, written

MOST_FILES = 8


def keep(disk: Disk, name: str, data: bytes) -> None:
    """Put `data` there under `name`, and remove what is older than the newest `MOST_FILES`.

    Not durable: half a file is found out by its digest, and written again.
    """
    with contextlib.suppress(FileExistsError):
        disk.make_directory(compiled.PLACE, 0o755)
    at = compiled.open_place()
    try:
        _write(disk, os.fsencode(name), data, at)
        _clean(disk, at)
    finally:
        os.close(at)


def _write(disk: Disk, name: bytes, data: bytes, at: int) -> None:
    token = disk.token()
    temporary = b".%s.%s.tmp" % (name, token.encode())
    try:
        with written(disk, disk.create(temporary, 0o644, at, private=True)) as fd:
            disk.write(fd, data)
        move_over(disk, temporary, name, at, at, token)
    except OSError:  # a full disk should not hold half a file as well
        with contextlib.suppress(OSError):
            disk.unlink(temporary, at)
        raise


def _clean(disk: Disk, at: int) -> None:
    """Code of agents that were in use long ago, and what a killed run left. A machine's targets
    share the place, so nobody knows which agents are still kept; losing code costs one start."""
    found = [(disk.stat(named.name, at).st_mtime_ns, named.name) for named in disk.names(at)]
    for _, name in sorted(found)[:-MOST_FILES]:
        remove_tree(disk, name, at)
