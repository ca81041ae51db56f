"""Before the switch: what is proved, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import ActingDisk, CountingDisk
from moorline import preparing, wanted
from moorline.build import BuildId
from moorline.config import Config
from moorline.disk import AnyPath, Disk
from moorline.errors import (
    ConfigError,
    Conflict,
    Error,
    Interrupted,
    Mismatch,
    NotFound,
    Problem,
    ShareDead,
)
from moorline.scan import scan
from moorline.verifying import verify
from trees import SITE, Content, snapshot
from world import NOBODY, B, World, as_user, flip

SITE_B: dict[str, Content] = {**SITE, **B}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def problems(root: Path, source: Path) -> tuple[object, ...]:
    return verify(CountingDisk(), root, scan(CountingDisk(), source).manifest).problems


@pytest.fixture
def on_a(world: World) -> World:
    world.publish("a")
    world.deploy("a")
    world.publish("b", SITE_B)
    return world


def served(release: Path) -> dict[str, object]:
    """All of a release but the times that making hard links to its files changes."""
    return {name: (*facts[:3], *facts[4:]) for name, facts in snapshot(release).items()}


def refused(world: World, error: type[Error], match: str | None = None, **options: Any) -> Error:
    """Deploying b is refused, and the target is as if nobody had tried."""
    release = served(world.live)
    link, releases, rows = world.link, world.releases(), world.rows()
    kept = sorted(path.name for path in world.inner.rglob("*"))
    with pytest.raises(error, match=match) as caught:
        world.deploy("b", **options)

    assert caught.value.exit_code == error.exit_code
    assert caught.value.live == "a"
    assert (world.link, world.releases(), world.rows()) == (link, releases, rows)
    assert served(world.live) == release
    assert sorted(path.name for path in world.inner.rglob("*")) == kept
    return caught.value


# -- a store of layout pack that was changed ------------------------------------------------------


def pack_of_b(world: World) -> Path:
    (line,) = [
        line
        for line in (world.store / "builds/b/index").read_text().splitlines()
        if line.startswith("pack ") and line.endswith(f" {len(b'<h1>two!</h1>new')}")
    ]
    return world.store / "packs" / line.split()[1]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap_places(index: Path) -> None:
    """Every content of the new pack points at another one."""
    text = index.read_text()
    index.write_text(re.sub(r"(?m)^2 (0|13) ", lambda m: f"2 {13 - int(m[1])} ", text))
    assert index.read_text() != text


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("hurt", [flip, truncate, Path.unlink, to_fifo, to_link, to_directory])
def test_a_changed_pack_is_refused(on_a: World, hurt: Callable[[Path], object]) -> None:
    hurt(pack_of_b(on_a))
    error = refused(on_a, Mismatch)

    assert set(error.problems) <= {
        Problem("index.html", "content differs"), Problem("new.txt", "content differs"),
        Problem("index.html", "has 0 bytes, should be 13"),
        Problem("new.txt", "has 0 bytes, should be 3"),
    }  # fmt: skip
    assert "new.txt" in [problem.path for problem in error.problems]
    assert (on_a.record().current, on_a.record().deploying) == ("a", None)


def test_all_that_is_wrong_is_listed(on_a: World) -> None:
    pack_of_b(on_a).write_bytes(b"x" * 16)
    error = refused(on_a, Mismatch, r"2 file\(s\) of the build are not what CI made")

    assert error.problems == (
        Problem("index.html", "content differs"),
        Problem("new.txt", "content differs"),
    )


@pytest.mark.parametrize(
    "hurt",
    [swap_places, flip, truncate, Path.unlink, to_fifo, to_directory, lambda p: p.write_text("")],
)
def test_a_changed_index_is_refused(on_a: World, hurt: Callable[[Path], object]) -> None:
    hurt(on_a.store / "builds" / "b" / "index")
    refused(on_a, Mismatch)


def test_an_index_that_leads_out_of_the_store_is_refused(on_a: World) -> None:
    index = on_a.store / "builds" / "b" / "index"
    index.write_text(index.read_text().replace(pack_of_b(on_a).name, "../../../../etc/"))
    refused(on_a, Mismatch)


def test_a_manifest_that_names_other_content_is_refused(on_a: World) -> None:
    """Even one that is well formed, as somebody who may write the share would make it."""
    manifest, other = (on_a.store / "builds" / id / "manifest.gz" for id in "ba")
    manifest.write_bytes(other.read_bytes())
    refused(on_a, Mismatch, "the manifest of build b .* is not the one that CI made")


@pytest.mark.parametrize(
    "hurt",
    [
        flip, truncate, Path.unlink, to_fifo, to_link, to_directory,
        lambda path: path.write_bytes(path.read_bytes() * 2),
    ],
)  # fmt: skip
def test_a_changed_manifest_is_refused(on_a: World, hurt: Callable[[Path], object]) -> None:
    hurt(on_a.store / "builds" / "b" / "manifest.gz")
    refused(on_a, Mismatch)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "\0"])
def test_a_damaged_build_record_is_refused(on_a: World, text: str) -> None:
    (on_a.store / "builds" / "b" / "build.json").write_text(text)
    refused(on_a, Mismatch, "The build is damaged")


def test_a_build_record_of_an_unknown_format_is_refused(on_a: World) -> None:
    (on_a.store / "builds" / "b" / "build.json").write_text('{"format": 9}')
    refused(on_a, ConfigError, "Use a newer moorline")


def test_a_build_record_that_lies_is_not_believed(on_a: World) -> None:
    path = on_a.store / "builds" / "b" / "build.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "digest": "0" * 64, "manifest_bytes": 1, "files": 0}))
    on_a.deploy("b")
    assert problems(on_a.live, on_a.here / "src" / "b") == ()


@pytest.mark.parametrize("hurt", [flip, truncate, Path.unlink, to_fifo, to_directory])
def test_changed_settings_are_refused(world: World, hurt: Callable[[Path], object]) -> None:
    world.publish("a")
    world.deploy("a")
    world.publish("b", SITE_B, hooks={"after_switch": [{"run": ["true"]}]})
    (settings,) = set((world.store / "settings").iterdir()) - {
        world.store / "settings" / path.name for path in (world.inner / "settings").iterdir()
    }
    hurt(settings)
    with pytest.raises(Error) as caught:
        world.deploy("b")

    assert caught.value.exit_code in (3, 4)
    assert (world.link, world.releases()) == ("releases/a.1", ["a.1"])


def test_settings_that_the_target_keeps_are_not_asked_of_the_share(on_a: World) -> None:
    shutil.rmtree(on_a.store / "settings")
    assert on_a.deploy("b").live == "b"


def test_settings_on_the_target_count_only_with_their_digest(on_a: World) -> None:
    for path in (on_a.inner / "settings").iterdir():
        text = path.read_text().replace('"mode":', '"mood":')
        path.write_text(text.replace('"store_wait_s":0', '"store_wait_s":1'))
    on_a.deploy("b")
    texts = [path.read_bytes() for path in (on_a.inner / "settings").iterdir()]
    assert texts == [path.read_bytes() for path in (on_a.store / "settings").iterdir()]


def test_a_changed_agent_is_not_kept_and_said(on_a: World) -> None:
    shutil.rmtree(on_a.inner / "agents")
    (agent,) = (on_a.store / "agent").iterdir()
    agent.write_bytes(b"evil")
    result = on_a.deploy("b")

    assert list((on_a.inner / "agents").iterdir()) == []
    assert len([note for note in result.notes if "agent was not kept" in note]) == 1


def test_an_agent_that_the_target_keeps_is_not_asked_of_the_share(on_a: World) -> None:
    shutil.rmtree(on_a.store / "agent")
    assert not any("agent" in note for note in on_a.deploy("b").notes)


def test_a_damaged_agent_is_kept_anew(on_a: World) -> None:
    (kept,) = (on_a.inner / "agents").iterdir()
    kept.write_bytes(b"evil")
    on_a.deploy("b")
    assert kept.read_bytes() == (on_a.store / "agent" / kept.name).read_bytes()


def test_a_held_build_that_comes_with_a_newer_agent_keeps_it(on_a: World) -> None:
    """A rollback to it must find the agent that its bundle pins."""
    on_a.deploy("b")
    shutil.rmtree(on_a.inner / "agents")
    on_a.deploy("a")
    names = [path.name for path in (on_a.inner / "agents").iterdir()]
    assert names == [path.name for path in (on_a.store / "agent").iterdir()]


def test_damage_to_what_the_target_holds_already_is_not_met(on_a: World) -> None:
    """Local files are proved here; the share is asked only for what is missing."""
    other = set((on_a.store / "packs").iterdir()) - {pack_of_b(on_a)}
    for pack in other:
        pack.unlink()
    on_a.deploy("b")
    assert problems(on_a.live, on_a.here / "src" / "b") == ()


def test_a_repaired_store_can_be_deployed(on_a: World) -> None:
    flip(pack_of_b(on_a))
    refused(on_a, Mismatch)
    on_a.publish("b", SITE_B)
    on_a.deploy("b")
    assert problems(on_a.live, on_a.here / "src" / "b") == ()


# -- a store of layout tree that was changed ------------------------------------------------------


@pytest.fixture
def tree_on_a(tree_world: World) -> World:
    tree_world.publish("a")
    tree_world.deploy("a")
    tree_world.publish("b", {**SITE_B, "d/e": b"e"})
    return tree_world


def _link_elsewhere(tree: Path) -> None:
    (tree / "img/logo.png").unlink()
    (tree / "img/logo.png").symlink_to("/etc/passwd")


def _file_to_directory(tree: Path) -> None:
    (tree / "d/e").unlink()
    (tree / "d/e").mkdir()


def _directory_to_link(tree: Path) -> None:
    (tree / "d").rename(tree.parent / "d")
    (tree / "d").symlink_to("../d")


def _directory_to_file(tree: Path) -> None:
    shutil.rmtree(tree / "d")
    (tree / "d").write_text("e")


def _link_to_file(tree: Path) -> None:
    (tree / "img/logo.png").unlink()
    shutil.copy(tree / "img/a.png", tree / "img/logo.png")


def _to_fifo(tree: Path) -> None:
    to_fifo(tree / "d/e")


TREE_DAMAGES: dict[str, tuple[Callable[[Path], object], list[Problem]]] = {
    "byte": (lambda t: flip(t / "d/e"), [Problem("d/e", "content differs")]),
    "extra file": (lambda t: (t / "x").write_text("x"), [Problem("x", "extra file")]),
    "extra directory": (lambda t: (t / "d/x").mkdir(), [Problem("d/x", "extra directory")]),
    "extra link": (lambda t: (t / "x").symlink_to("d"), [Problem("x", "extra link")]),
    "missing file": (lambda t: (t / "d/e").unlink(), [Problem("d/e", "missing")]),
    "missing directory": (
        lambda t: shutil.rmtree(t / "d"), [Problem("d", "missing"), Problem("d/e", "missing")],
    ),
    "longer": (
        lambda t: (t / "d/e").write_text("ee"), [Problem("d/e", "has more bytes, should be 1")],
    ),
    "shorter": (
        lambda t: (t / "d/e").write_text(""), [Problem("d/e", "has 0 bytes, should be 1")],
    ),
    "mode": (lambda t: (t / "d/e").chmod(0o666), [Problem("d/e", "mode is 666, should be 644")]),
    "setuid": (
        lambda t: (t / "bin/run").chmod(0o4755),
        [Problem("bin/run", "mode is 4755, should be 755")],
    ),
    "directory mode": (
        lambda t: (t / "d").chmod(0o777), [Problem("d", "mode is 777, should be 755")],
    ),
    "link": (
        _link_elsewhere, [Problem("img/logo.png", "leads to /etc/passwd, should be a.png")],
    ),
    "file to directory": (
        _file_to_directory, [Problem("d/e", "is a directory, should be a file")],
    ),
    "file to fifo": (_to_fifo, [Problem("d/e", "is a special file, should be a file")]),
    "link to file": (_link_to_file, [Problem("img/logo.png", "is a file, should be a link")]),
    "directory to link": (
        _directory_to_link,
        [Problem("d", "is a link, should be a directory"), Problem("d/e", "missing")],
    ),
    "directory to file": (
        _directory_to_file,
        [Problem("d", "is a file, should be a directory"), Problem("d/e", "missing")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", TREE_DAMAGES)
def test_mode_link_refuses_every_change_of_the_tree(tree_on_a: World, damage: str) -> None:
    hurt, expected = TREE_DAMAGES[damage]
    hurt(tree_on_a.store / "builds" / "b" / "tree")
    error = refused(tree_on_a, Mismatch, mode="link")

    assert list(error.problems) == expected


def test_mode_link_lists_all_changes_at_once(tree_on_a: World) -> None:
    tree = tree_on_a.store / "builds" / "b" / "tree"
    (tree / "x").write_text("x")
    (tree / "css/site.css").chmod(0o600)
    (tree / "d/e").unlink()
    flip(tree / "index.html")
    error = refused(tree_on_a, Mismatch, "4 problem", mode="link")

    assert [problem.path for problem in error.problems] == [
        "css/site.css",
        "d/e",
        "index.html",
        "x",
    ]


@pytest.mark.parametrize(
    "damage", ["byte", "missing file", "missing directory", "longer", "shorter",
               "file to directory", "file to fifo", "directory to file"]
)  # fmt: skip
def test_mode_copy_refuses_a_tree_that_lacks_what_it_needs(tree_on_a: World, damage: str) -> None:
    TREE_DAMAGES[damage][0](tree_on_a.store / "builds" / "b" / "tree")
    error = refused(tree_on_a, Mismatch)

    assert [problem.path for problem in error.problems] == ["d/e"]


@pytest.mark.parametrize("damage", ["extra file", "mode", "setuid", "directory mode", "link"])
def test_mode_copy_takes_only_content_from_a_tree(tree_on_a: World, damage: str) -> None:
    TREE_DAMAGES[damage][0](tree_on_a.store / "builds" / "b" / "tree")
    tree_on_a.deploy("b")
    assert problems(tree_on_a.live, tree_on_a.here / "src" / "b") == ()


def test_mode_link_needs_a_store_of_layout_tree(on_a: World) -> None:
    error = refused(on_a, ConfigError, "mode link needs a store of layout tree", mode="link")
    assert "mode copy" in error.message


# -- the wrong store, or none ---------------------------------------------------------------------


def test_a_store_that_is_not_there(on_a: World) -> None:
    on_a.store.rename(on_a.here / "away")
    with pytest.raises(NotFound, match="Mount the share") as caught:
        on_a.deploy("b")
    assert (caught.value.exit_code, caught.value.live) == (4, "a")
    assert on_a.link == "releases/a.1"


def test_an_empty_mountpoint(on_a: World) -> None:
    on_a.store.rename(on_a.here / "away")
    on_a.store.mkdir()
    with pytest.raises(NotFound, match="Is the share mounted there"):
        on_a.deploy("b")
    assert list(on_a.store.iterdir()) == []


def test_another_application_s_store_is_refused(on_a: World) -> None:
    marker = on_a.store / "moorline-store.json"
    marker.write_text(marker.read_text().replace('"shop"', '"blog"'))
    error = refused(on_a, ConfigError, "for application 'shop' and the store .* to 'blog'")
    assert error.exit_code == 2


def test_another_store_of_the_same_application_is_refused(on_a: World) -> None:
    """One that was made anew knows nothing of the builds that this bundle speaks of."""
    marker = on_a.store / "moorline-store.json"
    record = json.loads(marker.read_text())
    marker.write_text(json.dumps({**record, "store": "0" * 16}))
    refused(on_a, ConfigError)


def test_a_build_that_is_not_there(on_a: World) -> None:
    (on_a.store / "builds" / "b").rename(on_a.here / "b")
    error = refused(on_a, NotFound, r"no build b .*waited 0 s.*Publish it again")
    assert error.exit_code == 4


def test_a_build_that_appears_while_the_deploy_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("a", target={"store_wait_s": 60})
    build, away = world.store / "builds" / "a", world.here / "away"
    build.rename(away)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            away.rename(build)

    monkeypatch.setattr("moorline.preparing.time.sleep", sleep)
    assert world.deploy("a").live == "a"
    assert len(slept) == 3


def test_waiting_for_a_build_is_not_taken_for_a_dead_share(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    world.publish("a", target={"store_wait_s": 60, "store_timeout_s": 1})
    (world.store / "builds" / "a").rename(world.here / "away")

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("moorline.preparing.time.sleep", sleep)
    with pytest.raises(Interrupted, match="nothing is live"):
        world.deploy("a")
    assert slept[0] < 1


@pytest.mark.parametrize("stride", [pytest.param(3, marks=pytest.mark.slow), 17])
def test_a_share_that_vanishes_in_the_middle(on_a: World, stride: int) -> None:
    counting = CountingDisk()
    for name in ("store", "www"):
        shutil.copytree(on_a.here / name, on_a.here / "saved" / name, symlinks=True)
    on_a.deploy("b", disk=counting)
    ends = set()
    for at in range(0, counting.count, stride):
        for name in ("store", "www"):
            shutil.rmtree(on_a.here / name, ignore_errors=True)
            shutil.copytree(on_a.here / "saved" / name, on_a.here / name, symlinks=True)
        disk = ActingDisk(at, lambda: shutil.rmtree(on_a.store))
        try:
            result = on_a.deploy("b", disk=disk)
            assert result.live == "b"
            assert problems(on_a.live, on_a.here / "src" / "b") == ()
        except Error as error:
            assert (on_a.link, error.live) in (("releases/a.1", "a"), ("releases/a.1", None))
            assert on_a.releases() == ["a.1"]
            assert problems(on_a.live, on_a.here / "src" / "a") == ()
        ends.add(on_a.link)
        assert disk.fired
        assert not (on_a.inner / "deploying.json").exists()
    assert ends == {"releases/a.1", "releases/b.2"}


# -- local first ----------------------------------------------------------------------------------


class Forking(CountingDisk):
    forks = True


class Hanging(Forking):
    """A share whose server is gone: opening a manifest in the store never returns."""

    def open_file(self, path: AnyPath, at: int | None = None) -> tuple[int, os.stat_result]:
        if path == b"manifest.gz":
            os.close(at or 0)
            os.read(os.pipe()[0], 1)
        return super().open_file(path, at)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_share_that_hangs_fails_the_deploy_within_its_limit(world: World) -> None:
    world.publish("a")
    world.deploy("a")
    world.publish("b", SITE_B, target={"store_timeout_s": 1})
    before = children()
    error = refused(world, ShareDead, "did not answer for 1 s", disk=Hanging())

    assert error.exit_code == 1
    assert children() == before
    assert world.deploy("b").live == "b"


def test_a_deploy_with_the_share_s_part_in_a_child_is_the_same(on_a: World) -> None:
    seen: list[str] = []
    result = on_a.deploy("b", disk=Disk(), progress=lambda *call: seen.append(call[2]))

    assert (result.copied_files, result.reused_files, result.pinned) == (2, 5, True)
    assert problems(on_a.live, on_a.here / "src" / "b") == ()
    assert "placing" in seen


def test_a_refusal_in_the_child_arrives_with_all_its_problems(on_a: World) -> None:
    pack_of_b(on_a).write_bytes(b"x" * 16)
    error = refused(on_a, Mismatch, disk=Forking())
    assert [problem.path for problem in error.problems] == ["index.html", "new.txt"]


def no_share(*arguments: object, **options: object) -> None:
    raise AssertionError("the share was touched")


@pytest.fixture
def without_share(on_a: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A target that went from a to b, and then lost the share."""
    on_a.deploy("b")
    on_a.store.rename(on_a.here / "away")
    on_a.config = Config(app="shop")
    monkeypatch.setattr(preparing, "open_store", no_share)
    monkeypatch.setattr(wanted, "open_store", no_share)
    return on_a


