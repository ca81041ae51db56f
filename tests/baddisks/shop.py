"""A store and a target, each on a mount of its own, driven by the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from baddisks.namespace import Namespace
from crash.invariants import store_litter
from crash.scenarios import LATER_S, clean
from fakes import CountingDisk
from moorline.build import build_id
from moorline.manifest import Manifest
from moorline.scan import scan
from moorline.store import open_store
from moorline.verifying import verify as verify_tree
from trees import Content, write_tree
from world import World

HERE = Path(__file__).resolve().parent
MOORLINE = str(Path(sys.executable).with_name("moorline"))
ONE: dict[str, Content] = {"index.html": b"one", "img/a": b"a" * 3000, "img/b": "a", "d/e": b"e"}
TWO: dict[str, Content] = {**ONE, "index.html": b"two", "new/n": b"n" * 5000}
THREE: dict[str, Content] = {**TWO, "index.html": b"three", "large": b"l" * 300_000}
FOUR: dict[str, Content] = {**TWO, "index.html": b"four"}


class Shop:
    """`here` is a short path on a real disk; `share` and `disk` are where tests mount something."""

    def __init__(self, space: Namespace, here: Path, layout: str = "pack") -> None:
        self.space, self.here, self.layout = space, here, layout
        self.share, self.disk = here / "share", here / "disk"
        self.store, self.root = self.share / "store", self.disk / "www"
        for folder in (self.share, self.disk, here / "bundles"):
            folder.mkdir()
        self.toml = here / "moorline.toml"
        self.configure()
        for id, spec in (("one", ONE), ("two", TWO), ("three", THREE), ("four", FOUR)):
            write_tree(here / id, spec)

    def configure(
        self, target: Mapping[str, Any] | None = None, **hooks: list[tuple[str, int]]
    ) -> None:
        """moorline.toml with more keys in [target], and hooks: before_switch=[(line, limit)]."""
        values = {"root": str(self.root), "store_wait_s": 0, "store_timeout_s": 1, **(target or {})}
        lines = ['app = "shop"', "[store]", f'path = "{self.store}"', "[target]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        for moment, commands in hooks.items():
            for command, limit_s in commands:
                words = json.dumps(["/bin/sh", "-c", command])
                lines += [f"[[hooks.{moment}]]", f"run = {words}", f"timeout_s = {limit_s}"]
        self.toml.write_text("\n".join(lines) + "\n")

    # -- verbs --------------------------------------------------------------------------------

    def moorline(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.space.run(MOORLINE, *words, "--config", self.toml, **self._options(options))

    def start(self, *words: object) -> subprocess.Popen[str]:
        return self.space.start(MOORLINE, *words, "--config", self.toml, **self._options({}))

    def event(self, id: str, event: str, deployment: str) -> subprocess.CompletedProcess[str]:
        """What CodeDeploy does at one event."""
        variables = {"LIFECYCLE_EVENT": event, "DEPLOYMENT_ID": deployment,
                     "DEPLOYMENT_GROUP_NAME": "QA"}  # fmt: skip
        options = self._options({})
        options["env"] |= variables
        return self.space.run("sh", self.bundle(id) / "deploy.sh", **options)

    def acting(self, at: tuple[str, int], act: str, *words: object) -> Any:
        """The same with the command `act` just before an operation, which must come."""
        marker = self.here / "acted"
        marker.unlink(missing_ok=True)
        done = self.space.run(
            sys.executable, HERE / "acting.py", marker, *at, act, *words, "--config", self.toml,
            **self._options({}),
        )  # fmt: skip
        assert marker.exists(), f"{at} never came: {done}"
        return done

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **options}

    def done(self, *words: object) -> str:
        result = self.moorline(*words)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refused(self, *words: object, code: int = 1) -> str:
        return refusal(self.moorline(*words), code)

    def init(self) -> None:
        self.done("init", "--store", self.store, "--app", "shop", "--layout", self.layout)

    def publish_words(self, id: str) -> tuple[object, ...]:
        return ("publish", self.here / id, "--id", id, "--bundle", self.bundle(id))

    def bundle(self, id: str) -> Path:
        return self.here / "bundles" / id

    def publish(self, *ids: str) -> None:
        for id in ids:
            self.done(*self.publish_words(id))

    def deploy_words(self, id: str) -> tuple[object, ...]:
        return ("deploy", self.bundle(id), "--target", self.root)

    def deploy(self, id: str) -> None:
        self.done(*self.deploy_words(id))
        self.serves(id)

    # -- what has to be true, looked at from here ----------------------------------------------

    def serves(self, id: str) -> None:
        """Build `id` is live, and what its source is."""
        root, link = self.space.see(self.root), self.link
        assert f"/{id}." in link or f"/{id}/" in link, link
        live = self.space.see(Path(link)) if link.startswith("/") else root / link
        assert verify_tree(CountingDisk(), live, self.manifest(id)).problems == ()

    @property
    def link(self) -> str:
        return os.readlink(self.space.see(self.root) / "current")

    def holds(self, *ids: str) -> None:
        """The store holds exactly these builds, and each is what its source is."""
        with open_store(CountingDisk(), self.space.see(self.store)) as store:
            assert sorted(store.ids()) == sorted(ids)
            for id in ids:
                with store.open_build(build_id(id)) as opened:
                    manifest = self.manifest(id)
                    assert opened.manifest().digest == manifest.digest
                    assert opened.verify(manifest).problems == ()

    def manifest(self, id: str) -> Manifest:
        return scan(CountingDisk(), self.here / id).manifest

    def litter(self) -> list[str]:
        """What nobody needs in the store."""
        return store_litter(self._seen())

    def litter_that_stays(self) -> list[str]:
        """The same once a cleaner was there."""
        for later in (1, 2, 3):
            clean(later * LATER_S)(self._seen(), CountingDisk())
        return self.litter()

    def _seen(self) -> World:
        return cast(World, SimpleNamespace(store=self.space.see(self.store)))

    def target_litter(self) -> list[str]:
        """What a failed deploy may not leave: releases that did not pass, and notes."""
        root = self.space.see(self.root)
        rows = map(json.loads, (root / ".moorline" / "history.jsonl").read_text().splitlines())
        good = {row["place"] for row in rows if row["step"] in ("live", "restored")}
        names = [p.name for p in (root / "releases").iterdir() if f"releases/{p.name}" not in good]
        names += [p.name for p in (root / ".moorline").rglob(".*.tmp")]
        return names + [p.name for p in (root / ".moorline").glob("deploying.json")]


def refusal(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """What a failing verb said: no traceback, and on one line what failed and what to do."""
    assert result.returncode == code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    match = re.search(r"^moorline: (.*)", result.stderr, re.MULTILINE | re.DOTALL)
    assert match, result.stderr
    return match.group(1)
