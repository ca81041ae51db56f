"""The life of two builds in steps, and what each step costs the real client in requests.

A store is empty, build A is published on a and goes live on b, then build B, which differs from A
by one file and has one more; at last b goes back to A. Each step begins with cold caches, as a
fresh CI container does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from nfs.machine import Cost, Machine
from nfs.shop import Machines, Shop, Tree

FOLDERS = 10
STEPS = (
    "publish-first", "deploy-first", "publish", "deploy", "verify", "status", "builds", "rollback",
)  # fmt: skip


def site(files: int, *, edited: bool = False) -> Tree:
    """`files` small files in FOLDERS folders; `edited` has one changed and one more."""
    tree = {f"d{n % FOLDERS}/f{n}.html": b"<p>%d</p>\n" % n * 20 for n in range(files)}
    return tree | ({"d0/f0.html": b"<p>edited</p>\n", "new.png": b"png" * 999} if edited else {})


def costs(
    rig: Machines, folder: Path, *, files: int, layout: str = "pack",
    steps: Collection[str] = STEPS, traced: Collection[str] = (),
) -> dict[str, Cost]:  # fmt: skip
    """What each of `steps` costs; those before the last one are run as well, uncounted. A step that
    is `traced` takes longer and tells which functions cause its requests."""
    shop = Shop(rig, folder, layout=layout)
    found = {}
    for step in STEPS[: 1 + max(STEPS.index(step) for step in steps)]:
        machine, words = _STEPS[step](shop, files)
        if step in steps:
            found[step] = machine.cost(*words, traced=step in traced)
        else:
            machine.moorline(*words)
    return found


Command = tuple[Machine, list[str]]


def _publish(shop: Shop, id: str, files: int) -> Command:
    source = shop.source(id, site(files, edited=id == "B"))
    return shop.rig.a, shop.publish_words(id, source, shop.rig.a)


def _asked(shop: Shop, *words: str) -> Command:
    return shop.rig.a, [*words, *shop.store_words(shop.rig.a)]


_STEPS: dict[str, Callable[[Shop, int], Command]] = {
    "publish-first": lambda shop, files: _publish(shop, "A", files),
    "deploy-first": lambda shop, files: (shop.rig.b, shop.deploy_words("A")),
    "publish": lambda shop, files: _publish(shop, "B", files),
    "deploy": lambda shop, files: (shop.rig.b, shop.deploy_words("B")),
    "verify": lambda shop, files: _asked(shop, "verify", "B"),
    "status": lambda shop, files: _asked(shop, "status"),
    "builds": lambda shop, files: _asked(shop, "builds"),
    "rollback": lambda shop, files: (shop.rig.b, ["rollback", "--target", shop.target(shop.rig.b)]),
}
