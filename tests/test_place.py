"""Placing a build on a target: it costs what changed, and every byte that goes live is proved."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import CountingDisk, FewLinksDisk
from moorline.disk import AnyPath, Disk
from moorline.errors import ConfigError, Error, Mismatch
from moorline.manifest import Entry, Manifest
from moorline.place import Held, Placed, Placement, hash_workers
from moorline.progress import no_progress
from moorline.scan import scan
from moorline.verifying import verify
from trees import SITE, Content, file_entry, write_tree
from world import NOBODY, B, World, as_user, flip

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
SITE_B: dict[str, Content] = {**SITE, **B}


def mtimes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.lstat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def problems(root: Path, source: Path) -> tuple[object, ...]:
    """How the directory `root` differs from `source`; the root's own mode is always 755."""
    return verify(CountingDisk(), root, scan(CountingDisk(), source).manifest).problems


# -- what a deploy costs --------------------------------------------------------------------------


def test_a_first_deploy_copies_everything(world: World) -> None:
    world.publish("a")
    result = world.deploy("a")

    assert (result.verified_files, result.copied_files, result.reused_files) == (6, 6, 0)
    assert result.copied_bytes == sum(
        len(content) for content in {c if isinstance(c, bytes) else c[0] for c in files(SITE)}
    )  # equal contents cross the share once
    assert problems(world.live, world.here / "src" / "a") == ()


def files(spec: dict[str, Content]) -> list[bytes | tuple[bytes, int]]:
    return [content for content in spec.values() if isinstance(content, bytes | tuple)]