def test_a_rollback_to_a_release_held_here_needs_no_share(without_share: World) -> None:
    result = without_share.rollback()

    assert (result.live, result.pinned, result.verified_files) == ("a", False, 6)
    assert without_share.link == "releases/a.1"


def test_a_rollback_verifies_what_it_goes_to(without_share: World) -> None:
    flip(without_share.root / "releases" / "a.1" / "index.html")
    with pytest.raises(NotFound, match=r"holds no whole copy of build a. Name the store") as caught:
        without_share.rollback()

    assert caught.value.live == "b"
    assert without_share.link == "releases/b.2"


def test_a_rollback_with_a_dead_share_named_still_works(on_a: World) -> None:
    on_a.deploy("b")
    on_a.store.rename(on_a.here / "away")
    result = on_a.rollback()

    assert (result.live, result.pinned) == ("a", False)
    assert any("no store at" in note for note in result.notes)


def test_what_a_build_was_last_deployed_with_is_what_a_rollback_uses(world: World) -> None:
    """The same build, published again after its hooks were changed, is held here already; its new
    settings are not."""
    world.publish("a")
    world.publish("b", SITE_B)
    world.deploy("a")
    world.deploy("b")
    log = world.here / "log"
    world.publish("a", SITE, hooks={"after_switch": [{"run": ["sh", "-c", f"echo new >> {log}"]}]})
    world.deploy("a")
    world.deploy("b")
    log.unlink()
    world.store.rename(world.here / "away")
    world.rollback()

    assert log.read_text() == "new\n"


