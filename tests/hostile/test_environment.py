"""Arguments and environment: the command and the agent answer in words, and run nobody else's code.

The agent is the real zipapp, started as deploy.sh starts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from counts import Count
from crash.scenarios import deployed
from hostile.mutations import WORDS
from hostile.verbs import CODES
from moorline import agent_file, workflow
from moorline.errors import ConfigError
from world import NOBODY, World, as_user
from zipapps import private_agent

TEXTS = tuple(w for w in (*WORDS, b"\x80", b"a" * 9000, b"\n\n", b"%s%n") if b"\0" not in w)
NAMES = (
    "LIFECYCLE_EVENT", "DEPLOYMENT_ID", "DEPLOYMENT_GROUP_NAME", "DEPLOYMENT_GROUP_ID",
    "APPLICATION_NAME", "PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ",
    "COLUMNS", "LINES", "TERM", "PYTHONPATH", "PYTHONHOME", "PYTHONIOENCODING", "FORCE_COLOR",
    "MOORLINE_STORE", "MOORLINE_TARGET", "MOORLINE_APP", "MOORLINE_CONFIG", "MOORLINE_ID",
    "CODEBUILD_BUILD_NUMBER", "CODEBUILD_RESOLVED_SOURCE_VERSION", "CODEBUILD_BUILD_ID",
)  # fmt: skip
COMMAND = [sys.executable, "-I", "-c", "from moorline.command import main; main()"]


@pytest.fixture
def placed(here: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Build a is live, b is published; the agent's file lies beside them. It is the real one, but
    for the place of its code."""
    file = private_agent(here / "code")
    monkeypatch.setattr(agent_file, "agent_bytes", lambda: file)
    world = World(here)
    deployed("a", "b", live=("a",), mode="copy")(world)
    (here / "agent.pyz").write_bytes(file)
    return world


def answers(
    command: list[str | bytes], environment: Mapping[bytes, bytes], cwd: Path
) -> subprocess.CompletedProcess[bytes]:
    """What a program answers; never a traceback, nor a code that is not documented."""
    done = subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert b"Traceback" not in said and b"fault in Moorline" not in said, said.decode("latin-1")
    assert done.returncode in CODES, (done.returncode, said)
    return done


