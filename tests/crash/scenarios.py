"""What is run, stopped, failed and interleaved: every verb from every interesting start.

A scenario prepares a world, and runs one verb in it. `live` are the builds that `current` may mean
wherever that run ends; `ends` is what it means once the verb is through, at once or run again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from moorline import agent, cleaning, releases, workflow
from moorline.build import build_id
from moorline.disk import Disk
from moorline.errors import Conflict, HookFailed, PutBack
from moorline.store import open_store
from trees import Content, write_tree
from world import World, flip

SMALL: dict[str, Content] = {
    "index.html": b"<h1>one</h1>",
    "img/a.png": b"\x89PNG" * 600,
    "img/b.png": b"\x89PNG" * 600,
    "img/logo.png": "a.png",
    "empty": b"",
    "bin/run": (b"#!/bin/sh\nexit 0\n", 0o755),
}
SPECS: dict[str, dict[str, Content]] = {
    "a": SMALL,
    "b": {**SMALL, "index.html": b"<h1>two!</h1>", "img/new.txt": b"new"},
    "c": {**SMALL, "index.html": b"<h1>three</h1>", "bin/run": (b"#!/bin/sh\n", 0o700)},
    "other": {"index.html": b"nothing", "shared": b"of it"},
    "base": {**SMALL, "note": b"note" * 75},
    "d": {**SMALL, "note": b"note" * 75, "more": b"of d"},
    "folded": {"index.html": b"<h1>one</h1>", "img/c.png": b"\x89GIF" * 700},
    "same": SMALL,
}
"""`folded` needs a twentieth of the pack of `a`, which it therefore folds into its own; `d` needs
all of the pack of `base`, which is too large to be folded."""


@dataclass(frozen=True)
class Scenario:
    """`builds` are published before and need to stay; `adds` is what the verb publishes, `damaged`
    what is not whole until it is through, `spoilt` what it does not mend; `raises` how the whole
    verb ends; `proves` looks at what else it promised, once it is through."""

    name: str
    layout: str
    prepare: Callable[[World], object]
    verb: Callable[[World, Disk], object]
    builds: tuple[str, ...] = ()
    adds: str = ""
    removes: str = ""
    live: tuple[str, ...] = ("",)
    ends: str = ""
    damaged: str = ""
    spoilt: str = ""
    damaged_live: bool = False
    raises: type[BaseException] | None = None
    again: Callable[[World, Disk], object] | None = None
    back: str = ""
    target: bool = True
    proves: Callable[[World], object] | None = None

    def run(self, world: World, disk: Disk) -> None:
        """The whole verb; the failure that it is meant to end with is no failure."""
        with contextlib.suppress(*([self.raises] if self.raises else [])):
            self.verb(world, disk)
            assert self.raises is None, f"{self.name} did not fail"

    def run_again(self, world: World, disk: Disk) -> None:
        replace(self, verb=self.again or self.verb).run(world, disk)

    def __str__(self) -> str:
        return self.name if self.name.endswith(self.layout) else f"{self.name}-{self.layout}"


LATER_S = 1_000_000


# -- verbs ----------------------------------------------------------------------------------------


def published(*ids: str, hooks: dict[str, object] | None = None) -> Callable[[World], None]:
    """Publish them in this order; `hooks` belong to the last one."""

    def prepare(world: World) -> None:
        for id in ids:
            world.publish(id, SPECS[id], hooks=hooks if hooks and id == ids[-1] else {})
        world.config = world.configured()

    return prepare


def deployed(
    *ids: str, live: tuple[str, ...], mode: str, hooks: dict[str, object] | None = None
) -> Callable[[World], None]:
    """Publish `ids`, and deploy `live` one after the other; `hooks` belong to the last of `ids`."""

    def prepare(world: World) -> None:
        published(*ids, hooks=hooks)(world)
        for id in live:
            world.deploy(id, mode=mode)

    return prepare


def publish(id: str, bundle: str = "") -> Callable[[World, Disk], object]:
    def verb(world: World, disk: Disk) -> object:
        source = world.here / "src" / id
        if not source.exists():
            write_tree(source, SPECS[id])
        return workflow.publish(
            str(source), config=world.config, id=id, bundle=world.bundle(bundle or id), disk=disk,
            environment={},
        )  # fmt: skip

    return verb


def deploy(id: str, mode: str = "copy") -> Callable[[World, Disk], object]:
    return lambda world, disk: world.deploy(id, mode=mode, disk=disk)


def events(id: str, deployment: str) -> Callable[[World, Disk], object]:
    """CodeDeploy's three processes, as deploy.sh runs them."""

    def verb(world: World, disk: Disk) -> None:
        for event in ("BeforeInstall", "ApplicationStart", "ValidateService"):
            run_event(world, disk, id, deployment, event)

    return verb


