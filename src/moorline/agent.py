"""What runs on a target: one call for each CodeDeploy event, and the 3 a.m. commands.

This file and what it imports are the agent's zipapp: standard library only, Python 3.9 language.

    hook BUNDLE STORE [TARGET] one of BeforeInstall, ApplicationStart, ValidateService, by the
                               variable LIFECYCLE_EVENT; what deploy.sh runs
    deploy BUNDLE STORE        all three at once, on a machine without CodeDeploy
    rollback [--to ID]         the previous good release live again; the share is not needed
    status, verify             what is live, and whether it is still what CI made

CodeDeploy shows the last 2 KB of what a script prints: so the verdict comes last, in plain ASCII.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from typing import Optional

from moorline import __version__
from moorline.bundle import Bundle, read_bundle
from moorline.disk import Disk
from moorline.errors import (
    ConfigError,
    Conflict,
    Error,
    Interrupted,
    Mismatch,
    translated,
)
from moorline.golive import GoLive
from moorline.history import Deploying, previous_of
from moorline.proof import prove
from moorline.target import Target, open_target
from moorline.wanted import Wanted, back_to, from_bundle, host_policy

MOST_PROBLEMS = 20
MOST_LINE = 400
MOST_VERDICT = 480
_PASSED_ON = ("LIFECYCLE_EVENT", "DEPLOYMENT_ID", "APPLICATION_NAME", "DEPLOYMENT_GROUP_NAME",
              "DEPLOYMENT_GROUP_ID")  # fmt: skip
_ODD = re.compile(r"[^ -~]")


def main(arguments: Optional[list[str]] = None) -> int:
    """Run one command and return its exit code; `errors` lists the codes."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with translated(options.command):
            options.run(Disk(), options)
    except KeyboardInterrupt:
        return _report(
            Interrupted("interrupted: what was unfinished here is cleaned by the next deploy.")
        )
    except Error as error:
        return _report(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="moorline-agent", description="Moorline on a target.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    hook = commands.add_parser("hook", help="one CodeDeploy event (LIFECYCLE_EVENT)")
    hook.set_defaults(run=_hook)
    deploy = commands.add_parser("deploy", help="prepare, switch and check in one go")
    deploy.set_defaults(run=_deploy)
    for command in (hook, deploy):
        command.add_argument("bundle", help="the bundle: a folder or a zip")
        command.add_argument("store", help="where this machine mounts the store")
    hook.add_argument("target", nargs="?", default="", help="the target's root, when known")
    deploy.add_argument("--target", default="", help="default: the root in the settings")
    deploy.add_argument("--stage", default="", help="the group whose overrides apply")
    rollback = commands.add_parser("rollback", help="the previous good release live again")
    rollback.add_argument("--to", default="", help="this build instead of the previous one")
    rollback.add_argument("--store", default="", help="only for a release that is not held here")
    rollback.add_argument("--trust-store", action="store_true")
    rollback.set_defaults(run=_rollback)
    status = commands.add_parser("status", help="what is live here")
    status.set_defaults(run=_status)
    check = commands.add_parser("verify", help="hash what is live here, completely")
    check.set_defaults(run=_verify)
    for command in (rollback, status, check):
        command.add_argument(
            "--target", default=_own_target(), help="default: where this file lies"
        )
    return parser


def _own_target() -> str:
    """The target that this agent file belongs to: <target>/.moorline/agents/<sha256>.pyz."""
    here = os.path.dirname(os.path.abspath(sys.argv[0]))
    inside = here.endswith("/.moorline/agents")
    return here[: -len("/.moorline/agents")] if inside else os.getcwd()


# -- commands -------------------------------------------------------------------------------------


def _hook(disk: Disk, options: argparse.Namespace) -> None:
    event = os.environ.get("LIFECYCLE_EVENT", "")
    steps = {"BeforeInstall": _prepare, "ApplicationStart": _switch, "ValidateService": _check}
    if event not in steps:
        raise ConfigError(
            f"LIFECYCLE_EVENT is {event!r}: this script is for {', '.join(steps)} in appspec.yml."
        )
    bundle = read_bundle(disk, options.bundle)
    wanted = _wanted(disk, bundle, options.store, "", os.environ, options.target)
    with open_target(disk, _root(wanted)) as target, target.lock():
        steps[event](GoLive(disk, target, wanted))


def _wanted(
    disk: Disk,
    bundle: Bundle,
    store: str,
    root: str,
    variables: Mapping[str, str],
    kept_at: str = "",
) -> Wanted:
    """The bundle's build as this host wants it: /etc/moorline.toml may name the store's path."""
    return from_bundle(
        disk,
        bundle,
        store=host_policy(disk).store or store,
        root=root,
        stage=variables.get("DEPLOYMENT_GROUP_NAME", ""),
        deployment=variables.get("DEPLOYMENT_ID", ""),
        variables={name: variables[name] for name in _PASSED_ON if name in variables},
        kept_at=kept_at,
    )


def _root(wanted: Wanted) -> str:
    if wanted.settings.root:
        return wanted.settings.root
    raise ConfigError(
        "no target is named: set 'root' in the table [target] of moorline.toml, and publish again."
    )


def _prepare(go: GoLive) -> None:
    deploying = go.prepare()
    placed = go.outcome.placed
    _notes(go)
    _say(
        f"prepared {deploying.release.id} on {go.target.root}: {placed.verified_files} files "
        f"verified, {placed.copied_files} copied ({placed.copied_bytes} bytes), "
        f"{placed.reused_files} reused"
    )


def _under_way(go: GoLive) -> Optional[Deploying]:
    """This deployment as its earlier process left it; None when it was completed already."""
    deploying = go.target.deploying()
    wanted = go.wanted
    ours = deploying is not None and deploying.deployment == wanted.deployment
    if deploying is not None and ours and deploying.release.id == wanted.id:
        return deploying
    live = go.target.live(go.target.history())
    passed = live is not None and live.step != "intended"
    if live is not None and passed and (live.id, live.digest) == (wanted.id, wanted.digest):
        return None
    raise Conflict(
        f"build {wanted.id} was not prepared on {go.target.root} by this deployment, or was "
        "overtaken by another. Nothing was switched. Deploy again.",
        live=go.target.live_id(),
    )


def _switch(go: GoLive) -> None:
    deploying = _under_way(go)
    if deploying is not None and deploying.phase == "preparing":
        raise Conflict(
            f"build {go.wanted.id} is not prepared: BeforeInstall did not end. Deploy again.",
            live=go.target.live_id(),
        )
    if deploying is not None and deploying.phase == "prepared":
        go.switch(deploying)
    _notes(go)
    _say(f"{go.wanted.id} is live on {go.target.root}")


def _check(go: GoLive) -> None:
    deploying = _under_way(go)
    if deploying is not None:
        if deploying.phase != ("prepared" if deploying.already else "switched"):
            raise Conflict(
                f"build {go.wanted.id} is not live: ApplicationStart did not end. Deploy again.",
                live=go.target.live_id(),
            )
        go.check(deploying)
        go.finish(deploying)
    _notes(go)
    _say(f"{go.wanted.id} is live on {go.target.root} and passed its check")


def _deploy(disk: Disk, options: argparse.Namespace) -> None:
    bundle = read_bundle(disk, options.bundle)
    variables = {"DEPLOYMENT_GROUP_NAME": options.stage}
    wanted = _wanted(disk, bundle, options.store, options.target, variables)
    with open_target(disk, _root(wanted)) as target, target.lock():
        go = GoLive(disk, target, wanted)
        go.run()
        _notes(go)
        _say(f"{wanted.id} is live on {target.root}")


def _rollback(disk: Disk, options: argparse.Namespace) -> None:
    with open_target(disk, options.target, make=False) as target, target.lock():
        wanted = back_to(
            target, options.to, store=options.store, trust_store=options.trust_store
        )  # fmt: skip
        go = GoLive(disk, target, wanted)
        go.run()
        _notes(go)
        _say(f"{wanted.id} is live again on {target.root}")


def _status(disk: Disk, options: argparse.Namespace) -> None:
    with open_target(disk, options.target, make=False) as target:
        rows = target.history()
        live, before = target.live(rows), previous_of(rows, target.live_id())
        _say(f"target    {target.root}")
        _say(f"live      {live.id if live else '-'}  {target.current()}")
        _say(f"previous  {before.id if before else '-'}")


def _verify(disk: Disk, options: argparse.Namespace) -> None:
    with open_target(disk, options.target, make=False) as target:
        live = verify_live(disk, target)
        _say(f"{live} on {target.root} is what CI made")


def verify_live(disk: Disk, target: Target) -> str:
    """The id of what is live, after hashing all of it. Raises NotFound, Mismatch."""
    live, found = prove(disk, target)
    if found.problems:
        raise Mismatch(
            f"build {live.id} on {target.root} does not match its manifest: {len(found.problems)} "
            "problem(s). Deploy its bundle again: that repairs it.",
            problems=found.problems,
            live=live.id,
        )
    return live.id


# -- printing -------------------------------------------------------------------------------------


def _notes(go: GoLive) -> None:
    for note in go.outcome.notes:
        _say(f"note: {note}")


def _say(text: str) -> None:
    _print(_plain(text)[:MOST_LINE])


def _print(text: str) -> None:
    """A stdout that is full, or that nobody reads, is no reason to fail: the deploy is what counts,
    and the exit code tells of it."""
    try:
        print(text, flush=True)
    except OSError:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())  # where the rest of it goes, also at the end
            os.close(null)


def _plain(text: str) -> str:
    """On one line of printable ASCII: a hook may have printed anything."""
    return _ODD.sub(
        lambda odd: odd.group().encode("unicode_escape").decode(), text.replace("\n", " | ")
    )


def _report(error: Error) -> int:
    """Problems first, the verdict last: what failed, what is live, what to do."""
    for problem in error.problems[:MOST_PROBLEMS]:
        _say(f"  {problem.path[-150:]}: {problem.problem[:100]}"[:170])
    if len(error.problems) > MOST_PROBLEMS:
        _say(f"  and {len(error.problems) - MOST_PROBLEMS} more")
    verdict = _plain(error.message)
    end = (f" Live: {error.live}." if error.live else "") + f" (exit {error.exit_code})"
    room = MOST_VERDICT - len(end)
    if len(verdict) > room:  # what failed stands at its beginning, what to do at its end
        verdict = f"{verdict[: room // 2]} ... {verdict[len(verdict) - room // 2 + 5 :]}"
    _print(f"moorline: {verdict}{end}")
    return error.exit_code
