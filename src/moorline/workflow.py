"""START HERE: the verbs about one store or target, each a few calls of the modules below.

A verb takes plain values, returns a frozen result and raises `moorline.errors.Error`. It prints
nothing; long ones report through `progress`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from moorline.build import Build, BuildId, Pin, Release, TargetRecord
from moorline.errors import Problem
from moorline.manifest import Difference, Manifest


@dataclass(frozen=True)
class PublishResult:
    id: BuildId
    digest: str
    files: int
    bytes: int
    new_files: int
    new_bytes: int
    linked_files: int
    seconds: float
    bundle: Optional[str]
    bundle_bytes: int
    already: bool
    repaired: int
    replaced: tuple[str, ...]  # linked paths that were put in place of what the source has


@dataclass(frozen=True)
class DeployResult:
    """Of deploy and of rollback."""

    id: BuildId
    live: Optional[str]
    target: str
    mode: str
    previous: Optional[str]
    pinned: bool
    seconds: float
    verified_files: int
    copied_files: int
    copied_bytes: int
    reused_files: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyResult:
    id: BuildId
    ok: bool
    problems: tuple[Problem, ...]
    files: int
    bytes: int
    seconds: float
    where: str  # the store's or the target's path
