"""One place that serves: `current`, its releases, what it shares, and its history.

    <target>/current -> releases/<id>.<n>   or   <store>/builds/<id>/tree
    <target>/releases/<id>.<n>/
    <target>/shared/
    <target>/.moorline/   target.json, history.jsonl, deploying.json, lock,
                          manifests/, agents/, settings/

All of it lies on a local disk and belongs to the deploying user. `current` changes in one function,
for deploy, rollback and put-back alike: a new link beside it, renamed over it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import Optional

from moorline.build import BuildId, Release, build_id, checked_digest, checked_token
from moorline.disk import DAMAGE, AnyPath, Disk
from moorline.errors import ConfigError, Conflict, Error, NotFound, Unsafe
from moorline.files import read_file, replace_file, sync_directory
from moorline.history import Deploying
from moorline.manifest import MAX_MANIFEST_BYTES, Manifest
from moorline.record import Record, record_text

LOCK_WAIT_S = 60.0
_LOCK_STEP_S = 0.05
_PRIVATE = (b".moorline", b"releases")
_KEPT = (b"manifests", b"agents", b"settings")
RELEASE = re.compile(r"releases/([A-Za-z0-9][A-Za-z0-9._-]{0,99})\.([0-9]{1,9})")
TREE = re.compile(r"/.*/builds/([A-Za-z0-9][A-Za-z0-9._-]{0,99})/tree")


# -- opening a target -----------------------------------------------------------------------------


def open_target(disk: Disk, root: str, *, make: bool = True) -> Target:
    """The target at `root`, made when its parent exists.

    Raises NotFound (no parent; no target and not `make`), Unsafe when somebody else could write it,
    ConfigError when `current` is no link.
    """
    path = os.path.realpath(root)
    if not os.path.isdir(path):
        if not make:
            raise NotFound(f"no target at {path}: there is no such folder.")
        if not os.path.isdir(os.path.dirname(path)):
            raise NotFound(
                f"cannot make the target {path}: {os.path.dirname(path)} does not exist. "
                "Make that folder, or correct the target's root."
            )
        make_folder(disk, path)
    fd = disk.open_directory(path)
    try:
        _check_owner(fd, path)
        _check_current(disk, fd, path)
        if not make and b".moorline" not in {named.name for named in disk.names(fd)}:
            raise NotFound(f"no target at {path}: nothing was ever deployed there.")
        for name in (*_PRIVATE, b"shared"):
            _own_folder(disk, fd, name, path)
        for name in _KEPT:
            with contextlib.suppress(FileExistsError):
                disk.make_directory(b".moorline/" + name, 0o755, fd)
        return Target(disk, path, fd)
    except BaseException:
        os.close(fd)
        raise


def make_folder(
    disk: Disk, path: AnyPath, at: Optional[int] = None, owner: Optional[tuple[int, int]] = None
) -> bool:
    """A folder that a web server may enter, whatever the umask is and the folder above says. False
    when the name was there.

    The folder above may belong to the application, who can put another folder in its place at once:
    so only what is open, empty and ours gets the mode and the `owner`.
    """
    try:
        disk.make_directory(path, 0o755, at)
    except FileExistsError:
        return False
    fd = disk.open_directory(path, at)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or disk.names(fd):
            return False
        if status.st_mode & 0o7777 != 0o755:
            disk.set_mode(fd, 0o755)
        if owner is not None:
            disk.set_owner(fd, *owner)
    finally:
        os.close(fd)
    return True


def _own_folder(disk: Disk, fd: int, name: bytes, path: str) -> None:
    """One of the target's folders, made when missing. `shared` may belong to the application."""
    make_folder(disk, name, fd)
    if name in _PRIVATE:
        try:
            inside = disk.open_directory(name, fd)
        except NotADirectoryError:
            raise Unsafe(f"{path}/{os.fsdecode(name)} is no folder. Move it away.") from None
        try:
            _check_owner(inside, f"{path}/{os.fsdecode(name)}")
        finally:
            os.close(inside)


def _check_owner(fd: int, path: str) -> None:
    status, user = os.fstat(fd), os.geteuid()
    if status.st_uid != user:
        raise Unsafe(
            f"{path} belongs to user {status.st_uid}, and the deploy runs as user {user}: its "
            f"owner could change what goes live. Run 'chown {user} {path}', or deploy as its owner."
        )
    if status.st_mode & 0o022:
        raise Unsafe(
            f"{path} can be written by others than its owner (mode {status.st_mode & 0o7777:o}): "
            f"they could change what goes live. Run 'chmod go-w {path}'."
        )


