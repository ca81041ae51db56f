"""The real command line over a store, a target and bundles in which one thing was replaced."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from crash.ground import Ground
from crash.invariants import Truth, documented
from crash.scenarios import SPECS, clean, deployed, remove
from hostile.attacks import ON_ANYTHING, ON_FILES, Outside
from hostile.mutations import mutated
from moorline.cli import moorline
from moorline.disk import Disk
from moorline.verifying import verify
from trees import write_tree
from world import World

CODES = frozenset(range(8))
_NEVER = ("Traceback", "fault in Moorline")


@dataclass(frozen=True)
class Said:
    """What one command answered."""

    code: int
    out: str
    err: str


def cli(*arguments: str) -> Said:
    """One command in this process. Raises AssertionError for what no command may answer."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            moorline.main(list(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    said = Said(code, out.getvalue(), err.getvalue())
    text = said.out + said.err
    assert code in CODES, said
    assert not [word for word in _NEVER if word in text], said
    assert not [c for c in text if c != "\n" and not c.isprintable()], f"it obeys: {said}"
    assert text or not code, "it failed without a word"
    return said


class Field:
    """A world with builds a and b, the first one live, and every file that can be replaced."""

    def __init__(self, here: Path, layout: str, truth: Truth) -> None:
        self.here = here
        self.truth = truth
        self.world = World(here, layout)
        deployed("a", "b", live=("b", "a"), mode="copy")(self.world)
        self.world.publish("b", SPECS["b"], hooks={"after_switch": [{"run": ["true"]}]})
        write_tree(here / "src" / "c", SPECS["c"])
        self.outside = Outside(here / "outside")
        self.ground = Ground(here)
        tops = (self.world.store, self.world.root / ".moorline", self.world.root / "releases")
        self.files = [p for top in (*tops, here / "bundles") for p in sorted(top.rglob("*"))
                      if p.is_file() and not p.is_symlink() and p.name != "lock"]  # fmt: skip
        self.contents = [path.read_bytes() for path in self.files]

    def damage(self, rng: Random) -> Path:
        """Replace one thing. What it was made of depends on `rng` alone."""
        self.ground.restore()
        number = rng.randrange(len(self.files))
        path = self.files[number]
        if rng.random() < 0.25:
            ways = {**ON_ANYTHING, **ON_FILES}
            ways[rng.choice(sorted(ways))](path, self.outside.folder)
        else:
            path.write_bytes(mutated(rng, self.contents[number], self.contents))
        return path

    def commands(self) -> Iterator[tuple[str, ...]]:
        store, target = ("--store", str(self.world.store)), ("--target", str(self.world.root))
        export = str(self.here / "export" / "b")
        yield "status", *store
        yield "builds", *store
        yield "show", "b", "-v", *store
        yield "diff", "a", "b", *store
        yield "export", "b", export, *store
        yield "history", *target
        yield "verify", "--all", *store
        yield "verify", "a", "--json", *store
        yield "verify", *target
        yield "deploy", self.world.bundle("b"), *store, *target
        yield "rollback", *store, *target
        yield "deploy", "b", *store, *target
        yield "publish", str(self.here / "src" / "c"), "--id", "c", "--bundle", export + "c", *store
        yield "deploy", export + "c", *store, *target
        yield "publish", str(self.here / "src" / "a"), "--id", "a", *store
        yield "pin", "a", "--reason", "a test", *store
        yield "unpin", "a", *store

    def run(self, rng: Random) -> int:
        """All commands over one damage; how many there were."""
        path = self.damage(rng)
        (self.here / "export").mkdir(exist_ok=True)
        number = 0
        try:
            for command in self.commands():
                number += 1
                said = cli(*command)
                if command[0] in ("deploy", "rollback"):
                    self.live_is_whole(path, strict=said.code == 0)
            self.cleaned()
            assert self.outside.unharmed(), "something outside was changed"
        except BaseException as error:
            error.add_note(f"{path} was {_shown(path)}, at {' '.join(command)}")
            raise
        finally:
            shutil.rmtree(self.here / "export", ignore_errors=True)
        return number

    def live_is_whole(self, path: Path, *, strict: bool) -> None:
        """I2 and I5. What a target remembers it trusts, so a damaged memory proves nothing."""
        current = self.world.root / "current"
        live = current.resolve(strict=True)
        id = live.name.rpartition(".")[0]
        if ".moorline" in path.parts or (not strict and path.is_relative_to(live)):
            return
        found = verify(Disk(), live, self.truth.manifests[id]).problems
        assert not found, f"{id} is live and not whole: {found}"

    def cleaned(self) -> None:
        for verb in (remove("b"), clean(2_000_000), clean(4_000_000)):
            try:
                verb(self.world, Disk())
            except Exception as error:
                if not documented(error):
                    raise


def _shown(path: Path) -> str:
    try:
        return repr(path.read_bytes()[:1500]) if path.is_file() else "no file"
    except OSError as error:
        return str(error)
