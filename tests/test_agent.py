"""The agent on a target: CodeDeploy's three events, the 3 a.m. commands, and what it prints."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fakes import CountingDisk
from moorline import agent, agent_file
from moorline.errors import Error, Mismatch, Problem
from moorline.scan import scan
from moorline.verifying import verify
from trees import SITE, Content
from world import B, World, flip, script
from zipapps import private_agent

SITE_B: dict[str, Content] = {**SITE, **B}
EVENTS = ("BeforeInstall", "ApplicationStart", "ValidateService")


def problems(root: Path, source: Path) -> tuple[object, ...]:
    return verify(CountingDisk(), root, scan(CountingDisk(), source).manifest).problems


# -- in this process ------------------------------------------------------------------------------


@dataclass
class Machine:
    """A target as CodeDeploy sees it: runs one event of a deployment after the other."""

    world: World
    environment: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]
    said: str = ""

    def run(self, *words: str) -> int:
        code = agent.main(list(words))
        self.said, err = self.capture.readouterr()
        assert err == ""
        return code

    def event(self, event: str, id: str, deployment: str = "d-1", group: str = "PROD") -> int:
        for name, value in (
            ("LIFECYCLE_EVENT", event), ("DEPLOYMENT_ID", deployment),
            ("DEPLOYMENT_GROUP_NAME", group), ("APPLICATION_NAME", "shop"),
        ):  # fmt: skip
            self.environment.setenv(name, value)
        store, kept_at = str(self.world.store), str(self.world.root)
        return self.run("hook", self.world.bundle(id), store, kept_at)

    def events(self, id: str, deployment: str = "d-1", group: str = "PROD") -> list[int]:
        return [self.event(event, id, deployment, group) for event in EVENTS]

    @property
    def last_line(self) -> str:
        return self.said.rstrip("\n").rpartition("\n")[2]


@pytest.fixture
def machine(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Machine]:
    """A target on build a, deployed by d-1; build b is published."""
    monkeypatch.setattr(agent, "Disk", CountingDisk)
    before = signal.getsignal(signal.SIGTERM)
    world.publish("a")
    world.publish("b", SITE_B)
    machine = Machine(world, monkeypatch, capsys)
    assert machine.events("a") == [0, 0, 0]
    yield machine
    signal.signal(signal.SIGTERM, before)


def test_three_events_make_a_build_live(machine: Machine) -> None:
    world = machine.world
    assert machine.event("BeforeInstall", "b", "d-2") == 0
    assert machine.said == (
        f"prepared b on {world.root}: 7 files verified, 2 copied (16 bytes), 5 reused\n"
    )
    assert world.link == "releases/a.1"
    assert machine.event("ApplicationStart", "b", "d-2") == 0
    assert machine.said == f"b is live on {world.root}\n"
    assert world.link == "releases/b.2"
    assert machine.event("ValidateService", "b", "d-2") == 0
    assert machine.said == f"b is live on {world.root} and passed its check\n"

    assert problems(world.live, world.here / "src" / "b") == ()
    assert [(r.deployment, r.stage) for r in world.rows()] == [("d-1", "PROD")] * 2 + [
        ("d-2", "PROD")
    ] * 2


@pytest.mark.parametrize("times", [2, 3])
def test_every_event_may_be_repeated(machine: Machine, times: int) -> None:
    for event in EVENTS:
        assert [machine.event(event, "b", "d-2") for _ in range(times)] == [0] * times
    rows = [(row.id, row.step) for row in machine.world.rows()]
    assert rows == [("a", "intended"), ("a", "live"), ("b", "intended"), ("b", "live")]
    assert machine.world.releases() == ["a.1", machine.world.live.name]
    assert problems(machine.world.live, machine.world.here / "src" / "b") == ()
    assert machine.run("rollback", "--target", str(machine.world.root)) == 0
    assert machine.world.link == "releases/a.1"


def test_a_deployment_of_what_is_live_may_be_repeated_too(machine: Machine) -> None:
    rows = machine.world.rows()
    for event in EVENTS:
        assert [machine.event(event, "a", "d-9") for _ in range(2)] == [0, 0]
    assert machine.world.rows() == rows


def test_a_whole_deployment_may_be_repeated(machine: Machine) -> None:
    assert machine.events("b", "d-2") == [0, 0, 0]
    rows = machine.world.rows()
    assert machine.events("b", "d-2") == [0, 0, 0]
    assert machine.world.rows() == rows


@pytest.mark.parametrize("event", ["ApplicationStart", "ValidateService"])
def test_an_event_without_those_before_it_changes_nothing(machine: Machine, event: str) -> None:
    assert machine.event(event, "b", "d-2") == 5
    assert "was not prepared" in machine.last_line
    assert machine.world.link == "releases/a.1"


def test_a_check_before_the_switch_changes_nothing(machine: Machine) -> None:
    assert machine.event("BeforeInstall", "b", "d-2") == 0
    assert machine.event("ValidateService", "b", "d-2") == 5
    assert "ApplicationStart did not end" in machine.last_line
    assert machine.world.link == "releases/a.1"


def test_a_preparation_that_was_killed_is_not_switched_to(machine: Machine) -> None:
    machine.event("BeforeInstall", "b", "d-2")
    path = machine.world.inner / "deploying.json"
    path.write_text(path.read_text().replace('"phase":"prepared"', '"phase":"preparing"'))

    assert machine.event("ApplicationStart", "b", "d-2") == 5
    assert "BeforeInstall did not end" in machine.last_line
    assert machine.event("ValidateService", "b", "d-2") == 5
    assert machine.world.link == "releases/a.1"


@pytest.mark.parametrize("event", ["", "Install", "beforeinstall"])
def test_other_events_are_a_mistake_in_the_appspec(machine: Machine, event: str) -> None:
    assert machine.event(event, "b") == 2
    assert "BeforeInstall, ApplicationStart, ValidateService" in machine.last_line


def test_a_deployment_that_was_overtaken_stops(machine: Machine) -> None:
    machine.event("BeforeInstall", "b", "d-2")
    assert machine.events("a", "d-3") == [0, 0, 0]
    assert machine.event("ApplicationStart", "b", "d-2") == 5
    assert "overtaken" in machine.last_line
    assert machine.world.link == "releases/a.1"


def test_another_group_s_deployment_is_busy(machine: Machine) -> None:
    machine.event("BeforeInstall", "b", "d-2", "QA")
    assert machine.event("BeforeInstall", "b", "d-3", "PROD") == 5
    assert machine.last_line.startswith("moorline: deployment d-2 of build b is under way")
    assert machine.last_line.endswith("Live: a. (exit 5)")


def test_hooks_get_the_variables_of_codedeploy_that_are_known(machine: Machine) -> None:
    world = machine.world
    line = f"env | grep -E '^(DEPLOY|LIFE|APPL|BUNDLE|AWS)' | sort > {world.here}/env"
    world.publish("c", SITE, hooks={"check": [{"run": ["sh", "-c", line]}]})
    machine.environment.setenv("BUNDLE_KEY", "x")
    machine.environment.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert machine.events("c", "d-5") == [0, 0, 0]

    assert (world.here / "env").read_text().splitlines() == [
        "APPLICATION_NAME=shop", "DEPLOYMENT_GROUP_NAME=PROD", "DEPLOYMENT_ID=d-5",
        "LIFECYCLE_EVENT=ValidateService",
    ]  # fmt: skip


def test_a_group_s_own_settings_apply(machine: Machine) -> None:
    world = machine.world
    groups = {"QA": {"root": f"{world.here}/qa", "hooks": {"check": [{"run": ["false"]}]}}}
    world.publish("c", SITE, groups=groups)
    assert machine.events("c", "d-5", "QA") == [0, 0, 6]
    assert machine.events("c", "d-6", "PROD") == [0, 0, 0]
    assert world.link == "releases/c.2"


def test_a_failing_check_is_exit_6_and_says_what_is_live(machine: Machine) -> None:
    machine.world.publish(
        "c", SITE_B, hooks={"check": [{"run": ["sh", "-c", "echo broken; false"]}]}
    )
    assert machine.events("c", "d-5") == [0, 0, 6]
    assert "It printed: broken. a is live again." in machine.last_line
    assert machine.last_line.endswith(" Live: a. (exit 6)")
    assert machine.world.link == "releases/a.1"


def test_a_check_that_cannot_ask_the_share_for_its_settings_puts_back(machine: Machine) -> None:
    """The share may die between two events: what the later ones need is kept on the target."""
    world = machine.world
    world.publish("c", SITE_B, hooks={"check": [{"run": ["false"]}]})
    assert [machine.event(event, "c", "d-5") for event in EVENTS[:2]] == [0, 0]
    world.store.rename(world.here / "away")
    assert machine.event("ValidateService", "c", "d-5") == 6
    assert world.link == "releases/a.1"


def test_what_is_prepared_goes_live_without_the_share(machine: Machine) -> None:
    assert machine.event("BeforeInstall", "b", "d-2") == 0
    machine.world.store.rename(machine.world.here / "away")
    assert [machine.event(event, "b", "d-2") for event in EVENTS[1:]] == [0, 0]
    assert machine.world.link == "releases/b.2"


def test_deploy_does_all_three(machine: Machine) -> None:
    world = machine.world
    code = machine.run("deploy", world.bundle("b"), str(world.store), "--stage", "PROD")
    assert (code, machine.last_line) == (0, f"b is live on {world.root}")
    other = str(world.here / "other")
    assert machine.run("deploy", world.bundle("b"), str(world.store), "--target", other) == 0
    assert os.readlink(f"{other}/current") == "releases/b.1"


def test_a_bundle_without_a_root_needs_a_target(machine: Machine) -> None:
    world = machine.world
    world.publish("c", SITE, target={"root": ""})
    assert machine.event("BeforeInstall", "c", "d-5") == 2
    assert "set 'root' in the table [target] of moorline.toml" in machine.last_line
    assert machine.run(
        "deploy", world.bundle("c"), str(world.store), "--target", str(world.root)
    ) == 0  # fmt: skip


def test_status_verify_and_rollback(machine: Machine) -> None:
    world = machine.world
    machine.events("b", "d-2")
    on = ("--target", str(world.root))
    assert machine.run("status", *on) == 0
    assert machine.said.splitlines() == [
        f"target    {world.root}", "live      b  releases/b.2", "previous  a",
    ]  # fmt: skip
    assert machine.run("verify", *on) == 0
    assert machine.said == f"b on {world.root} is what CI made\n"
    flip(world.live / "index.html")
    (world.live / "x").write_text("")
    assert machine.run("verify", *on) == 3
    assert machine.said.splitlines()[:2] == ["  index.html: content differs", "  x: extra file"]
    assert machine.last_line.endswith("Live: b. (exit 3)")
    assert machine.run("rollback", *on) == 0
    assert machine.last_line == f"a is live again on {world.root}"
    assert machine.run("rollback", *on) == 4
    assert machine.last_line.endswith("Live: a. (exit 4)")
    assert machine.run("rollback", "--to", "b", *on) == 4  # damaged here, and no store is named
    assert machine.run("rollback", "--to", "b", "--store", str(world.store), *on) == 0
    assert world.link == "releases/b.4"
    assert machine.run("rollback", "--to", "../x", *on) == 2
    assert machine.run("rollback", "--to", "none", *on) == 4


def test_a_rollback_in_mode_link_finds_the_store_where_it_was(
    tree_world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent, "Disk", CountingDisk)
    for id, spec in (("a", SITE), ("b", SITE_B)):
        tree_world.publish(id, spec, target={"mode": "link"})
        tree_world.deploy(id)
    before = signal.getsignal(signal.SIGTERM)
    assert agent.main(["rollback", "--target", str(tree_world.root)]) == 0
    signal.signal(signal.SIGTERM, before)
    assert tree_world.link == f"{tree_world.store}/builds/a/tree"


@pytest.mark.parametrize("command", ["status", "verify", "rollback"])
def test_a_folder_that_is_no_target(machine: Machine, command: str) -> None:
    for name in ("none", "src"):
        assert machine.run(command, "--target", str(machine.world.here / name)) == 4
    assert not (machine.world.here / "src" / ".moorline").exists()


@pytest.mark.parametrize("words", [[], ["nonsense"], ["hook"], ["rollback", "--nonsense"]])
def test_a_wrong_call_is_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        agent.main(words)
    assert caught.value.code == 2
    assert "usage: moorline-agent" in capsys.readouterr().err


# -- what it prints -------------------------------------------------------------------------------


def reported(error: Error, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert agent._report(error) == error.exit_code
    said = capsys.readouterr().out
    said.encode("ascii")
    assert said.endswith("\n")
    return said.splitlines()


@pytest.mark.parametrize(
    "message", ["short.", "x" * 5000, "\u00e9" * 900, "a\nb\nc", "\u2028\r\0\x1b[2J\t", ""]
)
@pytest.mark.parametrize("live", [None, "a", "i" * 100])
def test_the_last_line_is_short_ascii_and_says_all(
    message: str, live: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = reported(Mismatch(f"begin {message} the cure.", live=live), capsys)
    line = lines[-1]

    assert len(lines) == 1
    assert len(line) + 1 < 500
    assert line.startswith("moorline: begin ")
    assert line.endswith(
        f"the cure. Live: {live}. (exit 3)" if live else "the cure. (exit 3)"
    )  # fmt: skip


def test_at_most_20_problems_each_on_a_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    many = [Problem(f"{n:03}" + "p" * 4000, "w" * 4000) for n in range(50)]
    lines = reported(Mismatch("wrong.", problems=many), capsys)

    assert len(lines) == 22
    assert lines[20] == "  and 30 more"
    assert max(map(len, lines)) <= 170


def test_exactly_20_problems_are_all_there(capsys: pytest.CaptureFixture[str]) -> None:
    lines = reported(Mismatch("wrong.", problems=[Problem("p", "w")] * 20), capsys)
    assert lines[:-1] == ["  p: w"] * 20


# -- the zipapp itself, under each interpreter ----------------------------------------------------

PYTHONS = [
    pytest.param("python", id="python"),
    pytest.param("pypy3", id="pypy3", marks=pytest.mark.slow),
    pytest.param("python3.9", id="python3.9", marks=pytest.mark.slow),
]


@cache
def interpreter(name: str) -> str:
    """The interpreter's path; empty when there is none that runs (pyenv's shims may not)."""
    if name == "python":
        return sys.executable
    pyenv = sorted(Path.home().glob(f".pyenv/versions/*/bin/{name}"))
    for path in (shutil.which(name), *map(str, pyenv)):
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return ""


@dataclass
class Real:
    """The agent's file from the store, as deploy.sh runs it."""

    world: World
    python: str

    @property
    def file(self) -> Path:
        (path,) = (self.world.store / "agent").iterdir()
        return path

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-I", "-W", "error", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": "/nonsense", **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="ascii", cwd="/",
        )  # fmt: skip

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        with self.start(*words, **environment) as child:
            said, _ = child.communicate(timeout=60)
        return child.returncode, said

    def hook(self, event: str, id: str, deployment: str) -> tuple[int, str]:
        return self.run(*self.words(id), **self.variables(event, deployment))

    def words(self, id: str) -> tuple[str, ...]:
        store, root = str(self.world.store), str(self.world.root)
        return (str(self.file), "hook", self.world.bundle(id), store, root)

    @staticmethod
    def variables(event: str, deployment: str) -> dict[str, str]:
        return {
            "LIFECYCLE_EVENT": event, "DEPLOYMENT_ID": deployment, "DEPLOYMENT_GROUP_NAME": "PROD",
        }  # fmt: skip

    def go_live(self, id: str, deployment: str) -> None:
        for event in EVENTS:
            code, said = self.hook(event, id, deployment)
            assert code == 0, said