def run_event(world: World, disk: Disk, id: str, deployment: str, event: str) -> None:
    variables = {
        "LIFECYCLE_EVENT": event, "DEPLOYMENT_ID": deployment, "DEPLOYMENT_GROUP_NAME": "QA",
    }  # fmt: skip
    options = argparse.Namespace(bundle=world.bundle(id), store=str(world.store), target="")
    with mock.patch.dict(os.environ, variables):
        agent._hook(disk, options)


def rollback(world: World, disk: Disk) -> object:
    return world.rollback(disk=disk)


def agents_rollback(world: World, disk: Disk) -> None:
    options = argparse.Namespace(target=str(world.root), to="", store="", trust_store=False)
    agent._rollback(disk, options)


def verify(world: World, disk: Disk) -> None:
    for result in workflow.verify(config=world.config, everything=True, disk=disk):
        assert result.ok, result
    assert workflow.verify(config=world.config, target=str(world.root), disk=disk)[0].ok


def init(world: World, disk: Disk) -> object:
    (world.here / "work").mkdir(exist_ok=True)
    return workflow.init(
        str(world.store), app="shop", layout=world.layout, folder=str(world.here / "work"),
        disk=disk,
    )  # fmt: skip


def deploy_id(id: str) -> Callable[[World, Disk], object]:
    """By the word of the ledger, without a bundle."""
    return lambda world, disk: world.deploy_id(id, disk=disk)


def pin(id: str) -> Callable[[World, Disk], object]:
    return lambda world, disk: workflow.pin(id, config=world.config, reason="a test", disk=disk)


def unpin(id: str) -> Callable[[World, Disk], object]:
    return lambda world, disk: workflow.unpin(id, config=world.config, disk=disk)


def export(id: str) -> Callable[[World, Disk], object]:
    """Into a folder of its own each time: the name of the one before is taken once it is whole."""

    def verb(world: World, disk: Disk) -> None:
        work = world.here / "work"
        work.mkdir(exist_ok=True)
        workflow.export(id, str(work / f"{len(exported(world))}"), config=world.config, disk=disk)

    return verb


def exported(world: World) -> list[Path]:
    """What looks like a whole export."""
    return [path for path in (world.here / "work").iterdir() if not path.name.startswith(".")]


def clean_target(world: World, disk: Disk) -> None:
    with world.target(disk) as target, target.lock():
        releases.clean(target, 1)


def remove(id: str) -> Callable[[World, Disk], object]:
    def verb(world: World, disk: Disk) -> None:
        with open_store(disk, world.store) as store:
            if id in store.ids():
                cleaning.remove(store, build_id(id), "a test")

    return verb


def clean(
    later_s: int = LATER_S, stale_s: int = cleaning.STALE_S, grace_s: int = cleaning.GRACE_S
) -> Callable[[World, Disk], cleaning.Cleaned]:
    """Clean the store as it would be done `later_s` seconds from now."""

    def verb(world: World, disk: Disk) -> cleaning.Cleaned:
        with open_store(disk, world.store) as store:
            now = cleaning.store_time(store) + later_s
            return cleaning.clean(store, now, stale_s=stale_s, grace_s=grace_s)

    return verb


