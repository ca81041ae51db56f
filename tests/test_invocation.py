"""Signals, pipes, terminals, completion: the command line as a process among others.

The verbs are small fakes here: what counts is what arrives on stdout and stderr, and the exit code.
"""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-W", "error", "-c", "from moorline.command import main; main()")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("MOORLINE_", "CODEBUILD_")) or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


WAITING = """
import signal, sys
from moorline import command, results, workflow
def verb(*arguments, **options):
    try:
        print("ready", file=sys.stderr, flush=True)
        signal.pause()
    finally:
        print("cleaned", file=sys.stderr, flush=True)
workflow.publish = verb
command.main()
"""


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cleans_up_and_says_what_remains(number: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITING, "publish", "d", "--store", "s"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)

    assert (process.returncode, stdout) == (130, "")
    assert stderr == (
        "cleaned\nmoorline: interrupted. What was published or live before still is, as it was. "
        "Run the same command again: nothing that this run left unfinished is taken for done.\n"
    )


MANY = """
from moorline import command, results, workflow
from moorline.build import Build
build = Build("shop-41", "0" * 64, 1, 1, "0" * 16, 1790000000, 1, 1)
workflow.builds = lambda config: [results.BuildLine(build, True, (), ())] * 20000
command.main()
"""


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-c", MANY, "builds", "--store", "s"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("build")
        process.stdout.close()
        stderr = process.stderr.read()

    assert (process.wait(), stderr) == (0, "")


def test_a_result_that_cannot_be_written_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", MANY, "builds", "--store", "s"]
        done = subprocess.run(command, stdout=full, stderr=-1, text=True)

    assert done.returncode == 1
    assert done.stderr.startswith("moorline: writing the result to stdout failed: No space left")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams_are_no_error(closed: int) -> None:
    command = shlex.join([sys.executable, "-c", MANY, "builds", "--store", "s"])

    done = subprocess.run(["sh", "-c", f"{command} {closed}>&-"], capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stderr == ""


WORKING = """
import sys
from moorline import command, meter, results, screen, workflow
meter.LINE_EVERY_S = screen.BAR_AFTER_S = 0
result = results.PublishResult("shop-41", "0" * 64, 1, 10, 1, 10, 0, 0.1, None, 0, False, 0, ())
def verb(source, *, config, id, bundle, progress, dry_run):
    progress(5000000, 10000000, "hashing")
    return result
workflow.publish = verb
command.main()
"""


def test_a_log_gets_plain_lines_and_only_data_is_on_stdout() -> None:
    command = [sys.executable, "-c", WORKING, "publish", "d", "--store", "s"]

    done = subprocess.run(command, capture_output=True, text=True)
    quiet = subprocess.run([*command, "-q"], capture_output=True, text=True)

    lines = done.stderr.splitlines()
    assert done.stdout == quiet.stdout == "shop-41\n"
    assert lines[0].startswith("hashing: 5.0 MB of 10 MB")
    assert lines[1].startswith("published shop-41 to s (digest 00000000): 1 file, 1 new (10 bytes)")
    assert len(lines) == 2
    assert quiet.stderr == ""


def test_json_has_no_summary_and_verbose_has_every_field() -> None:
    command = [sys.executable, "-c", WORKING, "publish", "d", "--store", "s"]

    as_json = subprocess.run([*command, "--json", "-q"], capture_output=True, text=True)
    verbose = subprocess.run([*command, "-v"], capture_output=True, text=True)

    assert json.loads(as_json.stdout)["id"] == "shop-41"
    assert as_json.stderr == ""
    assert "linked_files: 0\n" in verbose.stderr


def on_terminal(command: list[str], **variables: str) -> str:
    """What the command writes to a terminal that is its stdout and its stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **variables}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    text = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            text += os.read(ours, 65536)
        except OSError:  # EIO: the other side is closed
            break
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


def test_a_terminal_gets_a_bar_a_summary_and_the_next_command() -> None:
    shown = on_terminal([sys.executable, "-c", WORKING, "publish", "d", "--store", "s"])

    assert "hashing" in shown
    assert "\x1b[?25h" in shown  # the cursor is back
    assert shown.endswith("next: moorline deploy shop-41 --target DIR\r\n")


def test_colours_are_for_terminals_that_want_them() -> None:
    code = MANY.replace("* 20000", "")
    command = [sys.executable, "-c", code, "builds", "--store", "s"]
    coloured, plain = on_terminal(command), on_terminal(command, NO_COLOR="1")

    assert "\x1b[1m" in coloured
    assert "─" in plain
    assert "\x1b[3" not in plain


# -- shell completion -----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    environment = {**os.environ, "_MOORLINE_COMPLETE": f"{shell}_source"}

    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True)

    assert done.returncode == 0
    assert "_MOORLINE_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "completed"), [("moorline pub", "publish"), ("moorline deploy --m", "--mode")]
)
def test_words_are_completed(words: str, completed: str) -> None:
    environment = {
        **os.environ,
        "_MOORLINE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }

    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True)

    assert done.stdout == f"plain,{completed}\n"
