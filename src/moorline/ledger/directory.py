"""The ledger as a folder of the store: one small file a record, replaced whole by rename.

    ledger/builds/<id>.json        every build ever published
    ledger/targets/<target>.json   what a target serves, would go back to, is about to serve
    ledger/pins/<id>.json          a person needs this build, and why
    ledger/removing/<id>.<token>.json    somebody is about to remove this build

Each file has one writer, so nobody needs a lock; who opens one sees it fresh, also on NFS.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Optional

from moorline.build import Build, BuildId, Pin, TargetRecord
from moorline.disk import Disk
from moorline.errors import ConfigError
from moorline.files import read_file, replace_file
from moorline.record import record_text

_REMOVING = re.compile(r"([A-Za-z0-9].*?)(?:\.[0-9a-f]{16})?\.json")
FOLDERS = (b"builds", b"targets", b"pins", b"removing")


class DirectoryLedger:
    """The ledger below the open folder `store`."""

    def __init__(self, disk: Disk, store: int) -> None:
        self.disk = disk
        self.store = store

    def write_build(self, build: Build) -> None:
        self._write(b"builds", build.id, build.text())

    def adopt_build(self, build: Build, tickets: int) -> None:
        """The record of a build that was just published, as a link to its ticket in the open folder
        `tickets`: complete from the first, and one request on NFS. (A link to its build.json would
        be three: the rename into builds/ made the client forget what its folder holds.)"""
        name = f"{build.id}.json"
        with self._folder(b"builds", make=True) as fd:
            try:
                self.disk.hard_link(b"%d" % build.sequence, name, tickets, fd)
            except FileExistsError:  # of a build that was removed since; or NFS tried twice
                replace_file(self.disk, name.encode(), build.text(), fd, self.disk.token())
            self.disk.sync(fd)

    def builds(self) -> list[Build]:
        """Every build ever published, in the order of their sequence."""
        found = [Build.parse(text, where) for where, text in self._read_all(b"builds")]
        return sorted(found, key=lambda build: build.sequence)

    def build(self, id: BuildId) -> Optional[Build]:
        text = self._read(b"builds", id)
        return None if text is None else Build.parse(text, f"ledger/builds/{id}.json")

    def write_target(self, record: TargetRecord) -> None:
        self._write(b"targets", record.target, record.text())

    def target(self, id: str) -> Optional[TargetRecord]:
        text = self._read(b"targets", id)
        return None if text is None else TargetRecord.parse(text, f"ledger/targets/{id}.json")

    def targets(self) -> list[TargetRecord]:
        found = [TargetRecord.parse(text, where) for where, text in self._read_all(b"targets")]
        return sorted(found, key=lambda record: (record.stage, record.host, record.root))

    def write_pin(self, pin: Pin) -> None:
        self._write(b"pins", pin.id, pin.text())

    def pins(self) -> list[Pin]:
        found = [Pin.parse(text, where) for where, text in self._read_all(b"pins")]
        return sorted(found, key=lambda pin: pin.id)

    def remove_pin(self, id: BuildId) -> bool:
        """Whether there was one."""
        try:
            with self._folder(b"pins") as fd:
                self.disk.unlink(f"{id}.json", fd)
                self.disk.sync(fd)
        except FileNotFoundError:
            return False
        return True

    def removing(self) -> set[str]:
        """The builds that prune is about to remove. Listed, so it is fresh on NFS as well."""
        try:
            with self._folder(b"removing") as fd:
                names = [os.fsdecode(named.name) for named in self.disk.names(fd)]
        except FileNotFoundError:
            return set()
        matches = (_REMOVING.fullmatch(name) for name in names)
        return {match.group(1) for match in matches if match}

    def begin_removing(self, id: BuildId, reason: str, time: int) -> str:
        """Announce a removal, before any pin is read; returns what ends it. Each has its own file:
        who steps back must not take the announcement of another away."""
        token = self.disk.token()
        text = record_text({"id": id, "reason": reason, "time": time})
        self._write(b"removing", f"{id}.{token}", text)
        return token

    def end_removing(self, id: BuildId, token: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._folder(b"removing") as fd:
            self.disk.unlink(f"{id}.{token}.json", fd)

    # -- files --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _folder(self, name: bytes, *, make: bool = False) -> Iterator[int]:
        above = self.disk.open_directory(b"ledger", self.store)
        try:
            try:
                fd = self.disk.open_directory(name, above)
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):
                    self.disk.make_directory(name, 0o755, above)
                fd = self.disk.open_directory(name, above)
            if make:
                try:
                    self.disk.sync(above)  # whoever made it may have died before doing that
                except BaseException:
                    os.close(fd)
                    raise
        finally:
            os.close(above)
        try:
            yield fd
        finally:
            os.close(fd)

    def _write(self, folder: bytes, name: str, text: bytes) -> None:
        with self._folder(folder, make=True) as fd:
            replace_file(self.disk, f"{name}.json".encode("ascii"), text, fd, self.disk.token())

    def _read(self, folder: bytes, name: str) -> Optional[bytes]:
        try:
            with self._folder(folder) as fd:
                return read_file(self.disk, f"{name}.json", fd)
        except FileNotFoundError:
            return None

    def _read_all(self, folder: bytes) -> Iterator[tuple[str, bytes]]:
        """(where, text) of every record. One that cannot be read is an error: it may be a pin."""
        try:
            with self._folder(folder) as fd:
                for named in sorted(self.disk.names(fd)):
                    if named.name.endswith(b".json") and not named.name.startswith(b"."):
                        where = f"ledger/{folder.decode()}/{os.fsdecode(named.name)}"
                        with contextlib.suppress(FileNotFoundError):
                            yield where, read_file(self.disk, named.name, fd)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise ConfigError(f"ledger/{folder.decode()} is no folder. Repair the store.") from None
