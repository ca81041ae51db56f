"""What is removed from a target, and what never is."""

from __future__ import annotations

import shutil

import pytest

from fakes import CountingDisk, Stopped, StoppingDisk
from moorline import releases
from moorline.history import Deploying
from trees import SITE
from world import World, row


@pytest.fixture
def five(world: World) -> World:
    """A target that went from build 1 to build 5; its settings keep three releases."""
    for number in "12345":
        world.publish(number, {**SITE, "n.txt": number.encode()})
        world.deploy(number)
    return world


def test_three_releases_are_kept(five: World) -> None:
    assert five.releases() == ["3.3", "4.4", "5.5"]


def test_what_only_removed_releases_needed_goes_with_them(five: World) -> None:
    kept = {five.published[id].digest for id in "345"}
    assert {path.name for path in (five.inner / "manifests").iterdir()} == kept
    assert len(list((five.inner / "settings").iterdir())) == 1
    assert len(list((five.inner / "agents").iterdir())) == 1


def test_what_is_live_and_what_rollback_takes_are_never_removed(five: World) -> None:
    five.rollback()
    five.rollback()
    assert five.link == "releases/3.3"
    five.publish("6", {**SITE, "n.txt": b"6"}, target={"keep_releases": 2})
    five.deploy("6")

    assert five.releases() == ["3.3", "6.8"]
    assert five.rollback().id == "3"


def test_a_release_that_is_kept_no_longer_comes_from_the_store_again(five: World) -> None:
    five.publish("6", {**SITE, "n.txt": b"6"}, hooks={"check": [{"run": ["true"]}]})
    five.deploy("6")
    for path in (five.inner / "settings").iterdir():
        path.unlink()
    result = five.rollback(to="1")

    assert (result.live, five.link) == ("1", "releases/1.7")
    assert {row.source for row in five.rows()} == {"bundle"}


def test_a_deployment_under_way_is_not_cleaned_away(five: World) -> None:
    under_way = Deploying("d-1", "", row("1", 9, "intended"), "releases/2.2", "prepared", 5)
    (five.root / "releases" / "1.9").mkdir()
    (five.root / "releases" / "2.2").mkdir()
    with five.target() as target:
        target.set_deploying(under_way)
        releases.clean(target, 2)
        assert five.releases() == ["1.9", "2.2", "4.4", "5.5"]
        target.set_deploying(None)
        assert releases.clean(target, 2) == ["releases/1.9", "releases/2.2"]
    assert five.releases() == ["4.4", "5.5"]


def test_leftovers_do_not_count_and_go(five: World) -> None:
    folder = five.root / "releases"
    for name in ("9.77", ".removing.1.1"):
        (folder / name / "deep").mkdir(parents=True)
        (folder / name / "deep" / "file").write_text("x")
        (folder / name / "deep").chmod(0o555)
    (folder / "file.1").write_text("x")
    (folder / "link.2").symlink_to(five.here)
    (five.root / ".current.0123.tmp").symlink_to("nowhere")
    (five.inner / ".deploying.json.0123.tmp").write_text("x")
    (five.inner / "manifests" / ".x.0123.tmp").write_text("x")
    with five.target() as target:
        releases.clean(target, 3)

    assert five.releases() == ["3.3", "4.4", "5.5"]
    assert (five.here / "store").is_dir()
    left = [str(path) for path in five.root.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


def test_a_cleaner_that_is_stopped_anywhere_is_finished_by_the_next(world: World) -> None:
    for number in "123":
        world.publish(number, {"n.txt": number.encode()})
        world.deploy(number)
    shutil.copytree(world.root, world.here / "copy", symlinks=True)
    with world.target(counting := CountingDisk()) as target:
        before = counting.count
        releases.clean(target, 2)
        steps = counting.count - before
    for at in range(steps):
        shutil.rmtree(world.root)
        shutil.copytree(world.here / "copy", world.root, symlinks=True)
        with pytest.raises(Stopped), world.target(disk := StoppingDisk(10**6)) as target:
            disk.at = disk.count + at
            releases.clean(target, 2)
        assert disk.fired
        with world.target() as target:
            releases.clean(target, 2)
        assert world.releases() == ["2.2", "3.3"]
        assert world.live.name == "3.3"


def test_shared_is_never_cleaned(five: World) -> None:
    upload = five.root / "shared" / ".upload.tmp"
    upload.write_text("mine")
    with five.target() as target:
        releases.clean(target, 2)
    assert upload.read_text() == "mine"


def test_releases_of_another_tool_are_left_alone(world: World) -> None:
    """A root that Capistrano served from: its releases are not ours to count or remove."""
    foreign = world.root / "releases" / "20261122093000"
    foreign.mkdir(parents=True)
    (foreign / "index.html").write_text("theirs")
    lookalike = world.root / "releases" / "v1.2"
    lookalike.mkdir()
    (world.root / "current").symlink_to(lookalike)

    with world.target() as target:
        assert releases.clean(target, 2) == []

    assert (world.root / "current").resolve() == lookalike.resolve()
    assert (foreign / "index.html").read_text() == "theirs"
