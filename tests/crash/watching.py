"""Sees what a running process does in some folders, as it happens: inotify of the kernel.

So a signal can be sent in the middle of the work, however fast or slow the machine is just now.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_OPEN, _CREATE, _DIRECTORY = 0x20, 0x100, 0x40000000
_SEEN = _OPEN | _CREATE | 0x2 | 0x40 | 0x80 | 0x200  # and MODIFY, MOVED_FROM, MOVED_TO, DELETE
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Counts what is opened and changed in `folders` and below them."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, str] = {}
        self._names: set[str] = set()
        for folder in folders:
            self._add(str(folder))
        self.count()  # what looking for folders opened
        self._names.clear()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _add(self, folder: str) -> None:
        for path, _, _ in os.walk(folder):
            number = _libc.inotify_add_watch(self._fd, os.fsencode(path), _SEEN)
            if number >= 0:  # else it is gone again
                self._folders[number] = path

    def wait_for(self, name: str, timeout_s: float) -> None:
        """Until something called `name` was opened or changed."""
        while name not in self._names:
            assert select.select([self._fd], [], [], timeout_s)[0], f"nobody touched {name}"
            self.count()

    def wait(self, number: int, process: subprocess.Popen[Any], timeout_s: float) -> None:
        """Until there were `number` events, or the process has ended."""
        end = os.pidfd_open(process.pid)
        try:
            seen = self.count()
            while seen < number:
                ready = select.select([self._fd, end], [], [], timeout_s)[0]
                assert ready, f"nothing happened for {timeout_s} s, after {seen} of {number} events"
                seen += self.count()
                if end in ready:
                    return
        finally:
            os.close(end)

    def count(self) -> int:
        """The events since the last time that somebody asked."""
        seen = 0
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return seen
            at = 0
            while at < len(data):
                number, mask, _, size = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0")
                at += _EVENT.size + size
                seen += 1
                self._names.add(os.fsdecode(name))
                if mask & _CREATE and mask & _DIRECTORY:
                    self._add(os.path.join(self._folders[number], os.fsdecode(name)))
