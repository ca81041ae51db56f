"""Hooks: what they get, how long they may take, and what is said when they fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import CountingDisk
from moorline import hooks
from moorline.errors import ConfigError, HookFailed, Mismatch
from moorline.hooks import Moment, run_hook
from moorline.manifest import Manifest
from moorline.settings import Hook
from trees import Content, directory_entry, file_entry, link_entry, write_tree
from world import flip, script

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")

PROGRAM = script("pwd; echo $0")
RELEASE: dict[str, Content] = {
    "bin/run": PROGRAM, "bin/plain": (PROGRAM[0], 0o644), "bin/link": "run",
}  # fmt: skip


@pytest.fixture
def release(here: Path) -> Path:
    return write_tree(here / "release", RELEASE)


def moment(release: Path, *, private_copy: bool = False, **variables: str) -> Moment:
    manifest = Manifest.of(
        [
            directory_entry(),
            directory_entry(b"bin"),
            file_entry(b"bin/run", PROGRAM[0], 0o755),
            file_entry(b"bin/plain", PROGRAM[0], 0o644),
            link_entry(b"bin/link", b"run"),
        ]
    )
    return Moment("b", "a", str(release), "PROD", "deploy", manifest, private_copy, variables or {})


def run(release: Path, *words: str, private_copy: bool = False, **fields: Any) -> None:
    hook = Hook(run=words, **fields)
    run_hook(CountingDisk(), hook, moment(release, private_copy=private_copy), "check")


def shell(release: Path, line: str, **fields: Any) -> None:
    run(release, "sh", "-c", line, **fields)


def failure(release: Path, line: str, **fields: Any) -> str:
    with pytest.raises(HookFailed) as caught:
        shell(release, line, **fields)
    return caught.value.message


# -- what a hook gets -----------------------------------------------------------------------------


def test_a_hook_gets_exactly_the_documented_variables(
    here: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "LD_PRELOAD_X", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "/leak")
    hook = Hook(run=("sh", "-c", f"env -0 > {here}/env"))
    run_hook(CountingDisk(), hook, moment(release, DEPLOYMENT_ID="d-1"), "check")
    lines = (here / "env").read_bytes().split(b"\0")[:-1]
    found = dict(line.decode().split("=", 1) for line in lines)
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):  # the shell's own
        found.pop(name, None)

    assert set(found) == {
        "PATH", "LANG", "HOME", "USER", "MOORLINE_ID", "MOORLINE_PREVIOUS", "MOORLINE_RELEASE",
        "MOORLINE_STAGE", "MOORLINE_REASON", "DEPLOYMENT_ID",
    }  # fmt: skip
    assert found["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (found["MOORLINE_ID"], found["MOORLINE_PREVIOUS"]) == ("b", "a")
    assert (found["MOORLINE_STAGE"], found["MOORLINE_REASON"]) == ("PROD", "deploy")
    assert (found["MOORLINE_RELEASE"], found["DEPLOYMENT_ID"]) == (str(release), "d-1")


def test_variables_from_outside_cannot_replace_moorline_s_own(here: Path, release: Path) -> None:
    hook = Hook(run=("sh", "-c", f"echo $MOORLINE_ID $PATH > {here}/out"))
    run_hook(CountingDisk(), hook, moment(release, MOORLINE_ID="x", PATH="/tmp"), "check")
    assert (here / "out").read_text() == f"b {hooks.PATH}\n"


@pytest.fixture
def typed(here: Path) -> Iterator[None]:
    """The agent itself has something to read."""
    (here / "typed").write_text("typed")
    kept, fd = os.dup(0), os.open(here / "typed", os.O_RDONLY)
    os.dup2(fd, 0)
    yield
    os.dup2(kept, 0)
    os.close(kept)
    os.close(fd)


@pytest.mark.usefixtures("typed")
def test_a_hook_runs_in_its_release_with_nothing_to_read(here: Path, release: Path) -> None:
    shell(release, f"pwd > {here}/pwd; cat > {here}/stdin")
    assert (here / "pwd").read_text() == f"{release}\n"
    assert (here / "stdin").read_bytes() == b""


def test_words_reach_the_program_as_they_are(here: Path, release: Path) -> None:
    words = ("$HOME", "a b", "", "'", "*", "\u00e9")
    run(release, "sh", "-c", f'printf "%s\\n" "$@" > {here}/out', "sh", *words)
    assert (here / "out").read_text() == "".join(word + "\n" for word in words)


def test_a_hook_has_no_open_files_of_the_agent(here: Path, release: Path) -> None:
    with (here / "secret").open("w"):
        shell(release, f"ls -l /proc/self/fd > {here}/out")
    assert str(here / "secret") not in (here / "out").read_text()


# -- how it ends ----------------------------------------------------------------------------------


def test_what_a_failing_hook_printed_is_in_the_message(release: Path) -> None:
    said = failure(release, "echo to stdout; echo to stderr >&2; exit 3")
    assert said == (
        "check hook failed: sh -c echo to stdout; echo to stderr >&2; exit 3: ended with 3. "
        "It printed: to stdout\nto stderr"
    )


def test_a_hook_that_is_killed_says_by_what(release: Path) -> None:
    assert "was killed by SIGSEGV" in failure(release, "kill -SEGV $$")
    assert f"was killed by signal {signal.SIGRTMIN + 3}" in failure(
        release, f"kill -{signal.SIGRTMIN + 3} $$"
    )


def test_output_that_is_no_utf_8_is_shown_all_the_same(release: Path) -> None:
    assert "a\ufffdb" in failure(release, r"printf 'a\377b'; false")


def test_a_hook_that_prints_10_mb_is_read_but_not_kept(release: Path) -> None:
    said = failure(release, "head -c 10000000 /dev/zero | tr '\\0' x; echo the end; false")
    assert said.endswith("xxxthe end")
    assert len(said) < hooks.TAIL_BYTES + 300
    shell(release, "head -c 10000000 /dev/zero")


def test_a_hook_that_hangs_is_ended_after_its_time(release: Path) -> None:
    began = time.monotonic()
    said = failure(release, "echo begun; exec sleep 300", timeout_s=1)

    assert "did not end within 1 s. It printed: begun" in said
    assert time.monotonic() - began < 60  # a second, were the machine not shared


def alive(pid: int) -> bool:
    try:
        return b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")")[-1].split()[0]
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Whether a process that was sent SIGKILL is gone soon."""
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_all_of_a_hook_is_ended_also_what_ignores_to_be_asked(
    here: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "TERMINATE_S", 0.2)
    deaf = script(f"trap '' TERM; echo $$ > {here}/deaf; sleep 300 & wait; sleep 300")
    write_tree(release, {"deaf": deaf})
    said = failure(release, f"./deaf & echo $$ > {here}/leader; wait", timeout_s=1)

    assert "did not end within 1 s" in said
    pids = [int((here / name).read_text()) for name in ("deaf", "leader")]
    assert pids[0] != pids[1]
    assert [ends(pid) for pid in pids] == [True, True]


