"""The builds of one application on the shared mount: open a store, read what is there.

Nothing that is read here is trusted: a build's content counts only as far as it matches a manifest
whose digest comes from somewhere else. `founding` makes a store, `publishing` writes builds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Optional

from moorline.build import LAYOUTS, MOST_SEQUENCE, Build, BuildId, build_id
from moorline.disk import DAMAGE, STALE, AnyPath, Disk, Named
from moorline.errors import ConfigError, Mismatch, NotFound, Problem, UnknownFormat
from moorline.files import (
    read_file,
    replace_file,
)
from moorline.layout import Times, read_manifest
from moorline.layout.index import Index, read_index
from moorline.manifest import MAX_MANIFEST_BYTES, Manifest
from moorline.progress import Progress, no_progress
from moorline.record import Record

if TYPE_CHECKING:
    from moorline.layout import Reader
    from moorline.verifying import Verified, Verifier

STORE_FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
REPAIR = "The build is damaged. Publish the same build again: that repairs it."
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
        self._folders: dict[bytes, int] = {}

    def close(self) -> None:
        for fd in (*self._folders.values(), self.root):
            os.close(fd)
        self._folders = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def folder(self, name: bytes) -> int:
        """One of the store's folders, open until the store is closed, and not through a link."""
        if name not in self._folders:
            self._folders[name] = self.disk.open_directory(name, self.root)
        return self._folders[name]

    def listed(self, name: bytes) -> list[Named]:
        """What a folder holds now. It is opened anew: on NFS only that refreshes what is cached,
        names once found missing included."""
        if name not in self._folders:
            return self.disk.names(self.folder(name))
        fd = self.disk.open_directory(name, self.root)
        try:
            return self.disk.names(fd)
        finally:
            os.close(fd)

    # -- reading ------------------------------------------------------------------------------

    def ids(self) -> list[BuildId]:
        """The ids of all builds, in no order. Listing also refreshes what NFS has cached."""
        found = []
        for name, kind in self.listed(b"builds"):
            with contextlib.suppress(ConfigError):
                if kind == "d":
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
        try:
            return self._open_build(id)
        except (OSError, Mismatch) as error:
            if isinstance(error, OSError) and error.errno not in STALE:
                raise
            self.still_holds(id, error)  # and lists builds/, which refreshes what NFS believes
            return self._open_build(id)

    def still_holds(self, id: BuildId, error: Optional[BaseException] = None) -> None:
        """Raises NotFound when build `id` is not there any more: what a reader took for damage was
        a removal on another machine."""
        with contextlib.suppress(OSError):
            if os.fsencode(id) not in {named.name for named in self.listed(b"builds")}:
                raise NotFound(
                    f"build {id} was removed from the store at {self.path} while it was read. "
                    "'moorline builds' lists what is there."
                ) from error

    def _open_build(self, id: BuildId) -> OpenBuild:
        try:
            folder = self.disk.open_directory(id, self.folder(b"builds"))
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
                raise Mismatch(f"{where} speaks of build {build.id}: it was changed. {REPAIR}")
        except BaseException as error:
            os.close(folder)
            if isinstance(error, OSError) and error.errno in DAMAGE:
                raise Mismatch(f"{where} is missing or no file. {REPAIR}") from None
            if isinstance(error, ConfigError) and not isinstance(error, UnknownFormat):
                raise Mismatch(f"{error.message} {REPAIR}") from None
            raise
        return OpenBuild(self, build, folder)

    def has(self, folder: bytes, name: str, size_bytes: int) -> bool:
        """Whether agent/ or settings/ holds `name`, as long as it should be, and durably."""
        try:
            status = self.disk.stat(os.fsencode(name), self.folder(folder))
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return False
        held = stat.S_ISREG(status.st_mode) and status.st_size == size_bytes
        if held:
            self.disk.sync(self.folder(folder))  # who put it there may have died before doing that
        return held

    def put(self, folder: bytes, name: str, data: bytes) -> None:
        """Keep `data` in agent/ or settings/ under its own digest; a damaged one is replaced."""
        fd = self.folder(folder)
        try:
            if read_file(self.disk, os.fsencode(name), fd, most=len(data)) == data:
                self.disk.sync(fd)  # who put it there may have died before doing that
                return
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
        replace_file(self.disk, os.fsencode(name), data, fd, self.disk.token())

    def get(self, folder: bytes, name: str, digest: str, *, most: int = 1 << 24) -> bytes:
        """What agent/ or settings/ holds under `name`. Raises Mismatch unless it has `digest`."""
        try:
            data = read_file(self.disk, os.fsencode(name), self.folder(folder), most=most)
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

    def changed(self, folder: bytes) -> Iterator[Problem]:
        """The files of agent/ or settings/ that do not have the digest in their name."""
        for name in sorted(os.fsdecode(named.name) for named in self.listed(folder)):
            digest = name.partition(".")[0]
            if not _DIGEST.fullmatch(digest):
                continue
            with contextlib.suppress(NotFound):  # removed meanwhile
                try:
                    self.get(folder, name, digest)
                except Mismatch:
                    yield Problem(f"{os.fsdecode(folder)}/{name}", "is not what its name says")

    # -- the order of builds ------------------------------------------------------------------

    def tickets(self) -> list[int]:
        """Sequence numbers given out so far, the highest first. Names that no publish can have
        made are passed over."""
        names = [named.name for named in self.listed(b"sequence")]
        return sorted((int(name) for name in names if _is_number(name)), reverse=True)

    def read_ticket(self, number: int) -> Optional[Build]:
        """The build that a sequence number was given to, whether it came to be or not. None when
        the ticket is damaged."""
        name = f"sequence/{number}"
        try:
            text = read_file(self.disk, b"%d" % number, self.folder(b"sequence"))
            build = Build.parse(text, name)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return None
        except (ConfigError, Mismatch):
            return None
        return build if build.sequence == number else None


