"""One store on a rig's share, published to from machine a and deployed on machine b.

Sources and bundles are written on this host, where both machines see them; the target is on the
disk of the machine that deploys.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from nfs.guest import SHARED, Running
from nfs.machine import Machine
from trees import Content, write_tree

Tree = Mapping[str, Content]


class Machines(Protocol):
    """What both rigs with real clients are."""

    folder: Path
    a: Machine
    b: Machine


class Shop:
    """`wait_s` is how long a deploy waits for a build that is not there."""

    def __init__(
        self, rig: Machines, folder: Path, *, layout: str = "pack", wait_s: int = 0
    ) -> None:
        self.rig = rig
        self.folder = folder
        self.name = f"shop.{uuid4().hex[:8]}"
        self.mode = "copy" if layout == "pack" else "link"
        self.config = folder / "moorline.toml"
        self.config.write_text(
            f'app = "shop"\n[target]\nmode = "{self.mode}"\nstore_wait_s = {wait_s}\n'
        )
        rig.a.moorline("init", "--layout", layout, *self.store_words(rig.a))

    def store(self, machine: Machine) -> str:
        """The store, as `machine` sees it."""
        return f"{machine.share}/{self.name}"

    def target(self, machine: Machine) -> str:
        return f"{machine.local}/{self.name}"

    def bundle(self, id: str) -> str:
        return f"{SHARED}/{self.name}.{id}"

    def source(self, id: str, tree: Tree) -> Path:
        """A directory to publish, new for each id."""
        return write_tree(self.folder / f"{self.name}.{id}", tree)

    # -- verbs --------------------------------------------------------------------------------

    def begin_publish(self, id: str, source: Path, *, on: Machine | None = None) -> Running:
        machine = on or self.rig.a
        return machine.begin(*self.publish_words(id, source, machine))

    def publish(self, id: str, tree: Tree, *, on: Machine | None = None) -> dict[str, Any]:
        """Publish `tree` as build `id`."""
        machine = on or self.rig.a
        return machine.moorline(*self.publish_words(id, self.source(id, tree), machine))

    def refused_publish(self, id: str, source: Path) -> dict[str, Any]:
        return self.rig.a.refused(*self.publish_words(id, source, self.rig.a))

    def begin_deploy(self, id: str) -> Running:
        return self.rig.b.begin(*self.deploy_words(id))

    def deploy(self, id: str) -> dict[str, Any]:
        """Deploy the bundle of build `id`."""
        return self.rig.b.moorline(*self.deploy_words(id))

    def refused_deploy(self, id: str) -> dict[str, Any]:
        return self.rig.b.refused(*self.deploy_words(id))

    def verify_target(self) -> None:
        """Fails unless what is live on b is the whole build."""
        target = self.target(self.rig.b)
        assert self.rig.b.moorline("verify", "--target", target)["ok"]

    def refused_deploy_of_id(self, id: str) -> dict[str, Any]:
        """Without a bundle: it is looked for in the ledger and in builds/."""
        return self.rig.b.refused("deploy", id, *self.deploy_words(id)[2:])

    def verify(self, id: str, *, on: Machine) -> None:
        """Fails unless the store holds the whole build."""
        assert on.moorline("verify", id, *self.store_words(on))["ok"]

    def ids(self, *, on: Machine) -> list[str]:
        """The builds that `machine` finds in the store, oldest first."""
        listed = on.moorline("builds", *self.store_words(on))["builds"]
        return [build["id"] for build in reversed(listed) if build["present"]]

    def served(self, path: str) -> str:
        """A file of what is live on machine b."""
        return self.rig.b.shell(f"cat {self.target(self.rig.b)}/current/{path}")

    def left_over(self) -> list[str]:
        """Names in incoming/ and trash/: what publishes that failed or died left behind."""
        store = self.store(self.rig.a)
        return self.rig.a.shell(f"ls -A {store}/incoming {store}/trash | grep -v :").split()

    # -- the commands, as words -----------------------------------------------------------------

    def store_words(self, machine: Machine) -> list[str]:
        return ["--store", self.store(machine), "--config", str(self.config)]

    def publish_words(self, id: str, source: Path, machine: Machine) -> list[str]:
        bundle = ["--id", id, "--bundle", self.bundle(id)]
        return ["publish", str(source), *bundle, *self.store_words(machine)]

    def deploy_words(self, id: str) -> list[str]:
        target = ["--target", self.target(self.rig.b)]
        return ["deploy", self.bundle(id), *target, *self.store_words(self.rig.b)]