def test_a_leader_that_ignores_to_be_asked_is_ended_too(
    here: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "TERMINATE_S", 0.2)
    failure(release, f"trap '' TERM; echo $$ > {here}/pid; while :; do sleep 1; done", timeout_s=1)
    assert not alive(int((here / "pid").read_text()))


def test_a_hook_that_ends_when_it_is_asked_may_tidy_up(here: Path, release: Path) -> None:
    failure(
        release, f"trap 'echo tidy > {here}/out; exit' TERM; sleep 300 & wait", timeout_s=1
    )  # fmt: skip
    assert (here / "out").read_text() == "tidy\n"


def test_a_child_in_the_background_that_keeps_the_output_open_is_not_waited_for(
    here: Path, release: Path
) -> None:
    began = time.monotonic()
    shell(release, f"sleep 300 & echo $! > {here}/pid; echo started")
    pid = int((here / "pid").read_text())

    assert time.monotonic() - began < 60
    assert alive(pid)  # a service that a hook starts stays
    os.kill(pid, signal.SIGKILL)


def test_a_hook_that_closes_its_output_is_waited_for(here: Path, release: Path) -> None:
    shell(release, f"exec >&- 2>&-; sleep 0.1; echo done > {here}/out")
    assert (here / "out").read_text() == "done\n"


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_ends_all_of_the_hook(here: Path, release: Path) -> None:
    full_pipe = "head -c 100000 /dev/zero"  # so it goes on only once somebody reads
    line = f"{full_pipe}; echo $$ > {here}/pid; kill -INT $PPID; exec sleep 300"
    with pytest.raises(KeyboardInterrupt):
        shell(release, line)
    assert not alive(int((here / "pid").read_text()))


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("no-such-program", "No such file or directory"),
        ("/no/such/program", "No such file or directory"),
        ("/etc", "Permission denied"),
        ("./bin/plain", "Permission denied"),
    ],
)
def test_what_cannot_be_run_says_why(release: Path, word: str, reason: str) -> None:
    with pytest.raises(HookFailed, match=f"{word}: cannot be run: {reason}"):
        run(release, word)


