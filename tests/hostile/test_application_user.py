"""The application's user on a target: root deploys, files belong to `owner`, and `shared/` is his.

He acts as a real second user in a child, at rest and just before every operation of root. What he
could only do where the kernel does not protect hard links is done for him by root.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from counts import Count
from crash.ground import Ground
from crash.invariants import Truth, documented
from crash.scenarios import SPECS
from hostile.attacks import Outside
from hostile.fence import FencedDisk
from moorline import releases, workflow
from moorline.disk import Disk
from moorline.errors import PutBack
from world import NOBODY, World, as_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it is root who is attacked")

LINKED = {"owner": "nobody", "linked": ["uploads/", "deep/er/"]}


@dataclass(frozen=True)
class Plot:
    """`do` gets the target's root and the folder outside; `as_root` where the kernel is in the
    way. What cannot be done at that moment is not done."""

    name: str
    do: Callable[[Path, Path], object]
    as_root: bool = False

    def run(self, world: World, outside: Outside) -> None:
        def act() -> None:
            with contextlib.suppress(OSError):
                self.do(world.root, outside.folder)

        if self.as_root:
            act()
        else:
            assert as_user(NOBODY, act) == ""


def aside(path: Path) -> None:
    if os.path.lexists(path):
        path.rename(path.parent / f"aside.{os.urandom(4).hex()}")


def instead(name: str, make: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
    def do(root: Path, outside: Path) -> None:
        aside(root / name)
        make(root / name, outside)

    return do


def secrets_for(name: str) -> Callable[[Path, Path], object]:
    """A folder of root that lies in the application's own, under the name that root is making."""

    def do(root: Path, outside: Path) -> None:
        aside(root / name)
        (root / "shared" / "secrets").rename(root / name)

    return do


def in_release(name: str, make: Callable[[Path, Path], object]) -> Callable[[Path, Path], object]:
    """In every release that he owns by now."""

    def do(root: Path, outside: Path) -> None:
        for release in sorted((root / "releases").iterdir()):
            if release.stat().st_uid == NOBODY and os.path.lexists(release / name):
                aside(release / name)
                make(release / name, outside)

    return do


def other_content(path: Path, outside: Path) -> None:
    """As long and as old as what was there."""
    old = next(path.parent.glob("aside.*"))
    status = old.stat()
    path.write_bytes(b"X" * status.st_size)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


NOTHING = Plot("nothing", lambda root, outside: None)
IN_SHARED = (
    Plot("a link out", instead("shared/uploads", lambda p, o: p.symlink_to(o))),
    Plot("a link to a locked folder", instead("shared/uploads",
                                              lambda p, o: p.symlink_to(o / "locked"))),
    Plot("a link above", instead("shared/deep", lambda p, o: p.symlink_to(o))),
    Plot("a link below", instead("shared/deep/er", lambda p, o: p.symlink_to(o))),
    Plot("a dangling link", instead("shared/uploads", lambda p, o: p.symlink_to(o / "new"))),
    Plot("a FIFO", instead("shared/uploads", lambda p, o: os.mkfifo(p))),
    Plot("a file", instead("shared/deep", lambda p, o: p.touch())),
    Plot("root's folder", secrets_for("shared/uploads")),
    Plot("root's folder below", secrets_for("shared/deep/er")),
    Plot("a hard link", instead("shared/uploads", lambda p, o: os.link(o / "secret", p)), True),
)  # fmt: skip
IN_RELEASE = (
    Plot("a file is a link out", in_release(
        "index.html", lambda p, o: p.symlink_to(o / "index.html"))),
    Plot("a folder is a link out", in_release("img", lambda p, o: p.symlink_to(o / "img"))),
    Plot("a folder is a link to the root", in_release("img", lambda p, o: p.symlink_to("/"))),
    Plot("a file is a FIFO", in_release("img/a.png", lambda p, o: os.mkfifo(p))),
    Plot("a folder is a file", in_release("img", lambda p, o: p.touch())),
    Plot("a file is a folder", in_release("index.html", lambda p, o: p.mkdir())),
    Plot("other content", in_release("index.html", other_content)),
    Plot("a link is another", in_release("img/logo.png", lambda p, o: p.symlink_to(o))),
    Plot("a hard link", in_release("index.html", lambda p, o: os.link(o / "index.html", p)), True),
    Plot("a hard link to a link", in_release("img/a.png", lambda p, o: p.symlink_to(o)), True),
)  # fmt: skip


