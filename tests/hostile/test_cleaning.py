"""A cleaner runs as root on a share that others write: it stays inside, and nothing blocks it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from counts import Count
from crash.scenarios import clean, litter
from hostile.attacks import OLD, Outside, removed
from hostile.fence import FencedDisk
from world import World

HEX = "00112233445566aa"


def cleaned(world: World, *, times: int = 1) -> FencedDisk:
    disk = FencedDisk([world.store])
    for _ in range(times):
        clean()(world, disk)
    assert not disk.escapes, disk.escapes
    return disk


FOLDERS = (
    "ledger", "ledger/removing", "ledger/targets", "incoming", "trash", "packs", "builds", "agent",
    "settings", "sequence",
)  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_a_link_is_not_cleaned(
    name: str, here: Path, outside: Outside, count: Count
) -> None:
    world = World(here)
    litter(world)
    path = world.store / name
    if path.exists():
        path.rename(world.here / "moved")
    path.symlink_to(outside.folder)
    disk = FencedDisk([world.store])
    try:
        clean()(world, disk)
    except OSError as error:
        assert isinstance(error, NotADirectoryError)
    assert not disk.escapes, disk.escapes
    assert outside.unharmed()
    count.add("attacks on the share")


def _link(path: Path, outside: Outside) -> None:
    path.symlink_to(outside.folder)


def _folder_of_links(path: Path, outside: Outside) -> None:
    path.mkdir()
    for name in ("index", "build.json", "tree"):
        (path / name).symlink_to(outside.folder / "secret")
    os.utime(path, OLD)


PLACES = (
    f"incoming/b.{HEX}", f"trash/b.{HEX}.1000000000", "trash/x.deleting", f"packs/{HEX}",
    "ledger/removing/a.json", "incoming/.x.tmp",
)  # fmt: skip


@pytest.mark.parametrize("plant", [_link, _folder_of_links])
@pytest.mark.parametrize("place", PLACES)
def test_what_leads_out_is_removed_and_not_followed(
    place: str, plant: Callable[[Path, Outside], None], here: Path, outside: Outside, count: Count
) -> None:
    world = World(here)
    litter(world)
    path = world.store / place
    path.parent.mkdir(exist_ok=True)
    removed(path, outside.folder)
    plant(path, outside)
    cleaned(world, times=2)
    assert outside.unharmed()
    if plant is _folder_of_links and place.startswith(("incoming/b", "trash", "packs")):
        assert not os.path.lexists(path), "it was not removed"
    count.add("attacks on the share")