# -- the ledger -----------------------------------------------------------------------------------


def test_the_pin_is_written_before_the_build_is_looked_for(on_a: World) -> None:
    disk = CountingDisk()
    on_a.deploy("b", disk=disk)
    record = on_a.record()
    pinned = disk.operations.index(("rename", f"{record.target}.json"))
    names = [i for i, (operation, _) in enumerate(disk.operations) if operation == "names"]
    opened = [i for i, step in enumerate(disk.operations) if step == ("open_directory", "builds")]
    looked = disk.operations.index(("open_directory", "b"))

    assert pinned < opened[0] < looked
    assert any(opened[0] < at < looked for at in names)


def test_while_it_is_placed_a_build_is_pinned_and_so_is_what_was_there(on_a: World) -> None:
    with on_a.going_live("b") as go:
        go.prepare()
        assert on_a.record().pins() == ["a", "b"]
    assert on_a.record().host


def test_a_build_that_is_being_removed_is_left_alone(on_a: World) -> None:
    with on_a.ledger() as ledger:
        ledger.begin_removing(BuildId("b"), "old", 1)
    error = refused(on_a, Conflict, "build b is being removed")

    assert error.exit_code == 5
    assert (on_a.record().current, on_a.record().deploying) == ("a", None)


def test_a_ledger_that_cannot_be_written_does_not_stop_a_deploy(on_a: World) -> None:
    (on_a.store / "ledger").rename(on_a.here / "ledger")
    result = on_a.deploy("b")

    assert (result.live, result.pinned) == ("b", False)
    assert any("the ledger was not written" in note for note in result.notes)