@pytest.fixture(params=PYTHONS)
def real(
    request: pytest.FixtureRequest, world: World, monkeypatch: pytest.MonkeyPatch
) -> Real:  # fmt: skip
    python = interpreter(request.param)
    if not python:
        pytest.skip(f"no {request.param} here")
    file = private_agent(world.here / "code")
    monkeypatch.setattr(agent_file, "agent_bytes", lambda: file)
    world.publish("a", {**SITE, "bin/check": script("exit 0")}, hooks=CHECKS)
    world.publish("b", {**SITE_B, "bin/check": script("exit 0")}, hooks=CHECKS)
    return Real(world, python)


CHECKS = {"check": [{"run": ["./bin/check"]}]}


def test_from_the_first_event_to_the_rollback_at_3_a_m(real: Real) -> None:
    world = real.world
    real.go_live("a", "d-1")
    real.go_live("b", "d-2")
    assert problems(world.live, world.here / "src" / "b") == ()

    world.store.rename(world.here / "away")
    (own,) = (world.inner / "agents").iterdir()
    assert real.run(str(own), "status") == (
        0, f"target    {world.root}\nlive      b  releases/b.2\nprevious  a\n",
    )  # fmt: skip
    assert real.run(str(own), "verify") == (0, f"b on {world.root} is what CI made\n")
    assert real.run(str(own), "rollback") == (0, f"a is live again on {world.root}\n")
    assert problems(world.live, world.here / "src" / "a") == ()
    flip(world.live / "index.html")
    code, said = real.run(str(own), "verify")
    assert code == 3
    assert said.splitlines()[0] == "  index.html: content differs"


