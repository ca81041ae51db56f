"""The builds of one application on the shared mount: make a store, open it, read what is there.

Nothing that is read here is trusted: a build's content counts only as far as it matches a manifest
whose digest comes from somewhere else. Writing builds is `publishing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from typing import Optional

from moorline.build import Build, BuildId, build_id
from moorline.disk import DAMAGE, AnyPath, Disk
from moorline.errors import ConfigError, Conflict, Mismatch, NotFound, UnknownFormat
from moorline.files import make_directories, read_file, replace_file, write_file
from moorline.layout import LAYOUTS, Base, Reader, Times
from moorline.layout.pack import PackReader
from moorline.layout.tree import TreeReader
from moorline.manifest import MAX_MANIFEST_BYTES, Manifest
from moorline.record import Record, record_text
from moorline.scan import Progress, no_progress
from moorline.settings import checked_app
from moorline.verifying import Verified

STORE_FORMAT = 1
MARKER = b"moorline-store.json"
FOLDERS = (
    b"builds",
    b"packs",
    b"sequence",
    b"incoming",
    b"trash",
    b"agent",
    b"settings",
    b"ledger",
)

_TIMES_HEADER = b"moorline-times 1\n"
_TICKET = re.compile(rb"([0-9a-f]{16}) ([A-Za-z0-9][A-Za-z0-9._-]{0,99}) ([0-9]{1,12})\n")


# -- making and opening a store -------------------------------------------------------------------


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


def open_store(disk: Disk, path: AnyPath, *, app: Optional[str] = None) -> Store:
    """The store at `path`. Raises NotFound, or ConfigError for another application or format."""
    name = os.fsdecode(path)
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"no store at {name}: there is no such folder. Mount the share, or make a store with "
            f"'moorline init --store {name}'."
        ) from None
    try:
        try:
            record = Record.parse(read_file(disk, MARKER, root), f"{name}/{MARKER.decode()}")
        except FileNotFoundError:
            empty = not disk.names(root)
            raise NotFound(
                f"no store at {name}: the folder {'is empty' if empty else 'holds no store'}. "
                + ("Is the share mounted there? " if empty else "")
                + f"A new store is made with 'moorline init --store {name}'."
            ) from None
        if record.number("format") != STORE_FORMAT:
            raise UnknownFormat(
                f"the store at {name} has format {record.number('format')}; this moorline knows "
                f"{STORE_FORMAT}. Use a newer moorline."
            )
        store = Store(
            disk, name, root, app=record.text("app"), id=record.text("store"),
            layout=record.text("layout"),
        )  # fmt: skip
        if store.layout not in LAYOUTS:
            raise ConfigError(f"the store at {name} has an unknown layout {store.layout[:40]!r}.")
        if app is not None and store.app != app:
            raise ConfigError(
                f"the store at {name} belongs to application {store.app!r}, not to {app!r}. "
                "Name the right store, or set 'app' in moorline.toml."
            )
        return store
    except BaseException:
        os.close(root)
        raise


class Store:
    """An open store. Nothing in it is trusted but what matches a digest from elsewhere."""

    def __init__(self, disk: Disk, path: str, root: int, *, app: str, id: str, layout: str) -> None:
        self.disk = disk
        self.path = path
        self.root = root
        self.app = app
        self.id = id
        self.layout = layout

    def close(self) -> None:
        os.close(self.root)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def folder(self, name: bytes) -> Iterator[int]:
        """One of the store's folders, open, and not through a link."""
        fd = self.disk.open_directory(name, self.root)
        try:
            yield fd
        finally:
            os.close(fd)

    # -- reading ------------------------------------------------------------------------------

    def ids(self) -> list[BuildId]:
        """The ids of all builds, in no order. Listing also refreshes what NFS has cached."""
        found = []
        with self.folder(b"builds") as builds:
            for name, kind in self.disk.names(builds):
                with contextlib.suppress(ConfigError):
                    if kind in "d?":
                        found.append(build_id(os.fsdecode(name)))
        return found

    def builds(self) -> list[Build]:
        """All builds in the order of their sequence; damaged ones are left out."""
        found = []
        for id in self.ids():
            with (
                contextlib.suppress(NotFound, Mismatch, ConfigError),
                self.open_build(id) as opened,
            ):
                found.append(opened.build)
        return sorted(found, key=lambda build: build.sequence)

    def open_build(self, id: BuildId) -> OpenBuild:
        """The build `id`. Raises NotFound, or Mismatch when its build.json is damaged."""
        with self.folder(b"builds") as builds:
            try:
                folder = self.disk.open_directory(id, builds)
            except FileNotFoundError:
                raise NotFound(
                    f"no build {id} in the store at {self.path}. 'moorline builds' lists them."
                ) from None
            except OSError as error:
                if error.errno not in DAMAGE:
                    raise
                raise Mismatch(f"{self.path}/builds/{id} is no directory: it is damaged.") from None
        where = f"{self.path}/builds/{id}/build.json"
        try:
            build = Build.parse(read_file(self.disk, b"build.json", folder), where)
            if build.id != id:
                raise Mismatch(f"{where} speaks of build {build.id}. It was changed by hand.")
        except BaseException as error:
            os.close(folder)
            if isinstance(error, OSError) and error.errno in DAMAGE:
                raise Mismatch(f"{where} is missing or no file: the build is damaged.") from None
            if isinstance(error, ConfigError) and not isinstance(error, UnknownFormat):
                raise Mismatch(f"{error.message} The build is damaged.") from None
            raise
        return OpenBuild(self, build, folder)

    def newest(self, most: int = 16) -> Optional[OpenBuild]:
        """The build with the highest sequence number that is still there and whole."""
        ids = set(self.ids())
        for number, _ in self.tickets()[:most] if ids else []:
            ticket = self.read_ticket(number)
            if ticket is None or ticket[1] not in ids:
                continue
            with contextlib.suppress(NotFound, Mismatch, ConfigError):
                opened = self.open_build(ticket[1])
                if opened.build.token == ticket[0]:
                    return opened
                opened.close()
        return None

    def has(self, folder: bytes, name: str) -> bool:
        """Whether agent/ or settings/ holds `name`."""
        with self.folder(folder) as fd:
            return os.fsencode(name) in {named.name for named in self.disk.names(fd)}

    def put(self, folder: bytes, name: str, data: bytes) -> None:
        """Keep `data` in agent/ or settings/ under its own digest; a damaged one is replaced."""
        with self.folder(folder) as fd:
            try:
                if read_file(self.disk, os.fsencode(name), fd, most=len(data)) == data:
                    return
            except OSError as error:
                if error.errno not in DAMAGE:
                    raise
            replace_file(self.disk, os.fsencode(name), data, fd, self.disk.token())

    def get(self, folder: bytes, name: str, digest: str, *, most: int = 1 << 24) -> bytes:
        """What agent/ or settings/ holds under `name`. Raises Mismatch unless it has `digest`."""
        with self.folder(folder) as fd:
            try:
                data = read_file(self.disk, os.fsencode(name), fd, most=most)
            except FileNotFoundError:
                raise NotFound(
                    f"the store at {self.path} does not hold {folder.decode()}/{name}. "
                    "Publish the same build again: that completes it."
                ) from None
            except OSError as error:
                if error.errno not in DAMAGE:
                    raise
                data = b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise Mismatch(
                f"{self.path}/{folder.decode()}/{name} was changed: its SHA-256 is not the one in "
                "the bundle. Publish the same build again: that repairs it."
            )
        return data

    # -- the order of builds ------------------------------------------------------------------

    def tickets(self) -> list[tuple[int, bytes]]:
        """Sequence numbers given out so far, the highest first."""
        with self.folder(b"sequence") as sequence:
            names = [named.name for named in self.disk.names(sequence)]
        return sorted(((int(n), n) for n in names if n.isdigit() and len(n) < 19), reverse=True)

    def read_ticket(self, number: int) -> Optional[tuple[str, BuildId, int]]:
        """(token, build id, created) of a sequence number."""
        with self.folder(b"sequence") as sequence:
            try:
                text = read_file(self.disk, b"%d" % number, sequence, most=256)
            except OSError as error:
                if error.errno not in DAMAGE:
                    raise
                return None
        match = _TICKET.fullmatch(text)
        if match is None:
            return None
        return match[1].decode(), BuildId(match[2].decode()), int(match[3])