@as_root
def test_a_share_that_this_user_can_only_read(here: Path) -> None:
    world = World(here)
    world.publish("a")
    world.publish("b", SITE_B)
    world.root = here / "by" / "www"
    (here / "by").mkdir()
    os.chown(here / "by", NOBODY, NOBODY)

    def deploys() -> None:
        assert not world.deploy("a").pinned
        result = world.deploy("b", disk=Disk())
        assert (result.live, result.pinned, result.previous) == ("b", False, "a")
        assert any("the ledger was not written: Permission denied" in n for n in result.notes)
        assert world.rollback().live == "a"

    assert as_user(NOBODY, deploys) == ""


def test_after_going_live_the_ledger_knows_current_and_previous(on_a: World) -> None:
    on_a.deploy("b", stage="PROD")
    record = on_a.record()

    assert (record.current, record.previous, record.deploying) == ("b", "a", None)
    assert (record.root, record.stage) == (str(on_a.root), "PROD")
    assert record.since == on_a.rows()[-1].time


def test_a_refused_deploy_leaves_no_pin(on_a: World) -> None:
    flip(pack_of_b(on_a))
    refused(on_a, Mismatch)
    assert on_a.record().pins() == ["a"]


# -- linked paths ---------------------------------------------------------------------------------

LINKED = {"target": {"linked": ["public/uploads", "cache/a/b/", ".env"]}}
WITH_UPLOADS: dict[str, Content] = {**SITE, "public/uploads/old.png": b"old"}