@pytest.mark.slow
def test_a_tampered_store_is_exit_3_with_every_problem(real: Real) -> None:
    world = real.world
    real.go_live("a", "d-1")
    for pack in (world.store / "packs").iterdir():
        pack.write_bytes(b"\0" * pack.stat().st_size)
    code, said = real.hook("BeforeInstall", "b", "d-2")

    assert code == 3
    assert said.splitlines()[:2] == ["  index.html: content differs", "  new.txt: content differs"]
    assert said.splitlines()[-1].endswith("Live: a. (exit 3)")
    assert (world.link, world.releases()) == ("releases/a.1", ["a.1"])


@pytest.mark.slow
def test_a_hook_as_another_user_and_one_that_hangs(real: Real) -> None:
    world = real.world
    hooks: dict[str, Any] = {"check": [{"run": ["sleep", "300"], "timeout_s": 1}]}
    if os.geteuid() == 0:
        hooks["after_switch"] = [{"run": ["sh", "-c", "test $(id -un) = nobody"], "user": "nobody"}]
    real.go_live("a", "d-1")
    world.publish("c", SITE, hooks=hooks)
    codes = [real.hook(event, "c", "d-2")[0] for event in EVENTS]

    assert codes == [0, 0, 6]
    assert world.link == "releases/a.1"