class Target:
    """A world whose target serves an application that is not to be trusted."""

    def __init__(self, here: Path, outside: Outside, prepare: Callable[[World], object]) -> None:
        self.world = World(here)
        self.outside = outside
        prepare(self.world)
        with self.world.target():
            pass
        os.chown(self.world.root / "shared", NOBODY, NOBODY)
        secrets = self.world.root / "shared" / "secrets"
        secrets.mkdir(mode=0o700)
        (secrets / "key").write_text("root's own")
        (secrets / "key").chmod(0o600)
        self.ground = Ground(here)

    def attacked(self, verb: Callable[[World, Disk], object], plot: Plot, at: int) -> FencedDisk:
        """Run `verb`, with the plot just before operation `at`."""
        self.restore()
        world = self.world
        inside = (world.store, world.root, world.here / "bundles", world.here / "src")
        disk = FencedDisk(inside, [world.here], at=at,
                          action=lambda: plot.run(world, self.outside))  # fmt: skip
        try:
            verb(world, disk)
        except Exception as error:
            if not documented(error):
                raise
        private = f"{tempfile.gettempdir()}/moorline-hook-"
        escapes = [escape for escape in disk.escapes if private not in escape]
        assert not escapes, escapes
        assert self.outside.unharmed(), "something outside was changed"
        for key in (world.root / "shared").rglob("key"):
            for path in (key, key.parent):
                assert path.stat().st_uid == 0, f"{path} was given away"
                assert path.stat().st_mode & 0o077 == 0, f"{path} was opened to all"
        return disk

    def restore(self) -> None:
        self.ground.restore()
        shared, releases = self.world.root / "shared", self.world.root / "releases"
        given = [shared, *(p for p in shared.rglob("*") if "secrets" not in str(p))]
        for path in (*given, *releases.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def first(world: World) -> None:
    world.publish("a", SPECS["a"], target=LINKED)


def later(world: World) -> None:
    world.publish("a", SPECS["a"], target=LINKED)
    world.publish("b", SPECS["b"], target=LINKED)
    world.deploy("a")


def both(world: World) -> None:
    later(world)
    world.deploy("b")


def deploy(id: str) -> Callable[[World, Disk], object]:
    return lambda world, disk: world.deploy(id, disk=disk)


def cleaned(world: World, disk: Disk) -> None:
    with world.target(disk) as target, target.lock():
        releases.clean(target, 1)


def looked(world: World, disk: Disk) -> None:
    workflow.verify(config=world.config, target=str(world.root), disk=disk)


def steps(target: Target, verb: Callable[[World, Disk], object]) -> int:
    return len(target.attacked(verb, NOTHING, -1).calls)


@pytest.mark.parametrize("plot", IN_SHARED, ids=lambda plot: str(plot.name))
def test_what_is_planted_in_shared_while_root_makes_linked_folders(
    plot: Plot, here: Path, outside: Outside, count: Count
) -> None:
    target = Target(here, outside, first)
    undisturbed = target.attacked(deploy("a"), NOTHING, -1)
    for at in undisturbed.steps_on(target.world.root / "shared"):
        target.attacked(deploy("a"), plot, at)
        count.add("attacks by the application's user")


VERBS = {
    "deploy": (later, deploy("b")),
    "rollback": (both, lambda world, disk: world.rollback(disk=disk)),
    "clean": (both, cleaned),
    "verify": (later, looked),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_planted_in_a_release_at_any_step(
    verb: str, here: Path, outside: Outside, truth: Truth, count: Count
) -> None:
    prepare, run = VERBS[verb]
    target = Target(here, outside, prepare)
    for at in range(steps(target, run)):
        plot = IN_RELEASE[at % len(IN_RELEASE)]
        try:
            target.attacked(run, plot, at)
        except BaseException as error:
            error.add_note(f"{plot.name} before operation {at}")
            raise
        count.add("attacks by the application's user")


# -- hooks ----------------------------------------------------------------------------------------


def evil(mark: Path) -> Callable[[Path, Path], object]:
    """A program in place of a release's own: it says as whom it was run."""

    def make(path: Path, outside: Path) -> None:
        path.write_text(f"#!/bin/sh\nid -u >> {mark}\n")
        path.chmod(0o755)

    return in_release("bin/run", make)


def evil_folder(mark: Path) -> Callable[[Path, Path], object]:
    def make(path: Path, outside: Path) -> None:
        path.symlink_to(outside / "bin")

    return in_release("bin", make)


def while_hooks_run(target: Target, verb: Callable[[World, Disk], object]) -> range:
    """From when the release belongs to him until the deployment is over: all hooks run between."""
    calls = target.attacked(verb, NOTHING, -1).calls
    given = [call.number for call in calls if call.operation == "set_owner"]
    over = [call.number for call in calls if call.operation == "unlink"
            and call.arguments[0] == b"deploying.json"]  # fmt: skip
    assert max(given) + 10 < max(over)
    return range(max(given), max(over))


@pytest.mark.slow
@pytest.mark.parametrize("way", [evil, evil_folder])
@pytest.mark.parametrize("moment", ["before_switch", "after_switch", "check"])
def test_a_hook_of_root_never_runs_a_program_that_the_owner_changed(
    moment: str, way: Callable[[Path], Callable[[Path, Path], object]], here: Path,
    outside: Outside, count: Count,
) -> None:  # fmt: skip
    hooks = {moment: [{"run": ["./bin/run"]}]}

    def prepare(world: World) -> None:
        world.publish("a", SPECS["a"], target={"owner": "nobody"}, hooks=hooks)

    target = Target(here, outside, prepare)
    mark = here / "marks" / "mark"
    mark.parent.mkdir()
    mark.parent.chmod(0o777)
    plot = Plot("an evil program", way(mark))
    for at in while_hooks_run(target, deploy("a")):
        target.attacked(deploy("a"), plot, at)
        assert not mark.exists(), f"run as {mark.read_text()}before operation {at}"
        count.add("attacks by the application's user")


def test_put_back_runs_no_program_that_the_owner_changed_meanwhile(
    here: Path, outside: Outside, count: Count
) -> None:
    hooks = {"after_switch": [{"run": ["./bin/run"]}]}
    world = World(here)
    world.publish("a", SPECS["a"], target={"owner": "nobody"}, hooks=hooks)
    world.deploy("a")
    (here / "marks").mkdir()
    (here / "marks").chmod(0o777)
    Plot("an evil program", evil(here / "marks" / "mark")).run(world, outside)
    world.publish("b", SPECS["b"], hooks={"check": [{"run": ["false"]}]})
    with pytest.raises(Exception) as failed:
        world.deploy("b")
    assert failed.type.__name__ == "PutBackFailed"
    assert "was changed" in str(failed.value)
    assert not (here / "marks" / "mark").exists()
    count.add("attacks by the application's user")


def test_a_hook_that_runs_as_the_owner_runs_in_its_place(here: Path) -> None:
    """He could run it himself: no copy is made for that."""
    world = World(here)
    program = (b"#!/bin/sh\necho $0 >&2; test -f ./index.html && exit 9\n", 0o755)
    for user, where in (("nobody", "/releases/"), ("", "/moorline-hook-")):
        id = user or "root"
        hooks = {"check": [{"run": ["./bin/run"], "user": user}]}
        world.publish(id, {**SPECS["a"], "bin/run": program}, target={"owner": "nobody"},
                      hooks=hooks)  # fmt: skip
        with pytest.raises(PutBack, match=where):
            world.deploy(id)
