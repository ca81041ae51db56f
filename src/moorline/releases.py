"""Take old releases off a target, and what only they and dead deploys needed.

Called with the target's lock held. Nothing is unlinked under a name that anybody may use: a folder
is renamed first.
"""

from __future__ import annotations

import os

from moorline.build import Release
from moorline.files import remove_tree
from moorline.history import previous_of
from moorline.target import RELEASE, TREE, Target

_REMOVING = b".removing."


def clean(target: Target, keep: int) -> list[str]:
    """Remove releases beyond the newest `keep`, leftovers, and what only they needed.

    Never what is live, what rollback would take, or a deployment under way; and never a folder
    that is not named as Moorline names releases: another tool may have used this root. Returns
    the places that were removed.
    """
    rows = target.history()
    wanted, live = _wanted(target, rows, keep), _live(target)
    with target.folder(b"releases") as releases:
        names = sorted(name for name, _ in target.disk.names(releases))
        _remove(target, [name for name in names if name.startswith(_REMOVING)], releases)
        doomed = [
            name
            for name in names
            if (place := "releases/" + os.fsdecode(name)) not in wanted
            and target.path_of(place) != live
            and RELEASE.fullmatch(place)
        ]
        for name in doomed:
            target.disk.rename(name, _REMOVING + name[:200], releases, releases)
        _remove(target, [_REMOVING + name[:200] for name in doomed], releases)
    _clean_kept(target, rows, wanted)
    _clean_temporary(target)
    return ["releases/" + os.fsdecode(name) for name in doomed]


def _live(target: Target) -> str:
    """The folder that is served, however `current` says it. One in a store, which may be dead, is
    nothing of ours to remove."""
    current = target.current()
    return "" if TREE.fullmatch(current) else os.path.realpath(target.path_of(current or "."))


def _remove(target: Target, names: list[bytes], releases: int) -> None:
    """Unlink what was renamed. That is durable first: else a power cut could give half of a
    release its name back."""
    if names:
        target.disk.sync(releases)
    for name in names:
        remove_tree(target.disk, name, releases)


def _wanted(target: Target, rows: list[Release], keep: int) -> set[str]:
    wanted = {target.current()}
    deploying = target.deploying()
    if deploying is not None:
        wanted |= {deploying.previous, deploying.release.place}
    previous = previous_of(rows, target.live_id())
    if previous is not None:
        wanted.add(previous.place)
    good = [row.place for row in reversed(rows) if row.step in ("live", "restored")]
    for place in dict.fromkeys(good):
        if len(wanted - {""}) < keep and place.startswith("releases/"):
            wanted.add(place)
    return wanted


def _clean_kept(target: Target, rows: list[Release], wanted: set[str]) -> None:
    """Manifests, agents and settings that no kept release names."""
    named = [row for row in rows if row.place in wanted]
    deploying = target.deploying()
    if deploying is not None:
        named.append(deploying.release)
    used = {
        b"manifests": {row.digest for row in named},
        b"agents": {f"{row.agent}.pyz" for row in named},
        b"settings": {f"{row.settings}.json" for row in named},
    }
    for folder, names in used.items():
        with target.folder(b".moorline/" + folder) as fd:
            for name, _ in target.disk.names(fd):
                if os.fsdecode(name) not in names:
                    remove_tree(target.disk, name, fd)


def _clean_temporary(target: Target) -> None:
    """Temporary names that a crash left; with the lock held nobody is using them."""
    for folder in (b".", b".moorline"):
        with target.folder(folder) as fd:
            for name, kind in target.disk.names(fd):
                ours = kind in "fl" or folder == b".moorline"
                if ours and name.startswith(b".") and name.endswith(b".tmp"):
                    remove_tree(target.disk, name, fd)