WHEN_WATCHED = "head -c 100000 /dev/zero"  # more than a pipe holds: it ends once somebody reads


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stop_in_the_middle_of_a_hook_puts_the_old_release_back(real: Real) -> None:
    """CodeDeploy's time limit: SIGTERM to the process group, and then it waits."""
    world = real.world
    real.go_live("a", "d-1")
    hang = f"{WHEN_WATCHED}; echo $$ > {world.here}/pid; exec sleep 300"
    line = f"test $MOORLINE_ID = a || {{ {hang}; }}"
    world.publish("c", SITE_B, hooks={"after_switch": [{"run": ["sh", "-c", line]}]})
    assert real.hook("BeforeInstall", "c", "d-2")[0] == 0
    pid = world.here / "pid"
    with real.start(*real.words("c"), **real.variables("ApplicationStart", "d-2")) as child:
        wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
        assert world.link == "releases/c.2"
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=60)

    assert child.returncode == 6, said
    assert said.splitlines()[-1].endswith("a is live again. Live: a. (exit 6)")
    assert world.link == "releases/a.1"
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.slow
def test_a_killed_agent_leaves_a_target_that_the_next_one_puts_right(real: Real) -> None:
    world = real.world
    real.go_live("a", "d-1")
    line = f"{WHEN_WATCHED}; echo $$ > {world.here}/pid; exec sleep 300"
    hang = {"after_switch": [{"run": ["sh", "-c", line]}]}
    world.publish("c", SITE_B, hooks=hang)
    assert real.hook("BeforeInstall", "c", "d-2")[0] == 0
    pid = world.here / "pid"
    with real.start(*real.words("c"), **real.variables("ApplicationStart", "d-2")) as child:
        wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"))
        child.kill()
        child.wait()
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert world.link == "releases/c.2"
    real.go_live("b", "d-3")

    assert problems(world.live, world.here / "src" / "b") == ()
    (own,) = (world.inner / "agents").iterdir()
    assert real.run(str(own), "rollback")[0] == 0
    assert world.link == "releases/a.1"


