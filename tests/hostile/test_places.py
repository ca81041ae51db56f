"""Something that is no file in the place of each file that a verb reads: none hangs, none follows.

A FIFO that nobody writes, a socket, an endless device, a folder, a link: in the store, in a bundle,
in a target's own memory, for the host's file and for moorline.toml. Each run is a child with an
alarm: a hang is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from counts import Count
from crash.ground import Ground
from crash.scenarios import deployed
from hostile.attacks import ON_ANYTHING, ON_FILES, Outside
from hostile.limits import limited
from hostile.verbs import CODES, cli
from moorline import agent, wanted
from world import World

WAYS = {
    name: way
    for name, way in {**ON_ANYTHING, **ON_FILES}.items()
    if name not in ("copied", "swapped", "flipped", "grown", "cut")
}
IN_STORE = (
    "moorline-store.json", "builds/b/build.json", "builds/b/manifest*", "builds/b/index",
    "packs/*", "settings/*", "agent/*", "sequence/2", "ledger/targets/*",
    "ledger/builds/b.json",
)  # fmt: skip
IN_TARGET = ("target.json", "history.jsonl", "deploying.json", "manifests/*", "settings/*",
             "agents/*", "lock")  # fmt: skip
IN_BUNDLE = ("build.json", "deploy.sh", "appspec.yml", ".")


def every_verb(world: World, bundle: str) -> list[int]:
    store, target = ("--store", str(world.store)), ("--target", str(world.root))
    config = ("--config", str(world.here / "no.toml"))
    (world.here / "no.toml").touch()
    commands = (
        ("status", *store), ("builds", *store), ("show", "b", *store),
        ("verify", "--all", *store), ("verify", *target), ("history", *target),
        ("deploy", bundle, *store, *target), ("rollback", *target),
        ("publish", str(world.here / "src" / "b"), "--id", "b", *store),
        ("export", "b", str(world.here / "export"), *store),
    )  # fmt: skip
    codes = [cli(*command, *config).code for command in commands]
    codes.append(agent.main(["status", "--target", str(world.root)]))
    codes.append(agent.main(["rollback", "--target", str(world.root)]))
    return codes


@pytest.mark.slow
@pytest.mark.parametrize("top, names", [("store", IN_STORE), ("www/.moorline", IN_TARGET),
                                        ("bundles/b", IN_BUNDLE)], ids=["store", "target",
                                                                         "bundle"])  # fmt: skip
def test_no_verb_hangs_on_what_is_no_file(
    top: str, names: tuple[str, ...], here: Path, outside: Outside, count: Count
) -> None:
    world = World(here)
    deployed("a", "b", live=("a",), mode="copy")(world)
    ground = Ground(here)
    for number, name in enumerate(names):
        for turn, way in enumerate(WAYS):
            if (number + turn) % 3:  # each way on some files, each file in some ways
                continue
            ground.restore()
            if name == "." and way in ON_FILES:
                continue
            if name == "history.jsonl" and way == "a hard link out":
                continue  # it is appended to; only the target's owner can have put it there
            for path in sorted((here / top).glob(name)) if "*" in name else [here / top / name]:
                WAYS[way](path, outside.folder)
            ended = limited(lambda: every_verb(world, world.bundle("b")), mib=512, seconds=40)
            assert not ended.error, f"{name} is {way}: {ended}"
            assert set(ended.value) <= CODES  # type: ignore[call-overload]
            assert outside.unharmed(), f"{name} is {way}"
            count.add("files replaced by what is no file")
            shutil.rmtree(here / "export", ignore_errors=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_host_file_that_is_no_file_is_refused(
    way: str, here: Path, outside: Outside, count: Count
) -> None:
    """Fail closed: what root wanted to limit is not known."""
    world = World(here)
    deployed("a", "b", live=("a",), mode="copy")(world)
    path = Path(wanted.HOST_FILE)
    path.touch()
    WAYS[way](path, outside.folder)
    ended = limited(lambda: cli("deploy", world.bundle("b"), "--target", str(world.root),
                                "--store", str(world.store)).code, seconds=30)  # fmt: skip
    went = way in ("removed", "emptied")
    assert (ended.error, ended.value) == ("", 0) if went else ended.value in (1, 2), ended
    assert os.readlink(world.root / "current") == ("releases/b.2" if went else "releases/a.1")
    count.add("files replaced by what is no file")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("named", [False, True])
def test_a_configuration_that_is_no_file(
    named: bool, way: str, here: Path, outside: Outside, count: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`--config <(...)` is a pipe and is read; one that nobody writes ends at once."""
    world = World(here)
    monkeypatch.chdir(here)
    path = here / "moorline.toml"
    path.touch()
    WAYS[way](path, outside.folder)
    options = ("--config", str(path)) if named else ()
    ended = limited(lambda: cli("status", "--store", str(world.store), *options).code, mib=256,
                    seconds=30)  # fmt: skip
    if way == "removed":
        assert ended.value == (2 if named else 0)
    elif way in ("emptied", "a FIFO"):
        assert ended.value == 0
    else:
        assert ended.value in (1, 2), ended
    count.add("files replaced by what is no file")


def test_a_configuration_from_a_pipe_is_read(here: Path) -> None:
    """As bash makes one for `--config <(...)`: what is written late is waited for."""
    world = World(here)
    receive, send = os.pipe()
    start = "from moorline.command import main; main()"
    command = [sys.executable, "-c", start, "status", "--store",
               str(world.store), "--config", f"/dev/fd/{receive}"]  # fmt: skip
    child = subprocess.Popen(command, pass_fds=[receive], stderr=subprocess.PIPE, text=True)
    os.close(receive)
    os.write(send, b'app = "another"\n')
    os.close(send)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "not to 'another'" in said
