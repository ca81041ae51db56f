"""Prove what a target serves, and what it keeps to come back to it without the share."""

from __future__ import annotations

from dataclasses import replace

from moorline.build import Release
from moorline.disk import DAMAGE, Disk
from moorline.errors import Mismatch, NotFound, Problem
from moorline.guard import guarded
from moorline.manifest import Manifest
from moorline.progress import Progress, no_progress
from moorline.settings import Settings
from moorline.target import Target
from moorline.verifying import Verified, verify
from moorline.wanted import kept_settings


def prove(
    disk: Disk, target: Target, progress: Progress = no_progress
) -> tuple[Release, Verified]:  # fmt: skip
    """What is live, and all that is wrong with it after hashing every byte.

    Raises NotFound when nothing is live that the history knows, Mismatch when the manifest that
    would prove it is gone.
    """
    live = target.live(target.history())
    if live is None:
        raise NotFound(f"nothing is live on {target.root} that its history knows.")
    lost = tuple(lost_records(target, live))
    manifest = target.manifest(live.digest)
    if manifest is None:
        raise Mismatch(
            f"{target.root} has lost the manifest of build {live.id}, which it serves: nothing "
            "else can prove the release. Deploy its bundle again: that repairs it.",
            problems=lost,
            live=live.id,
        )
    found = _verified(disk, target, live, manifest, progress)
    return live, replace(found, problems=(*lost, *found.problems))


def _verified(
    disk: Disk, target: Target, release: Release, manifest: Manifest, progress: Progress
) -> Verified:
    path = target.path_of(release.place)
    if release.mode != "link":
        return _read(disk, path, manifest, progress)
    try:
        limit_s = kept_settings(target, release).store_timeout_s
    except NotFound:
        limit_s = Settings().store_timeout_s
    return guarded(
        disk, lambda beat: _read(disk, path, manifest, beat), stall_s=limit_s, where=path,
        progress=progress,
    )  # fmt: skip


def _read(disk: Disk, path: str, manifest: Manifest, progress: Progress) -> Verified:
    try:
        return verify(disk, path, manifest, progress)
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return Verified((Problem(".", "the release is missing or no directory"),), 0, 0)


def lost_records(target: Target, release: Release) -> list[Problem]:
    """What a rollback to `release` needs and the target keeps no longer, or not as it was."""
    names = [(b"manifests", release.digest)]
    if release.settings:
        names.append((b"settings", f"{release.settings}.json"))
    if release.agent:
        names.append((b"agents", f"{release.agent}.pyz"))
    return [
        Problem(f".moorline/{folder.decode()}/{name}", "missing or damaged")
        for folder, name in names
        if not target.keeps(folder, name)
    ]
