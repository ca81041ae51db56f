"""What `verify` reads and reports: of a store all that it holds, of a target what it serves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from moorline.build import BuildId
from moorline.disk import Disk
from moorline.errors import ConfigError, Mismatch, NotFound, Problem
from moorline.garbage import uncollected
from moorline.layout.index import INDEX_DAMAGED
from moorline.progress import Progress
from moorline.proof import prove
from moorline.results import VerifyResult, hint, verified
from moorline.store import OpenBuild, Store
from moorline.target import open_target


@uncollected()
def verify_build(store: Store, opened: OpenBuild, progress: Progress) -> VerifyResult:
    """Every byte of one build."""
    started = time.monotonic()
    with contextlib.closing(opened.verifier()) as verifier:
        manifest = opened.manifest()
        index_damaged = store.layout == "tree" and not opened.has_index(manifest)
        found = opened.verify(manifest, progress, verifier)
    if index_damaged:
        found = replace(found, problems=(Problem(".", INDEX_DAMAGED), *found.problems))
    return verified(opened.build.id, found, opened.path, started)


def verify_all(store: Store, progress: Progress) -> Iterator[VerifyResult]:
    """Every build, and what bundles pin beside them."""
    for id in sorted(store.ids()):
        with contextlib.suppress(NotFound):  # it was removed meanwhile
            yield _verify_any(store, id, progress)
    yield from _verify_kept(store)


def _verify_any(store: Store, id: BuildId, progress: Progress) -> VerifyResult:
    """One of all builds: a damaged record or manifest is a finding, and the others go on."""
    try:
        with store.open_build(id) as opened:
            return verify_build(store, opened, progress)
    except (Mismatch, ConfigError) as error:
        where = f"{store.path}/builds/{id}"
        return VerifyResult(id, False, (Problem(".", error.message),), 0, 0, 0.0, where)


def _verify_kept(store: Store) -> Iterator[VerifyResult]:
    """Agents and settings; a result only where something was changed. The slash at the end of its
    id tells it from a build's."""
    for folder in (b"agent", b"settings"):
        problems = tuple(store.changed(folder))
        if problems:
            name = f"{folder.decode()}/"
            where = f"{store.path}/{name}"
            yield VerifyResult(BuildId(name), False, problems, 0, 0, 0.0, where)


def verify_target(disk: Disk, root: str, progress: Progress) -> VerifyResult:
    """Every byte of what a target serves, and what it keeps to come back to it."""
    started = time.monotonic()
    with open_target(disk, root, make=False) as target:
        live, found = prove(disk, target, progress)
        hinted = tuple(Problem(p.path, p.problem + hint(p)) for p in found.problems)
        return verified(live.id, replace(found, problems=hinted), target.root, started)