def test_a_file_that_is_no_program_says_so(release: Path) -> None:
    (release / "bin" / "run").write_bytes(b"no shebang")
    with pytest.raises(HookFailed, match="cannot be run: Exec format error"):
        run(release, "./bin/run")


def test_a_release_that_is_gone_is_a_failure(here: Path) -> None:
    with pytest.raises(HookFailed, match="cannot be run: No such file"):
        run(here / "gone", "true")


# -- retries --------------------------------------------------------------------------------------


def test_a_hook_is_tried_as_often_as_it_may_be(here: Path, release: Path) -> None:
    said = failure(release, f"echo x >> {here}/tries; false", retries=2, retry_wait_s=0)
    assert "check hook failed (3 times)" in said
    assert (here / "tries").read_text() == "x\n" * 3


def test_between_two_tries_it_waits(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("moorline.hooks.time.sleep", slept.append)
    monkeypatch.setattr(hooks, "_run", lambda *arguments: "no")
    failure(release, "false", retries=3, retry_wait_s=7)
    assert slept == [7, 7, 7]


# -- as another user ------------------------------------------------------------------------------


@as_root
def test_a_hook_can_run_as_another_user(here: Path, release: Path) -> None:
    (here / "out").touch()
    (here / "out").chmod(0o666)
    shell(
        release,
        f"id -un > {here}/out; id -G >> {here}/out; echo $USER >> {here}/out",
        user="nobody",
    )
    name, groups, user = (here / "out").read_text().splitlines()

    assert (name, user) == ("nobody", "nobody")
    assert "0" not in groups.split()


@as_root
def test_a_program_of_the_build_runs_as_another_user(release: Path) -> None:
    run(release, "./bin/run", user="nobody")
    run(release, "./bin/run", user="nobody", private_copy=True)


def test_an_unknown_user_is_a_mistake_in_the_settings(release: Path) -> None:
    with pytest.raises(ConfigError, match="no user 'ghost' on this host"):
        run(release, "true", user="ghost")


@as_root
def test_only_root_can_become_another_user(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorline.hooks.os.geteuid", lambda: 65534)
    with pytest.raises(ConfigError, match="as 'root': only root can do that"):
        run(release, "true", user="root")
    run(release, "true", user="nobody")


# -- programs of the build ------------------------------------------------------------------------


def test_a_program_of_the_build_is_run_where_it_lies(here: Path, release: Path) -> None:
    with pytest.raises(HookFailed, match=f"{release}/bin/run"):
        (release / "bin" / "run").write_bytes(b"#!/bin/sh\necho $0; false\n")
        run(release, "./bin/run")


@pytest.mark.parametrize("name", ["./bin/none", "./bin", "./bin/link", "./"])
def test_only_a_file_of_the_manifest_is_run(release: Path, name: str) -> None:
    (release / "bin" / "none").write_bytes(b"#!/bin/sh\n")
    (release / "bin" / "none").chmod(0o755)
    with pytest.raises(ConfigError, match="the build has no file"):
        run(release, name)


def test_on_the_share_a_verified_private_copy_is_run(here: Path, release: Path) -> None:
    run(release, "./bin/run", private_copy=True)
    assert not list(here.glob("moorline-hook-*"))
    flip(release / "bin" / "run")
    with pytest.raises(Mismatch, match=r"bin/run was changed in .*. It was not run") as error:
        run(release, "./bin/run", private_copy=True)
    assert error.value.exit_code == 3


def test_the_private_copy_is_gone_afterwards(
    here: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(here))
    seen: list[str] = []
    real = hooks._watch

    def watch(child: Any, timeout_s: int) -> str:
        seen.extend(str(path) for path in here.glob("moorline-hook-*/program"))
        return real(child, timeout_s)

    monkeypatch.setattr(hooks, "_watch", watch)
    run(release, "./bin/run", private_copy=True)
    assert len(seen) == 1
    assert not list(here.glob("moorline-hook-*"))