def test_linked_paths_live_outside_of_the_releases(world: World) -> None:
    world.publish("a", WITH_UPLOADS, **LINKED)
    (world.root / "shared").mkdir(parents=True)
    (world.root / "shared" / ".env").write_text("SECRET=1")
    world.deploy("a")
    (world.live / "public/uploads/mine.png").write_text("mine")
    (world.live / "cache/a/b/c").write_text("c")
    world.publish("b", {**WITH_UPLOADS, "new": b"new"}, **LINKED)
    world.deploy("b")

    assert (world.live / "public/uploads/mine.png").read_text() == "mine"
    assert (world.live / ".env").read_text() == "SECRET=1"
    assert (world.root / "shared/cache/a/b/c").read_text() == "c"
    assert not (world.live / "public/uploads/old.png").exists()
    assert world.published["a"].replaced == (".env", "cache/a/b/", "public/uploads/")


def test_a_missing_linked_file_is_named_before_anything_is_copied(world: World) -> None:
    linked = {"target": {"linked": [".env", "config/db.yml", "log/"]}}
    world.publish("a", SITE, **linked)
    with pytest.raises(ConfigError) as caught:
        world.deploy("a")

    assert caught.value.exit_code == 2
    for name in (".env", "config/db.yml"):
        assert f"{world.root}/shared/{name}" in caught.value.message
    assert world.releases() == []
    assert not (world.inner / "deploying.json").exists()
    assert world.steps() == []