class LosesWrites(CountingDisk):
    """The barriers with these numbers say that something written before was lost."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.barriers = 0

    def sync_all(self, fd: int) -> None:
        self.barriers += 1
        if self.barriers - 1 in self.numbers:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_all(fd)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_write_that_was_lost_while_files_were_made_fails_the_deploy(
    world: World, number: int
) -> None:
    """The first two barriers are begun beside the making, the third waits for all of it; the disk
    tells of a lost write only to the one that asks first."""
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    world.disk = LosesWrites(number)
    with pytest.raises(Error, match="Input/output error"):
        world.deploy("b")
    world.disk = CountingDisk()
    assert world.live.name.startswith("a.")
    assert world.deploy("b").copied_files == 2


def test_a_second_deploy_costs_what_changed(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    before = world.live
    result = world.deploy("b")

    assert (result.verified_files, result.copied_files, result.reused_files) == (7, 2, 5)
    assert result.copied_bytes == len(b"<h1>two!</h1>") + len(b"new")
    assert problems(world.live, world.here / "src" / "b") == ()
    assert problems(before, world.here / "src" / "a") == ()
    for name in ("img/a.png", "css/empty.css", "bin/run"):
        assert (world.live / name).stat().st_ino == (before / name).stat().st_ino
    assert (world.live / "index.html").stat().st_ino != (before / "index.html").stat().st_ino


def test_unchanged_files_keep_their_time_and_changed_ones_get_a_later(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    old = mtimes(world.live)
    world.deploy("b")
    new = mtimes(world.live)

    assert new["index.html"] >= old["index.html"] + 10**9
    assert {n: t for n, t in new.items() if n not in ("index.html", "new.txt")} == {
        n: t for n, t in old.items() if n != "index.html"
    }


def test_two_targets_have_the_same_times_whatever_they_served_before(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    world.deploy("b")
    world.deploy("b", world.here / "other")

    assert mtimes(world.live) == mtimes(world.here / "other" / "current")


def test_content_that_comes_back_gets_a_new_time(world: World) -> None:
    """nginx's ETag is time and size: with the old time a browser would keep build b's page."""
    world.publish("a")
    world.publish("b", {**SITE, "index.html": b"<h1>ONE</h1>"})
    world.publish("c")
    times = []
    for id in "abc":
        world.deploy(id)
        times.append(mtimes(world.live)["index.html"])

    assert times == sorted(set(times))


def test_a_moved_file_does_not_cross_the_share(world: World) -> None:
    moved = {n.replace("img/", "pictures/"): c for n, c in SITE.items()}
    world.publish("a")
    world.publish("b", moved)
    world.deploy("a")
    result = world.deploy("b")

    assert (result.copied_files, result.copied_bytes, result.reused_files) == (0, 0, 6)
    assert problems(world.live, world.here / "src" / "b") == ()
    assert not (world.live / "img").exists()


def test_a_change_of_mode_alone_leaves_the_old_release_as_it_was(world: World) -> None:
    world.publish("a")
    world.publish("b", {**SITE, "index.html": (b"<h1>one</h1>", 0o600)})
    world.deploy("a")
    before = world.live
    result = world.deploy("b")

    assert (result.copied_files, result.reused_files) == (1, 5)
    assert (world.live / "index.html").stat().st_mode & 0o777 == 0o600
    assert problems(before, world.here / "src" / "a") == ()


ODD: dict[str, Content] = {
    "new\nline": b"1",
    "\udcff\udcfe": b"2",
    "-rf": b"3",
    "per%41cent": b"4",
    " ": b"5",
    "n" * 255: b"6",
    "e\u0301": b"7",
    "\u00e9": b"8",
    "links/dangling": "../nowhere",
    "links/odd": "../new\nline",
    "links/up": "..",
    "empty-1": b"",
    "empty-2": (b"", 0o755),
    "same-1": b"same",
    "same-2": (b"same", 0o400),
    "deep/" + "/".join("x" * 60 for _ in range(30)) + "/leaf": b"9",
    "hollow/of/nothing": None,
}


def test_odd_names_links_empty_files_and_depth_arrive(world: World) -> None:
    world.publish("a", ODD)
    first = world.deploy("a")
    assert problems(world.live, world.here / "src" / "a") == ()
    world.publish("b", {**ODD, "more": b"more"})
    second = world.deploy("b")

    assert problems(world.live, world.here / "src" / "b") == ()
    assert (first.copied_files, first.reused_files) == (13, 0)
    assert (second.copied_files, second.reused_files) == (1, 13)


LOCKED: dict[str, Content] = {"a/b/c.txt": b"c", "a/d.txt": (b"d", 0o444), "e/f/g.txt": b"g"}


def lock(source: Path) -> None:
    for name in ("a/b", "a", "e/f"):
        (source / name).chmod(0o555)


@as_root
@pytest.mark.parametrize("uid", [0, NOBODY])
def test_read_only_directories_are_placed_reused_and_removed(here: Path, uid: int) -> None:
    """Not only by root, whom no mode stops."""

    def deploys() -> None:
        world = World(here / "by")
        for id in "1234":
            write_tree(world.here / "src" / id, {**LOCKED, "n": id.encode()})
            lock(world.here / "src" / id)
            world.publish(id, {})
            world.deploy(id)
            assert problems(world.live, world.here / "src" / id) == ()
        assert world.releases() == ["2.2", "3.3", "4.4"]
        assert (world.live / "a" / "b").stat().st_mode & 0o777 == 0o555

    (here / "by").mkdir()
    os.chown(here / "by", uid, uid)
    assert as_user(uid, deploys) == ""


def test_a_narrow_umask_changes_nothing_that_is_served(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    old = os.umask(0o077)
    try:
        world.deploy("a")
        world.deploy("b")
    finally:
        os.umask(old)

    assert problems(world.live, world.here / "src" / "b") == ()
    for path in (world.root, world.root / "releases", world.live):
        assert path.stat().st_mode & 0o777 == 0o755


def test_a_parent_that_hands_down_its_group_changes_no_mode(world: World) -> None:
    """setgid on /srv/www is common; new directories in there inherit it."""
    world.root.mkdir()
    world.root.chmod(0o2755)
    world.publish("a")
    world.deploy("a")
    (world.root / "releases").chmod(0o2755)
    world.publish("b", SITE_B)
    world.deploy("b")

    assert problems(world.live, world.here / "src" / "b") == ()


# -- what the target holds is not trusted ---------------------------------------------------------


def every_file(spec: dict[str, Content]) -> list[str]:
    return [n for n, c in spec.items() if isinstance(c, bytes | tuple) and c not in (b"",)]


@pytest.mark.parametrize("name", every_file(SITE))
def test_a_damaged_local_file_is_noticed_and_taken_from_the_share(world: World, name: str) -> None:
    world.publish("a")
    world.publish("b", {**SITE, "new.txt": b"new"})
    world.deploy("a")
    flip(world.live / name)
    result = world.deploy("b")

    assert problems(world.live, world.here / "src" / "b") == ()
    assert (result.copied_files, result.reused_files, result.verified_files) == (2, 5, 7)
    assert [note for note in result.notes if "damaged" in note and name in note]


def test_all_local_files_damaged_at_once(world: World) -> None:
    world.publish("a")
    world.publish("b", {**SITE, "new.txt": b"new"})
    world.deploy("a")
    for name in every_file(SITE):
        flip(world.live / name)
    result = world.deploy("b")

    assert problems(world.live, world.here / "src" / "b") == ()
    assert (result.copied_files, result.reused_files) == (6, 1)  # nothing in an empty file breaks


def _replaced_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def _replaced_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replaced_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _parent_gone(path: Path) -> None:
    shutil.rmtree(path.parent)


def _parent_is_a_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to("moved")


@pytest.mark.parametrize(
    "hurt",
    [
        lambda path: path.unlink(),
        lambda path: path.chmod(0o666),
        lambda path: path.write_bytes(b"longer" * 999),
        lambda path: path.write_bytes(b""),
        _replaced_by_link,
        _replaced_by_directory,
        _replaced_by_fifo,
        _parent_gone,
        _parent_is_a_link,
    ],
)
def test_whatever_became_of_a_local_file_the_next_release_is_right(
    world: World, hurt: Callable[[Path], None]
) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    hurt(world.live / "img" / "a.png")
    world.deploy("b")

    assert problems(world.live, world.here / "src" / "b") == ()


def test_a_file_whose_time_was_changed_is_reused_with_the_right_time(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    os.utime(world.live / "img" / "a.png", (1, 1))
    result = world.deploy("b")
    world.deploy("b", world.here / "other")

    assert result.reused_files == 5
    assert mtimes(world.live) == mtimes(world.here / "other" / "current")


def test_older_releases_help_when_the_live_one_has_not_got_a_file(world: World) -> None:
    world.publish("a")
    world.publish("b", {"index.html": b"small"})
    world.publish("c", {**SITE, "new.txt": b"new"})
    for id in "ab":
        world.deploy(id)
    result = world.deploy("c")

    assert (result.copied_files, result.copied_bytes, result.reused_files) == (1, 3, 6)


# -- disks of several kinds -----------------------------------------------------------------------


class CloningDisk(CountingDisk):
    """XFS or btrfs: a clone has an inode of its own. `refuses` counts down."""

    def __init__(self, works: int = 10**6) -> None:
        super().__init__()
        self.works = works

    def clone(self, source: int, fd: int) -> bool:
        self.step("clone", str(fd))
        self.works -= 1
        if self.works < 0:
            return False
        os.write(fd, os.pread(source, 1 << 20, 0))
        return True


def test_a_disk_that_clones_gives_each_release_its_own_files(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    before = world.live
    world.disk = CloningDisk()
    result = world.deploy("b")

    assert (result.copied_files, result.reused_files) == (2, 5)
    assert problems(world.live, world.here / "src" / "b") == ()
    for name in ("img/a.png", "img/b.png", "css/site.css", "bin/run"):
        new, old = (world.live / name).stat(), (before / name).stat()
        assert new.st_ino != old.st_ino
        assert new.st_mtime_ns == old.st_mtime_ns


def test_a_disk_that_cannot_clone_is_asked_once(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    world.disk = disk = CloningDisk(works=0)
    world.deploy("b")

    assert [operation for operation, _ in disk.operations].count("clone") == 1
    assert problems(world.live, world.here / "src" / "b") == ()


def test_a_damaged_file_that_was_cloned_is_noticed(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    flip(world.live / "img" / "a.png")
    world.disk = CloningDisk()
    world.deploy("b")

    assert problems(world.live, world.here / "src" / "b") == ()


def test_a_file_with_too_many_links_is_copied_from_the_local_disk(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    before = world.live
    world.disk = FewLinksDisk(1)
    result = world.deploy("b")

    assert (result.copied_files, result.reused_files) == (2, 5)
    assert problems(world.live, world.here / "src" / "b") == ()
    assert (world.live / "bin/run").stat().st_ino != (before / "bin/run").stat().st_ino
    assert mtimes(world.live)["bin/run"] == mtimes(before)["bin/run"]


# -- the owner ------------------------------------------------------------------------------------


def owners(root: Path) -> set[tuple[int, int]]:
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in [root, *root.rglob("*")]}


@as_root
def test_files_belong_to_the_owner_in_the_settings(world: World) -> None:
    world.publish("a", target={"owner": "nobody"})
    world.publish("b", SITE_B, target={"owner": "nobody"})
    world.deploy("a")
    before = world.live
    world.deploy("b")

    ((uid, _),) = owners(world.live)
    assert uid == NOBODY
    assert (world.live / "bin/run").stat().st_ino == (before / "bin/run").stat().st_ino
    assert owners(world.root / "releases") > owners(world.live)  # the folder itself stays ours
    assert problems(world.live, world.here / "src" / "b") == ()


@as_root
def test_a_new_owner_takes_nothing_from_the_old_one(world: World) -> None:
    world.publish("a")
    world.publish("b", SITE_B, target={"owner": "nobody"})
    world.deploy("a")
    before = world.live
    result = world.deploy("b")

    assert {uid for uid, _ in owners(before)} == {0}
    assert {uid for uid, _ in owners(world.live)} == {NOBODY}
    assert (result.copied_files, result.reused_files) == (2, 5)


@as_root
def test_the_application_cannot_write_its_release(world: World) -> None:
    world.publish("a", target={"owner": "nobody"})
    with pytest.raises(ConfigError, match="no user 'ghost'"):
        world.publish("g", target={"owner": "ghost"})
        world.deploy("g")
    world.deploy("a")
    assert world.releases() == ["a.1"]


# -- placements by themselves ---------------------------------------------------------------------


class Given:
    """A store that holds the contents in `by_digest`, whatever they are."""

    def __init__(self, by_digest: Mapping[str, Iterable[bytes]]) -> None:
        self.by_digest = by_digest
        self.asked: list[str] = []

    def contents(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        for entry in entries:
            self.asked.append(entry.digest)
            yield entry, iter(self.by_digest[entry.digest])


def place(
    root: Path, manifest: Manifest, reader: Given, held: list[tuple[Path, Manifest]],
    disk: Disk | None = None,
) -> Placed:  # fmt: skip
    disk = disk or CountingDisk()
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    folders = [
        Held(os.open(path, os.O_RDONLY), partial(getattr, kept, "text")) for path, kept in held
    ]
    times = {entry.path: 1_700_000_000 for entry in manifest.files}
    hashers = hash_workers(disk, fd, files=len(manifest.files), size_bytes=manifest.size_bytes)
    try:
        return Placement(
            disk, fd, manifest, times, reader, folders, None, no_progress, hashers
        ).run()
    finally:
        hashers.close()
        for one in (fd, *(release.folder for release in folders)):
            os.close(one)


def tree_of(contents: dict[bytes, bytes]) -> Manifest:
    root = Manifest.of([Entry(b".", "d", 0o755, 0)]).entries
    return Manifest.of([*root, *(file_entry(path, data) for path, data in contents.items())])


def test_every_path_of_every_wrong_content_is_listed(tmp_path: Path) -> None:
    manifest = tree_of({b"a": b"one", b"b": b"one", b"c": b"two", b"d": b"three", b"e": b""})
    digests = {entry.path: entry.digest for entry in manifest.files}
    reader = Given(
        {
            digests[b"a"]: [b"ONE"],
            digests[b"c"]: [b"tw"],
            digests[b"d"]: [b"th", b"ree"],
            digests[b"e"]: [],
        }
    )
    with pytest.raises(Mismatch) as caught:
        place(tmp_path / "new", manifest, reader, [])

    assert caught.value.problems == (
        ("a", "content differs"),
        ("b", "content differs"),
        ("c", "has 2 bytes, should be 3"),
    )


def test_a_content_that_never_ends_is_not_read_for_ever(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        for number in range(10**9):
            assert number < 10
            yield b"x" * 1000

    manifest = tree_of({b"a": b"x" * 2000})
    reader = Given({manifest.files[0].digest: endless()})
    with pytest.raises(Mismatch, match="not what CI made"):
        place(tmp_path / "new", manifest, reader, [])


def test_each_content_is_asked_for_once(tmp_path: Path) -> None:
    manifest = tree_of({b"a": b"one", b"b": b"one", b"c": b"two"})
    reader = Given({e.digest: [b"one" if e.path != b"c" else b"two"] for e in manifest.files})
    placed = place(tmp_path / "new", manifest, reader, [])

    assert len(reader.asked) == 2
    assert (placed.copied_files, placed.copied_bytes) == (3, 6)


def test_a_full_disk_is_an_error_and_not_a_mismatch(tmp_path: Path) -> None:
    class FullDisk(CountingDisk):
        def write(self, fd: int, data: bytes | memoryview) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    manifest = tree_of({b"a": b"one"})
    reader = Given({manifest.files[0].digest: [b"one"]})
    with pytest.raises(OSError, match="No space"):
        place(tmp_path / "new", manifest, reader, [], FullDisk())


def test_many_files_are_hashed_by_other_processes_and_damage_is_still_found(
    tmp_path: Path,
) -> None:
    contents = {b"%04d" % n: b"content %d" % n for n in range(500)}
    manifest = tree_of(contents)
    reader = Given({e.digest: [contents[e.path]] for e in manifest.files})
    place(tmp_path / "old", manifest, reader, [])
    for name in ("0000", "0250", "0499"):
        flip(tmp_path / "old" / name)
    (tmp_path / "old" / "0100").unlink()
    reader.asked.clear()
    placed = place(tmp_path / "new", manifest, reader, [(tmp_path / "old", manifest)], Disk())

    assert verify(CountingDisk(), tmp_path / "new", manifest).problems == ()
    assert placed.damaged == ["0000", "0250", "0499"]
    assert (placed.copied_files, placed.reused_files) == (4, 496)
    assert len(reader.asked) == 4


_pool = (b"", b"a", b"b", b"c" * 700, b"d" * 700)
_parts = st.sampled_from(["a", "b", "c d", "-x", "\u00e9"])
_specs = st.dictionaries(
    st.lists(_parts, min_size=1, max_size=3).map("/".join),
    st.one_of(
        st.sampled_from(_pool),
        st.tuples(st.sampled_from(_pool), st.sampled_from((0o755, 0o444, 0o600))),
        st.just("a"),
        st.none(),
    ),
    max_size=8,
)


def plain(spec: dict[str, Content]) -> dict[str, Content]:
    """Without what lies below a file or link, or is in the place of a directory."""
    kept: dict[str, Content] = {}
    for name in sorted(spec):
        above = ["/".join(name.split("/")[:n]) for n in range(1, name.count("/") + 1)]
        if all(kept.get(one) is None for one in above):
            kept[name] = spec[name]
    return kept


@settings(max_examples=30)
@given(_specs, _specs, st.lists(st.booleans(), min_size=8, max_size=8))
def test_any_build_over_any_other_is_exact_and_costs_what_changed(
    old: dict[str, Content], new: dict[str, Content], hurts: list[bool]
) -> None:
    digests = {hashlib.sha256(data).hexdigest(): [data] for data in _pool}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        never_empty: dict[str, Content] = {"always": b"a"}
        before = scan(CountingDisk(), write_tree(top / "1", {**plain(old), **never_empty}))
        after = scan(CountingDisk(), write_tree(top / "2", {**plain(new), **never_empty}))
        place(top / "old", before.manifest, Given(digests), [])
        hurt = [
            entry
            for entry, wanted in zip(before.manifest.files, hurts, strict=False)
            if wanted and entry.size
        ]
        for entry in hurt:
            flip(top / "old" / os.fsdecode(entry.path))
        reader = Given(digests)
        placed = place(top / "new", after.manifest, reader, [(top / "old", before.manifest)])

        held = {(e.digest, e.mode) for e in before.manifest.files}
        new_here = {e.digest for e in after.manifest.files if (e.digest, e.mode) not in held}
        assert verify(CountingDisk(), top / "new", after.manifest).problems == ()
        assert placed.copied_files + placed.reused_files == placed.verified_files
        assert new_here <= set(reader.asked) <= new_here | {entry.digest for entry in hurt}


def test_what_a_hash_worker_cannot_open_is_an_error(tmp_path: Path) -> None:
    class Unopenable(CountingDisk):
        def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
            if self.operations[-1][0] == "open_directory" or path == b"a":
                raise OSError(errno.EIO, "Input/output error")
            return super().open_file(path, at)

    manifest = tree_of({b"a": b"one"})
    reader = Given({manifest.files[0].digest: [b"one"]})
    place(tmp_path / "old", manifest, reader, [])
    with pytest.raises((OSError, Error), match="Input/output"):
        place(tmp_path / "new", manifest, reader, [(tmp_path / "old", manifest)], Unopenable())
