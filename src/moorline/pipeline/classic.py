"""The classic way, to compare with: zip the build, carry it through a bucket, copy it into place.

What CodeBuild, CodePipeline and CodeDeploy's `files:` section do, done with Python's own zipfile
and zlib, so that nothing needs to be installed. Where the real one is slower it is not imitated:
the bucket is a folder on the same disk, and nothing waits for a poll, a queue or an instance.

    publish    CodeBuild's output artifact: one zip, uploaded once
    deploy     CodeDeploy's agent on one host: DownloadBundle (download, unzip), Install (copy)

A host is a folder: `www` is what it serves, the rest belongs to the agent.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from moorline.errors import Error

DEFLATE_LEVEL = 6  # zlib's default, and that of the zip program

KEPT_ARCHIVES = 5  # the agent's max_revisions

WWW = "www"
_DOWNLOAD = "bundle.tar"  # the agent's own name for it, whatever its format
_ARCHIVES = "deployment-archives"
_CLEANUP = "cleanup.json"


@dataclass(frozen=True)
class Uploaded:
    """What publishing cost; `bytes` is the size of the zip, which was uploaded once."""

    artifact: Path
    files: int
    bytes: int
    zip_s: float
    upload_s: float

    @property
    def seconds(self) -> float:
        return self.zip_s + self.upload_s


@dataclass(frozen=True)
class Installed:
    """What one deploy cost on one host; `bytes` were downloaded."""

    www: Path
    files: int
    bytes: int
    download_s: float
    unzip_s: float
    install_s: float

    @property
    def seconds(self) -> float:
        return self.download_s + self.unzip_s + self.install_s


def publish(source: Path, bucket: Path, name: str) -> Uploaded:
    """Zip the directory `source` and put the zip into the folder `bucket` under `name`.

    Imitates the end of a CodeBuild build: the zip is made on the build's disk, then uploaded.
    """
    bucket.mkdir(parents=True, exist_ok=True)
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory(prefix=".codebuild-", dir=bucket.parent) as work:
        packed = Path(work) / name
        files = _zip(source, packed)
        zip_s = watch.lap()
        shutil.copyfile(packed, bucket / name)
        upload_s = watch.lap()
        return Uploaded(bucket / name, files, packed.stat().st_size, zip_s, upload_s)


def deploy(artifact: Path, host: Path) -> Installed:
    """Install the zip `artifact` on the folder `host`: afterwards `host/www` holds the build.

    Imitates CodeDeploy's agent. Between removing and copying, `www` is not whole: the classic way
    has that gap too. The zip is removed at the end; the agent keeps it with the archive.
    """
    host.mkdir(parents=True, exist_ok=True)
    download = host / _DOWNLOAD
    watch = _Stopwatch()
    shutil.copyfile(artifact, download)
    download_s = watch.lap()
    archive = _new_archive(host / _ARCHIVES)
    _unzip(download, archive)
    unzip_s = watch.lap()
    _remove_previous(host)
    files = _install(archive, host)
    install_s = watch.lap()
    size = download.stat().st_size
    download.unlink()
    return Installed(host / WWW, files, size, download_s, unzip_s, install_s)


class _Stopwatch:
    """`lap` returns the seconds since the last lap, or since the start."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        return passed


def _entries(root: Path) -> Iterator[tuple[Path, str]]:
    """Everything below `root` with its kind (d, f or l), directories before what they hold."""
    for folder, directories, files in os.walk(root):
        for name in sorted(directories + files):
            path = Path(folder, name)
            if path.is_symlink():
                yield path, "l"
            else:
                yield path, "d" if path.is_dir() else "f"


# -- CodeBuild ------------------------------------------------------------------------------------


def _zip(source: Path, packed: Path) -> int:
    """Zip with modes and links, as `zip -ry` does; returns the number of files."""
    files = 0
    with zipfile.ZipFile(
        packed, "w", zipfile.ZIP_DEFLATED, compresslevel=DEFLATE_LEVEL, strict_timestamps=False
    ) as archive:
        for path, kind in _entries(source):
            name = _zip_name(path.relative_to(source))
            files += kind == "f"
            if kind == "l":
                link = zipfile.ZipInfo(name)
                link.create_system = 3  # Unix: the upper half of external_attr is a mode
                link.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(link, os.fsencode(os.readlink(path)))
            else:
                archive.write(path, name)
    return files


def _zip_name(path: Path) -> str:
    try:
        path.as_posix().encode("utf-8")
    except UnicodeEncodeError:
        raise Error(
            f"the classic way failed: a zip cannot hold the name {os.fsencode(path)!r}, which is "
            "not UTF-8. Compare with a build that has no such name."
        ) from None
    return path.as_posix()


# -- CodeDeploy's agent ---------------------------------------------------------------------------


def _new_archive(archives: Path) -> Path:
    """An empty folder for one deployment; of the older ones the agent keeps four."""
    archives.mkdir(exist_ok=True)
    numbers = sorted(int(name) for name in os.listdir(archives))
    for number in numbers[: 1 - KEPT_ARCHIVES]:
        shutil.rmtree(archives / str(number))
    archive = archives / str(numbers[-1] + 1 if numbers else 1)
    archive.mkdir()
    return archive


def _unzip(packed: Path, archive: Path) -> None:
    """DownloadBundle: unpack into the deployment's own folder, with modes and links as unzip does.

    Links come last, so that no entry is written through one.
    """
    links: list[tuple[Path, bytes]] = []
    with zipfile.ZipFile(packed) as opened:
        for info in opened.infolist():
            path = archive / _safe(info.filename)
            mode = info.external_attr >> 16
            if info.is_dir():
                path.mkdir(exist_ok=True)
            elif stat.S_ISLNK(mode):
                links.append((path, opened.read(info)))
            else:
                with opened.open(info) as content, path.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                path.chmod(stat.S_IMODE(mode))
    for path, target in links:
        os.symlink(target, os.fsencode(path))


def _safe(name: str) -> str:
    """A name from a zip, which is input from outside: it must stay inside of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise Error(f"the classic way failed: the zip holds the name {name[:100]!r}.")
    return name


def _remove_previous(host: Path) -> None:
    """Install, first half: remove what the last Install copied, by the agent's cleanup list.

    Files first, then the directories that are empty now: what others put there stays.
    """
    cleanup = host / _CLEANUP
    if not cleanup.exists():
        return
    www = host / WWW
    for name, kind in reversed(json.loads(cleanup.read_bytes())):
        if kind != "d":
            (www / name).unlink(missing_ok=True)
        elif (www / name).is_dir() and not os.listdir(www / name):
            (www / name).rmdir()
    cleanup.unlink()


def _install(archive: Path, host: Path) -> int:
    """Install, second half: copy every file into place; returns the number of files.

    Directories get the mode that the agent's mkdir gives them, not the one they had.
    """
    www = host / WWW
    www.mkdir(exist_ok=True)
    placed: list[tuple[str, str]] = []
    for path, kind in _entries(archive):
        name = str(path.relative_to(archive))
        placed.append((name, kind))
        if kind == "d":
            (www / name).mkdir(exist_ok=True)
        elif kind == "l":
            os.symlink(os.readlink(path), www / name)
        else:
            shutil.copy(path, www / name)
    (host / _CLEANUP).write_text(json.dumps(placed), encoding="utf-8")
    return sum(kind == "f" for _, kind in placed)
