"""Write a build as a plain folder: as in a release, every byte is compared with the manifest."""

from __future__ import annotations

import contextlib
import os

from moorline.disk import Disk
from moorline.files import remove_tree
from moorline.manifest import Manifest
from moorline.place import Placement
from moorline.progress import Progress
from moorline.store import OpenBuild


def write_export(
    disk: Disk, opened: OpenBuild, manifest: Manifest, parent: int, name: bytes, progress: Progress
) -> None:
    """Under its own name only once it is whole: nobody may take half of a build for all of it."""
    temporary = b".%s.%s.tmp" % (name[:200], disk.token().encode())
    disk.make_directory(temporary, 0o755, parent)
    try:
        root = disk.open_directory(temporary, parent)
        try:
            times, reader = opened.times(manifest), opened.reader(manifest)
            Placement(disk, root, manifest, times, reader, [], None, progress).run()
            disk.sync_all(root)
        finally:
            os.close(root)
        disk.rename(temporary, name, parent, parent)
        disk.sync(parent)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(disk, temporary, parent)
        raise
