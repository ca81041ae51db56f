"""Make a store: folders first, then the marker, which says what it is."""

from __future__ import annotations

import contextlib
import os

from moorline.build import LAYOUTS
from moorline.disk import AnyPath, Disk
from moorline.errors import ConfigError, Conflict
from moorline.files import make_directories, sync_directory, write_file
from moorline.record import record_text
from moorline.settings import checked_app
from moorline.store import FOLDERS, MARKER, STORE_FORMAT, Store, open_store


def init_store(disk: Disk, path: AnyPath, *, app: str, layout: str = "pack") -> Store:
    """Make a store at `path`, or open the one that is there.

    Raises Conflict when it belongs to another application or has another layout, ConfigError when
    the folder holds something else.
    """
    checked_app(app)
    if layout not in LAYOUTS:
        raise ConfigError(f"{layout!r} is not a layout. Use 'pack' or 'tree'.")
    name = os.fsdecode(path)
    make_directories(disk, path)
    root = disk.open_directory(path)
    try:
        held = {named.name for named in disk.names(root)}
        strange = held - set(FOLDERS) - {MARKER, b"lost+found"}
        if MARKER not in held:
            if any(not s.startswith(b".") for s in strange):
                raise ConfigError(f"{name} is not empty and no store. Name an empty folder.")
            for folder in FOLDERS:
                with contextlib.suppress(FileExistsError):
                    disk.make_directory(folder, 0o755, root)
            disk.sync(root)  # who finds the marker finds the folders
            _mark(disk, root, app, layout)
        else:
            disk.sync(root)  # who made it may have died before doing that
        with contextlib.suppress(PermissionError):
            sync_directory(disk, os.path.dirname(os.path.abspath(path)))
    finally:
        os.close(root)
    store = open_store(disk, path)
    if (store.app, store.layout) != (app, layout):
        store.close()
        raise Conflict(
            f"{name} is already a store: of {store.app!r}, layout {store.layout}. "
            "Use it as it is, or make the new store in another folder."
        )
    return store


def _mark(disk: Disk, root: int, app: str, layout: str) -> None:
    """Write the marker, once: of two that make a store at the same time, one wins."""
    token = disk.token()
    text = record_text({"format": STORE_FORMAT, "store": token, "app": app, "layout": layout})
    temporary = b".%s.tmp" % token.encode()
    write_file(disk, temporary, text, root)
    with contextlib.suppress(FileExistsError):
        disk.hard_link(temporary, MARKER, root, root)
    disk.unlink(temporary, root)
    disk.sync(root)
