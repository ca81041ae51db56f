"""Verifying a directory: every difference is found and listed, and nobody is led astray."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from damages import CHANGES, DAMAGES, SMALL
from fakes import ActingDisk, CountingDisk, FailingDisk, UnreadableDisk
from moorline.disk import Disk
from moorline.manifest import Manifest
from moorline.scan import scan
from moorline.verifying import verify
from trees import snapshot, write_tree

pytestmark = pytest.mark.usefixtures("no_descriptor_is_lost")


@pytest.fixture
def manifest(site: Path) -> Manifest:
    site.chmod(0o755)
    return scan(Disk(), site).manifest


def differences(root: Path, manifest: Manifest) -> dict[str, str]:
    found = verify(CountingDisk(), root, manifest).problems
    assert list(found) == sorted(found)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_a_tree_that_is_right(site: Path, manifest: Manifest) -> None:
    before = snapshot(site)
    verified = verify(CountingDisk(), site, manifest)
    assert verified.problems == ()
    assert (verified.files, verified.bytes) == (len(manifest.files), manifest.size_bytes)
    assert snapshot(site) == before


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_every_kind_of_difference_is_found(site: Path, manifest: Manifest, damage: str) -> None:
    act, expected = DAMAGES[damage]
    act(site)
    assert differences(site, manifest) == expected


def test_all_differences_are_listed(site: Path, manifest: Manifest) -> None:
    (site / "index.html").write_bytes(b"x")
    (site / "img/x").touch()
    (site / "img/logo.png").unlink()
    (site / "bin/run").chmod(0o700)
    (site / "css/site.css").chmod(0o600)
    (site / "css/site.css").write_bytes(b"BODY{}")
    assert verify(CountingDisk(), site, manifest).problems == (
        ("bin/run", "mode is 700, should be 755"),
        ("css/site.css", "content differs"),
        ("css/site.css", "mode is 600, should be 644"),
        ("img/logo.png", "missing"),
        ("img/x", "extra file"),
        ("index.html", "has 1 bytes, should be 12"),
    )


def test_a_file_that_cannot_be_opened_is_a_difference(site: Path, manifest: Manifest) -> None:
    for code in (errno.EACCES, errno.ENOENT, errno.ELOOP, errno.EINVAL):
        verified = verify(UnreadableDisk(b"index.html", code), site, manifest)
        assert verified.problems == (("index.html", f"cannot be opened: {os.strerror(code)}"),)


def test_an_error_of_the_disk_is_not_taken_for_a_difference(site: Path, manifest: Manifest) -> None:
    counting = CountingDisk()
    verify(counting, site, manifest)
    for at in range(counting.count):
        with pytest.raises(OSError) as caught:
            verify(FailingDisk(at, errno.EIO), site, manifest)
        assert caught.value.errno == errno.EIO


def test_a_directory_that_changes_while_it_is_verified_is_a_difference_or_right(
    tmp_path: Path,
) -> None:
    """Whatever a hostile hand swaps, whenever: the answer is right for the moment or says what
    differs; no link is followed, no FIFO hangs, nothing else is raised."""
    counting = CountingDisk()
    counted = write_tree(tmp_path / "counted", SMALL)
    manifest = scan(Disk(), counted).manifest
    verify(counting, counted, manifest)
    for number, change in enumerate(CHANGES.values()):
        found = 0
        for at in range(counting.count):
            site = write_tree(tmp_path / f"{number}.{at}" / "site", SMALL)
            disk = ActingDisk(at, lambda site=site, change=change: change(site))  # type: ignore[misc]
            found += bool(verify(disk, site, manifest).problems)
            assert disk.fired
        assert found


def test_a_root_that_is_no_directory_is_an_os_error(site: Path, manifest: Manifest) -> None:
    (site.parent / "link").symlink_to(site)
    for name in ("none", "link", "site/index.html"):
        with pytest.raises(OSError):
            verify(Disk(), site.parent / name, manifest)


def test_never_more_is_read_than_the_manifest_says(site: Path, manifest: Manifest) -> None:
    """A file that was blown up to a terabyte (sparse) does not keep anybody busy."""
    os.truncate(site / "index.html", 1 << 40)
    assert differences(site, manifest) == {"index.html": "has more bytes, should be 12"}
