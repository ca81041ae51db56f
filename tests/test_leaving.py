"""A process ends at once, with what was printed printed, and with its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TORN_DOWN = """
import atexit, sys
from moorline.leaving import leave
class Loud:
    def __del__(self):
        sys.stderr.write("freed")
kept = Loud()
atexit.register(sys.stderr.write, "taken apart")
"""


def run(script: str, shell: str = '"$@"') -> tuple[int, str]:
    """The exit code, and all that it said."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-I", "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("code", [0, 1, 130])
def test_nothing_is_taken_apart_and_nothing_is_lost(code: int) -> None:
    script = f"{TORN_DOWN}sys.stdout.write('result')\nleave({code})"

    assert run(script) == (code, "result")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", ">/dev/full"])
def test_output_that_cannot_be_written_changes_no_exit_code(closed: str) -> None:
    script = "from moorline.leaving import leave\nprint('result', end='')\nleave(3)"

    assert run(script, shell=f'"$@" {closed}')[0] == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["--version"], 0, "moorline "), (["publish"], 2, "moorline: "), ([], 0, "Usage:")],
)
def test_the_command_leaves_with_the_exit_code_of_its_verb(
    words: list[str], code: int, said: str
) -> None:
    script = f"{TORN_DOWN}from moorline.command import main\nsys.argv[1:] = {words}\nmain()"
    found, text = run(script)

    assert (found, text[: len(said)]) == (code, said)
    assert "taken apart" not in text


def test_the_installed_script_starts_the_command() -> None:
    script = Path(sys.executable).with_name("moorline")

    assert "from moorline.command import main" in script.read_text()