class OpenBuild:
    """One published build, open."""

    def __init__(self, store: Store, build: Build, folder: int) -> None:
        self.store = store
        self.build = build
        self.folder = folder

    def close(self) -> None:
        os.close(self.folder)

    def __enter__(self) -> OpenBuild:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        return f"{self.store.path}/builds/{self.build.id}"

    def manifest(self, digest: str = "", size_bytes: int = 0) -> Manifest:
        """The manifest. Raises Mismatch unless it has `digest`: by default build.json's, which only
        the share vouches for. `size_bytes` bounds what is read, when it is known."""
        digest = digest or self.build.digest
        most = min(size_bytes or MAX_MANIFEST_BYTES, MAX_MANIFEST_BYTES)
        try:
            text = read_file(self.store.disk, b"manifest", self.folder, most=most)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            text = b""
        try:
            return Manifest.parse(text, digest)
        except Mismatch:
            raise Mismatch(
                f"the manifest of build {self.build.id} at {self.path} is not the one that CI made "
                f"(digest {digest[:12]}). It was changed after publishing. "
                "Publish the same build again: that repairs it."
            ) from None

    def times(self, manifest: Manifest) -> Times:
        """The files' times. Not part of the identity: damaged ones are replaced by `created`."""
        try:
            text = read_file(self.store.disk, b"times", self.folder, most=MAX_MANIFEST_BYTES)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            text = b""
        return parse_times(text, manifest, self.build.created)

    def base(self) -> Optional[Base]:
        """This build as what the next one takes over from; None when its manifest is damaged."""
        try:
            manifest = self.manifest()
        except Mismatch:
            return None
        return Base(self.folder, manifest, self.times(manifest))

    def verify(self, manifest: Manifest, progress: Progress = no_progress) -> Verified:
        """Read everything the store holds of this build and list what differs."""
        return self.reader().verify(manifest, progress)

    def reader(self) -> Reader:
        if self.store.layout == "pack":
            return PackReader(self.store.disk, self.store.root, self.folder)
        return TreeReader(self.store.disk, self.folder)


def times_text(manifest: Manifest, times: Times) -> bytes:
    """The file `times`: one number a line, in the order of the manifest's files."""
    lines = [_TIMES_HEADER, *(b"%d\n" % times[entry.path] for entry in manifest.files)]
    return b"".join(lines)


def parse_times(text: bytes, manifest: Manifest, default: int) -> Times:
    paths = [entry.path for entry in manifest.files]
    numbers = text[len(_TIMES_HEADER) :].split() if text.startswith(_TIMES_HEADER) else []
    if len(numbers) != len(paths) or not all(n.isdigit() and len(n) < 12 for n in numbers):
        return dict.fromkeys(paths, default)
    return dict(zip(paths, map(int, numbers)))
