"""Moorline itself, through its command: a new process for each step, as a user runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Command
from benchmarks.peers import Alone
from benchmarks.scenario import Contender, Site, Step, command

MOORLINE = Path(sys.executable).with_name("moorline")
ROOT = Path(__file__).resolve().parents[1]
ALL_BYTES = "every byte that goes live"


def library(verb: str, **options: object) -> Command:
    """One verb of the library in a new interpreter."""
    return Command((sys.executable, ROOT / "benchmarks/library.py", verb, json.dumps(options)))


def own_program(module: str, *argv: str) -> Command:
    """A module of this package as a program of its own."""
    return Command((sys.executable, "-m", module, *argv), variables={"PYTHONPATH": str(ROOT)})


@dataclass(frozen=True)
class Ours(Alone):
    """A store of one layout."""

    layout: str
    slow: bool = False

    @property
    def name(self) -> str:
        return f"moorline {self.layout}"

    @property
    def programs(self) -> tuple[str, ...]:
        return (str(MOORLINE),)

    def steps(self, site: Site) -> Iterator[Step]:
        store = site.store
        init = library("init", store=str(store), layout=self.layout)
        yield Step(
            "first", (self._publish(site, site.a, "a"),), (init,), grows=store, proof="source"
        )
        yield Step("publish", (self._publish(site, site.b, "b"),), grows=store, proof="source")
        yield self._copy("copy_new", site, site.target(1), ())
        held = self._deploy(site, "a", site.target(2), "copy")
        yield self._copy("copy", site, site.target(2), (held,))
        rollback = command(MOORLINE, "rollback", "--target", site.target(2))
        yield Step("rollback", (rollback,), proof=ALL_BYTES)
        yield self._steady(site)
        if self.layout == "tree":
            yield self._link(site)
        verify = command(MOORLINE, "verify", "b", "--store", store)
        yield Step("verify", (verify,), proof="everything stored of B")
        forget = library("forget", store=str(store))
        remove = library("remove", store=str(store), id="a")
        yield Step("remove", (remove,), (forget,), grows=store)

    def _copy(self, key: str, site: Site, target: Path, prepare: tuple[Command, ...]) -> Step:
        deploy = self._deploy(site, "b", target, "copy")
        return Step(
            key, (deploy,), prepare, grows=target, makes=target / "current", like=site.b,
            proof=ALL_BYTES,
        )  # fmt: skip

    def _steady(self, site: Site) -> Step:
        """The everyday deploy: a target keeps three releases, so the oldest is removed. C and D
        are B without one of its files."""
        target = site.target(2)
        others = [self._publish_less(site, number, id) for number, id in enumerate("cd")]
        prepare = (*others, self._deploy(site, "c", target, "copy"))
        deploy = self._deploy(site, "d", target, "copy")
        return Step("steady", (deploy,), prepare, proof=ALL_BYTES, slow=True)

    def _publish_less(self, site: Site, number: int, id: str) -> Command:
        bundle = str(site.work / f"{id}.zip")
        return library(
            "publish_less",
            source=str(site.b),
            store=str(site.store),
            id=id,
            bundle=bundle,
            less=number,
        )

    def _link(self, site: Site) -> Step:
        target = site.target(3)
        held = self._deploy(site, "a", target, "link")
        deploy = self._deploy(site, "b", target, "link")
        return Step(
            "link", (deploy,), (held,), makes=target / "current", like=site.b, proof=ALL_BYTES
        )

    def _publish(self, site: Site, source: Path, id: str) -> Command:
        return command(
            MOORLINE, "publish", source, "--id", id, "--store", site.store,
            "--bundle", site.work / f"{id}.zip",
        )  # fmt: skip

    def _deploy(self, site: Site, id: str, target: Path, mode: str) -> Command:
        bundle = site.work / f"{id}.zip"
        return command(
            MOORLINE, "deploy", bundle, "--target", target, "--store", site.store, "--mode", mode
        )


def ours() -> tuple[Contender, ...]:
    return (Ours("pack"), Ours("tree"))