@pytest.mark.parametrize("planted", ["cache", "cache/a"])
def test_a_link_that_was_planted_in_shared_is_not_followed(world: World, planted: str) -> None:
    """The application owns shared/; root makes directories in it."""
    world.publish("a", SITE, target={"linked": ["cache/a/b/"]})
    (world.here / "etc").mkdir()
    (world.root / "shared" / planted).parent.mkdir(parents=True)
    (world.root / "shared" / planted).symlink_to(world.here / "etc")
    with pytest.raises(ConfigError, match="a part of it is a link or a file"):
        world.deploy("a")
    assert list((world.here / "etc").iterdir()) == []


def test_a_linked_directory_that_dangles_is_refused(world: World) -> None:
    world.publish("a", SITE, target={"linked": ["uploads/"]})
    (world.root / "shared").mkdir(parents=True)
    (world.root / "shared" / "uploads").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="shared/uploads"):
        world.deploy("a")


def test_a_linked_directory_may_be_a_link_to_a_larger_disk(world: World) -> None:
    world.publish("a", SITE, target={"linked": ["uploads/"]})
    (world.here / "large").mkdir()
    (world.root / "shared").mkdir(parents=True)
    (world.root / "shared" / "uploads").symlink_to(world.here / "large")
    world.deploy("a")
    (world.live / "uploads" / "x").write_text("x")
    assert (world.here / "large" / "x").read_text() == "x"