def _is_number(name: bytes) -> bool:
    plain = name.isdigit() and len(name) < 19 and not name.startswith(b"0")
    return plain and int(name) <= MOST_SEQUENCE


class OpenBuild:
    """One published build, open. As a context manager it tells removal from damage: NotFound."""

    def __init__(self, store: Store, build: Build, folder: int) -> None:
        self.store = store
        self.build = build
        self.folder = folder
        self._index: Optional[Index] = None

    def close(self) -> None:
        os.close(self.folder)

    def __enter__(self) -> OpenBuild:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], *_: object) -> None:
        self.close()
        stale = isinstance(error, OSError) and error.errno in (errno.ENOENT, *STALE)
        if stale or isinstance(error, Mismatch):
            self.store.still_holds(self.build.id, error)

    @property
    def path(self) -> str:
        return f"{self.store.path}/builds/{self.build.id}"

    def manifest(self, digest: str = "", size_bytes: int = 0) -> Manifest:
        """The manifest. Raises Mismatch unless it has `digest`: by default build.json's, which only
        the share vouches for. `size_bytes` bounds what is read, when it is known."""
        digest = digest or self.build.digest
        most = min(size_bytes or MAX_MANIFEST_BYTES, MAX_MANIFEST_BYTES)
        try:
            text = read_manifest(self.store.disk, self.folder, most)
            return Manifest.parse(text, digest)
        except (OSError, Mismatch) as error:
            if isinstance(error, OSError) and error.errno not in DAMAGE:
                raise
            raise Mismatch(
                f"the manifest of build {self.build.id} at {self.path} is not the one that CI made "
                f"(digest {digest[:12]}). It was changed after publishing. "
                "Publish the same build again: that repairs it."
            ) from None

    def times(self, manifest: Manifest) -> Times:
        """The files' times. Not part of the identity: without an index it is `created`."""
        try:
            rows = self.index(manifest).rows
        except Mismatch:
            return dict.fromkeys((entry.path for entry in manifest.files), self.build.created)
        return {entry.path: time for entry, time in zip(manifest.files, rows.times)}

    def has_index(self, manifest: Manifest) -> bool:
        """Whether it can be read: layout tree does not need it for anything but times."""
        try:
            self.index(manifest)
        except Mismatch:
            return False
        return True

    def index(self, manifest: Manifest) -> Index:
        """What the store says of the manifest's files, read once. Raises Mismatch."""
        if self._index is None:
            self._index = read_index(self.store.disk, self.folder, len(manifest.files))
        return self._index

    def verifier(self, manifest: Optional[Manifest] = None) -> Verifier:
        """What `verify` works with; without a manifest it is for what build.json says of it."""
        files = self.build.files if manifest is None else len(manifest.files)
        size_bytes = self.build.size_bytes if manifest is None else manifest.size_bytes
        disk = self.store.disk
        if self.store.layout == "pack":
            from moorline.layout.pack_check import PackVerifier

            packs = self.store.folder(b"packs")
            return PackVerifier(disk, packs, self.index, files=files, size_bytes=size_bytes)
        from moorline.layout.tree import TreeVerifier

        return TreeVerifier(disk, self.folder, files=files, size_bytes=size_bytes)

    def verify(
        self, manifest: Manifest, progress: Progress = no_progress,
        verifier: Optional[Verifier] = None,
    ) -> Verified:  # fmt: skip
        """Read everything the store holds of this build and list what differs."""
        with contextlib.closing(verifier or self.verifier(manifest)) as made:
            found = made.verify(manifest, progress)
        if found.problems:
            self.store.still_holds(self.build.id)
        return found

    def reader(self, manifest: Manifest) -> Reader:
        if self.store.layout == "pack":
            from moorline.layout.pack import PackReader

            packs = self.store.folder(b"packs")
            return PackReader(
                self.store.disk,
                packs,
                lambda wanted: self.index(manifest).of(manifest.files, wanted),
            )
        from moorline.layout.tree import TreeReader

        return TreeReader(self.store.disk, self.folder)
