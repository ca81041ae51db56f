"""One of many that use a store and its targets at the same time: a program of its own.

    python -m crash.crowd ROLE FOLDER SEED SECONDS

Does the same verb again and again until its time is up, and prints what it did as JSON. An error
that no user should ever see ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from moorline import cleaning, workflow
from moorline.config import Config
from moorline.disk import Disk
from moorline.errors import Conflict, Mismatch, NotFound, SourceChanged
from moorline.settings import settings_of
from moorline.store import open_store

KEEP = 5
TARGETS = ("www1", "www2")
EXPECTED = (Conflict, NotFound, Mismatch, SourceChanged)
"""Another was faster; a build went while it was looked at. Nothing else."""


class Member:
    """One process of the crowd."""

    def __init__(self, role: str, folder: Path, seed: int) -> None:
        self.role = role
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(seed)
        self.turn = 0
        self.published: list[str] = []
        self.did: Counter[str] = Counter()
        tables = {"target": {"store_wait_s": 0}}
        settings = settings_of(tables, app="shop")
        self.config = Config(app="shop", store=str(folder / "store"), settings=settings)

    def run(self, seconds: float) -> None:
        verb: Callable[[], object] = getattr(self, self.role)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.turn += 1
            try:
                verb()
                self.did["done"] += 1
            except EXPECTED as error:
                self.did[type(error).__name__] += 1

    def publisher(self) -> None:
        """A build of mine each time; now and then one that another publishes as well."""
        mine = self.chance.random() < 0.8
        id = f"b{self.seed}-{self.turn}" if mine else f"common-{self.turn // 5}"
        source = self.folder / "src" / f"{self.seed}" / id
        source.mkdir(parents=True, exist_ok=True)
        for name in range(12):
            version = self.turn // (name + 1) if mine else name
            (source / f"{name}.txt").write_text(f"{name} {version} " * 200)
        workflow.publish(str(source), config=self.config, id=id, environment={})
        self.published.append(id)

    def _any(self) -> str:
        with open_store(Disk(), self.folder / "store") as store:
            ids = sorted(store.ids())
        return self.chance.choice(ids) if ids else "none"

    def deployer(self) -> None:
        target = self.chance.choice(TARGETS)
        link = target == TARGETS[1] and (self.folder / "tree").exists()
        workflow.deploy(
            self._any(), config=self.config, target=str(self.folder / target),
            mode="link" if link else "copy",
        )  # fmt: skip

    def rollbacker(self) -> None:
        target = self.folder / self.chance.choice(TARGETS)
        workflow.rollback(config=self.config, target=str(target), trust_store=True)

    def verifier(self) -> None:
        id = self._any()
        (found,) = workflow.verify(config=self.config, id=id)
        if not found.ok:
            with open_store(Disk(), self.folder / "store") as store:
                assert id not in store.ids(), f"I1: {found}"

    def cleaner(self) -> None:
        with open_store(Disk(), self.folder / "store") as store:
            builds = store.builds()
            cleaning.clean(store, cleaning.store_time(store), stale_s=60, grace_s=4)
            for build in builds[:-KEEP]:
                try:
                    cleaning.remove(store, build.id, "the crowd")
                    self.did["removed"] += 1
                except EXPECTED as error:
                    self.did[type(error).__name__] += 1
        time.sleep(0.2)


def main() -> None:
    role, folder, seed, seconds = sys.argv[1:]
    os.chdir(folder)
    member = Member(role, Path(folder), int(seed))
    member.run(float(seconds))
    sys.stdout.write(json.dumps({"did": member.did, "published": member.published}))


if __name__ == "__main__":
    main()
