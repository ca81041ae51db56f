"""In the guest of a SoloRig: machine b runs a verb, and in the middle of it machine a does
something to the same build. Each has its own mount of the share, with caches of its own.

    python -m nfs.guest_actors SEED ACTION VERB TIMES     prints [[did, operation, outcome], ...]

`did` is what became of the action on a, `outcome` of the verb on b: "done", or exit code and text.
One process is both machines, so the moment is exact: before one operation of the verb.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from crash.scenarios import SPECS
from moorline import cleaning, workflow
from moorline.build import build_id
from moorline.disk import Disk
from moorline.errors import Conflict, Error, Mismatch, NotFound
from moorline.store import open_store
from nfs.guest_power import LOG_LOST, shut_down
from nfs.stepping import Moment, SteppingDisk
from trees import Content
from world import World

_MS_BIND = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_READING = [re.compile("open_directory packs"), re.compile("open_file [0-9a-f]{16}")]
"""Just before a pack is opened, and just after."""
_WRITING = re.compile("create manifest.*")


def machine(folder: Path, name: str) -> World:
    """A world of its own, whose store is the share as that machine mounts it."""
    here, share = folder / name, Path(f"/mnt/{name}/{folder.name}")
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


def go_live(world: World, id: str) -> str:
    """On a target of machine a."""
    try:
        deploy(world, world, id, Disk())
    except Error as error:
        return f"{error.exit_code}: {error.message}"
    return "live"


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


def remove(a: World, b: World, id: str, disk: Disk) -> None:
    with open_store(disk, b.store) as store:
        cleaning.remove(store, build_id(id), "a test")


VERBS: dict[str, Callable[[World, World, str, Disk], object]] = {
    "deploy": deploy,
    "publish": publish,
    "verify": verify,
    "verifyall": verify_all,
    "status": lambda a, b, id, disk: workflow.status(b.config, disk=disk),
    "show": lambda a, b, id, disk: workflow.show(id, config=b.config, disk=disk),
    "builds": lambda a, b, id, disk: workflow.builds(b.config, disk=disk),
    "export": lambda a, b, id, disk: workflow.export(
        id, str(b.here / f"export.{id}"), config=b.config, disk=disk
    ),
    "remove": remove,
}


def cut_server(a: World, id: str) -> str:
    """The server loses its power: what its ext4 had not made durable is gone. Before any client can
    send it again, all that its disk lists must be whole."""
    export = Path("/mnt/export")
    run("rpc.nfsd 0 && exportfs -f")
    shut_down(export, LOG_LOST)
    run("umount /mnt/export && mount -o loop /mnt/tmp/image /mnt/export")
    with open_store(Disk(), export / a.here.parent.name) as store:
        for build in store.ids():
            with store.open_build(build) as opened:
                found = opened.verify(opened.manifest())
                assert not found.problems, f"{build} on the server's disk: {found.problems}"
        there = "here" if f"{id}.next" in store.ids() else "not"
    run("rpc.nfsd -N 3 -U -V 4.1 -N 4.2 8")
    run("stat -f /mnt/a /mnt/b > /dev/null")  # comes back when both have reclaimed what they held
    run("echo Y 2> /dev/null > /proc/fs/nfsd/v4_end_grace || true")  # or it ended by itself
    return f"cut: {there}"


def run(line: str) -> None:
    subprocess.run(line, shell=True, check=True)


Action = Callable[[World, str], str]
ACTIONS: dict[str, Action] = {
    "remove": remove_for_good, "replace": replace_records, "deploy": go_live, "cut": cut_server,
}  # fmt: skip


def outcome(verb: str, a: World, b: World, id: str, disk: Disk) -> str:
    try:
        VERBS[verb](a, b, id, disk)
    except Error as error:
        return f"{error.exit_code}: {error.message}"
    return "done"


def fresh(a: World, id: str) -> None:
    """Build `id` with contents of its own, which need a pack of their own."""
    own: dict[str, Content] = {"own": id.encode() * 99}
    a.publish(id, {**SPECS["b"], **own})


def undisturbed(verb: str, a: World, b: World) -> list[str]:
    """The operations of the whole verb."""
    disk = SteppingDisk()
    fresh(a, "whole")
    came = outcome(verb, a, b, "whole", disk)
    assert came == "done", came
    if verb == "deploy":
        deploy(a, b, "keep", Disk())
    return disk.operations


def moments(action: str, operations: list[str], times: int, chance: random.Random) -> list[Moment]:
    """Drawn, but for the first: for a power cut the end and the middle of the commit's small files,
    else those about the reading of a pack."""
    reading = [one for one in _READING if any(map(one.fullmatch, operations))]
    first: list[Moment] = [len(operations), _WRITING] if action == "cut" else [*reading]
    return [*first, *chance.sample(range(len(operations)), times)][:times]


def one(verb: str, act: Action, a: World, b: World, id: str, at: Moment) -> list[str]:
    """What was done, before which operation, and what came of the verb."""
    fresh(a, id)
    did: list[str] = []
    disk = SteppingDisk(at, lambda: did.append(act(a, id)))
    came = outcome(verb, a, b, id, disk)
    if not did:
        disk.act()
    if verb == "deploy":
        (live,) = workflow.verify(config=b.config, target=str(b.root), disk=Disk())
        assert live.ok and live.id == (id if came == "done" else "keep"), f"{id}: {came}: {live}"
        deploy(a, b, "keep", Disk())
    return [did[0], disk.before or "the end", came]


def main() -> None:
    seed, action, verb, times = sys.argv[1:]
    chance = random.Random(f"{seed} {action} {verb}")
    folder = Path(f"/mnt/tmp/actors.{uuid4().hex[:8]}")
    a, b = machine(folder, "a"), machine(folder, "b")
    a.publish("keep", SPECS["a"])
    deploy(a, b, "keep", Disk())
    drawn = moments(action, undisturbed(verb, a, b), int(times), chance)
    told = [one(verb, ACTIONS[action], a, b, f"b{n}", at) for n, at in enumerate(drawn)]
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
