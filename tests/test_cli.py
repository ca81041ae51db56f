"""The command line itself: help, exit codes, JSON, errors, what goes to which stream.

The verbs' behaviour, from init to rollback, is in test_cli_verbs.py; signals, pipes and terminals
are in test_invocation.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from moorline import __version__, errors, workflow
from moorline.cli import moorline
from moorline.errors import Problem
from moorline.settings import Hook

VERBS = [
    "init", "publish", "deploy", "rollback", "status", "builds", "show", "diff", "export",
    "history", "verify", "pin", "unpin", "demo",
]  # fmt: skip


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("MOORLINE_", "CODEBUILD_")) or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(moorline, arguments)


def raising(error: BaseException) -> Callable[..., Any]:
    def verb(*arguments: object, **options: object) -> Any:
        raise error

    return verb


def recording(calls: list[dict[str, Any]]) -> Callable[..., Any]:
    """A verb that notes how it was called and then fails."""

    def verb(*arguments: object, **options: Any) -> Any:
        calls.append({"arguments": arguments, **options})
        raise errors.NotFound("stop here.")

    return verb


# -- help -----------------------------------------------------------------------------------------


def test_the_verbs_are_those_of_the_design_in_its_order() -> None:
    assert moorline.list_commands(click.Context(moorline)) == VERBS


def test_without_arguments_there_is_help() -> None:
    assert run().exit_code == 0
    assert run().stdout == run("--help").stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_that_its_options_allow(verb: str) -> None:
    result = run(verb, "--help")
    examples = re.findall(rf"^ +(?:\w+=\$\()?(moorline {verb}\b.*?)\)?$", result.stdout, re.M)
    known = {name for option in moorline.commands[verb].params for name in option.opts}

    assert result.exit_code == 0
    assert examples
    for example in examples:
        used = {word for word in shlex.split(example) if word.startswith("--")}
        assert used - {"--fast"} <= known
    assert {"--config", "--json", "--quiet", "--verbose", "--debug"} <= known


@pytest.mark.parametrize("verb", ["publish", "deploy", "rollback"])
def test_verbs_that_change_builds_or_targets_have_a_dry_run(verb: str) -> None:
    assert "--dry-run" in run(verb, "--help").stdout


def test_the_version_is_the_package_s() -> None:
    assert run("--version").stdout == f"moorline {__version__}\n"


def test_starting_imports_nothing_that_is_large_and_not_needed() -> None:
    code = "import sys, moorline.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout

    for name in ("pygments", "markdown_it", "asyncio", "rich.traceback", "importlib.metadata"):
        assert name not in loaded.split()


# -- usage errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("publsh", "no such command 'publsh'"),
        ("publish", "missing argument 'DIR'. See 'moorline publish --help'."),
        ("builds --jsn", "no such option '--jsn'"),
        ("deploy b --mode move", "'move' is not one of 'copy', 'link'"),
        ('deploy b --check "sh -c \'"', "No closing quotation"),
        ("deploy b --check ''", "'--check': it is empty."),
        ("publish d --id ''", "'--id': it is empty."),
        ("rollback --target ''", "--target is empty"),
        ("verify", "give an ID, --target DIR or --all"),
        ("verify a --all", "an ID, --target and --all exclude each other"),
        ("pin a", "missing option '--reason'"),
        ("init", "no store is named"),
        ("builds", "no store is named. Give --store, set MOORLINE_STORE"),
        ("history", "no target is named. Give --target, set MOORLINE_TARGET"),
        ("builds --config no.toml", "no configuration at no.toml"),
    ],
)
def test_usage_errors_are_exit_code_2_in_text_and_json(line: str, message: str) -> None:
    text = run(*shlex.split(line))
    as_json = run(*shlex.split(line), "--json")

    assert (text.exit_code, text.stdout) == (2, "")
    assert text.stderr.startswith("moorline: ")
    assert message in text.stderr
    assert (as_json.exit_code, as_json.stderr) == (2, "")
    answer = json.loads(as_json.stdout)
    assert message in answer["error"]
    assert (answer["exit"], answer["problems"], answer["live"]) == (2, [], None)


def test_a_folder_name_that_is_no_app_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "my site").mkdir()
    os.chdir(tmp_path / "my site")

    result = run("init", "--store", str(tmp_path / "store"))

    assert result.exit_code == 2
    assert "'my site' is not a name for an application" in result.stderr
    assert "--app" in result.stderr
    assert not (tmp_path / "store").exists()


# -- errors of the verbs --------------------------------------------------------------------------

CASES = [
    (errors.Error("x."), 1),
    (errors.ConfigError("x."), 2),
    (errors.SourceRefused("x."), 2),
    (errors.Mismatch("x."), 3),
    (errors.NotFound("x."), 4),
    (errors.Conflict("x."), 5),
    (errors.PutBack("x."), 6),
    (errors.PutBackFailed("x."), 7),
    (errors.Interrupted("x."), 130),
    (KeyboardInterrupt(), 130),
    (PermissionError(13, "Permission denied", "/mnt/s"), 1),
    (BrokenPipeError(32, "Broken pipe"), 1),
    (KeyError("x"), 1),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: repr(value)[:20])
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "builds", raising(error))

    text = run("builds", "--store", "s")
    as_json = run("builds", "--store", "s", "--json")

    assert (text.exit_code, text.stdout) == (code, "")
    assert text.stderr.startswith("moorline: ")
    assert "Traceback" not in text.stderr
    assert (as_json.exit_code, as_json.stderr) == (code, "")
    answer = json.loads(as_json.stdout)
    assert (answer["exit"], set(answer)) == (code, {"error", "exit", "problems", "live"})


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "builds", raising(KeyError("x")))

    result = run("builds", "--store", "s", "--debug")

    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("moorline: builds failed: KeyError: 'x'.")


def test_an_error_of_the_system_names_verb_path_and_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        workflow, "publish", raising(OSError(28, "No space left", "/mnt/s/packs/1"))
    )

    result = run("publish", "d", "--store", "s")

    assert result.stderr == (
        "moorline: publish failed: No space left: /mnt/s/packs/1. The disk is full. Free space, "
        "then run the same command again.\n"
    )


def test_problems_follow_the_message_fifty_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [Problem(f"a/{n}", "is \x1b[31ma socket") for n in range(60)]
    error = errors.Mismatch("60 differences.", problems=problems, live="shop-40")
    monkeypatch.setattr(workflow, "builds", raising(error))

    lines = run("builds", "--store", "s").stderr.splitlines()
    answer = json.loads(run("builds", "--store", "s", "--json").stdout)

    assert lines[:2] == ["moorline: 60 differences.", "  a/0: is \\x1b[31ma socket"]
    assert (len(lines), lines[-1]) == (52, "  ... and 10 more (all of them: --json)")
    assert len(answer["problems"]) == 60
    assert answer["live"] == "shop-40"


# -- what the verbs are given ---------------------------------------------------------------------


def test_deploy_hands_on_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(workflow, "deploy", recording(calls))
    line = """deploy out.zip --target /srv/shop --mode link --stage PROD --dry-run
              --check "./bin/smoke 'two words'" --check http://localhost/ --store /mnt/s"""

    assert run(*shlex.split(line)).exit_code == 4

    call = calls[0]
    assert call["arguments"] == ("out.zip",)
    assert call["checks"] == (Hook(run=("./bin/smoke", "two words")), Hook(url="http://localhost/"))
    assert (call["target"], call["mode"], call["stage"]) == ("/srv/shop", "link", "PROD")
    assert call["dry_run"] is True
    assert call["config"].store == "/mnt/s"


def test_flag_variable_and_file_in_this_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(workflow, "publish", recording(calls))
    (tmp_path / "moorline.toml").write_text('[store]\npath = "file"\n')

    run("publish", "d")
    monkeypatch.setenv("MOORLINE_STORE", "variable")
    monkeypatch.setenv("MOORLINE_ID", "id-of-the-environment")
    run("publish", "d")
    run("publish", "d", "--store", "flag", "--id", "id-of-the-flag")

    assert [call["config"].store for call in calls] == ["file", "variable", "flag"]
    assert [call["id"] for call in calls] == [None, "id-of-the-environment", "id-of-the-flag"]


def test_verify_takes_the_target_of_the_environment_only_when_nothing_else_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(workflow, "verify", recording(calls))
    monkeypatch.setenv("MOORLINE_TARGET", "/srv/shop")

    for line in ("verify", "verify shop-41", "verify --all"):
        run(*line.split())

    assert [(c["target"], c["id"], c["everything"]) for c in calls] == [
        ("/srv/shop", None, False), (None, "shop-41", False), (None, None, True)
    ]  # fmt: skip
