"""Stores for tests: publish into one, read a build back, look at all that lies around."""

from __future__ import annotations

import os
from pathlib import Path

from fakes import CountingDisk
from moorline import succession
from moorline.build import build_id
from moorline.disk import Disk
from moorline.errors import Problem
from moorline.founding import init_store
from moorline.manifest import DIRECTORY, Entry
from moorline.publishing import Published, Publisher
from moorline.scan import Rules, scan
from moorline.source import Source
from moorline.store import open_store


def make_store(path: Path, layout: str = "pack") -> Path:
    init_store(CountingDisk(), path, app="site", layout=layout).close()
    return path


def publish(store: Path, source: Path, id: str, disk: Disk | None = None) -> Published:
    """Scan `source` and publish it; only what happens in the store uses `disk`."""
    scanned = scan(CountingDisk(), source, Rules())
    with open_store(disk or CountingDisk(), store) as opened:
        return Publisher(opened).publish(scanned, build_id(id))


def directories(source: Source) -> list[Entry]:
    """What a publish may begin with."""
    return [entry for entry in source.manifest.entries if entry.kind == DIRECTORY]


def listed(store: Path) -> list[str]:
    """The ids of all whole builds, oldest first."""
    with open_store(CountingDisk(), store) as opened:
        builds = [build.id for build in opened.builds()]
        assert sorted(builds) == sorted(opened.ids()), "a build is listed that is not whole"
    return [str(id) for id in builds]


def problems(store: Path, id: str) -> tuple[Problem, ...]:
    """What a full verification of one build finds."""
    with open_store(CountingDisk(), store) as opened, opened.open_build(build_id(id)) as build:
        return build.verify(build.manifest()).problems


def content(store: Path, id: str) -> dict[str, bytes]:
    """The files of a build by path, read through its layout."""
    with open_store(CountingDisk(), store) as opened, opened.open_build(build_id(id)) as build:
        manifest = build.manifest()
        held = {e.digest: b"".join(c) for e, c in build.reader(manifest).contents(manifest.files)}
        return {entry.shown: held[entry.digest] for entry in manifest.files}


def times(store: Path, id: str) -> dict[str, int]:
    """When each file of a build got its content."""
    with open_store(CountingDisk(), store) as opened, opened.open_build(build_id(id)) as build:
        found = build.times(build.manifest())
        return {os.fsdecode(path): seconds for path, seconds in found.items()}


def newest(store: Path) -> str | None:
    """The build that the next one would take over from."""
    with open_store(CountingDisk(), store) as opened:
        base = succession.newest(opened, opened.ids()).base
    if base is None:
        return None
    name = os.path.basename(os.readlink(f"/proc/self/fd/{base.folder}"))
    os.close(base.folder)
    return name


def packs(store: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (store / "packs").iterdir()}


def leftovers(store: Path) -> list[str]:
    """What a publish that ended properly does not leave: staging, trash, temporary names."""
    found = [p.name for folder in ("incoming", "trash") for p in (store / folder).iterdir()]
    return found + [str(p.relative_to(store)) for p in store.rglob(".*")]
