"""The classic way: what is installed is what was zipped, and the costs are counted."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from moorline.disk import Disk
from moorline.errors import Error
from moorline.pipeline import classic
from moorline.scan import scan

TREE = {
    "index.html": b"<p>first</p>" * 400,
    "img/logo.png": bytes(range(256)) * 40,
    "empty": b"",
    "bin/run": b"#!/bin/sh\n",
    "name with spaces/\u00fc.txt": b"umlaut",
}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    root = tmp_path / "build"
    for name, content in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "bin/run").chmod(0o755)
    (root / "private").mkdir()
    (root / "latest").symlink_to("index.html")
    (root / "pictures").symlink_to("img")
    (root / "dangling").symlink_to("img/none.png")
    return root


def digest(root: Path) -> str:
    return scan(Disk(), root).manifest.digest


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_what_is_installed_is_what_was_published(build: Path, tmp_path: Path) -> None:
    before = digest(build)

    uploaded = classic.publish(build, tmp_path / "bucket", "build-1.zip")
    installed = classic.deploy(uploaded.artifact, tmp_path / "host")

    assert digest(installed.www) == digest(build) == before
    assert uploaded.files == installed.files == len(TREE)


def test_it_counts_the_bytes_of_the_zip_and_the_seconds_of_each_step(
    build: Path, tmp_path: Path
) -> None:
    uploaded = classic.publish(build, tmp_path / "bucket", "build-1.zip")
    installed = classic.deploy(uploaded.artifact, tmp_path / "host")

    size = (tmp_path / "bucket/build-1.zip").stat().st_size
    assert uploaded.bytes == installed.bytes == size
    assert size < sum(map(len, TREE.values()))  # deflated
    assert min(uploaded.zip_s, uploaded.upload_s) > 0
    assert uploaded.seconds == uploaded.zip_s + uploaded.upload_s
    parts = installed.download_s, installed.unzip_s, installed.install_s
    assert min(parts) > 0
    assert installed.seconds == sum(parts)


def test_only_the_last_archives_are_left(build: Path, tmp_path: Path) -> None:
    uploaded = classic.publish(build, tmp_path / "bucket", "build-1.zip")
    for _ in range(7):
        classic.deploy(uploaded.artifact, tmp_path / "host")

    assert names(tmp_path / "bucket") == {"build-1.zip"}
    assert set(os.listdir(tmp_path)) == {"build", "bucket", "host"}
    assert set(os.listdir(tmp_path / "host")) == {"www", "deployment-archives", "cleanup.json"}
    kept = tmp_path / "host/deployment-archives"
    assert set(os.listdir(kept)) == {"3", "4", "5", "6", "7"}
    assert digest(kept / "7") == digest(build)


def test_the_next_install_removes_what_the_last_one_copied(build: Path, tmp_path: Path) -> None:
    bucket, host = tmp_path / "bucket", tmp_path / "host"
    old = classic.publish(build, bucket, "build-1.zip")
    classic.deploy(old.artifact, host)
    (host / "www/img/upload.png").write_bytes(b"written by the application")
    for name in ("img/logo.png", "bin/run", "latest"):
        (build / name).unlink()
    for name in ("bin", "img"):
        (build / name).rmdir()
    (build / "index.html").write_bytes(b"second")
    new = classic.publish(build, bucket, "build-2.zip")

    classic.deploy(new.artifact, host)

    assert names(host / "www") == names(build) | {"img", "img/upload.png"}
    assert (host / "www/index.html").read_bytes() == b"second"

    classic.deploy(old.artifact, host)

    assert (host / "www/latest").read_bytes() == TREE["index.html"]
    assert (host / "www/img/logo.png").read_bytes() == TREE["img/logo.png"]


def test_files_that_vanished_from_the_host_do_not_stop_the_next_install(
    build: Path, tmp_path: Path
) -> None:
    uploaded = classic.publish(build, tmp_path / "bucket", "build-1.zip")
    classic.deploy(uploaded.artifact, tmp_path / "host")
    (tmp_path / "host/www/index.html").unlink()
    (tmp_path / "host/www/private").rmdir()

    installed = classic.deploy(uploaded.artifact, tmp_path / "host")

    assert digest(installed.www) == digest(build)


def test_a_name_that_no_zip_can_hold_is_an_error(build: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(build) + b"/caf\xe9")).write_bytes(b"")

    with pytest.raises(Error, match=r"a zip cannot hold the name .*caf.*not UTF-8"):
        classic.publish(build, tmp_path / "bucket", "build-1.zip")

    assert not names(tmp_path / "bucket")


@pytest.mark.parametrize("name", ["../outside", "/outside", "img/../../outside"])
def test_a_zip_cannot_write_outside_of_the_host(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(name, b"evil")

    with pytest.raises(Error, match="the zip holds the name"):
        classic.deploy(tmp_path / "evil.zip", tmp_path / "host")

    assert not [path for path in tmp_path.rglob("outside")]


def test_a_file_older_than_any_zip_is_packed(build: Path, tmp_path: Path) -> None:
    """A zip's time begins in 1980; reproducible builds often say 1970."""
    os.utime(build / "index.html", (0, 0))

    assert classic.publish(build, tmp_path / "bucket", "build-1.zip").files == len(TREE)