@as_root
def test_a_linked_directory_belongs_to_the_owner(world: World) -> None:
    world.publish("a", SITE, target={"linked": ["cache/a/"], "owner": "nobody"})
    world.deploy("a")
    for name in ("cache", "cache/a"):
        assert (world.root / "shared" / name).stat().st_uid == NOBODY


def test_linked_directories_can_be_used_whatever_the_umask(world: World) -> None:
    world.publish("a", SITE, target={"linked": ["cache/a/"]})
    old = os.umask(0o077)
    try:
        world.deploy("a")
    finally:
        os.umask(old)
    for name in ("cache", "cache/a"):
        assert (world.root / "shared" / name).stat().st_mode & 0o777 == 0o755


def test_mode_link_and_linked_paths_need_the_target_where_the_build_says(
    tree_world: World,
) -> None:
    tree_world.publish("a", SITE, target={"linked": ["uploads/"], "mode": "link"})
    tree_world.deploy("a")
    (tree_world.live / "uploads" / "x").write_text("x")
    assert (tree_world.root / "shared" / "uploads" / "x").read_text() == "x"

    with pytest.raises(ConfigError, match="not to this target"):
        tree_world.deploy("a", tree_world.here / "other")


# -- what the host allows -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ('roots = ["/srv/elsewhere"]', "allows no target at"),
        ('modes = ["link"]', "does not allow mode copy"),
        ('users = ["www-data"]', "does not allow the user nobody"),
    ],
)
def test_the_host_s_own_word_is_kept(world: World, policy: str, message: str) -> None:
    world.publish("a")
    world.deploy("a")
    world.publish("b", SITE_B, hooks={"check": [{"run": ["true"], "user": "nobody"}]})
    (world.here / "etc-moorline.toml").write_text(policy)
    assert refused(world, ConfigError, message).exit_code == 2


def test_a_hook_that_names_no_user_is_who_deploys(world: World) -> None:
    """Else a bundle could run as root what it may not run as www-data."""
    world.publish("a")
    world.deploy("a")
    world.publish("b", SITE_B, hooks={"after_switch": [{"run": ["true"]}]})
    (world.here / "etc-moorline.toml").write_text('users = ["www-data"]')
    refused(world, ConfigError, f"A hook without 'user' runs as {getpass.getuser()}.")
    (world.here / "etc-moorline.toml").write_text(f'users = ["{getpass.getuser()}"]')
    assert world.deploy("b").live == "b"


def test_the_host_s_store_wins(on_a: World) -> None:
    on_a.store.rename(on_a.here / "mounted-here")
    (on_a.here / "etc-moorline.toml").write_text(f'store = "{on_a.here}/mounted-here"')
    on_a.config = replace(on_a.config, store="/nowhere")
    assert on_a.deploy("b").live == "b"
    assert on_a.rollback().pinned