def in_turn(*verbs: Callable[[World, Disk], object]) -> Callable[[World, Disk], object]:
    def verb(world: World, disk: Disk) -> None:
        for one in verbs:
            one(world, disk)

    return verb


# -- starts ---------------------------------------------------------------------------------------


def litter(world: World) -> None:
    """A store with all that can be left over: a removed build, a dead publish, its pack."""
    published("a", "other", "b")(world)
    remove("other")(world, Disk())
    stale = world.store / "incoming" / "b.00112233445566aa"
    stale.mkdir()
    for name in ("index", "manifest.gz"):
        (stale / name).write_text("")
    if world.layout == "pack":
        pack = world.store / "packs" / "00112233445566aa"
        pack.write_text("nobody needs this")
        os.utime(pack, (1, 1))


def empty(world: World) -> None:
    for path in [*world.store.iterdir()]:
        path.rmdir() if path.is_dir() else path.unlink()
    world.store.rmdir()


def damaged_build(world: World) -> None:
    published("a", "b")(world)
    folder = world.store / ("packs" if world.layout == "pack" else "builds/a/tree")
    if world.layout == "pack":
        flip(max(folder.iterdir(), key=lambda path: path.stat().st_size), 5)
    else:
        flip(folder / "index.html")
        (folder / "img" / "extra").write_text("extra")
        (folder / "bin" / "run").unlink()


def lost_records(world: World) -> None:
    """build.json, manifest and the ledger's record of build a are gone."""
    published("a", "b")(world)
    (world.store / "builds/a/build.json").unlink()
    (world.store / "ledger/builds/a.json").unlink()


def lost_manifest(world: World) -> None:
    published("a", "b")(world)
    (world.store / "builds/a/manifest.gz").write_bytes(b"")


def damaged_release(world: World) -> None:
    deployed("a", "b", live=("a", "b"), mode="copy")(world)
    flip(world.live / "index.html")


def many_releases(world: World) -> None:
    deployed("a", "b", "c", live=("a", "b", "c"), mode="copy")(world)
    for name in ("x.9", "a.7"):
        (world.root / "releases" / name / "img").mkdir(parents=True)
        (world.root / "releases" / name / "img" / "x").write_text("left over")
    os.symlink("nowhere", world.root / ".current.00.tmp")
    (world.inner / "manifests" / ("0" * 64)).write_text("nobody needs this")


def pinned(world: World) -> None:
    published("a", "b")(world)
    pin("a")(world, Disk())


def linked(world: World) -> None:
    """CodeDeploy's mode is what the settings of the bundle say."""
    for id in ("a", "b"):
        world.publish(id, SPECS[id], target={"mode": "link"})
    world.deploy("a")


FAILING = {"run": ["false"]}
PASSING: dict[str, object] = {
    name: [{"run": ["true"]}] for name in ("before_switch", "after_switch", "check")
}


def _layouts(layouts: tuple[str, ...], **fields: object) -> Iterator[Scenario]:
    for layout in layouts:
        yield Scenario(layout=layout, **fields)  # type: ignore[arg-type]


BOTH = ("pack", "tree")