@pytest.mark.slow
def test_two_deploys_to_one_target_at_once(real: Real) -> None:
    """One waits for the other; both are done."""
    world = real.world
    real.go_live("a", "d-1")
    world.publish("c", {**SITE, "c": b"c"}, hooks={"check": [{"run": ["sleep", "0.2"]}]})
    deploys = [
        real.start(str(real.file), "deploy", world.bundle(id), str(world.store)) for id in "bc"
    ]
    ends = [child.communicate(timeout=60)[0] for child in deploys]

    assert [child.returncode for child in deploys] == [0, 0], ends
    steps = world.steps()[2:]
    one, two = steps[0][0], steps[2][0]
    assert {one, two} == {"b", "c"}
    assert steps == [(one, "intended"), (one, "live"), (two, "intended"), (two, "live")]
    assert problems(world.live, world.here / "src" / two) == ()


@pytest.mark.slow
def test_its_own_environment_does_not_matter(real: Real) -> None:
    """No HOME, no locale, no user, nothing to read from, and Python's variables set."""
    real.world.publish("a", {**SITE, "bin/check": script("exit 0")}, hooks=CHECKS)
    words = real.words("a")
    variables = real.variables("BeforeInstall", "d-1")
    code, said = real.run(*words, **variables, PYTHONSTARTUP="/x", LANG="xx", LC_ALL="C")
    assert code == 0, said


@pytest.mark.slow
def test_a_bundle_of_an_unknown_format_is_told_in_one_line(real: Real) -> None:
    world = real.world
    path = Path(world.bundle("a")) / "build.json"
    text = path.read_text()
    path.write_text(text.replace('"1 ', '"9 '))
    assert path.read_text() != text
    code, said = real.hook("BeforeInstall", "a", "d-1")
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "Use a newer moorline" in said
