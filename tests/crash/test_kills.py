"""Real processes of every verb, on a real disk, ended at random moments by real signals.

Nothing is held back here: children, worker processes and syncs are as in production. A moment is
the n-th time that the process opens or changes something in the store or the target, so it lies in
the middle of the work whatever the machine is busy with. What is left has to be right at once, and
the same command once more mends the rest.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from counts import Count
from crash.ground import Ground
from crash.invariants import Truth
from crash.scenarios import SCENARIOS, SPECS, Scenario, world_of
from crash.watching import Watch
from trees import Content, write_tree
from world import World

pytestmark = pytest.mark.usefixtures("interrupts")

MOORLINE = [str(Path(sys.executable).with_name("moorline"))]
ROUNDS = 7
PATIENCE_S = 60.0
BULK: dict[str, Content] = {f"bulk/{n % 5}/{n}": b"%d " % n * 700 for n in range(60)}
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
ENDS = {0, 3, 6, 130, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM}
"""3 is what a verify says of what is being repaired; 6, that a switch was interrupted."""

COMMANDS = {
    "init-pack": "init --store {store} --app shop --layout pack",
    "publish-first-tree": "publish {src}/a --id a --bundle {bundles}/a",
    "publish-second-pack": "publish {src}/b --id b --bundle {bundles}/b",
    "publish-repair-pack": "publish {src}/a --id a --bundle {bundles}/a",
    "publish-repair-tree": "publish {src}/a --id a --bundle {bundles}/a",
    "deploy-copy-first-pack": "deploy {bundles}/a --target {www}",
    "deploy-copy-later-tree": "deploy {bundles}/b --target {www}",
    "deploy-link-later-tree": "deploy {bundles}/b --target {www} --mode link",
    "putback-check-copy-pack": "deploy {bundles}/b --target {www}",
    "rollback-copy-pack": "rollback --target {www}",
    "verify-copy-pack": "verify --all",
    "export-tree": "export a 0",
    "pin-pack": "pin a --reason test",
    "deploy-id-pack": "deploy b --target {www}",
    "codedeploy-later-pack": "",
}
REMAINS = (
    "What was published or live before still is", "is live, as before", "is live again",
    "is live on", "is cleaned by the next deploy", "Nothing is live, as before",
)  # fmt: skip
FAST = ("publish-second-pack", "deploy-copy-later-tree")


@pytest.fixture
def here() -> Iterator[Path]:
    """An empty folder with a short name on a real disk."""
    with tempfile.TemporaryDirectory(prefix="m.", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.fixture(autouse=True)
def larger_builds() -> Iterator[None]:
    with mock.patch.dict(SPECS, {id: {**spec, **BULK} for id, spec in SPECS.items()}):
        yield


def rounds() -> list[object]:
    fast: list[object] = [pytest.param(name, SIGNALS[:1]) for name in FAST]
    return fast + [pytest.param(name, SIGNALS, marks=pytest.mark.slow) for name in COMMANDS]


@pytest.mark.parametrize(("name", "numbers"), rounds())
def test_a_signal_at_a_random_moment(
    name: str, numbers: tuple[signal.Signals, ...], here: Path, count: Count, tmp_path: Path
) -> None:
    scenario, truth = SCENARIOS[name], Truth(tmp_path / "truth")
    world = world_of(scenario, here)
    (here / "work").mkdir(exist_ok=True)
    if scenario.adds:
        write_tree(here / "src" / scenario.adds, SPECS[scenario.adds])
    (here / "moorline.toml").write_text(
        f'app = "shop"\n[store]\npath = "{world.store}"\n[target]\nroot = "{world.root}"\n'
    )
    ground = Ground(here)
    events = _events(world, name)
    chance = random.Random(f"{name} {numbers}")
    for number in numbers * ROUNDS:
        ground.restore()
        at = chance.randint(1, events)
        code, said = _killed(world, name, number, at)
        note = f"{name}: {number.name} at event {at} of {events}, {code}: {said}"
        _survives(world, scenario, truth, code, said, note)
        count.add("signals sent")
        count.add("processes that a signal ended", int(_ended_early(scenario, code)))


def _events(world: World, name: str) -> int:
    """How often a whole run opens or changes something that can be seen from outside."""
    with Watch(_folders(world)) as watch:
        _start(world, name).communicate(timeout=PATIENCE_S)
        return watch.count()


def _folders(world: World) -> list[Path]:
    folders = [world.store, world.root, world.here / "work"]
    return [folder for folder in folders if folder.exists()]


def _ended_early(scenario: Scenario, code: int) -> bool:
    """Ended by the signal itself, or by what the program does about it: 6 is a put-back."""
    return code < 0 or code == 130 or (code == 6 and scenario.raises is None)


def _start(world: World, name: str) -> subprocess.Popen[str]:
    here = world.here
    command = COMMANDS[name].format(
        store=world.store, src=here / "src", bundles=here / "bundles", www=world.root
    )
    words = [*MOORLINE, *command.split(), "--config", str(here / "moorline.toml")]
    environment = {"PATH": os.environ["PATH"]}
    if not command:
        script = here / "bundles" / "b" / "deploy.sh"
        words = ["sh", "-ec", " && ".join(
            f"LIFECYCLE_EVENT={event} DEPLOYMENT_ID=d-1 DEPLOYMENT_GROUP_NAME=QA sh {script}"
            for event in ("BeforeInstall", "ApplicationStart", "ValidateService")
        )]  # fmt: skip
    return subprocess.Popen(
        words, cwd=here / "work", env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _killed(world: World, name: str, number: signal.Signals, at: int) -> tuple[int, str]:
    """The exit code and what was printed. Ctrl-C goes to the whole group, as from a terminal."""
    with Watch(_folders(world)) as watch:
        process = _start(world, name)
        watch.wait(at, process, PATIENCE_S)
        group = number == signal.SIGINT or not COMMANDS[name]
        # A process that has ended is still there, until it is asked for its exit code.
        (os.killpg if group else os.kill)(process.pid, number)
        said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def _survives(
    world: World, scenario: Scenario, truth: Truth, code: int, said: str, note: str
) -> None:
    try:
        assert code in ENDS, "an exit code that is not documented"
        assert "Traceback" not in said, "a traceback is for people who develop Moorline"
        if code in (130, 6):
            assert "moorline: " in said, "nothing was said"
            assert any(text in said for text in REMAINS), "not said what remains"
        truth.holds(world, scenario, done=code == 0)
        truth.recovers(world, scenario)
    except BaseException as error:
        error.add_note(note)
        raise
