"""Somebody puts code of his own where the agent of root looks for its compiled code.

The code is what the agent would run: right header, right digest, of this Python. Only whose it is,
and where it lies, tells it apart.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from counts import Count
from crash.scenarios import deployed
from moorline import compiled
from moorline.compiled import Compiled
from world import NOBODY, World
from zipapps import private_agent

EVIL = "import os\nopen(os.environ['MARK'], 'w').close()\ndef main(): return 0\n"


class Attack:
    """A machine where build a is live, and a file of code that would leave a mark."""

    def __init__(self, here: Path) -> None:
        self.world = World(here)
        deployed("a", "b", live=("a",), mode="copy")(self.world)
        self.place = here / "var" / "code"
        self.place.parent.mkdir()
        self.agent = here / "agent.pyz"
        self.agent.write_bytes(private_agent(self.place))
        self.mark = here / "mark"
        self.name = Compiled(self.agent.read_bytes()).name

    def bring(self, folder: Path, uid: int = 0) -> Path:
        """The file in `folder`, of user `uid`."""
        body = marshal.dumps({"moorline.agent": (False, compile(EVIL, "evil", "exec"))})
        digest = hashlib.sha256(self.agent.read_bytes()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        path.write_bytes(compiled._header(digest, body) + body)
        os.chown(path, uid, uid)
        return path

    def runs(self) -> bool:
        """Whether a deploy runs it; else build b is live afterwards."""
        world = self.world
        done = subprocess.run(
            [sys.executable, "-I", self.agent, "deploy", world.bundle("b"), world.store,
             "--target", world.root],
            env={"MARK": str(self.mark)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        if self.mark.exists():
            return True
        assert world.link == "releases/b.2"
        return False


@pytest.fixture
def attack(here: Path) -> Attack:
    return Attack(here)


def test_root_itself_could_do_it(attack: Attack) -> None:
    """The tests below are able to fail."""
    attack.bring(attack.place)
    assert attack.runs()


def someone_elses_file(attack: Attack) -> None:
    attack.bring(attack.place, NOBODY)


def someone_elses_folder(attack: Attack) -> None:
    attack.bring(attack.place)
    os.chown(attack.place, NOBODY, NOBODY)


def someone_elses_folder_above(attack: Attack) -> None:
    attack.bring(attack.place)
    os.chown(attack.place.parent, NOBODY, NOBODY)


def a_file_for_a_group(attack: Attack) -> None:
    attack.bring(attack.place).chmod(0o664)


def a_folder_for_a_group(attack: Attack) -> None:
    attack.bring(attack.place)
    attack.place.chmod(0o775)


def a_folder_for_everybody(attack: Attack) -> None:
    """A sticky one: he cannot rename what is in it, but he can be the first."""
    attack.bring(attack.place)
    attack.place.chmod(0o1777)


def a_link_to_a_file_of_a_release(attack: Attack) -> None:
    path = attack.bring(attack.world.root / "releases" / "a.1")
    attack.place.mkdir()
    (attack.place / attack.name).symlink_to(path)


def a_link_to_a_folder_of_a_release(attack: Attack) -> None:
    folder = attack.world.root / "releases" / "a.1"
    attack.bring(folder)
    attack.place.symlink_to(folder)


def in_a_release(attack: Attack) -> None:
    """What a build brings belongs to root in mode copy, and so does each folder on the way."""
    for inside in ("", ".moorline", ".moorline/agents", str(attack.place).lstrip("/")):
        attack.bring(attack.world.root / "releases" / "a.1" / inside)


def in_the_targets_memory(attack: Attack) -> None:
    """`root` in the settings may name any folder, and a host's file may limit it: that is read
    later than this."""
    for inside in ("", "agents", "code"):
        attack.bring(attack.world.inner / inside)


def on_the_share(attack: Attack) -> None:
    for inside in ("", "agent", "settings"):
        attack.bring(attack.world.store / inside)


@pytest.mark.parametrize("way", [
    someone_elses_file, someone_elses_folder, someone_elses_folder_above, a_file_for_a_group,
    a_folder_for_a_group, a_folder_for_everybody, a_link_to_a_file_of_a_release,
    a_link_to_a_folder_of_a_release, in_a_release, in_the_targets_memory, on_the_share,
])  # fmt: skip
def test_foreign_code_is_not_run(
    way: Callable[[Attack], None], attack: Attack, count: Count
) -> None:
    way(attack)
    assert not attack.runs()
    count.add("attacks on kept code")
