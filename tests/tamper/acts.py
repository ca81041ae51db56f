"""Ways to change one file, or one folder, each as a function of the place that it changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from damages import becomes, swap
from world import flip


class Spot(NamedTuple):
    """One file to be changed; `other` is what it is swapped with, `at` the byte that is flipped."""

    path: Path
    other: Path
    at: int = 0


def _add(spot: Spot) -> None:
    spot.path.with_name("added").write_bytes(spot.path.read_bytes())


def _append(spot: Spot) -> None:
    with spot.path.open("ab") as file:
        file.write(b"!")


def _to_link(spot: Spot) -> None:
    """The same bytes, elsewhere."""
    moved = spot.path.parent.with_name("moved")
    spot.path.rename(moved)
    spot.path.symlink_to(moved)


ACTS: dict[str, Callable[[Spot], object]] = {
    "flip a bit": lambda s: flip(s.path, s.at),
    "truncate": lambda s: os.truncate(s.path, s.path.stat().st_size - 1),
    "append": _append,
    "empty": lambda s: os.truncate(s.path, 0),
    "add": _add,
    "remove": lambda s: s.path.unlink(),
    "rename": lambda s: s.path.rename(f"{s.path}x"),
    "chmod": lambda s: s.path.chmod(0o666),
    "swap": lambda s: swap(s.path, s.other),
    "to a directory": lambda s: becomes(s.path, Path.mkdir),
    "to a full directory": lambda s: becomes(s.path, lambda p: (p / "in").mkdir(parents=True)),
    "to a link": _to_link,
    "to a FIFO": lambda s: becomes(s.path, os.mkfifo),
}


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


FOLDER_ACTS: dict[str, Callable[[Spot], object]] = {
    **{act: ACTS[act] for act in ("rename", "to a full directory", "to a link", "to a FIFO")},
    "remove": lambda s: shutil.rmtree(s.path),
    "empty": lambda s: _empty(s.path),
    "add": lambda s: (s.path / "added").write_text("x"),
    "chmod": lambda s: s.path.chmod(0o777),
    "to a file": lambda s: becomes(s.path, Path.touch),
}
