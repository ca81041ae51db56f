"""Scanning a source: nothing slips through, nothing is touched, and no change goes unnoticed."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damages import CHANGES, SMALL
from fakes import ActingDisk, CountingDisk, FailingDisk, UnreadableDisk
from moorline import hashing
from moorline import source as source_module
from moorline import verifying as verifying_module
from moorline.disk import AnyPath, Disk, Named
from moorline.errors import NotFound, Problem, SourceChanged, SourceRefused
from moorline.hashing import PIECE_FILES, SMALL_FILES, Job, Workers
from moorline.manifest import Entry, Manifest
from moorline.scan import Rules, linked_target, scan
from moorline.source import Source
from moorline.verifying import verify
from trees import (
    SITE,
    directory_entry,
    entries,
    file_entry,
    link_entry,
    materialise,
    snapshot,
    stays_inside,
    write_tree,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


PLAIN = Rules()


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads


def refused(root: Path, rules: Rules = PLAIN, disk: Disk | None = None) -> list[Problem]:
    with pytest.raises(SourceRefused) as caught:
        scan(disk or CountingDisk(), root, rules)
    assert f"{len(caught.value.problems)} thing(s)" in caught.value.message
    return list(caught.value.problems)


def paths(source: Source) -> list[str]:
    return [entry.shown for entry in source.manifest.entries]


# -- what a scan finds ----------------------------------------------------------------------------


def test_a_scan_finds_everything(site: Path) -> None:
    source = scan(Disk(), site)
    assert source.root == os.path.realpath(site)
    assert source.manifest == Manifest.of(
        [
            directory_entry(),
            directory_entry(b"bin"),
            file_entry(b"bin/run", b"#!/bin/sh\nexit 0\n", 0o755),
            directory_entry(b"css"),
            file_entry(b"css/empty.css", b""),
            file_entry(b"css/site.css", b"body{}"),
            directory_entry(b"img"),
            file_entry(b"img/a.png", b"\x89PNG" * 600),
            file_entry(b"img/b.png", b"\x89PNG" * 600),
            link_entry(b"img/logo.png", b"a.png"),
            file_entry(b"index.html", b"<h1>one</h1>"),
            directory_entry(b"spare"),
        ]
    )


def test_a_scan_changes_nothing(site: Path) -> None:
    before = snapshot(site)
    scan(Disk(), site)
    assert snapshot(site) == before


@given(entries(8).map(lambda tree: [e for e in tree if stays_inside(e)]), st.data())
@settings(max_examples=30)
def test_any_tree_on_disk_becomes_its_manifest(
    tmp_path_factory: pytest.TempPathFactory, tree: list[Entry], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("tree")
    known = {e.digest: content for e, content in FILES.items()}
    tree = [
        e._replace(digest=f.digest, size=f.size)
        if e.kind == "f" and (f := data.draw(st.sampled_from(list(FILES))))
        else e
        for e in tree
    ]
    expected = Manifest.of([directory_entry() if e.path == b"." else e for e in tree])
    if len(expected.entries) == 1 or any(e.path.endswith((b".git", b".env")) for e in tree):
        return
    materialise(root, tree, known)
    assert scan(CountingDisk(), root).manifest == expected
    assert verify(CountingDisk(), root, scan(CountingDisk(), root).manifest).problems == (
        root_mode(root)
    )
    for path, directories, _ in os.walk(root):
        for name in directories:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o755)
    shutil.rmtree(root)


FILES = {file_entry(b"x", content): content for content in (b"", b"a", b"hello", b"\0" * 3000)}


def root_mode(root: Path) -> tuple[Problem, ...]:
    """A scan takes any mode of the root for 755; pytest makes it 700."""
    mode = stat.S_IMODE(root.stat().st_mode)
    return () if mode == 0o755 else (Problem(".", f"mode is {mode:o}, should be 755"),)


def test_a_source_may_be_named_by_a_link_or_from_here(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latest").symlink_to("site")
    monkeypatch.chdir(tmp_path)
    expected = scan(Disk(), site).manifest
    for name in ("latest", "site", "site/", "./site", b"site"):
        assert scan(Disk(), name).manifest == expected


def test_the_root_is_made_by_whoever_deploys(site: Path) -> None:
    site.chmod(0o700)
    assert scan(Disk(), site).manifest.entries[0] == directory_entry(b".", 0o755)


def test_a_directory_inherits_setgid_and_the_build_does_not(site: Path) -> None:
    """A group directory hands its setgid bit down to everything made in it: that says nothing."""
    (site / "img").chmod(0o2775)
    assert directory_entry(b"img", 0o775) in scan(Disk(), site).manifest.entries


# -- what a scan refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "file", "none/deeper", "file/deeper"])
def test_a_source_that_is_no_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match=r"nothing to publish: .* is no directory\. Build first"):
        scan(Disk(), tmp_path / name)


def test_an_empty_source(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match=r"is empty\. Build first"):
        scan(Disk(), tmp_path)
    write_tree(tmp_path, {"node_modules/x": b""})
    with pytest.raises(SourceRefused, match=r"is empty\. Build first"):
        scan(Disk(), tmp_path, Rules(excluded=lambda path, is_directory: True))


def test_an_unreadable_file_is_named(site: Path) -> None:
    assert refused(site, disk=UnreadableDisk(b"site.css")) == [("css/site.css", "cannot be read")]


def test_an_unreadable_directory_is_named(site: Path) -> None:
    class Closed(CountingDisk):
        def open_directory(self, path: AnyPath, at: int | None = None) -> int:
            if path == b"img":
                raise PermissionError(errno.EACCES, "no", "img")
            return super().open_directory(path, at)

    assert refused(site, disk=Closed()) == [("img", "cannot be read")]


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes device nodes")
def test_device_nodes_are_refused(site: Path) -> None:
    os.mknod(site / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(site / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    assert refused(site) == [("disk", "is a device node"), ("null", "is a device node")]


def test_sockets_and_fifos_are_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(site / "img" / "fifo")
    monkeypatch.chdir(site)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        assert refused(site) == [("img/fifo", "is a FIFO"), ("s", "is a socket")]


@pytest.mark.parametrize(
    ("bit", "name"), [(0o4000, "setuid"), (0o2000, "setgid"), (0o1000, "sticky")]
)
def test_special_bits_of_files_are_refused(site: Path, bit: int, name: str) -> None:
    (site / "bin/run").chmod(0o755 | bit)
    assert refused(site) == [("bin/run", f"is {name}")]


@pytest.mark.parametrize(("bit", "name"), [(0o4000, "setuid"), (0o1000, "sticky")])
def test_special_bits_of_directories_are_refused(site: Path, bit: int, name: str) -> None:
    (site / "img").chmod(0o755 | bit)
    assert refused(site) == [("img", f"is {name}")]


@pytest.mark.parametrize(
    ("where", "target"),
    [
        ("out", "../other"),
        ("out", ".."),
        ("img/out", "../../other"),
        ("img/out", "x/../../../other"),
        ("abs", "/etc/passwd"),
        ("abs", "/"),
    ],
)
def test_links_that_leave_the_build_are_refused_unless_allowed(
    site: Path, where: str, target: str
) -> None:
    (site / where).symlink_to(target)
    assert refused(site) == [(where, f"is a link that leaves the build: {target}")]
    allowed = scan(Disk(), site, Rules(allow_external_links=True))
    assert link_entry(where.encode(), target.encode()) in allowed.manifest.entries


def test_links_inside_are_only_text(site: Path) -> None:
    """Loops, links to nothing and links to directories are recorded and never followed."""
    links = {"loop": "loop", "a": "b", "b": "a", "up": "img/..", "gone": "none", "to-dir": "img"}
    write_tree(site, links)
    found = scan(Disk(), site).manifest.entries
    for name, target in links.items():
        assert link_entry(name.encode(), target.encode()) in found
    assert not any(entry.path.startswith((b"to-dir/", b"up/")) for entry in found)


def test_a_link_with_a_very_long_text_is_refused(site: Path) -> None:
    (site / "long").symlink_to("x" * 4081)
    (site / "most").symlink_to("x" * 4080)
    assert refused(site) == [("long", "is a link whose target is too long")]


@pytest.mark.parametrize("name", [".git", ".env"])
@pytest.mark.parametrize("where", ["", "img/"])
def test_secrets_are_refused_unless_named(site: Path, name: str, where: str) -> None:
    path = where + name
    write_tree(site, {path + "/config": b"x"} if name == ".git" else {path: b"KEY=1"})
    (problem,) = refused(site)
    assert problem.path == path
    assert problem.problem.startswith("is not published unless it is named")
    assert path in paths(scan(Disk(), site, Rules(allow=frozenset({name}))))
    excluding = Rules(excluded=lambda found, is_directory: found == path)
    assert path not in paths(scan(Disk(), site, excluding))
    linking = scan(Disk(), site, Rules(linked=(path,)))
    assert linking.manifest.by_path[path.encode()].kind == "l"


def test_all_problems_are_listed_sorted(site: Path) -> None:
    write_tree(site, {".env": b"", "z": "/etc", "img/.git/x": b"", "a b": "../.."})
    (site / "bin/run").chmod(0o4755)
    os.mkfifo(site / "fifo")
    assert [problem.path for problem in refused(site)] == [
        ".env", "a%20b", "bin/run", "fifo", "img/.git", "z",
    ]  # fmt: skip


def test_a_name_that_is_too_long_is_refused(site: Path) -> None:
    """No Linux file system has one; a share may."""

    class LongNames(CountingDisk):
        def names(self, directory: int | AnyPath) -> list[Named]:
            return [*super().names(directory), Named(b"n" * 256, "f")]

    assert ("n" * 256, "the name is too long") in refused(site, disk=LongNames())


def test_names_of_255_bytes(site: Path) -> None:
    name = "n" * 255
    write_tree(site, {f"{name}/{name}": b"x"})
    assert f"{name}/{name}" in paths(scan(Disk(), site))


def deep(root: Path, levels: int, name: str = "d") -> None:
    """A tree that is deeper than any path may be long."""
    root.mkdir()
    at = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


def test_300_levels_are_fine(tmp_path: Path) -> None:
    deep(tmp_path / "deep", 300)
    source = scan(Disk(), tmp_path / "deep")
    assert len(source.manifest.entries) == 302
    assert verify(Disk(), tmp_path / "deep", source.manifest).problems == ()


def test_a_tree_that_is_deeper_is_refused_in_words(tmp_path: Path) -> None:
    deep(tmp_path / "deep", 600)
    (problem,) = refused(tmp_path / "deep")
    assert problem.problem == "lies more than 300 directories deep"


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    deep(tmp_path / "deep", 16, "n" * 255)
    (problem,) = refused(tmp_path / "deep")
    assert problem.problem == "the name is too long"
    assert len(problem.path) == 16 * 256 + len("leaf")


# -- what a scan leaves out and replaces ----------------------------------------------------------


def test_excluded_things_are_left_out_and_not_even_looked_at(site: Path) -> None:
    write_tree(site, {"node_modules/deep/x": b"", "debug.log": b"", "img/debug.log": b""})
    os.mkfifo(site / "node_modules/fifo")
    seen = []

    def excluded(path: str, is_directory: bool) -> bool:
        seen.append((path, is_directory))
        return path == "node_modules" or path.endswith(".log")

    disk = CountingDisk()
    source = scan(disk, site, Rules(excluded=excluded))
    assert paths(source) == paths(scan(Disk(), write_tree(site.parent / "clean", SITE)))
    assert ("node_modules", True) in seen
    assert ("img/debug.log", False) in seen
    assert not any(path.startswith("node_modules/") for path, _ in seen)
    assert not any("node_modules" in path for _, path in disk.operations)


def test_linked_paths_are_replaced_and_reported(site: Path) -> None:
    write_tree(site, {"public/uploads/cat.jpg": b"x", "config.env": b"KEY=1"})
    rules = Rules(linked=("public/uploads", "config.env", "var/log/", "img/new.txt"))
    source = scan(Disk(), site, rules)
    assert source.replaced == ("config.env", "img/new.txt", "public/uploads/", "var/log/")
    found = source.manifest.by_path
    for path, target in {
        b"public/uploads": b"../../../shared/public/uploads",
        b"config.env": b"../../shared/config.env",
        b"var/log": b"../../../shared/var/log",
        b"img/new.txt": b"../../../shared/img/new.txt",
    }.items():
        assert found[path] == link_entry(path, target)
    assert found[b"var"] == directory_entry(b"var")
    assert b"public/uploads/cat.jpg" not in found


def test_linked_paths_lead_to_shared_from_inside_a_release(tmp_path: Path) -> None:
    """The link is made in <target>/releases/<name>/: the text must lead to <target>/shared/."""
    release = tmp_path / "target/releases/7.1"
    for path in (b"a", b"a/b", b"a/b/c"):
        link = os.fsencode(release) + b"/" + path
        os.makedirs(os.path.dirname(link), exist_ok=True)
        reached = os.path.normpath(os.path.join(os.path.dirname(link), linked_target(path)))
        assert reached == os.fsencode(tmp_path) + b"/target/shared/" + path


def test_linked_paths_of_a_tree_that_is_served_from_the_share_are_absolute(site: Path) -> None:
    source = scan(Disk(), site, Rules(linked=("up/",), linked_root="/srv/www/"))
    assert source.manifest.by_path[b"up"] == link_entry(b"up", b"/srv/www/shared/up")


@pytest.mark.parametrize("in_the_way", [b"a file", "spare"])
def test_a_linked_path_below_a_file_or_link_is_refused(site: Path, in_the_way: bytes | str) -> None:
    write_tree(site, {"public": in_the_way})
    assert refused(site, Rules(linked=("public/uploads/",))) == [
        ("public", "is no directory, but 'linked' names public/uploads")
    ]


# -- a source that changes ------------------------------------------------------------------------


def scanned(disk: Disk, root: Path) -> Manifest | str:
    try:
        return scan(disk, root).manifest
    except (SourceChanged, SourceRefused) as error:
        return type(error).__name__


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_at_any_moment_is_seen_or_comes_too_early_or_too_late(
    tmp_path: Path, change: str
) -> None:
    """The manifest is one that the tree had at some moment, or the scan fails and says why: never
    a mixture, never another error."""
    counting = CountingDisk()
    before = scan(counting, write_tree(tmp_path / "counted", SMALL)).manifest
    emptied = Manifest.of([e for e in before.entries if not e.path.startswith(b"d/")])
    outcomes = []
    for at in range(counting.count):
        site = write_tree(tmp_path / str(at) / "site", SMALL)
        disk = ActingDisk(at, lambda site=site: CHANGES[change](site))  # type: ignore[misc]
        found = scanned(disk, site)
        assert disk.fired
        assert found in (before, scanned(Disk(), site), "SourceChanged") or (
            found == emptied and change in ("directory removed", "directory became file")
        )
        outcomes.append(found)
    assert "SourceChanged" in outcomes


def test_a_special_file_that_vanishes_is_a_change(site: Path) -> None:
    class Vanishing(CountingDisk):
        def stat(self, path: AnyPath, at: int | None = None) -> os.stat_result:
            if path == b"fifo":
                (site / "fifo").unlink()
            return super().stat(path, at)

    os.mkfifo(site / "fifo")
    with pytest.raises(SourceChanged, match="fifo vanished or was replaced"):
        scan(Vanishing(), site)


def test_a_file_that_is_written_to_while_it_is_read_is_named(site: Path) -> None:
    class Writing(CountingDisk):
        def read(self, fd: int, size: int, offset: int | None = None) -> bytes:
            data = super().read(fd, size, offset)
            if data == b"body{}":
                (site / "css/site.css").write_bytes(b"BODY{}")
            return data

    with pytest.raises(SourceChanged, match=r"css/site\.css was written to\. Nothing was publ"):
        scan(Writing(), site)


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_an_error_of_the_disk_is_not_taken_for_a_change(site: Path, code: int) -> None:
    counting = CountingDisk()
    scan(counting, site)
    for at in range(counting.count):
        disk = FailingDisk(at, code)
        with pytest.raises(OSError) as caught:
            scan(disk, site)
        assert caught.value.errno == code
        assert disk.fired


# -- many files: the three ways to hash -----------------------------------------------------------

WAYS: dict[str, Callable[[Job], Workers]] = {
    "inline": hashing._Inline,
    "threads": lambda job: hashing._Threads(job, count=4),
    "processes": lambda job: hashing._Processes(job, count=3),
}


def use(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for module in (source_module, verifying_module):
        monkeypatch.setattr(
            module,
            "workers",
            lambda job, *, files, size_bytes, latency_s=0.0, depth=1: WAYS[way](job),
        )


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many") / "thousand"
    files: dict[str, bytes] = {f"d{n % 37}/e{n % 5}/f{n}": b"x" * n for n in range(1000)}
    assert len(files) > SMALL_FILES
    return write_tree(root, dict(files))


def test_all_ways_to_hash_make_one_manifest(
    monkeypatch: pytest.MonkeyPatch, thousand: Path
) -> None:
    found = {}
    for way in WAYS:
        use(monkeypatch, way)
        found[way] = scan(Disk(), thousand).manifest
        assert verify(Disk(), thousand, found[way]).problems == ()
        assert verify(Disk(), thousand, found[way]).files == 1000
    assert len({manifest.digest for manifest in found.values()}) == 1
    assert len(found["inline"].files) == 1000
    assert found["inline"].size_bytes == sum(range(1000))


@pytest.mark.parametrize("way", list(WAYS))
def test_problems_and_changes_come_back_from_all_ways(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    use(monkeypatch, way)
    root = write_tree(tmp_path / "s", {f"f{n}": b"x" for n in range(SMALL_FILES + 3 * PIECE_FILES)})
    (root / "f7").chmod(0o4644)
    assert refused(root, disk=UnreadableDisk(b"f9")) == [
        ("f7", "is setuid"),
        ("f9", "cannot be read"),
    ]
    with pytest.raises(SourceChanged, match="f9 vanished or was replaced"):
        scan(UnreadableDisk(b"f9", errno.ENOENT), root)
    with pytest.raises(OSError) as caught:
        scan(UnreadableDisk(b"f9", errno.EIO), root)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "f9")


def test_progress_is_reported(site: Path, thousand: Path) -> None:
    calls: list[tuple[int, int, str, int]] = []
    manifest = scan(Disk(), thousand, progress=lambda *call: calls.append(call)).manifest
    assert calls[-1] == (sum(range(1000)), 0, "hashing", 1000)
    for column in (0, 3):
        assert [call[column] for call in calls] == sorted(call[column] for call in calls)
    calls.clear()
    verify(Disk(), thousand, manifest, lambda *call: calls.append(call))
    assert calls[-1] == (sum(range(1000)), sum(range(1000)), "verifying", 1000)