def _stores() -> Iterator[Scenario]:
    yield from _layouts(BOTH, name="init", prepare=empty, verb=init, target=False)
    yield from _layouts(BOTH, name="publish-first", prepare=published(), verb=publish("a"),
                        adds="a")  # fmt: skip
    yield from _layouts(BOTH, name="publish-second", prepare=published("a"), verb=publish("b"),
                        builds=("a",), adds="b")  # fmt: skip
    yield from _layouts(BOTH, name="publish-folding", prepare=published("a"),
                        verb=publish("folded"), builds=("a",), adds="folded")  # fmt: skip
    yield from _layouts(BOTH, name="publish-again", prepare=published("a", "b"),
                        verb=publish("b"), builds=("a", "b"))  # fmt: skip
    for name, prepare in (("repair", damaged_build), ("records", lost_records),
                          ("manifest", lost_manifest)):  # fmt: skip
        yield from _layouts(BOTH, name=f"publish-{name}", prepare=prepare, verb=publish("a"),
                            builds=("a", "b"), damaged="a",
                            spoilt="b" if name == "repair" else "")  # fmt: skip
    yield from _layouts(BOTH, name="remove", prepare=published("a", "b"), verb=remove("a"),
                        builds=("b",), removes="a")  # fmt: skip
    yield from _layouts(BOTH, name="clean", prepare=litter, verb=clean(), builds=("a", "b"))
    yield from _layouts(
        BOTH,
        name="remove-and-clean",
        prepare=published("a", "b"),
        verb=in_turn(remove("a"), clean()),
        builds=("b",),
        removes="a",
    )
    yield from _layouts(
        BOTH,
        name="publish-same-content",
        prepare=published("a"),
        verb=publish("same"),
        builds=("a",),
        adds="same",
    )
    yield from _layouts(
        BOTH,
        name="export",
        prepare=published("a", "b"),
        verb=export("a"),
        builds=("a", "b"),
        proves=_exports_are_whole,
    )
    yield Scenario(
        name="pin",
        layout="pack",
        prepare=published("a", "b"),
        verb=pin("a"),
        builds=("a", "b"),
        proves=_cannot_be_removed,
    )
    yield Scenario(
        name="unpin",
        layout="pack",
        prepare=pinned,
        verb=unpin("a"),
        builds=("a", "b"),
        proves=_nothing_is_pinned,
    )


def _exports_are_whole(world: World) -> None:
    found = exported(world)
    assert found, "nothing was exported"
    for path in found:
        names = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_symlink() or p.is_file()}
        assert names == set(SPECS["a"])
        assert (path / "img/b.png").read_bytes() == SPECS["a"]["img/b.png"]


def _cannot_be_removed(world: World) -> None:
    try:
        remove("a")(world, Disk())
    except Conflict:
        return
    raise AssertionError("I4: a person needs this build, and it was removed")


def _nothing_is_pinned(world: World) -> None:
    with world.ledger() as ledger:
        assert not ledger.pins()


def _deploys(mode: str) -> Iterator[Scenario]:
    layouts = BOTH if mode == "copy" else ("tree",)
    first, later = published("a"), deployed("a", "b", live=("a",), mode=mode)
    yield from _layouts(layouts, name=f"deploy-{mode}-first", prepare=first, live=("", "a"),
                        verb=deploy("a", mode), builds=("a",), ends="a")  # fmt: skip
    yield from _layouts(layouts, name=f"deploy-{mode}-later", prepare=later, live=("a", "b"),
                        verb=deploy("b", mode), builds=("a", "b"), ends="b", back="a")  # fmt: skip
    yield from _layouts(layouts, name=f"deploy-{mode}-again", prepare=later, live=("a",),
                        verb=deploy("a", mode), builds=("a", "b"), ends="a")  # fmt: skip
    prepare = deployed("a", "b", live=("a",), mode=mode, hooks=PASSING)
    yield from _layouts(layouts[-1:], name=f"deploy-{mode}-hooks", prepare=prepare,
                        verb=deploy("b", mode), live=("a", "b"), builds=("a", "b"), ends="b",
                        back="a")  # fmt: skip
    prepare = deployed("a", "b", live=("a",), mode=mode, hooks={"before_switch": [FAILING]})
    yield from _layouts(layouts[-1:], name=f"deploy-{mode}-refused", prepare=prepare,
                        verb=deploy("b", mode), live=("a",), builds=("a", "b"), ends="a",
                        raises=HookFailed)  # fmt: skip
    for hook in ("after_switch", "check"):
        prepare = deployed("a", "b", live=("a",), mode=mode, hooks={hook: [FAILING]})
        yield from _layouts(layouts, name=f"putback-{hook}-{mode}", prepare=prepare,
                            verb=deploy("b", mode), live=("a", "b"), builds=("a", "b"),
                            ends="a", raises=PutBack)  # fmt: skip
    prepare = published("a", hooks={"check": [FAILING]})
    yield from _layouts(layouts, name=f"putback-first-{mode}", prepare=prepare,
                        verb=deploy("a", mode), live=("", "a"), builds=("a",), ends="",
                        raises=PutBack)  # fmt: skip
    both = deployed("a", "b", live=("a", "b"), mode=mode)
    yield from _layouts(layouts, name=f"rollback-{mode}", prepare=both, verb=rollback,
                        again=_to_a, live=("a", "b"), builds=("a", "b"), ends="a")  # fmt: skip
    yield from _layouts(layouts, name=f"verify-{mode}", prepare=both, verb=verify,
                        live=("b",), builds=("a", "b"), ends="b")  # fmt: skip


