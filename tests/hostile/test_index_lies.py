"""What the share says of where contents lie, when they were proved and how old they are: all of it
may be a lie, in good form. Nothing wrong goes live, no program falls over it, and publishing the
same builds again makes a store whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from counts import Count
from crash.invariants import Truth, documented
from crash.scenarios import SPECS, clean, deployed
from moorline import workflow
from moorline.disk import Disk
from moorline.layout.index import HEADER, Index
from world import World, flip

END = 10**11 - 1
EMPTY = "f" * 16
Lie = Callable[[list[tuple[str, int]], list[list[int]]], object]
"""Changes the packs (token, bytes) and the rows (pack number, offset, proved, time) of an index."""


def _each(column: int, value: Callable[[int], int]) -> Lie:
    def lie(packs: list[tuple[str, int]], rows: list[list[int]]) -> None:
        for row in rows:
            row[column] = value(row[column])

    return lie


def _reversed(column: int) -> Lie:
    def lie(packs: list[tuple[str, int]], rows: list[list[int]]) -> None:
        values = [row[column] for row in rows][::-1]
        for row, value in zip(rows, values, strict=True):
            row[column] = value

    return lie


def _swapped(packs: list[tuple[str, int]], rows: list[list[int]]) -> None:
    packs[:] = [(b, size) for (_, size), (b, _) in zip(packs, packs[::-1], strict=True)]


def _renamed(token: str) -> Lie:
    def lie(packs: list[tuple[str, int]], rows: list[list[int]]) -> None:
        packs[:] = [(token, size) for _, size in packs]

    return lie


def _petabytes(packs: list[tuple[str, int]], rows: list[list[int]]) -> None:
    packs[:] = [(token, 10**17) for token, _ in packs]
    _each(1, lambda offset: offset + 10**16)(packs, rows)


def _an_empty_pack(packs: list[tuple[str, int]], rows: list[list[int]]) -> None:
    """Of empty files, which need none."""
    packs.append((EMPTY, 0))
    for row in rows:
        row[0] = len(packs) - 1 if row[0] < 0 else row[0]


LIES: dict[str, Lie] = {
    "the truth": lambda packs, rows: None,
    "a row too few": lambda packs, rows: rows.pop(),
    "a row too many": lambda packs, rows: rows.append(rows[-1]),
    "no rows": lambda packs, rows: rows.clear(),
    "no packs": lambda packs, rows: packs.clear(),
    "rows in another order": lambda packs, rows: rows.reverse(),
    "packs that are swapped": _swapped,
    "packs that are not there": _renamed("0" * 16),
    "every pack is the first": _each(0, lambda pack: 0),
    "packs of other rows": _reversed(0),
    "empty files in a pack of their own": _an_empty_pack,
    "offsets of other rows": _reversed(1),
    "offsets one further": _each(1, lambda offset: offset + 1),
    "offsets at the end of all": _each(1, lambda offset: 10**18 - 1),
    "offsets behind a pack's end, and packs to match": _petabytes,
    "proved now, all of it": _each(2, lambda proved: proved + 86_400 * 6),
    "proved never": _each(2, lambda proved: 0),
    "proved at the end of time": _each(2, lambda proved: END),
    "times at the beginning": _each(3, lambda time: 0),
    "times at the end": _each(3, lambda time: END),
    "a number that is negative": _each(1, lambda offset: -1),
    "a time that is none": _each(3, lambda time: END + 1),
}  # fmt: skip


def told(path: Path, lie: Lie) -> None:
    index = Index.parse(path.read_bytes())
    packs = list(index.packs.items())
    numbers = {token: number for number, (token, _) in enumerate(packs)}
    rows = [[numbers.get(row.pack, -1), row.offset, row.proved, row.time] for row in index.rows]
    lie(packs, rows)
    lines = [f"pack {token} {size}" for token, size in packs]
    lines += [" ".join(["-" if row[0] < 0 else str(row[0]), *map(str, row[1:])]) for row in rows]
    path.write_bytes(HEADER + "".join(line + "\n" for line in lines).encode())


def tried(verb: Callable[[], object]) -> str:
    try:
        verb()
    except Exception as error:
        if not documented(error):
            raise
        return type(error).__name__
    return "done"


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True], ids=["", "damaged"])
@pytest.mark.parametrize("layout", ["pack", "tree"])
def test_an_index_that_lies(
    layout: str, damaged: bool, here: Path, truth: Truth, count: Count
) -> None:
    for number, name in enumerate(LIES):
        below = here / str(number)
        try:
            _one(World(below, layout), LIES[name], damaged, truth)
        except BaseException as error:
            error.add_note(name)
            raise
        count.add("lies in an index")


def _one(world: World, lie: Lie, damaged: bool, truth: Truth) -> None:
    deployed("a", "b", live=("a",), mode="copy")(world)
    index = world.store / "builds" / "b" / "index"
    assert world.layout == "tree" or len(Index.parse(index.read_bytes()).packs) > 1
    (world.store / "packs").mkdir(exist_ok=True)
    (world.store / "packs" / EMPTY).touch()
    told(index, lie)
    if damaged:
        top = world.store / ("packs" if world.layout == "pack" else "builds/b/tree/img")
        for path in top.iterdir():
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                flip(path)

    tried(lambda: world.publish("c", SPECS["c"]))
    for id in ("c", "b"):
        if (Path(world.bundle(id)) / "build.json").exists():
            tried(lambda id=id: world.deploy(id, disk=Disk()))  # type: ignore[misc]
        truth.live(world)
    tried(lambda: workflow.verify(config=world.config, everything=True))

    for id in ("a", "b", "c"):  # what repairs it
        world.publish(id, SPECS[id])
    clean(2_000_000)(world, Disk())
    clean(4_000_000)(world, Disk())
    assert all(found.ok for found in workflow.verify(config=world.config, everything=True))
    for id in ("a", "b", "c"):
        fresh = world.here / f"www-{id}"
        assert world.deploy(id, root=fresh, disk=Disk()).live == id
