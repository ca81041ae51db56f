"""A disk that watches where everything happens, and lets an attacker act in the middle.

Each operation is resolved by the kernel's own word (/proc/self/fd), so a path that was led through
a link shows where it came out. What happens outside of the fence is an escape: it is noted, and the
program does not hear of it, so that no `except` can hide it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crash.disks import Call, WatchedDisk

_OPENING = ("open_directory", "open_file", "create", "append")
_NAMING = {
    "stat": (0,), "read_link": (0,), "make_directory": (0,), "unlink": (0,), "set_owner": (0,),
    "remove_directory": (0,), "make_link": (1,), "hard_link": (0, 1), "rename": (0, 1),
}  # fmt: skip
_AT = {
    "stat": (1,), "read_link": (1,), "make_directory": (2,), "unlink": (1,), "set_owner": (3,),
    "remove_directory": (1,), "make_link": (2,), "hard_link": (2, 3), "rename": (2, 3),
}  # fmt: skip


class FencedDisk(WatchedDisk):
    """Everything has to happen below `inside`, or at `also`. Before operation `at` the attacker
    does `action`, once."""

    def __init__(
        self, inside: Sequence[Path], also: Sequence[Path] = (), *, at: int = -1,
        action: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        super().__init__("fenced")
        self.inside = tuple(str(path) for path in inside)
        self.also = {str(path) for path in also} | {"/etc/machine-id"}
        self.at = at
        self.action = action
        self.escapes: list[str] = []
        self.places: list[str] = []

    def before(self, call: Call) -> None:
        if call.number == self.at:
            self.fired = True
            self.action()
        if call.operation in _NAMING:
            for where in _folders(call):
                self._look(where, call)

    def run(self, operation: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        number = len(self.calls)
        self.places.append(_place((*arguments, *options.values())))
        result = super().run(operation, arguments, options)
        if operation in _OPENING:
            fd = result[0] if operation == "open_file" else result
            self.places[number] = os.readlink(f"/proc/self/fd/{fd}")
            self._look(self.places[number], self.calls[number])
        return result

    def _look(self, where: str, call: Call) -> None:
        beneath = any(where == root or where.startswith(root + "/") for root in self.inside)
        if not beneath and where not in self.also:
            self.escapes.append(f"{call} came out at {where}")

    def steps_on(self, folder: Path) -> list[int]:
        """The operations of this run that touched what lies below `folder`."""
        top = str(folder)
        return [n for n, place in enumerate(self.places) if place.startswith(top)]


def _folders(call: Call) -> list[str]:
    """Where the names of an operation really lie, links in the way followed as the kernel would."""
    if isinstance(call.arguments[0], int):  # an owner for an open file
        return []
    found = []
    names = ("source_at", "at") if len(_NAMING[call.operation]) == 2 else ("at",)
    for argument, place, option in zip(
        _NAMING[call.operation], _AT[call.operation], names, strict=True
    ):
        at = call.options.get(option)
        if len(call.arguments) > place:
            at = call.arguments[place]
        base = os.getcwd() if at is None else f"/proc/self/fd/{at}"
        folder = os.path.dirname(os.path.join(base, os.fsdecode(call.arguments[argument])))
        # What is open says itself where it lies: its name may stand for something else by now.
        found.append(os.readlink(folder) if folder == base and at else os.path.realpath(folder))
    return found


def _place(arguments: tuple[Any, ...]) -> str:
    """Roughly where an operation happens: the first open directory or file among its arguments."""
    for argument in arguments:
        if isinstance(argument, int) and not isinstance(argument, bool):
            try:
                return os.readlink(f"/proc/self/fd/{argument}")
            except OSError:
                continue
    return os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | Path) else ""