def _to_a(world: World, disk: Disk) -> None:
    """Once the rollback got as far as the switch, another one would go elsewhere."""
    if "/a" not in world.link:
        rollback(world, disk)
    else:
        world.deploy("a", disk=disk, mode="copy" if world.link.startswith("releases") else "link")


def _codedeploy() -> Iterator[Scenario]:
    """Mode link is what the settings of the bundle say there."""
    for name, ids, live in (("first", ("a",), ()), ("later", ("a", "b"), ("a",))):
        yield from _layouts(BOTH, name=f"codedeploy-{name}", verb=events(ids[-1], "d-1"),
                            prepare=deployed(*ids, live=live, mode="copy"),
                            again=events(ids[-1], "d-2"), live=("", "a") if not live else ids,
                            builds=ids, ends=ids[-1], back="a" if live else "")  # fmt: skip
    yield Scenario(name="codedeploy-link", layout="tree", prepare=linked, verb=events("b", "d-1"),
                   again=events("b", "d-2"), live=("a", "b"), builds=("a", "b"), ends="b",
                   back="a")  # fmt: skip
    prepare = deployed("a", "b", live=("a",), mode="copy", hooks={"check": [FAILING]})
    yield Scenario(name="codedeploy-putback", layout="pack", prepare=prepare,
                   verb=events("b", "d-1"), again=events("b", "d-2"), live=("a", "b"),
                   builds=("a", "b"), ends="a", raises=PutBack)  # fmt: skip


def _others() -> Iterator[Scenario]:
    yield Scenario(name="deploy-damaged", layout="pack", prepare=damaged_release,
                   verb=deploy("b"), builds=("a", "b"), live=("b",), ends="b", back="a",
                   damaged_live=True)  # fmt: skip
    yield Scenario(name="agent-rollback", layout="pack",
                   prepare=deployed("a", "b", live=("a", "b"), mode="copy"), again=_to_a,
                   verb=agents_rollback, builds=("a", "b"), live=("a", "b"), ends="a")  # fmt: skip
    yield Scenario(name="target-clean", layout="pack", prepare=many_releases, verb=clean_target,
                   builds=("a", "b", "c"), live=("c",), ends="c", back="b")  # fmt: skip
    yield Scenario(name="deploy-id", layout="pack", verb=deploy_id("b"), builds=("a", "b"),
                   prepare=deployed("a", "b", live=("a",), mode="copy"), live=("a", "b"),
                   ends="b", back="a")  # fmt: skip


SCENARIOS = {
    str(scenario): scenario
    for scenario in (
        *_stores(), *_deploys("copy"), *_deploys("link"), *_codedeploy(), *_others(),
    )
}  # fmt: skip


def world_of(scenario: Scenario, here: Path) -> World:
    world = World(here, scenario.layout)
    scenario.prepare(world)
    return world
