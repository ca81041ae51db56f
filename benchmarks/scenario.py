"""What is compared: the steps of a deployment, and what a contender is.

A contender turns a `Site` into steps, and each step into commands: data, nothing runs here. So
every way of deploying is one small class, and all of them go through the same run.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.measuring import Command
from benchmarks.trees import Pair

STEPS = {
    "first": "first publish: A into an empty store",
    "publish": "publish B after A",
    "copy_new": "deploy B as a copy, empty target",
    "copy": "deploy B as a copy, target serves A",
    "steady": "the same, and the oldest of three releases goes",
    "link": "deploy B as a link",
    "verify": "verify B in the store",
    "rollback": "back to A, which the target holds",
    "remove": "remove A from the store, B stays",
    "list": "make a list of checksums",
}


@dataclass(frozen=True)
class Site:
    """Where one contender works in one round: two builds to read, a folder of its own."""

    a: Path
    b: Path
    work: Path

    @classmethod
    def of(cls, pair: Pair, work: Path) -> Site:
        return cls(pair.a, pair.b, work)

    @property
    def store(self) -> Path:
        return self.work / "store"

    @property
    def behind(self) -> Path:
        """The store, past a mount that makes everybody wait, to prepare and to look at it."""
        return self.store

    def target(self, number: int) -> Path:
        """Target 1 is empty before it gets B; target 2 serves A before; target 3 gets a link."""
        return self.work / f"target-{number}"


@dataclass(frozen=True)
class Step:
    """`commands` are measured, one after the other, once `prepare` has run.

    `grows` is a folder whose size on disk is compared before and after; `makes` is a folder that
    must be equal to `like` afterwards. `proof` says what was hashed on the way; a `slow` step is
    measured in one round only; `also` are steps that would do the very same work.
    """

    key: str
    commands: tuple[Command, ...]
    prepare: tuple[Command, ...] = ()
    grows: Path | None = None
    makes: Path | None = None
    like: Path | None = None
    proof: str = ""
    slow: bool = False
    also: tuple[str, ...] = ()


class Contender(Protocol):
    """One way to publish and deploy. `programs` have to be installed; a slow one takes part in
    fewer rounds."""

    @property
    def name(self) -> str: ...

    @property
    def programs(self) -> tuple[str, ...]: ...

    @property
    def slow(self) -> bool: ...

    def running(self, site: Site) -> contextlib.AbstractContextManager[None]:
        """What has to run beside the steps, such as a server."""
        ...

    def steps(self, site: Site) -> Iterator[Step]: ...


def missing_programs(contender: Contender) -> tuple[str, ...]:
    return tuple(p for p in contender.programs if shutil.which(p) is None)


def command(*argv: str | Path, label: str = "", cwd: Path | None = None) -> Command:
    return Command(argv, label, cwd)


def make_folder(*paths: Path) -> Command:
    return command("mkdir", "-p", *paths)


def switch_to(release: Path, current: Path) -> Command:
    """The quickest way with a program: one process. (Not atomic, unlike ours.)"""
    return command("ln", "-sfn", release, current, label="switch")
