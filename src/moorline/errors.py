"""Every error that a user can meet, with its exit code.

A message has four parts: what failed, which thing and where, what it means, what to do.
The library raises these; only the command line and the agent turn them into text and an exit code.

    0 done    1 failed    2 usage or configuration    3 content does not match its manifest
    4 not found    5 busy or conflict    6 went live, a hook failed, the old release was put back
    7 the same, but putting back failed    130 interrupted
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional


class Problem(NamedTuple):
    """One difference or refusal: the path it is about (escaped text) and what is wrong with it."""

    path: str
    problem: str


class Error(Exception):
    """An error meant for the user: the message is complete, a traceback would add nothing.

    `problems` lists everything that was found, not just the first; `live` is the id of the build
    that a target serves after the failure, when the failing verb knows it.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, problems: Sequence[Problem] = (), live: Optional[str] = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.live = live


class ConfigError(Error):
    """Usage or configuration: nothing was done, the input has to change."""

    exit_code = 2


class UnknownFormat(ConfigError):
    """A file of a format that only a newer moorline knows: whole, and not ours to repair."""


class SourceRefused(ConfigError):
    """The directory to publish holds things that no build may hold; all of them are listed."""


class Unsafe(ConfigError):
    """A directory that must belong to the deploying user alone does not."""


class SourceChanged(Error):
    """The directory to publish changed while it was read."""


class Mismatch(Error):
    """Content does not match the manifest whose digest is trusted."""

    exit_code = 3


class NotFound(Error):
    """A store, build, bundle or release that was named does not exist."""

    exit_code = 4


class Conflict(Error):
    """An id taken by other content, a held lock, or a deployment that was overtaken."""

    exit_code = 5


class ShareDead(Error):
    """The shared mount did not answer within its limit."""


class HookFailed(Error):
    """A hook failed before the switch: the old release is still live."""


class PutBack(Error):
    """The build went live, a hook failed, and the old release is live again."""

    exit_code = 6


class PutBackFailed(Error):
    """The build went live, a hook failed, and the old release could not be put back whole."""

    exit_code = 7


class Interrupted(Error):
    """Stopped by Ctrl-C or a signal."""

    exit_code = 130


_DEAD = "The mount is dead. Mount it again, then run the same command again."
_CURES = {
    errno.ENOSPC: "The disk is full. Free space, then run the same command again.",
    errno.EDQUOT: "A disk quota is used up. Raise it, then run the same command again.",
    errno.EROFS: "The disk is mounted read-only. Mount it writable for this command.",
    errno.EACCES: "This user may not do that. Run as the owner, or correct the permissions.",
    errno.EPERM: "This user may not do that. Run as the owner, or correct the permissions.",
    errno.ESTALE: "The share changed underneath. Run the same command again.",
    errno.ENOTCONN: _DEAD,
    errno.ECONNABORTED: _DEAD,  # the same, while an operation was under way
    errno.EIO: "The disk reported an error. Look at the system log before you try again.",
}


def from_os_error(error: OSError, doing: str) -> Error:
    """The user's version of `error`, met while `doing` (a verb phrase such as "publish")."""
    names = [n for n in (error.filename, error.filename2) if not isinstance(n, (int, type(None)))]
    where = " -> ".join(name for name in map(os.fsdecode, names) if not name.isdigit())
    what = error.strerror or str(error)
    cure = _CURES.get(error.errno or 0, "Nothing that was whole before has been changed.")
    return Error(f"{doing} failed: {what}{': ' + where if where else ''}. {cure}")


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn an OSError that leaves a verb into an Error that names the verb, the path and a cure."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error
