"""A target: opening it, `current`, its history, its lock, what it keeps and what it removes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from fakes import CountingDisk, FailingDisk, Stopped, StoppingDisk
from moorline import releases
from moorline.build import Release
from moorline.disk import Disk
from moorline.errors import ConfigError, Conflict, NotFound, Unsafe
from moorline.history import Deploying
from moorline.manifest import Manifest
from moorline.target import Target, open_target
from trees import SITE, directory_entry, snapshot
from world import B, World, row

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def root(here: Path) -> Path:
    return here / "www"


def opened(root: Path, disk: Disk | None = None) -> Target:
    return open_target(disk or CountingDisk(), str(root))


# -- opening --------------------------------------------------------------------------------------


def test_a_target_is_made_when_its_parent_exists(root: Path) -> None:
    with opened(root) as target:
        assert target.root == str(root)
    assert sorted(path.name for path in root.iterdir()) == [".moorline", "releases", "shared"]


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o000])
def test_a_web_server_can_enter_a_new_target_and_nobody_else_can_write_it(
    root: Path, umask: int
) -> None:
    old = os.umask(umask)
    try:
        opened(root).close()
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in [root, *root.iterdir()]}

    assert modes == {"www": 0o755, "releases": 0o755, "shared": 0o755, ".moorline": 0o755}


def test_a_missing_parent_is_named_and_not_made(here: Path) -> None:
    with pytest.raises(NotFound, match=f"{here}/no does not exist") as caught:
        open_target(CountingDisk(), f"{here}/no/www")
    assert caught.value.exit_code == 4
    assert not (here / "no").exists()


def test_looking_at_a_target_does_not_make_one(here: Path, root: Path) -> None:
    with pytest.raises(NotFound, match="there is no such folder"):
        open_target(CountingDisk(), str(root), make=False)
    root.mkdir()
    with pytest.raises(NotFound, match="nothing was ever deployed there"):
        open_target(CountingDisk(), str(root), make=False)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_current_that_is_no_link_is_left_alone(root: Path, kind: str) -> None:
    root.mkdir()
    if kind == "directory":
        (root / "current").mkdir()
        (root / "current" / "index.php").write_text("old")
    else:
        (root / "current").write_text("old")
    before = snapshot(root)

    with pytest.raises(ConfigError, match=rf"current is a {kind}.*'mv {root}/current ") as caught:
        opened(root)

    assert caught.value.exit_code == 2
    assert snapshot(root) == before


@pytest.mark.parametrize("name", ["", "releases", ".moorline"])
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_can_write_is_refused_with_the_chmod(
    root: Path, name: str, mode: int
) -> None:
    opened(root).close()
    (root / name).chmod(mode)

    with pytest.raises(Unsafe, match=f"chmod go-w {root / name}") as caught:
        opened(root)
    assert caught.value.exit_code == 2

    (root / name).chmod(0o755)
    opened(root).close()


@as_root
@pytest.mark.parametrize("name", ["", "releases", ".moorline"])
def test_a_folder_of_another_user_is_refused_with_the_chown(root: Path, name: str) -> None:
    opened(root).close()
    os.chown(root / name, 65534, 65534)

    with pytest.raises(Unsafe, match=f"chown 0 {root / name}"):
        opened(root)


@as_root
def test_shared_may_belong_to_the_application(root: Path) -> None:
    opened(root).close()
    os.chown(root / "shared", 65534, 65534)
    (root / "shared").chmod(0o775)
    opened(root).close()


@pytest.mark.parametrize("name", ["releases", ".moorline"])
def test_a_private_folder_that_is_a_link_is_refused(here: Path, root: Path, name: str) -> None:
    root.mkdir()
    (here / "elsewhere").mkdir()
    (root / name).symlink_to(here / "elsewhere")

    with pytest.raises(Unsafe, match=f"{name} is no folder"):
        opened(root)
    assert list((here / "elsewhere").iterdir()) == []


def test_a_root_behind_a_link_is_the_folder_that_it_leads_to(here: Path, root: Path) -> None:
    opened(root).close()
    (here / "alias").symlink_to("www")
    with opened(here / "alias") as target:
        assert target.root == str(root)


def test_a_root_that_is_a_file_is_refused(root: Path) -> None:
    root.write_text("")
    with pytest.raises((NotFound, ConfigError, OSError)):
        opened(root)
    assert root.read_text() == ""


# -- current --------------------------------------------------------------------------------------


def test_the_switch_is_a_new_link_renamed_over_current(root: Path) -> None:
    disk = CountingDisk()
    with opened(root, disk) as target:
        target.switch("releases/a.1")
        disk.operations.clear()
        target.switch("releases/b.2")
        changes = [operation for operation, _ in disk.operations]
        names = [path for operation, path in disk.operations if operation != "sync"]

        assert changes == ["make_link", "rename", "sync"]
        assert names[0].startswith(".current.") and names[1] == "current"
        assert target.current() == os.readlink(root / "current") == "releases/b.2"


def test_at_every_stop_of_a_switch_current_leads_to_one_of_the_two(root: Path) -> None:
    with opened(root) as target:
        target.switch("releases/a.1")
    seen = set()
    for at in range(3):
        with opened(root, disk := StoppingDisk(1000)) as target:
            disk.at = disk.count + at
            with pytest.raises(Stopped):
                target.switch("releases/b.2")
            assert disk.fired
        seen.add(os.readlink(root / "current"))
        with opened(root) as target:
            target.switch("releases/a.1")
            releases.clean(target, 3)
        assert sorted(p.name for p in root.iterdir()) == [
            ".moorline", "current", "releases", "shared",
        ]  # fmt: skip
    assert seen == {"releases/a.1", "releases/b.2"}


def test_without_a_place_current_goes_away(root: Path) -> None:
    with opened(root) as target:
        target.switch("releases/a.1")
        target.switch("")
        target.switch("")
        assert target.current() == ""
        assert target.live_id() is None


@pytest.mark.parametrize(
    ("link", "id"),
    [
        ("releases/a.1", "a"),
        ("releases/1.2-x.3.44", "1.2-x.3"),
        ("/mnt/store/builds/a/tree", "a"),
        ("/mnt/store/builds/../tree", None),
        ("releases/a", None),
        ("../old", None),
        ("/srv/old", None),
    ],
)
def test_the_name_of_what_is_live_stands_in_the_link(root: Path, link: str, id: str | None) -> None:
    with opened(root) as target:
        target.switch(link)
        assert target.live_id() == id


# -- who it is ------------------------------------------------------------------------------------


def test_a_target_keeps_its_identity(root: Path) -> None:
    with opened(root) as target:
        first = target.identity()
    with opened(root) as target:
        assert target.identity() == first


def test_a_copied_target_folder_gets_a_new_identity(here: Path, root: Path) -> None:
    with opened(root) as target:
        first = target.identity()
    subprocess.run(["cp", "-a", root, here / "copy"], check=True)
    with opened(here / "copy") as target:
        second = target.identity()
        assert second != first
        assert target.identity() == second
    with opened(root) as target:
        assert target.identity() == first


def test_a_clone_of_the_machine_gets_a_new_identity(root: Path) -> None:
    class OtherMachine(CountingDisk):
        def open_file(self, path: object, at: int | None = None) -> tuple[int, os.stat_result]:
            real = "/etc/hostname" if path == "/etc/machine-id" else path
            return super().open_file(real, at)  # type: ignore[arg-type]

    with opened(root) as target:
        first = target.identity()
    with opened(root, OtherMachine()) as target:
        assert target.identity() != first


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 3}', "\0\0\0"])
def test_a_damaged_identity_is_made_anew(root: Path, text: str) -> None:
    with opened(root) as target:
        (root / ".moorline" / "target.json").write_text(text)
        made = target.identity()
        assert len(made) == 16
        assert target.identity() == made


# -- history --------------------------------------------------------------------------------------


def test_rows_come_back_in_their_order(root: Path) -> None:
    rows = [row("a", 1, "intended"), row("a", 1), row("b", 2, "intended"), row("b", 2, "failed")]
    with opened(root) as target:
        assert target.history() == []
        for one in rows:
            target.record(one)
        assert target.history() == rows


@pytest.mark.parametrize("torn", [b'{"n":2,"st', b"\0\0\0\0", b"{}", b"\xff", b'"'])
def test_a_torn_last_line_is_passed_over_and_the_next_row_stands_alone(
    root: Path, torn: bytes
) -> None:
    with opened(root) as target:
        target.record(row("a", 1))
        with (root / ".moorline" / "history.jsonl").open("ab") as file:
            file.write(torn)
        assert target.history() == [row("a", 1)]
        target.record(row("b", 2))
        target.record(row("c", 3))
        assert target.history() == [row("a", 1), row("b", 2), row("c", 3)]


def test_a_row_whose_writing_failed_does_not_spoil_the_next(root: Path) -> None:
    class HalfDisk(FailingDisk):
        def write(self, fd: int, data: bytes | memoryview) -> None:
            self.step("half", "")
            os.write(fd, bytes(data)[:20])
            super().write(fd, data)

    disk = HalfDisk(10**6, 28, "write")
    with opened(root, disk) as target:
        target.record(row("a", 1))
        disk.at = disk.count
        with pytest.raises(OSError, match="No space"):
            target.record(row("b", 2))
        assert disk.fired
        target.record(row("c", 3))
        assert row("b", 2) not in target.history()
    with opened(root) as target:
        target.record(row("d", 4))
        assert target.history()[-1] == row("d", 4)


def test_live_is_the_newest_row_of_what_current_says(root: Path) -> None:
    rows = [row("a", 1), row("b", 2, "intended"), row("b", 2, "failed")]
    with opened(root) as target:
        assert target.live(rows) is None
        target.switch("releases/a.1")
        assert target.live(rows) == rows[0]
        target.switch("releases/b.2")
        assert target.live(rows) == rows[1]
        target.switch("releases/z.9")
        assert target.live(rows) is None


def test_numbers_are_never_used_twice(root: Path) -> None:
    with opened(root) as target:
        assert target.next_number([]) == 1
        assert target.next_number([row("a", 7), row("b", 3)]) == 8
        (root / "releases" / "left-over.12").mkdir()
        (root / "releases" / "not-a-release").mkdir()
        (root / "releases" / ".removing.x.99").mkdir()
        assert target.next_number([row("a", 7)]) == 13


# -- the deployment under way ---------------------------------------------------------------------


def test_the_deployment_under_way_comes_back_as_it_was(root: Path) -> None:
    deploying = Deploying(
        "d-1", "PROD", row("b", 2, "intended"), "releases/a.1", "prepared", 5, 7, True, True
    )
    with opened(root) as target:
        assert target.deploying() is None
        target.set_deploying(deploying)
        assert target.deploying() == deploying
        target.set_deploying(replace(deploying, phase="switched"))
        assert target.deploying() == replace(deploying, phase="switched")
        target.set_deploying(None)
        target.set_deploying(None)
        assert target.deploying() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"deployment": "x"}', "\0"])
def test_a_damaged_deploying_file_counts_as_none(root: Path, text: str) -> None:
    with opened(root) as target:
        (root / ".moorline" / "deploying.json").write_text(text)
        assert target.deploying() is None


# -- what is kept ---------------------------------------------------------------------------------


def test_a_kept_manifest_is_used_only_if_it_is_right(root: Path) -> None:
    manifest = Manifest.of([directory_entry()])
    with opened(root) as target:
        assert target.manifest(manifest.digest) is None
        target.keep(b"manifests", manifest.digest, manifest.text)
        assert target.manifest(manifest.digest) == manifest

        path = root / ".moorline" / "manifests" / manifest.digest
        for damaged in (b"", manifest.text[:-1], manifest.text.replace(b"755", b"777")):
            path.write_bytes(damaged)
            assert target.manifest(manifest.digest) is None
        target.keep(b"manifests", manifest.digest, manifest.text)
        assert target.manifest(manifest.digest) == manifest


def test_keeping_what_is_kept_writes_nothing(root: Path) -> None:
    disk = CountingDisk()
    with opened(root, disk) as target:
        target.keep(b"agents", "x.pyz", b"agent")
        disk.operations.clear()
        target.keep(b"agents", "x.pyz", b"agent")
        assert "create" not in [operation for operation, _ in disk.operations]
        assert target.kept(b"agents", "x.pyz") == b"agent"
        assert target.kept(b"agents", "y.pyz") is None


# -- the lock -------------------------------------------------------------------------------------

HOLDER = """
import sys
from moorline.disk import Disk
from moorline.target import open_target
with open_target(Disk(), sys.argv[1]) as target, target.lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(root: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, root],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_a_busy_target_is_a_conflict_after_the_wait(root: Path) -> None:
    with (
        opened(root) as one, one.lock(), opened(root) as two,
        pytest.raises(Conflict, match=f"{root} is busy") as caught,
        two.lock(0),
    ):  # fmt: skip
        raise AssertionError("both hold it")
    assert caught.value.exit_code == 5


