"""Make a bundle: its three files, as a folder or as a zip of at most 1,000 bytes."""

from __future__ import annotations

import os
import pkgutil
import re
import stat
import struct
import zlib
from collections.abc import Callable

from moorline.bundle import (
    APPSPEC,
    BUILD,
    BUNDLE_FORMAT,
    DEFLATED,
    DEPLOY,
    NAMES,
    STORED,
    Bundle,
)
from moorline.disk import Disk
from moorline.errors import ConfigError, Error, from_os_error
from moorline.files import make_directories, write_file
from moorline.record import record_text
from moorline.settings import checked_path

MAX_ZIP_BYTES = 1000
EVENTS = ("BeforeInstall", "ApplicationStart", "ValidateService")

_TEMPORARY = re.compile(rb"\.(appspec\.yml|deploy\.sh|build\.json)\.[0-9a-f]{16}\.tmp")


def bundle_files(bundle: Bundle, *, store: str, root: str) -> dict[str, bytes]:
    """The three files by name. `store` is the store's path on the targets; `root` is where a target
    may hold the agent already, or "". Raises ConfigError for a path that deploy.sh cannot hold.

    What does not fit into 1,000 bytes is left out of deploy.sh, the least needed first: its own
    words on a failure (those of head and sha256sum remain), then the look at the target's own copy.
    """
    store = checked_path(store, "the store's path on the targets")
    root = checked_path(root, "the target root") if root else ""
    files = {APPSPEC: _appspec(), BUILD: _build(bundle)}
    for optional in ("12", "1", ""):
        kept = optional if root else optional.replace("1", "")
        files[DEPLOY] = _deploy(kept, agent=bundle.agent, store=store, root=root)
        if len(zipped(files, _smallest)) <= MAX_ZIP_BYTES:
            break
    return files


def _appspec() -> bytes:
    """No `timeout`: CodeDeploy's own, 3,600 s an event, is also its highest. No ApplicationStop: it
    would run the script of the revision before, and can block every later deployment."""
    events = "".join(f" {event}:\n - location: {DEPLOY}\n" for event in EVENTS)
    return f"version: 0.0\nos: linux\nhooks:\n{events}".encode("ascii")


def _deploy(optional: str, **literals: str) -> bytes:
    """deploy.sh with those of its optional lines whose number is in `optional`."""
    source = pkgutil.get_data("moorline", "deploy.sh.in") or b""
    first, *lines = source.decode("ascii").splitlines()
    kept = [first]
    for line in lines:
        text, _, number = line.partition(" #? ")
        if line and not line.startswith("#") and number in optional:
            kept.append(text)
    text = "".join(line + "\n" for line in kept)
    for name, value in literals.items():
        text = text.replace(f"@{name}@", value)
    return text.encode("ascii")


def _build(bundle: Bundle) -> bytes:
    build = (BUNDLE_FORMAT, bundle.id, bundle.digest, str(bundle.manifest_bytes), bundle.settings)
    return record_text({"moorline": " ".join(build)}).rstrip()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """The zip of `files`: same files, same bytes on every run. Raises Error above 1,000 bytes."""
    data = zipped(files, _smallest)
    if len(data) > MAX_ZIP_BYTES:
        raise Error(
            f"bundle failed: the zip has {len(data)} bytes, {MAX_ZIP_BYTES} are allowed. "
            "Give the build a shorter id, or the store a shorter path."
        )
    return data


def zipped(
    files: dict[str, bytes], way: Callable[[bytes], tuple[int, bytes]], start: bytes = b""
) -> bytes:
    """A zip behind `start`, each entry by what `way` says: its method and its content.

    Written by hand: zipfile cannot choose the smallest of several ways, and is dear to import.
    """
    local, central, offset = [start], [], len(start)
    for name in sorted(files):
        method, data = way(files[name])
        dos_date = 1 << 5 | 1  # 1980-01-01
        facts = struct.pack(
            "<HHHHHIIIHH", 20, 0, method, 0, dos_date, zlib.crc32(files[name]),
            len(data), len(files[name]), len(name), 0,
        )  # fmt: skip
        mode = stat.S_IFREG | (0o755 if name == DEPLOY else 0o644)
        raw_name = name.encode("ascii")
        local += [b"PK\3\4", facts, raw_name, data]
        made_by_unix = struct.pack("<H", 3 << 8 | 20)
        tail = struct.pack("<HHHII", 0, 0, 0, mode << 16, offset)
        central += [b"PK\1\2", made_by_unix, facts, tail, raw_name]
        offset += 30 + len(raw_name) + len(data)
    directory = b"".join(central)
    end = struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(directory), offset, 0)
    return b"".join([*local, directory, b"PK\5\6", end])


def stored(data: bytes) -> tuple[int, bytes]:
    """The same bytes everywhere: zlib's output differs between its versions."""
    return STORED, data


def _smallest(data: bytes) -> tuple[int, bytes]:
    """Method and content of the smallest entry. Nothing but stored and deflated is allowed: the
    CodeDeploy agent's fallback for unzip knows only these two."""
    ways = [(STORED, data)]
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_FIXED):
        for memory in (8, 9):
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15, memory, strategy)
            ways.append((DEFLATED, deflate.compress(data) + deflate.flush()))
    return min(ways, key=lambda way: len(way[1]))


def write_bundle(disk: Disk, out: str, files: dict[str, bytes]) -> int:
    """Write `files` as a zip when `out` ends in .zip, else into the folder `out`, made when it is
    missing. Returns the bytes of the zip, or of the files together.

    Raises ConfigError when the folder holds anything else: CodePipeline would put that into the
    artifact, and CodeDeploy onto every machine.
    """
    out = os.path.realpath(out)
    try:
        if out.endswith(".zip"):
            folder, name = os.path.split(out)
            return _write(disk, folder, {name: zip_bytes(files)})
        return _write(disk, out, files, alone=True)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        where = os.fsdecode(error.filename or out)
        raise ConfigError(
            f"writing the bundle failed: {where} is in the way. A name that ends in .zip is a "
            "file, any other a folder. Remove what is there, or name another place."
        ) from None
    except OSError as error:
        raise from_os_error(error, "writing the bundle") from error


def _write(disk: Disk, folder: str, files: dict[str, bytes], alone: bool = False) -> int:
    make_directories(disk, folder)
    directory = disk.open_directory(folder)
    try:
        if alone:
            _refuse_others(disk, directory, folder)
        token = disk.token()
        for name in files:
            write_file(disk, _temporary(name, token), files[name], directory, private=True)
        for name in sorted(files, key=lambda name: NAMES.index(name) if name in NAMES else 0):
            disk.rename(_temporary(name, token), os.fsencode(name), directory, directory)
        disk.sync(directory)
    finally:
        os.close(directory)
    return sum(map(len, files.values()))


def _temporary(name: str, token: str) -> bytes:
    return f".{name}.{token}.tmp".encode()


def _refuse_others(disk: Disk, directory: int, folder: str) -> None:
    """What a killed writer left is removed; any other name is refused."""
    names = [name for name, _ in disk.names(directory)]
    others = []
    for name in names:
        if _TEMPORARY.fullmatch(name):
            disk.unlink(name, directory)
        elif os.fsdecode(name) not in NAMES:
            others.append(ascii(os.fsdecode(name)))
    if others:
        shown = ", ".join(sorted(others)[:5]) + (" ..." if len(others) > 5 else "")
        raise ConfigError(
            f"writing the bundle failed: {folder} holds {shown}. All of it would travel to every "
            "target. Name an empty folder, or one that does not exist yet."
        )