def agent(world: World, *arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-I", str(world.here / "agent.pyz"), *arguments]


@pytest.mark.slow
def test_the_agent_in_any_environment(placed: World, count: Count) -> None:
    """What is live stays whole, and is never anything but a or b."""
    rng = Random("environment")
    hook = agent(placed, "hook", placed.bundle("b"), str(placed.store), str(placed.root))
    for number in range(18):
        environment = {b"PATH": os.environb[b"PATH"], b"DEPLOYMENT_ID": b"d-%d" % number,
                       b"LIFECYCLE_EVENT": rng.choice((b"BeforeInstall", b"ApplicationStart",
                                                       b"ValidateService"))}  # fmt: skip
        for name in rng.sample(NAMES, rng.choice((1, 2, 5))):
            environment[name.encode()] = rng.choice(TEXTS)
        answers(hook, environment, placed.here)
        assert placed.link.startswith(("releases/a.", "releases/b."))
        count.add("hostile environments")
    assert placed.steps()[-1][0] in ("a", "b")


@pytest.mark.slow
def test_the_command_in_any_environment(placed: World, count: Count) -> None:
    rng = Random("command")
    verbs = (
        ["status"], ["builds"], ["verify", "--all"], ["show", "a"], ["pin", "a", "--reason", "x"],
        ["deploy", placed.bundle("b"), "--target", str(placed.root)],
        ["rollback", "--target", str(placed.root)],
        ["publish", str(placed.here / "src" / "a"), "--bundle", str(placed.here / "work" / "x")],
    )  # fmt: skip
    for _ in range(15):
        environment = {b"PATH": os.environb[b"PATH"]}
        for name in rng.sample(NAMES, rng.choice((1, 2, 5))):
            environment[name.encode()] = rng.choice(TEXTS)
        verb = rng.choice(verbs)
        options = [] if rng.random() < 0.2 else ["--store", str(placed.store)]
        done = answers([*COMMAND, *verb, *options], environment, placed.here)
        assert done.returncode == 0 or done.stderr or done.stdout, "it failed without a word"
        count.add("hostile environments")


@pytest.mark.slow
def test_any_arguments(placed: World, count: Count) -> None:
    rng = Random("arguments")
    shared = ["--store", "--target", "--json", "-q", "-v", "--config", "--debug"]
    verbs = {
        "init": ["--layout", "--app"], "publish": ["--id", "--bundle", "--dry-run"],
        "deploy": ["--mode", "--check", "--stage", "--dry-run"],
        "rollback": ["--to", "--trust-store"], "status": [], "builds": [], "show": [], "diff": [],
        "export": [], "history": ["--stage"], "verify": ["--all"], "pin": ["--reason"],
        "unpin": [],
    }  # fmt: skip
    environment = {b"PATH": os.environb[b"PATH"], b"HOME": b"/nonexistent"}
    work = placed.here / "work"
    work.mkdir()
    good = [str(placed.store), str(placed.root), "a", "b", placed.bundle("b")]
    for number in range(24):
        verb = rng.choice(sorted(verbs))
        arguments: list[str | bytes] = [verb]
        for _ in range(rng.randrange(6)):
            words: list[str | bytes] = [*shared, *verbs[verb], *good, *good, *TEXTS]
            arguments.append(rng.choice(words))
        arguments = [a for a in arguments if not _leaves(a)]
        if number % 3:
            answers([*COMMAND, *arguments], environment, work)
        else:
            name = rng.choice(("hook", "deploy", "rollback", "status", "verify"))
            answers(agent(placed, name, *arguments[1:]), environment, work)
        count.add("hostile arguments")


def _leaves(argument: str | bytes) -> bool:
    """What a person may name, but this test must not: a place outside of its folder to write to."""
    text = os.fsencode(argument)
    return text.startswith((b"/", b"..")) and b"m." not in text


CANARY = "import os\nopen(os.environ.get('CANARY', '/dev/null'), 'a').write(__name__ + ' ')\n"


@pytest.mark.slow
def test_the_agent_runs_no_code_of_the_environment(placed: World, count: Count) -> None:
    """PYTHONPATH, PYTHONHOME, the present folder, the user's own site, and a PATH of traps."""
    evil = placed.here / "evil"
    for name in ("moorline/__init__.py", "moorline/agent.py", "json.py", "hashlib.py", "os.py",
                 "sitecustomize.py", "usercustomize.py", "argparse.py", "struct.py"):  # fmt: skip
        (evil / name).parent.mkdir(exist_ok=True, parents=True)
        (evil / name).write_text(CANARY)
    minor = f"python3.{sys.version_info[1]}"
    site = evil / ".local" / "lib" / minor / "site-packages"
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text(CANARY)
    (site / "x.pth").write_text("import usercustomize\n")
    mark = placed.here / "mark"
    for program in ("sha256sum", "python3", "head", "timeout", "mktemp", "id", "sh"):
        (evil / program).write_text(f"#!/bin/sh\necho {program} >> {mark}\n")
        (evil / program).chmod(0o755)
    environment = {
        "PYTHONPATH": str(evil), "PYTHONSTARTUP": str(evil / "os.py"), "HOME": str(evil),
        "PYTHONUSERBASE": str(evil / ".local"), "CANARY": str(mark), "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONBREAKPOINT": "os.abort",
        "PATH": f"{evil}:{os.environ['PATH']}", "LIFECYCLE_EVENT": "BeforeInstall",
        "DEPLOYMENT_ID": "d-1", "TMPDIR": str(placed.here), "ENV": str(evil / "sh"),
        "BASH_ENV": str(evil / "sh"), "LD_LIBRARY_PATH": str(evil),
    }  # fmt: skip
    script = Path(placed.bundle("b")) / "deploy.sh"
    for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]):
        done = subprocess.run([*shell, script], env=environment, cwd=evil, capture_output=True,
                              timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not mark.exists(), f"{shell}: {mark.read_text()}"
        count.add("hostile environments")


def test_naive_python_does_run_it(placed: World) -> None:
    """Without -I it would: the test above is able to fail."""
    evil, mark = placed.here / "evil", placed.here / "mark"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(CANARY)
    environment = {"PYTHONPATH": str(evil), "CANARY": str(mark), "PATH": os.environ["PATH"]}
    command = [sys.executable, str(placed.here / "agent.pyz"), "--version"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert mark.read_text() == "sitecustomize "


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["closed", "full", "nobody reads"])
@pytest.mark.parametrize("command", ["deploy", "rollback", "status", "nothing"])
def test_the_agent_with_an_output_that_fails(
    command: str, stream: str, placed: World, count: Count
) -> None:
    """What it says is talk: a deploy that went live is no failure because nobody listened."""
    placed.deploy("b")
    arguments = {
        "deploy": ["deploy", placed.bundle("b"), str(placed.store)],
        "rollback": ["rollback", "--target", str(placed.root)],
        "status": ["status", "--target", str(placed.root)],
        "nothing": ["status", "--target", str(placed.here)],
    }[command]
    redirect = {"closed": ">&-", "full": ">/dev/full", "nobody reads": "| true"}[stream]
    words = " ".join(f"'{word}'" for word in map(str, agent(placed, *arguments)))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} {redirect}"], capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, done.stderr
    assert done.returncode == (4 if command == "nothing" else 0), done
    assert placed.link.startswith("releases/a" if command == "rollback" else "releases/b")
    count.add("hostile environments")


def test_a_user_without_a_name_pins(placed: World, count: Count) -> None:
    """As in a container that runs as any number, with nothing in its environment."""
    os.chmod(placed.store / "ledger", 0o777)

    def pin() -> None:
        os.environ.clear()
        workflow.pin("a", config=placed.config, reason="x", disk=placed.disk)

    assert as_user(NOBODY - 77, pin) == ""
    with placed.ledger() as ledger:
        assert [pin.by for pin in ledger.pins()] == [f"user {NOBODY - 77}"]
    count.add("hostile environments")


def test_a_pin_that_nobody_could_read_is_not_written(placed: World, count: Count) -> None:
    """Who reads all pins stops at one that is unreadable: it may be needed."""
    with pytest.raises(ConfigError, match="'reason' must be a text of at most 4096"):
        workflow.pin("a", config=placed.config, reason="x" * 5000, disk=placed.disk)
    with placed.ledger() as ledger:
        assert ledger.pins() == []
    count.add("hostile arguments")


@pytest.mark.parametrize("name", ["DEPLOYMENT_ID", "DEPLOYMENT_GROUP_NAME"])
def test_a_name_too_long_for_the_history_is_refused_before_anything_is_done(
    name: str, placed: World, count: Count
) -> None:
    """The row could be written, and never be read again: no way back."""
    environment = {b"PATH": os.environb[b"PATH"], b"LIFECYCLE_EVENT": b"BeforeInstall",
                   name.encode(): b"x" * 5000}  # fmt: skip
    before = (placed.inner / "history.jsonl").read_bytes()
    command = agent(placed, "hook", placed.bundle("b"), str(placed.store))
    assert answers(command, environment, placed.here).returncode == 2
    assert placed.link == "releases/a.1" and placed.releases() == ["a.1"]
    assert (placed.inner / "history.jsonl").read_bytes() == before
    count.add("hostile environments")
