"""What is to go live, and who vouches for it: from a bundle, from the ledger, or from a history.

The digest is the root of trust. A bundle carries it through a bucket under IAM; a target's own
history remembers where its digests came from; the ledger on the share has only the share's word.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

from moorline.build import BuildId, Release, build_id
from moorline.bundle import Bundle, read_bundle
from moorline.disk import Disk
from moorline.errors import ConfigError, Error, NotFound
from moorline.files import read_file
from moorline.guard import guarded
from moorline.history import find_release, previous_of
from moorline.ledger.directory import DirectoryLedger
from moorline.progress import Progress, no_progress
from moorline.settings import HostPolicy, Settings, parse_host_policy, parse_settings
from moorline.store import open_store
from moorline.target import Target

HOST_FILE = "/etc/moorline.toml"
SETTINGS_LIMIT_S = 20.0


@dataclass(frozen=True)
class Wanted:
    """The build to go live, who vouches for its digest (bundle, s3 or share), and how to run it."""

    id: BuildId
    digest: str
    manifest_bytes: int
    source: str
    store: str
    settings: Settings
    mode: str
    settings_digest: str = ""
    agent: str = ""
    stage: str = ""
    deployment: str = ""
    group: str = ""
    reason: str = "deploy"
    variables: Mapping[str, str] = field(default_factory=dict)

    def release(self, number: int, place: str, time: int) -> Release:
        """The row that intends it, as release `number` of a target."""
        return Release(
            n=number,
            step="intended",
            id=self.id,
            digest=self.digest,
            mode=self.mode,
            source=self.source,
            time=time,
            place=place,
            manifest_bytes=self.manifest_bytes,
            settings=self.settings_digest,
            agent=self.agent,
            deployment=self.deployment,
            stage=self.stage,
            reason=self.reason,
        )


def host_policy(disk: Disk) -> HostPolicy:
    """What /etc/moorline.toml says. Raises ConfigError when others than root could write it."""
    try:
        fd, status = disk.open_file(HOST_FILE)
    except FileNotFoundError:
        return HostPolicy()
    os.close(fd)
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise ConfigError(f"{HOST_FILE} must belong to root and be writable by nobody else.")
    return parse_host_policy(read_file(disk, HOST_FILE), HOST_FILE)


def from_bundle(
    disk: Disk, bundle: Bundle, *, store: str, root: str = "", mode: str = "", stage: str = "",
    deployment: str = "", variables: Mapping[str, str] | None = None, kept_at: str = "",
) -> Wanted:  # fmt: skip
    """The build that `bundle` pins, with the settings that it pins.

    `root` and `mode` win over the settings; `stage` selects a group's overrides. Settings that the
    target at `root` or `kept_at` keeps are used without asking the share. Raises ConfigError,
    NotFound, Mismatch.
    """
    settings = _settings(disk, bundle.settings, store, root or kept_at).for_group(stage)
    return Wanted(
        id=bundle.id,
        digest=bundle.digest,
        manifest_bytes=bundle.manifest_bytes,
        source="bundle",
        store=store,
        settings=replace(settings, root=root or settings.root),
        mode=mode or settings.mode,
        settings_digest=bundle.settings,
        agent=bundle.agent,
        stage=stage,
        deployment=deployment,
        group=stage if deployment else "",
        variables=variables or {},
    )


def _settings(disk: Disk, digest: str, store: str, root: str) -> Settings:
    name = f"{digest}.json"
    if root:
        try:
            text = read_file(disk, os.path.join(root, ".moorline", "settings", name))
            settings = parse_settings(text, name)
            if settings.digest == digest:
                return settings
        except (OSError, ConfigError):
            pass

    def work(progress: Progress) -> bytes:
        with open_store(disk, store) as opened:
            return opened.get(b"settings", name, digest, most=1 << 20)

    text = guarded(
        disk, work, stall_s=SETTINGS_LIMIT_S, where=store, progress=no_progress
    )  # fmt: skip
    return parse_settings(text, f"{store}/settings/{name}")


def from_ledger(
    disk: Disk, id: BuildId, *, store: str, settings: Settings, mode: str = "", stage: str = "",
    reason: str = "deploy",
) -> Wanted:  # fmt: skip
    """Build `id` by the word of the ledger, or of the store where the ledger does not know it.

    Both lie on the share: who can write it can say anything. Raises NotFound.
    """

    def work(progress: Progress) -> tuple[str, int, str, str]:
        with open_store(disk, store) as opened:
            build = DirectoryLedger(disk, opened.root).build(id)
            if build is None:
                with opened.open_build(id) as found:
                    build = found.build
            return build.digest, build.manifest_bytes, opened.app, opened.id

    digest, manifest_bytes, app, store_id = guarded(
        disk, work, stall_s=SETTINGS_LIMIT_S, where=store, progress=no_progress
    )
    settings = replace(settings, app=app, store_id=store_id)
    return Wanted(
        id=id,
        digest=digest,
        manifest_bytes=manifest_bytes,
        source="share",
        store=store,
        settings=settings.for_group(stage),
        mode=mode or settings.for_group(stage).mode,
        settings_digest=settings.digest,
        stage=stage,
        reason=reason,
    )


def from_words(
    disk: Disk, what: str, *, store: str, root: str = "", mode: str = "", stage: str = "",
    settings: Settings,
) -> Wanted:  # fmt: skip
    """What a person names: a bundle (folder or zip) or a build id, with these settings."""
    if what.endswith(".zip") or "/" in what or os.path.isdir(what):
        bundle = read_bundle(disk, what)
        return from_bundle(disk, bundle, store=store, root=root, mode=mode, stage=stage)
    return from_ledger(
        disk, build_id(what), store=store, settings=settings, mode=mode, stage=stage
    )  # fmt: skip


def back_to(
    target: Target, to: str = "", *, store: str, stage: str = "", trust_store: bool = False,
    settings: Optional[Settings] = None,
) -> Wanted:  # fmt: skip
    """What a rollback goes to: the previous good release, or `to` where the history knows it. With
    `settings`, what this target never had comes by the word of the ledger.

    Raises NotFound, and ConfigError when the share's word is not enough.
    """
    rows = target.history()
    row = find_release(rows, build_id(to)) if to else previous_of(rows, target.live_id())
    if row is not None:
        return from_history(target, row, store=store, stage=stage, trust_store=trust_store)
    if not to or not store or settings is None:
        raise NotFound(
            f"{target.root} has no release to go back to: its history knows no other build that "
            "passed its check. Deploy a bundle instead.",
            live=target.live_id(),
        )
    if not trust_store and any(row.source != "share" for row in rows):
        raise ConfigError(
            f"build {to} was never live on {target.root}: only the share vouches for its content, "
            "and this target has had bundles. Deploy its bundle, or give --trust-store if the "
            "share's word is good enough.",
            live=target.live_id(),
        )
    return from_ledger(
        target.disk, build_id(to), store=store, settings=settings, stage=stage, reason="rollback"
    )


def from_history(
    target: Target, row: Release, *, store: str, stage: str = "", trust_store: bool = False
) -> Wanted:
    """A release of this target, to go back to. Nothing of the share is touched, unless the target
    keeps it no longer. Without `store` one that was served from the share is looked for there.

    Raises ConfigError when only the share ever vouched for it, on a target that had bundles.
    """
    bundles = any(r.source != "share" for r in target.history())
    if row.source == "share" and bundles and not trust_store:
        raise ConfigError(
            f"build {row.id} was deployed here by its id: only the share vouches for its content, "
            "and this target has had bundles. Give --trust-store if that is good enough.",
            live=target.live_id(),
        )
    linked_from = row.place[: -len(f"/builds/{row.id}/tree")] if row.mode == "link" else ""
    store = store or linked_from
    try:
        settings = kept_settings(target, row)
    except NotFound:
        if not store:
            raise
        settings = _settings(target.disk, row.settings, store, "")
    return Wanted(
        id=row.id,
        digest=row.digest,
        manifest_bytes=row.manifest_bytes,
        source=row.source,
        store=store,
        settings=settings.for_group(stage or row.stage),
        mode=row.mode,
        settings_digest=row.settings,
        agent=row.agent,
        stage=stage or row.stage,
        reason="rollback",
    )


def kept_settings(target: Target, row: Release) -> Settings:
    """What `row` was deployed with, from the target itself. Raises NotFound."""
    if not row.settings:
        return Settings()
    text: Optional[bytes] = target.kept(b"settings", f"{row.settings}.json")
    try:
        if text is not None:
            settings = parse_settings(text, f"settings/{row.settings}.json")
            if settings.digest == row.settings:
                return settings
    except Error:
        pass
    raise NotFound(
        f"the settings of build {row.id} are missing in {target.root}/.moorline/settings. "
        "Deploy its bundle instead.",
        live=target.live_id(),
    )
