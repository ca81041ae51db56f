"""Disks that let somebody look, act, stop or fail before and after each operation of a run.

    WatchedDisk        counts; `before` and `after` are called around each operation
    DyingDisk          the process dies there: that operation and all later ones raise Dead
    InterruptedDisk    Ctrl-C arrives there, and the program goes on with its cleaning up
    FaultyDisk         this one operation fails with an error, and what it should have made safe is
                       lost
    UnsureDisk         it works, and reports an error: EEXIST or ENOENT is what a retry over NFS
                       without a reply cache meets, EIO what a server says that lost its answer
    ActingDisk         somebody else runs a whole verb just before it

Tokens are numbered instead of random, so that two runs that die at points between which nothing
was changed leave the same state behind. Syncs are counted and not done: see `powerloss` for them.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

from fakes import CHANGING
from moorline.disk import DAMAGE, AnyPath, Disk

OPERATIONS = (
    *("open_directory", "names", "stat", "read_link", "open_file", "read", "read_into"),
    *("create", "append", "write", "sync", "sync_all", "close"),
    *("make_directory", "make_link", "hard_link", "clone", "rename", "unlink", "remove_directory"),
    *("set_mode", "set_owner", "set_times", "lock", "free_bytes", "is_mount"),
)
_SYNCS = ("sync", "sync_all")
_RETRIED = dict.fromkeys(("create", "make_directory", "hard_link", "make_link"), errno.EEXIST)
_RETRIED |= dict.fromkeys(("rename", "unlink", "remove_directory"), errno.ENOENT)


class Dead(BaseException):
    """The process died: nothing may catch this and carry on."""


class Call(NamedTuple):
    """One operation with its arguments; `number` counts from 0."""

    number: int
    operation: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def path(self) -> str:
        """The absolute path that it makes, changes or opens."""
        first = self.arguments[1 if self.operation in ("rename", "hard_link", "make_link") else 0]
        if isinstance(first, int):
            return os.readlink(f"/proc/self/fd/{first}")
        at = self._at()
        folder = os.getcwd() if at is None else os.readlink(f"/proc/self/fd/{at}")
        return os.path.join(folder, os.fsdecode(first))

    def _at(self) -> int | None:
        places = {"open_directory": 1, "stat": 1, "read_link": 1, "open_file": 1, "append": 1}
        places |= {"create": 2, "make_directory": 2, "make_link": 2, "hard_link": 3, "rename": 3}
        places |= {"unlink": 1, "remove_directory": 1, "set_owner": 3}
        place = places[self.operation]
        if len(self.arguments) > place:
            found: int | None = self.arguments[place]
            return found
        return self.options.get("at")

    def __str__(self) -> str:
        shown = (ascii(argument)[:60] for argument in self.arguments)
        return f"{self.number}: {self.operation}({', '.join(shown)})"


class WatchedDisk(Disk):
    """Counts all operations in `calls`; `seed` makes its tokens differ from another disk's."""

    forks = False

    def __init__(self, seed: str = "run") -> None:
        self.seed = seed
        self.calls: list[Call] = []
        self.fired = False
        self._tokens = 0

    def before(self, call: Call) -> None:
        """Called before the operation happens."""

    def after(self, call: Call) -> None:
        """Called when it has happened, before the program hears of it."""

    def token(self) -> str:
        self._tokens += 1
        return hashlib.sha256(f"{self.seed} {self._tokens}".encode()).hexdigest()[:16]

    def run(self, operation: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        call = Call(len(self.calls), operation, arguments, options)
        self.calls.append(call)
        try:
            self.before(call)
        except BaseException:
            if operation == "close":
                os.close(arguments[0])
            raise
        result: Any = None
        if operation not in _SYNCS:
            result = getattr(Disk, operation)(self, *arguments, **options)
        try:
            self.after(call)
        except BaseException:
            if operation in ("open_directory", "create", "append"):
                os.close(result)
            elif operation == "open_file":
                os.close(result[0])
            raise
        return result


def _watched(operation: str) -> Callable[..., Any]:
    @functools.wraps(getattr(Disk, operation))
    def run(self: WatchedDisk, *arguments: Any, **options: Any) -> Any:
        return self.run(operation, arguments, options)

    return run


for _operation in OPERATIONS:
    setattr(WatchedDisk, _operation, _watched(_operation))


class PathsDisk(WatchedDisk):
    """Notes the path of each operation while it can still be told."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.paths: dict[int, str] = {}

    def before(self, call: Call) -> None:
        with contextlib.suppress(KeyError, OSError):
            self.paths[call.number] = call.path


class DyingDisk(WatchedDisk):
    """Dies before operation `at`, or when it has happened but before it returns."""

    def __init__(self, at: int, *, after: bool = False) -> None:
        super().__init__()
        self.at = at
        self.late = after

    def before(self, call: Call) -> None:
        if self.fired or (call.number == self.at and not self.late):
            self.fired = True
            raise Dead(f"before {self.calls[self.at]}")

    def after(self, call: Call) -> None:
        if call.number == self.at:
            self.fired = True
            raise Dead(f"after {call}")


class InterruptedDisk(WatchedDisk):
    """Ctrl-C arrives before operation `at`, or when it has happened; the program goes on with its
    cleaning up."""

    def __init__(self, at: int, *, after: bool = False) -> None:
        super().__init__()
        self.at = at
        self.late = after

    def before(self, call: Call) -> None:
        if call.number == self.at and not self.late:
            self._fire()

    def after(self, call: Call) -> None:
        if call.number == self.at and self.late:
            self._fire()

    def _fire(self) -> None:
        self.fired = True
        raise KeyboardInterrupt


class Code(int):
    """An error number that remembers who told it from the others of CODES: what nobody tells apart
    is tried once. Nobody does who asks only for numbers that are none of them."""

    def __init__(self, number: int) -> None:
        self.told_by: set[str] = set()

    def _note(self, code: CodeType) -> None:
        if code.co_filename != __file__ and code.co_name != WORDING:
            self.told_by.add(code.co_qualname)

    def __eq__(self, other: object) -> bool:
        if other in CODES:
            self._note(sys._getframe(1).f_code)
        return int(self) == other

    def __ne__(self, other: object) -> bool:
        return not self.__eq__(other)

    def __hash__(self) -> int:
        code = sys._getframe(1).f_code
        if "DAMAGE" not in code.co_names:  # a set, or a table, that may hold some of them
            self._note(code)
        return hash(int(self))


WORDING = "from_os_error"
"""Chooses the words for an error that ends a verb anyway."""


class FaultyDisk(WatchedDisk):
    """Operation `at` fails with `code`.

    A write that fails has written half; a close or sync that fails has lost half of what was
    written and not synced before: who takes no notice has a torn file.
    """

    def __init__(self, at: int, code: int) -> None:
        super().__init__()
        self.at = at
        self.code = code
        self._durable: dict[str, int] = {}  # files with unsynced bytes: their size without these

    def before(self, call: Call) -> None:
        if call.operation == "write":
            self._durable.setdefault(call.path, os.fstat(call.arguments[0]).st_size)
        if call.number == self.at:
            self.fired = True
            self._lose(call)
            raise OSError(self.code, os.strerror(self.code), f"planned at {call}")

    def after(self, call: Call) -> None:
        if call.operation == "sync":
            self._durable.pop(call.path, None)
        elif call.operation == "sync_all":
            self._durable.clear()

    def _lose(self, call: Call) -> None:
        if call.operation == "write":
            fd, data = call.arguments
            os.write(fd, memoryview(data)[: len(data) // 2])
        elif call.operation == "sync_all":
            for path in self._durable:
                self._tear(path)
        elif call.operation in ("sync", "close") and call.path in self._durable:
            self._tear(call.path)

    def _tear(self, path: str) -> None:
        if os.path.exists(path):
            least = self._durable[path]
            os.truncate(path, least + (os.path.getsize(path) - least) // 2)


class UnsureDisk(WatchedDisk):
    """Operation `at` happens and reports `code`."""

    def __init__(self, at: int, code: int) -> None:
        super().__init__()
        self.at = at
        self.code = code

    def after(self, call: Call) -> None:
        if call.number == self.at:
            self.fired = True
            raise OSError(self.code, os.strerror(self.code), f"planned after {call}")


class ActingDisk(WatchedDisk):
    """Runs `action` once, just before operation `at`."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        super().__init__("first")
        self.at = at
        self.action = action

    def before(self, call: Call) -> None:
        if call.number == self.at and not self.fired:
            self.fired = True
            self.action()


CODES = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EMLINK, errno.EROFS)
"""What disks and shares report; none of them has an exception class of its own."""
assert not DAMAGE.intersection(CODES)


def answers(call: Call, share: AnyPath) -> tuple[int, ...]:
    """What NFS may report of an operation that worked: it changes a name on the share."""
    if call.operation in _RETRIED and call.path.startswith(os.fsdecode(share) + "/"):
        return _RETRIED[call.operation], errno.EIO
    return ()


def changes(call: Call) -> bool:
    return call.operation in CHANGING
