"""The bundle: the three small files that travel through the pipeline in place of the build.

    appspec.yml   tells CodeDeploy to run deploy.sh for three of its events
    deploy.sh     fetches the agent, checks its SHA-256, runs it (source: deploy.sh.in)
    build.json    {"moorline": "<format> <id> <digest> <manifest bytes> <settings digest>"}

A bundle is a folder, or a zip of at most 1,000 bytes, of which the zip format takes 310 and the
digests, a long id and a long path up to 240, because they do not compress. So every byte counts:
build.json has one text instead of five names, and the agent's digest stands in deploy.sh only.

Whoever can write the bundle decides what goes live; all the same, reading one, here, is careful.
`bundling` writes it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moorline.build import BuildId, build_id, checked_digest
from moorline.disk import Disk
from moorline.errors import ConfigError, NotFound, from_os_error
from moorline.files import read_file
from moorline.record import Record

if TYPE_CHECKING:
    import zipfile

BUNDLE_FORMAT = "1"
STORED, DEFLATED = 0, 8  # of PKWARE's APPNOTE.TXT, 4.4.5

APPSPEC, DEPLOY, BUILD = "appspec.yml", "deploy.sh", "build.json"
NAMES = (APPSPEC, DEPLOY, BUILD)  # in the order in which a folder is written: the id last

_BUILD = re.compile(r"([!-~]+) ([0-9a-f]{64}) ([0-9]{1,18}) ([0-9a-f]{64})")
_AGENT = re.compile(rb"^a=([0-9a-f]{64})$", re.MULTILINE)
_MAX_MEMBER_BYTES = 64 << 10
_MAX_ARCHIVE_BYTES = 1 << 20  # CodePipeline's own zip of the folder is larger than ours


@dataclass(frozen=True)
class Bundle:
    """What a bundle says: which build, and the SHA-256 of everything that may take part."""

    id: BuildId
    digest: str
    manifest_bytes: int
    settings: str
    agent: str


def read_bundle(disk: Disk, path: str) -> Bundle:
    """The bundle at `path`, a folder or a zip, ours or one that CodePipeline made of the folder.

    Raises NotFound when nothing is there, and ConfigError for everything that is not a bundle.
    """
    where = os.path.realpath(os.path.abspath(path))  # abspath first: deploy.sh says deploy.sh/..
    try:
        if stat.S_ISDIR(disk.stat(where).st_mode):
            return _parse(_folder_files(disk, where), where)
        return _parse(_zip_files(read_file(disk, where, most=_MAX_ARCHIVE_BYTES), where), where)
    except FileNotFoundError:
        raise NotFound(
            f"reading the bundle failed: there is nothing at {where}. Name the folder or the zip "
            "that publish wrote."
        ) from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.EFBIG, errno.ENOTDIR, errno.ENXIO):
            raise _no_bundle(where, error.strerror or "it is no file") from None
        raise from_os_error(error, "reading the bundle") from error


def _no_bundle(where: str, reason: str) -> ConfigError:
    return ConfigError(
        f"reading the bundle failed: {where} is not a bundle: {reason}. Name the folder or the zip "
        "that publish wrote."
    )


def _folder_files(disk: Disk, where: str) -> dict[str, bytes]:
    directory = disk.open_directory(where)
    try:
        present = {os.fsdecode(name) for name, _ in disk.names(directory)}
        return {
            name: read_file(disk, name, directory, most=_MAX_MEMBER_BYTES)
            for name in (DEPLOY, BUILD)
            if name in present
        }
    finally:
        os.close(directory)


def _zip_files(data: bytes, where: str) -> dict[str, bytes]:
    """What a bundle's zip holds. Nothing is unpacked onto a disk, no entry beyond its limit."""
    import zipfile  # dear, and CodeDeploy hands over a folder

    # What zipfile is known to raise for hostile input.
    damaged = (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, IndexError, KeyError,
        OverflowError, NotImplementedError, RuntimeError, OSError, MemoryError,
    )  # fmt: skip
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = _members(archive.infolist(), where)
            return {name: _content(archive, found[name], where) for name in found}
    except damaged as error:
        raise _no_bundle(where, f"it is no zip, or a damaged one ({error})") from None


def _members(entries: Iterable[zipfile.ZipInfo], where: str) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, without a single top folder: the CodeDeploy agent strips that too."""
    entries = [entry for entry in entries if not entry.filename.endswith("/")]
    tops = {entry.filename.partition("/")[0] for entry in entries if "/" in entry.filename}
    top = tops.pop() + "/" if len(tops) == 1 and all("/" in e.filename for e in entries) else ""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename[len(top) :]
        if name not in NAMES or name in found or top in ("../", "./", "/"):
            raise _no_bundle(where, f"it holds {entry.filename[:100]!a}, or holds it twice")
        found[name] = entry
    return found


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> bytes:
    if entry.compress_type not in (STORED, DEFLATED):
        raise _no_bundle(where, f"{entry.filename} is neither stored nor deflated")
    with archive.open(entry) as file:
        data = file.read(_MAX_MEMBER_BYTES + 1)
    if len(data) > _MAX_MEMBER_BYTES:
        raise _no_bundle(where, f"{entry.filename} is larger than {_MAX_MEMBER_BYTES} bytes")
    return data


def _parse(files: dict[str, bytes], where: str) -> Bundle:
    for name in (BUILD, DEPLOY):
        if name not in files:
            raise _no_bundle(where, f"it has no {name}")
    record = Record.parse(files[BUILD], f"{where}: {BUILD}")
    version, _, text = record.text("moorline").partition(" ")
    if version != BUNDLE_FORMAT:
        raise ConfigError(
            f"{record.where} has format {version[:20]!a}; this moorline reads format "
            f"{BUNDLE_FORMAT}. Use a newer moorline."
        )
    build = _BUILD.fullmatch(text)
    agents = _AGENT.findall(files[DEPLOY])
    if build is None:
        raise record.wrong("moorline", "a format, an id, a digest, a length and a digest")
    if len(agents) != 1:
        raise _no_bundle(where, f"{DEPLOY} does not name one agent")
    name, digest, manifest_bytes, settings = build.groups()
    return Bundle(
        id=build_id(name),
        digest=checked_digest(digest, record.where),
        manifest_bytes=int(manifest_bytes),
        settings=checked_digest(settings, record.where),
        agent=agents[0].decode(),
    )