def _check_current(disk: Disk, fd: int, path: str) -> None:
    try:
        mode = disk.stat(b"current", fd).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "file"
        raise ConfigError(
            f"{path}/current is a {kind}, not a link; nothing was touched. Move it away once: "
            f"'mv {path}/current {path}/before-moorline', then deploy."
        )


class Target:
    """An open target. Everything that changes it is called with its lock held."""

    def __init__(self, disk: Disk, root: str, fd: int) -> None:
        self.disk = disk
        self.root = root
        self.fd = fd
        self._rows: dict[bytes, Release] = {}

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def folder(self, name: bytes) -> Iterator[int]:
        fd = self.disk.open_directory(name, self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def lock(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """One verb at a time. Raises Conflict when the target stays busy for `wait_s` seconds."""
        fd = os.open(
            b".moorline/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644,
            dir_fd=self.fd,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + wait_s
            while not self.disk.lock(fd):
                if time.monotonic() >= deadline:
                    raise Conflict(
                        f"the target {self.root} is busy: another deploy or rollback has held it "
                        f"for {wait_s:g} s. Wait for it to end, then run the same command again."
                    )
                time.sleep(_LOCK_STEP_S)
            try:
                yield
            finally:
                self.disk.unlock(fd)
        finally:
            os.close(fd)

    # -- who this is --------------------------------------------------------------------------

    def identity(self) -> str:
        """The target's random id. A clone of a machine, or a copied folder, gets a new one."""
        machine = _machine_id(self.disk)
        try:
            record = Record.parse(
                read_file(self.disk, b".moorline/target.json", self.fd), "target.json"
            )
            known = (record.text("machine", ""), record.text("root", ""))
            if known == (machine, self.root):
                return checked_token(record.text("id"), "target.json")  # names a file in the ledger
        except (FileNotFoundError, ConfigError):
            pass
        token = self.disk.token()
        text = record_text({"id": token, "machine": machine, "root": self.root})
        with self.folder(b".moorline") as fd:
            replace_file(self.disk, b"target.json", text, fd, token)
        return token

    @property
    def host(self) -> str:
        return os.uname().nodename[:255]

    # -- current ------------------------------------------------------------------------------

    def current(self) -> str:
        """What the link says; empty when there is none."""
        try:
            return os.fsdecode(self.disk.read_link(b"current", self.fd))
        except FileNotFoundError:
            return ""

    def switch(self, place: str) -> None:
        """Make `current` say `place`, in one step; without a place, take it away."""
        if place:
            temporary = b".current.%s.tmp" % self.disk.token().encode()
            self.disk.make_link(os.fsencode(place), temporary, self.fd)
            self.disk.rename(temporary, b"current", self.fd, self.fd)
        else:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(b"current", self.fd)
        self.disk.sync(self.fd)

    def path_of(self, place: str) -> str:
        """Where a release lies."""
        return place if place.startswith("/") else f"{self.root}/{place}"

    def holds(self, place: str) -> bool:
        """Whether a release's directory is there."""
        try:
            os.close(self.disk.open_directory(place, self.fd))
        except OSError:
            return False
        return True

    # -- history ------------------------------------------------------------------------------

    def history(self) -> list[Release]:
        """All rows, oldest first. A line torn by a crash is passed over.

        A deploy asks six times, and 30,000 rows (40 deploys a day for a year) took 0.6 s of
        processor each time: a line is parsed once.
        """
        try:
            text = read_file(self.disk, b".moorline/history.jsonl", self.fd, most=1 << 28)
        except FileNotFoundError:
            return []
        rows = []
        for line in text.split(b"\n"):
            with contextlib.suppress(ConfigError):
                if line not in self._rows:
                    self._rows[line] = Release.parse(line, "history.jsonl")
                rows.append(self._rows[line])
        return rows

    def record(self, row: Release) -> None:
        """Append one row, durably. A torn line before it gets its end first."""
        path = b".moorline/history.jsonl"
        with self.folder(b".moorline") as folder:
            fd = self.disk.append(b"history.jsonl", folder)
            try:
                size = os.fstat(fd).st_size
                if not size:
                    self._sync_way(folder)
                torn = size and not self._ends_line(path, size)
                self.disk.write(fd, (b"\n" if torn else b"") + row.text())
                self.disk.sync(fd)
            finally:
                os.close(fd)

    def _sync_way(self, folder: int) -> None:
        """Before the first row: the names that lead to the history, from the target's own down. Who
        made them may have died before they were durable, and so without a row."""
        self.disk.sync(folder)
        self.disk.sync(self.fd)
        with contextlib.suppress(PermissionError):
            sync_directory(self.disk, os.path.dirname(self.root))

    def _ends_line(self, path: bytes, size: int) -> bool:
        fd, _ = self.disk.open_file(path, self.fd)
        try:
            return self.disk.read(fd, 1, size - 1) == b"\n"
        finally:
            os.close(fd)

    def live(self, rows: list[Release]) -> Optional[Release]:
        """The row of what `current` says now; None when nothing is live."""
        place = self.current()
        for row in reversed(rows):
            if row.place == place and row.step in ("intended", "live", "restored"):
                return row
        return None

    def live_id(self) -> Optional[BuildId]:
        """The id of what is live, by the name that `current` has."""
        match = RELEASE.fullmatch(self.current()) or TREE.fullmatch(self.current())
        return build_id(match.group(1)) if match else None

    def next_number(self, rows: list[Release]) -> int:
        """The number of the next release: larger than every row and every folder."""
        numbers = [row.n for row in rows]
        with self.folder(b"releases") as releases:
            for name, _ in self.disk.names(releases):
                match = RELEASE.fullmatch("releases/" + os.fsdecode(name))
                if match:
                    numbers.append(int(match.group(2)))
        return max(numbers, default=0) + 1

    # -- the deployment under way -------------------------------------------------------------

    def deploying(self) -> Optional[Deploying]:
        try:
            text = read_file(self.disk, b".moorline/deploying.json", self.fd)
            return Deploying.parse(text, "deploying.json")
        except (FileNotFoundError, ConfigError):
            return None

    def set_deploying(self, deploying: Optional[Deploying]) -> None:
        with self.folder(b".moorline") as fd:
            if deploying is not None:
                replace_file(self.disk, b"deploying.json", deploying.text(), fd, self.disk.token())
                return
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(b"deploying.json", fd)

    # -- what rollback needs without the share --------------------------------------------------

    def keep(self, folder: bytes, name: str, data: bytes) -> None:
        """Keep a manifest, agent or settings file under its digest, durably."""
        with self.folder(b".moorline/" + folder) as fd:
            try:
                if read_file(self.disk, name, fd, most=len(data)) == data:
                    self.disk.sync(fd)  # who put it there may have died before doing that
                    return
            except OSError:
                pass
            replace_file(self.disk, os.fsencode(name), data, fd, self.disk.token())

    def kept(self, folder: bytes, name: str) -> Optional[bytes]:
        try:
            return self._read_kept(folder, name)
        except OSError:
            return None

    def keeps(self, folder: bytes, name: str) -> bool:
        """Whether a kept file is there and has the digest in its name. Raises OSError when the disk
        does not say."""
        try:
            data = self._read_kept(folder, name)
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return False
        return hashlib.sha256(data).hexdigest() == name.partition(".")[0]

    def settle(self, folder: bytes) -> None:
        """The names of kept files are durable: who put one there may have died before that."""
        sync_directory(self.disk, b".moorline/" + folder, self.fd)

    def _read_kept(self, folder: bytes, name: str) -> bytes:
        with self.folder(b".moorline/" + folder) as fd:
            return read_file(self.disk, name, fd, most=MAX_MANIFEST_BYTES)

    def manifest(self, digest: str) -> Optional[Manifest]:
        """A kept manifest, when it is there and right."""
        text = self.manifest_text(digest)
        try:
            return Manifest.parse(text, digest) if text else None
        except Error:
            return None

    def manifest_text(self, digest: str) -> bytes:
        """The same, not parsed; empty when it is missing or wrong."""
        text = self.kept(b"manifests", checked_digest(digest, "manifest")) or b""
        return text if hashlib.sha256(text).hexdigest() == digest else b""


def _machine_id(disk: Disk) -> str:
    try:
        return read_file(disk, "/etc/machine-id", most=256).decode("ascii", "replace").strip()
    except OSError:
        return ""
