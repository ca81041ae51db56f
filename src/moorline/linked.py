"""What lies beside releases: linked paths in shared/, and the user whom releases belong to."""

from __future__ import annotations

import os
import pwd

from moorline.disk import Descent
from moorline.errors import ConfigError
from moorline.manifest import Manifest
from moorline.settings import Settings
from moorline.target import Target, make_folder


def make_linked(target: Target, settings: Settings) -> None:
    """Make linked directories; refuse when a linked file is missing: all of them are named."""
    missing = []
    for path in settings.linked:
        where = f"{target.root}/shared/{path.rstrip('/')}"
        if os.path.exists(where):
            continue
        if path.endswith("/"):
            _make_shared(target, os.fsencode(path.rstrip("/")), owner_of(settings))
        else:
            missing.append(where)
    if missing:
        raise ConfigError(
            f"missing on this target: {', '.join(missing)}. The build links to it. Make it, or "
            "write the path with a final slash in 'linked' when a directory is meant.",
            live=target.live_id(),
        )


def _make_shared(target: Target, path: bytes, owner: tuple[int, int] | None) -> None:
    """A directory below shared/, which the application may own: never through a link."""
    parts = path.split(b"/")
    with target.folder(b"shared") as shared, Descent(target.disk, shared) as descent:
        try:
            for depth, part in enumerate(parts):
                at = descent.enter(b"/".join(parts[:depth]) or b".")
                make_folder(target.disk, part, at, owner)
            descent.enter(path)
        except (NotADirectoryError, FileNotFoundError):
            raise ConfigError(
                f"{target.root}/shared/{os.fsdecode(path)} cannot be made: a part of it "
                "is a link or a file. Make the directory by hand."
            ) from None


def refuse_foreign_links(target: Target, settings: Settings, manifest: Manifest) -> None:
    """A build that is served from the share names the target's folder in its links."""
    for path in settings.linked:
        entry = manifest.by_path.get(os.fsencode(path.rstrip("/")))
        shared = os.fsencode(f"{target.root}/shared/{path.rstrip('/')}")
        if entry is not None and entry.target != shared:
            raise ConfigError(
                f"the build's {entry.shown} leads to {os.fsdecode(entry.target)}, not to this "
                f"target. In mode link the target has to lie at {settings.root!r}."
            )


def owner_of(settings: Settings) -> tuple[int, int] | None:
    """User and group of what a deploy writes; None when that is who deploys."""
    if not settings.owner:
        return None
    try:
        found = pwd.getpwnam(settings.owner)
    except KeyError:
        raise ConfigError(
            f"no user {settings.owner!r} on this host: 'owner' in moorline.toml names it."
        ) from None
    if found.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise ConfigError(f"only root can give files to {settings.owner!r}.")
    return found.pw_uid, found.pw_gid
