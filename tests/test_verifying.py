"""Verifying a directory: every difference is found and listed, and nobody is led astray."""

from __future__ import annotations

import errno
import marshal
import os
from pathlib import Path

import pytest

from damages import CHANGES, DAMAGES, SMALL
from fakes import ActingDisk, CountingDisk, FailingDisk, UnreadableDisk
from moorline import verifying
from moorline.disk import AnyPath, Disk, Named
from moorline.hashing import MOST_MESSAGE, PIECE_FILES
from moorline.manifest import Entry, Manifest
from moorline.scan import scan
from moorline.verifying import MANY, verify
from trees import Content, snapshot, write_tree
from ways import WAYS, always

pytestmark = [
    pytest.mark.usefixtures("no_descriptor_is_lost"),
    # The test runner has threads of its own; what is forked here runs only the job.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


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


# -- shared out ------------------------------------------------------------------------------------


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of sharing out the work."""
    name: str = request.param
    monkeypatch.setattr(verifying, "workers", always(name))
    return name


@pytest.mark.parametrize("many", [0, 1, MANY])
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_every_kind_of_difference_is_found_by_workers(
    site: Path, manifest: Manifest, damage: str, way: str, many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also in directories that are large: their names are compared here, apart from the rest."""
    monkeypatch.setattr(verifying, "MANY", many)
    act, expected = DAMAGES[damage]
    act(site)
    assert differences(site, manifest) == expected


LARGE: dict[str, Content] = {
    **{f"large/f{n:04}": b"%d" % n for n in range(2 * PIECE_FILES + MANY)},
    **{f"small/f{n}": b"%d" % n for n in range(3)},
    "large/sub/x": b"x",
    "large/link": "f0000",
}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "large", LARGE)


def test_every_file_of_a_large_directory_is_read(large: Path, way: str) -> None:
    """The first and the last of each part, and all between."""
    manifest = scan(Disk(), large).manifest
    found = verify(Disk(), large, manifest)
    assert found.problems == ()
    assert (found.files, found.bytes) == (len(manifest.files), manifest.size_bytes)
    names = [name for name, content in LARGE.items() if content != "f0000"]
    for name in names:
        (large / name).write_bytes(b"!" * (large / name).stat().st_size)
    assert differences(large, manifest) == dict.fromkeys(names, "content differs")


def test_names_of_a_large_directory_are_compared_as_a_whole(large: Path, way: str) -> None:
    manifest = scan(Disk(), large).manifest
    (large / "large/f0000").unlink()
    (large / "large/f0099").rename(large / "large/f0099x")
    (large / "large/zz").mkdir()
    (large / "large/link").unlink()
    (large / "large/link").symlink_to("f0001")
    (large / "large").chmod(0o700)
    assert differences(large, manifest) == {
        "large": "mode is 700, should be 755",
        "large/f0000": "missing",
        "large/f0099": "missing",
        "large/f0099x": "extra file",
        "large/link": "leads to f0001, should be f0000",
        "large/zz": "extra directory",
    }


def test_names_and_links_of_any_length_reach_the_workers(tmp_path: Path, way: str) -> None:
    """More than one message holds, in one directory and in many small ones."""
    spec: dict[str, Content] = {}
    for number in range(90):
        spec[f"links/{number:03}{'n' * 250}"] = "t" * 4000
        spec[f"{'d' * 200}/{'e' * 200}{number}/{'l' * 200}"] = "t" * 3000
    root = write_tree(tmp_path / "s", spec)
    manifest = scan(Disk(), root).manifest
    assert sum(entry.size for entry in manifest.entries) > 4 * MOST_MESSAGE
    assert verify(Disk(), root, manifest).problems == ()
    victim = max(root.glob("d*/e*89/l*"))
    victim.unlink()
    victim.symlink_to("elsewhere")
    assert list(differences(root, manifest).values()) == [f"leads to elsewhere, should be {'t' * 3000}"]  # noqa: E501  # fmt: skip


def test_no_piece_is_too_long_for_a_message() -> None:
    """The longest paths and targets that a manifest may have."""
    deep = b"/".join([b"p" * 254] * 15)
    rows = [Entry(b".", "d", 0o755, 0)]
    rows += [Entry(deep[: 255 * n + 254], "d", 0o755, 0) for n in range(15)]
    rows += [Entry(deep + b"/%0250d" % n, "l", 0o777, 4080, "", b"t" * 4080) for n in range(50)]
    rows += [Entry(b"many/%d" % n, "d", 0o755, 0) for n in range(500)]
    rows += [Entry(b"many/%d/%0250d" % (n, m), "l", 0o777, 900, "", b"t" * 900)
             for n in range(500) for m in range(20)]  # fmt: skip
    children = verifying._children(Manifest.of([*rows, Entry(b"many", "d", 0o755, 0)]))
    found = list(verifying._shared_out(children))
    found += verifying._parts(deep, children[deep][1])
    assert [piece for piece in found if len(marshal.dumps((10**9, piece))) > MOST_MESSAGE] == []
    assert len(found) < len(rows) / 10


class Failing(Disk):
    """Files of this name cannot be read, or directories not be listed; whoever does it."""

    def __init__(self, operation: str, name: str) -> None:
        self.operation = operation
        self.name = name

    def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
        if (self.operation, os.fsdecode(path)) == ("open_file", self.name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)
        return super().open_file(path, at)

    def names(self, directory: int | AnyPath) -> list[Named]:
        found = super().names(directory)
        if self.operation == "names" and self.name in {os.fsdecode(n.name) for n in found}:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return found


@pytest.mark.parametrize("operation", ["open_file", "names"])
@pytest.mark.parametrize("name", ["f0000", "f0120", "f2"])
def test_an_error_under_a_worker_is_no_difference(
    large: Path, way: str, operation: str, name: str
) -> None:  # fmt: skip
    manifest = scan(Disk(), large).manifest
    with pytest.raises(OSError) as caught:
        verify(Failing(operation, name), large, manifest)
    assert caught.value.errno == errno.EIO


def test_a_large_directory_that_goes_after_it_was_listed(large: Path) -> None:
    manifest = scan(Disk(), large).manifest

    class Moving(CountingDisk):
        def names(self, directory: int | AnyPath) -> list[Named]:
            found = super().names(directory)
            if any(named.name == b"f0000" for named in found):
                (large / "large").rename(large.parent / "away")
                (large / "large").symlink_to("../away")
            return found

    found = dict(verify(Moving(), large, manifest).problems)
    assert {found[f"large/f{n:04}"] for n in range(MANY)} == {"missing"}


def test_a_directory_is_listed_once_whatever_its_size(large: Path) -> None:
    manifest, disk = scan(Disk(), large).manifest, CountingDisk()
    assert verify(disk, large, manifest).problems == ()
    done = [operation for operation, _ in disk.operations]
    assert done.count("names") == sum(entry.kind == "d" for entry in manifest.entries)
    assert done.count("open_file") == len(manifest.files)


def test_what_workers_get_is_nothing_but_data(large: Path) -> None:
    """They were forked before there was a manifest, and could not know it."""
    for piece in verifying._shared_out(verifying._children(scan(Disk(), large).manifest)):
        assert marshal.loads(marshal.dumps(piece)) == piece
