"""A machine that mounts the share: moorline run on it, and the NFS requests that this cost.

Two machines of one rig see the same share at paths of their own and cache it apart. The code that
runs is this checkout's, by the interpreter of these tests.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import moorline
from nfs.guest import HERE, SERVER, SHARED, Answer, Guest, Running

EFS_OPTIONS = "vers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport"
"""The mount options of amazon-efs-utils."""

MODULES = {"PYTHONPATH": f"{Path(moorline.__file__).parent.parent}:{HERE.parent}"}
"""What runs in a guest is the moorline that these tests import."""


def serve(guest: Guest, *programs: str) -> None:
    """Have a guest that has just booted run `programs` of guest_server."""
    words = [sys.executable, f"{HERE}/guest_server.py", SERVER, *programs]
    line = f"{shlex.join(words)} </dev/null >{SHARED}/{guest.name}.server 2>&1 &"
    guest.shell(line, environment=MODULES)


class Machine:
    """`share` is where `guest` has the share, `local` a folder of its own disk."""

    def __init__(self, guest: Guest, name: str, share: str) -> None:
        self.guest = guest
        self.name = name
        self.share = share
        self.local = f"/mnt/tmp/{name}"

    # -- commands -----------------------------------------------------------------------------

    def shell(self, line: str, **how: Any) -> str:
        """What a shell line prints. Raises when it fails."""
        return self.guest.shell(line, **how)

    def begin(self, *arguments: str, **how: Any) -> Running:
        """Begin a moorline command, in a fork of what `serve` started."""
        command = [*arguments, "--json"]
        return self.guest.begin(command, folder=self.local, program="moorline", **how)

    def moorline(self, *arguments: str, **how: Any) -> dict[str, Any]:
        """The JSON of a moorline command that succeeds."""
        return told(self.begin(*arguments, **how).wait())

    def refused(self, *arguments: str, **how: Any) -> dict[str, Any]:
        """The JSON of a moorline command that fails."""
        answer = self.begin(*arguments, **how).wait()
        assert answer.code, f"it succeeded: {answer.out}"
        refusal: dict[str, Any] = json.loads(answer.out)
        return refusal

    # -- the NFS client -----------------------------------------------------------------------

    def requests(self) -> Counter[str]:
        """Requests that this machine's kernel sent to the server so far, by NFS operation."""
        return mount_requests(self.shell("cat /proc/self/mountstats"), self.share)

    def cost(self, *arguments: str, traced: bool) -> Cost:
        """What a moorline command that succeeds costs this machine, from cold caches; with `traced`
        by the functions that cause it."""
        self.forget()
        if not traced:
            before = self.requests()
            self.moorline(*arguments)
            return Cost.of(self.requests() - before)
        command = [self.share, *arguments]
        spent = told(self.guest.run(command, program="tracing", folder=self.local))
        callers = {caller: Counter(requests) for caller, requests in spent.items()}
        return Cost.of(sum(callers.values(), Counter()), callers)

    def forget(self) -> None:
        """Drop every cache that may be dropped: what follows is a first look at the share."""
        self.shell("sync; echo 3 > /proc/sys/vm/drop_caches")

    def forget_lost_writes(self) -> None:
        """A write that was lost is reported to the next syncfs on the mount, whoever calls it."""
        self.shell(f"sync -f {self.share} || true")


def told(answer: Answer) -> dict[str, Any]:
    """The JSON object of a command that succeeded."""
    if answer.code:
        raise AssertionError(f"exit {answer.code}\n{answer.out}{answer.err}")
    result: dict[str, Any] = json.loads(answer.out)
    return result


def mount_requests(mountstats: str, mount: str) -> Counter[str]:
    """Requests by operation of one mount, from the text of /proc/self/mountstats."""
    found: Counter[str] = Counter()
    inside = False
    for line in mountstats.splitlines():
        words = line.split()
        if words[:1] == ["device"]:
            inside = f"mounted on {mount} with" in line
        elif inside and len(words) > 8 and words[0].rstrip(":").isupper() and words[1].isdigit():
            found[words[0].rstrip(":")] += int(words[1])
    return +found


@dataclass(frozen=True)
class Cost:
    """NFS requests by operation, without the upkeep of the session; where it was traced, also by
    the function of moorline that caused them."""

    requests: Counter[str]
    callers: Mapping[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, requests: Counter[str], callers: Mapping[str, Counter[str]] | None = None) -> Cost:
        wanted = {name: number for name, number in requests.items() if name not in _UPKEEP}
        return cls(Counter(wanted), callers or {})

    @property
    def total(self) -> int:
        return self.requests.total()

    @property
    def steady(self) -> int:
        """Without looks: how often a client asks whether what it knows is still true depends on
        the time that passes."""
        return sum(number for name, number in self.requests.items() if name not in _LOOKS)

    def __sub__(self, other: Cost) -> Cost:
        """What this costs more; negative where it costs less."""
        requests = Counter(self.requests)
        requests.subtract(other.requests)
        return Cost(requests)

    def __str__(self) -> str:
        """For messages: by operation, then by caller, the dearest first."""
        lines = [f"{self.total} requests: {_listed(self.requests)}"]
        for caller, requests in sorted(self.callers.items(), key=lambda item: -item[1].total()):
            lines.append(f"{requests.total():6} {caller}: {_listed(requests)}")
        return "\n".join(lines)


def _listed(requests: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in requests.most_common())


_UPKEEP = frozenset({"SEQUENCE", "EXCHANGE_ID", "CREATE_SESSION", "RENEW", "RECLAIM_COMPLETE"})
_LOOKS = frozenset({"GETATTR", "LOOKUP", "ACCESS"})