def test_the_lock_of_a_killed_process_is_free(root: Path) -> None:
    with holder(root) as child, opened(root) as target:
        with pytest.raises(Conflict), target.lock(0):
            raise AssertionError("both hold it")
        child.send_signal(signal.SIGKILL)
        child.wait()
        with target.lock(0):
            pass


def test_who_waits_gets_the_lock_when_it_is_given_back(root: Path) -> None:
    with holder(root) as child, opened(root) as target:
        child.communicate("")
        with target.lock(30):
            pass


def test_the_lock_is_free_again_after_an_error_and_for_children_that_go_on(root: Path) -> None:
    receive, send = os.pipe()
    with opened(root) as target:
        with pytest.raises(KeyError), target.lock(0):
            child = os.fork()
            if child == 0:  # inherits the lock, like a child that hangs on a dead share
                os.read(receive, 1)
                os._exit(0)
            raise KeyError
        with target.lock(0):
            pass
    os.write(send, b"x")
    os.waitpid(child, 0)
    os.close(receive)
    os.close(send)


def test_history_is_readable_json_for_others(world: World) -> None:
    world.publish("a")
    world.publish("b", {**SITE, **B})
    world.deploy("a")
    world.deploy("b")
    lines = (world.inner / "history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]

    assert [(r["id"], r["step"], r["n"], r["place"]) for r in rows] == [
        ("a", "intended", 1, "releases/a.1"), ("a", "live", 1, "releases/a.1"),
        ("b", "intended", 2, "releases/b.2"), ("b", "live", 2, "releases/b.2"),
    ]  # fmt: skip
    assert {r["source"] for r in rows} == {"bundle"}
    assert {r["digest"] for r in rows} == {p.digest for p in world.published.values()}


def test_a_long_history_is_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 deploys a day are 30,000 rows a year: a deploy may parse each once, and looks only at the
    manifests of releases that are there."""
    world.publish("a")
    world.publish("b", {**SITE, **B})
    world.deploy("a")
    digest = str(world.published["a"].digest)
    old = [replace(row("old", n), n=n, digest=digest) for n in range(2, 300)]
    with world.target() as target:
        for one in old:
            target.record(one)
    parse = Mock(wraps=Release.parse)
    monkeypatch.setattr(Release, "parse", parse)
    disk = CountingDisk()

    world.deploy("b", disk=disk)

    assert parse.call_count < len(old) + 20
    assert len([path for _, path in disk.operations if path.endswith(digest)]) < 10
