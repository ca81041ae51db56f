"""What the verbs of `workflow` return: plain values, whose field names are those of --json."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline.build import Build, BuildId, Pin, TargetRecord
    from moorline.errors import Problem
    from moorline.layout.draft import Written
    from moorline.manifest import Manifest
    from moorline.source import Source
    from moorline.verifying import Verified
    from moorline.wanted import Wanted


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
    bundle: str | None
    bundle_bytes: int
    already: bool
    repaired: int
    replaced: tuple[str, ...]  # linked paths that were put in place of what the source has


@dataclass(frozen=True)
class DeployResult:
    """Of deploy and of rollback."""

    id: BuildId
    live: str | None
    target: str
    mode: str
    previous: str | None
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


@dataclass(frozen=True)
class InitResult:
    store: str
    store_id: str
    app: str
    layout: str
    config: str
    config_written: bool


@dataclass(frozen=True)
class BuildLine:
    """One row of `builds`: newest first. `present` is False for a build that only the ledger
    remembers; `live_on` are targets (roots, or stages) that serve it; `pins` reasons to keep it."""

    build: Build
    present: bool
    live_on: tuple[str, ...]
    pins: tuple[str, ...]


@dataclass(frozen=True)
class ShowResult:
    line: BuildLine
    manifest: Manifest
    path: str  # the build's folder in the store
    packs: tuple[tuple[str, int], ...]  # layout pack: token, bytes


@dataclass(frozen=True)
class ExportResult:
    id: BuildId
    path: str
    files: int
    bytes: int
    seconds: float


# -- making them ----------------------------------------------------------------------------------


def published(
    id: BuildId, source: Source, written: Written, already: bool, bundle: str | None, size: int,
    started: float,
) -> PublishResult:  # fmt: skip
    manifest = source.manifest
    return PublishResult(
        id=id,
        digest=manifest.digest,
        files=len(manifest.files),
        bytes=manifest.size_bytes,
        new_files=written.new_files,
        new_bytes=written.new_bytes,
        linked_files=written.linked_files,
        seconds=time.monotonic() - started,
        bundle=bundle,
        bundle_bytes=size,
        already=already,
        repaired=written.repaired,
        replaced=source.replaced,
    )


def build_line(
    build: Build, present: bool, targets: Sequence[TargetRecord], pins: Sequence[Pin]
) -> BuildLine:
    live = sorted({t.stage or t.root for t in targets if t.current == build.id})
    reasons = [pin.reason for pin in pins if pin.id == build.id]
    return BuildLine(build, present, tuple(live), tuple(reasons))


def would_go_live(wanted: Wanted, root: str, started: float) -> DeployResult:
    """The outcome of a dry run: what would go live, and nothing done."""
    return DeployResult(
        id=wanted.id, live=None, target=os.path.realpath(root), mode=wanted.mode, previous=None,
        pinned=False, seconds=time.monotonic() - started, verified_files=0, copied_files=0,
        copied_bytes=0, reused_files=0, notes=("dry run: nothing was changed",),
    )  # fmt: skip


def verified(id: BuildId, found: Verified, where: str, started: float) -> VerifyResult:
    seconds = time.monotonic() - started
    ok = not found.problems
    return VerifyResult(id, ok, found.problems, found.files, found.bytes, seconds, where)


def hint(problem: Problem) -> str:
    """The cure for what an application wrote into its release."""
    if not problem.problem.startswith("extra"):
        return ""
    folder = problem.path + "/" if problem.problem.endswith("directory") else problem.path
    return f' (if the application writes it: linked = ["{folder}"])'
