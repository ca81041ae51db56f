"""What a target holds of the build that it is to get: a whole release, or files of older ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from moorline.build import BuildId, Release
from moorline.place import Held
from moorline.progress import Progress
from moorline.target import Target
from moorline.verifying import verify


class Whole(NamedTuple):
    """The release that was found whole, if any; and what was wrong with others, in words."""

    release: Release | None
    files: int
    notes: list[str]


def whole_release(
    target: Target, id: BuildId, digest: str, rows: list[Release], progress: Progress
) -> Whole:
    """A local release of this very build, fully verified now; the live one first.

    Another build with the same content is none: its folder has that one's name and times.
    """
    notes: list[str] = []
    current = target.current()
    mine = [row for row in reversed(rows) if (row.id, row.digest, row.mode) == (id, digest, "copy")]
    mine.sort(key=lambda row: row.place != current)
    places = {row.place: row for row in mine if target.holds(row.place)}
    manifest = target.manifest(digest) if places else None
    if manifest is None:
        return Whole(None, 0, notes)
    for row in places.values():
        found = verify(target.disk, target.path_of(row.place), manifest, progress)
        if not found.problems:
            return Whole(row, found.files, notes)
        notes.append(f"{row.place} was damaged ({len(found.problems)} problem(s)) and is replaced")
    return Whole(None, 0, notes)


@contextlib.contextmanager
def open_releases(target: Target, rows: list[Release]) -> Iterator[list[Held]]:
    """Open local releases to take unchanged files from, the live one first."""
    current, held = target.current(), []
    places = {r.place: r for r in rows if r.mode == "copy" and r.place}
    order = sorted(places.values(), key=lambda row: (row.place != current, -row.n))
    try:
        for row in order:
            if target.holds(row.place):
                fd = target.disk.open_directory(row.place, target.fd)
                held.append(Held(fd, partial(target.manifest_text, row.digest)))
        yield held
    finally:
        for release in held:
            os.close(release.folder)
