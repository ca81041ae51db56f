"""In the guest of a SoloRig: machine b runs a verb, and in the middle of it machine a does
something to the same build. Each has its own mount of the share, with caches of its own.

    python -m nfs.guest_actors SEED ACTION-VERB-TIMES ...
        prints [[action, verb, did, operation, outcome], ...]

`did` is what became of the action on a, `outcome` of the verb on b: "done", or exit code and text.
One process is both machines, so the moment is exact: before one operation of the verb.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from crash.scenarios import SPECS
from moorline import cleaning, workflow
from moorline.build import build_id
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch, NotFound
from moorline.store import open_store
from nfs.stepping import SteppingDisk
from trees import Content
from world import World

_MS_BIND = 4096
_libc = ctypes.CDLL(None, use_errno=True)
FOLDER = Path("/mnt/tmp/actors")


def machine(name: str) -> World:
    """A world of its own, whose store is the share as that machine mounts it."""
    here, share = FOLDER / name, Path(f"/mnt/{name}/actors")
    share.mkdir(exist_ok=True)
    (here / "store").mkdir(parents=True)
    words = (os.fsencode(share), os.fsencode(here / "store"), None, _MS_BIND, None)
    if _libc.mount(*words):
        raise OSError(ctypes.get_errno(), f"bind {share}")
    return World(here)


def remove_for_good(world: World, id: str) -> str:
    """What an impatient cleaner does: remove a build, and delete at once what nobody names."""
    with open_store(Disk(), world.store) as store:
        try:
            cleaning.remove(store, build_id(id), "a test")
        except (Conflict, NotFound) as error:
            return type(error).__name__
        cleaning.clean(store, cleaning.store_time(store) + 1, stale_s=1 << 40, grace_s=0)
    return "removed"


def replace_records(world: World, id: str) -> str:
    """Records that others read are written again, as their writers do it."""
    with world.ledger() as ledger:
        for record in ledger.targets():
            ledger.write_target(record)
        for name in (id, "keep"):
            build = ledger.build(build_id(name))
            assert build is not None
            ledger.write_build(build)
    return "replaced"


Action = Callable[[World, str], str]
ACTIONS: dict[str, Action] = {"remove": remove_for_good, "replace": replace_records}


def deploy(a: World, b: World, id: str, disk: Disk) -> None:
    b.config = b.configured()
    workflow.deploy(a.bundle(id), config=b.config, target=str(b.root), disk=disk)


def publish(a: World, b: World, id: str, disk: Disk) -> None:
    """Of a build that takes nearly all over from build `id`."""
    b.disk, kept = disk, b.disk
    try:
        b.publish(f"{id}.next", {**SPECS["b"], "next": id.encode()})
    finally:
        b.disk = kept
    (found,) = workflow.verify(config=b.config, id=f"{id}.next", disk=Disk())
    assert found.ok, f"published and not whole: {found}"


def verify(a: World, b: World, id: str, disk: Disk) -> None:
    (found,) = workflow.verify(config=b.config, id=id, disk=disk)
    if not found.ok:
        raise Mismatch(str(found.problems))


def verify_all(a: World, b: World, id: str, disk: Disk) -> None:
    for found in workflow.verify(config=b.config, everything=True, disk=disk):
        if not found.ok:
            raise Mismatch(str(found.problems))


VERBS: dict[str, Callable[[World, World, str, Disk], object]] = {
    "deploy": deploy,
    "publish": publish,
    "verify": verify,
    "verifyall": verify_all,
    "status": lambda a, b, id, disk: workflow.status(b.config, disk=disk),
    "show": lambda a, b, id, disk: workflow.show(id, config=b.config, disk=disk),
    "builds": lambda a, b, id, disk: workflow.builds(b.config, disk=disk),
    "export": lambda a, b, id, disk: workflow.export(
        id, str(FOLDER / f"export.{id}"), config=b.config, disk=disk
    ),
    "diff": lambda a, b, id, disk: workflow.diff(id, "keep", config=b.config, disk=disk),
}


def outcome(verb: str, a: World, b: World, id: str, disk: Disk) -> str:
    try:
        VERBS[verb](a, b, id, disk)
    except Error as error:
        return f"{error.exit_code}: {error.message}"
    return "done"


_lengths: dict[str, int] = {}


def length(verb: str, a: World, b: World, id: str) -> int:
    """How many operations the verb takes when nobody disturbs it."""
    disk = SteppingDisk()
    fresh(a, f"whole.{id}")
    came = outcome(verb, a, b, f"whole.{id}", disk)
    assert came == "done", came
    if verb == "deploy":
        deploy(a, b, "keep", Disk())
    return len(disk.operations)


def fresh(a: World, id: str) -> None:
    """Build `id` with contents of its own, which need a pack of their own."""
    own: dict[str, Content] = {"own": id.encode() * 99}
    a.publish(id, {**SPECS["b"], **own})


def one(verb: str, act: Action, a: World, b: World, id: str, chance: random.Random) -> list[str]:
    """What was done and what came of it; the moment is drawn among those of a whole run."""
    at = chance.randrange(_lengths[verb])
    did: list[str] = []
    disk = SteppingDisk(at, lambda: did.append(act(a, id)))
    came = outcome(verb, a, b, id, disk)
    if verb == "deploy":
        (live,) = workflow.verify(config=b.config, target=str(b.root), disk=Disk())
        assert live.ok and live.id == (id if came == "done" else "keep"), f"{id}: {came}: {live}"
        deploy(a, b, "keep", Disk())
    return [verb, did[0] if did else "nothing", disk.operations[at], came]


def main() -> None:
    seed, *orders = sys.argv[1:]
    chance = random.Random(seed)
    a, b = machine("a"), machine("b")
    a.publish("keep", SPECS["a"])
    deploy(a, b, "keep", Disk())
    told = []
    for action, verb, times in (order.split("-") for order in orders):
        for turn in range(int(times)):
            id = f"{action}.{verb}.{turn}"
            fresh(a, id)
            if verb not in _lengths:
                _lengths[verb] = length(verb, a, b, id)
            told.append([action, *one(verb, ACTIONS[action], a, b, id, chance)])
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
