"""One run of the command line: its options, what it says where, and its exit code.

stdout is data, stderr is talk. With --json there is one object on stdout, for a failure too.
Every error becomes a message and an exit code here; a traceback is shown only with --debug.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, TextIO

import click

from moorline.config import CONFIG_NAME, Config, load_config
from moorline.errors import ConfigError, Error, Interrupted, from_os_error
from moorline.meter import Lines, Meter, Silent
from moorline.output import Outcome, failure_fields, problem_lines
from moorline.settings import Hook
from moorline.wording import Listing, printable

EXIT_CODES = """\
\b
Exit codes:
  0    done
  1    failed
  2    usage or configuration: nothing was done
  3    content does not match its manifest
  4    not found
  5    busy or conflict: id taken, lock held, overtaken
  6    went live, a hook failed, the old release is live again
  7    the same, but putting the old release back failed
  130  interrupted
"""

INTERRUPTED = (
    "interrupted. What was published or live before still is, as it was. Run the same command "
    "again: nothing that this run left unfinished is taken for done."
)
"""A deploy that got as far as its target says instead what is live there: `GoLive.run`."""


class _StdoutFailed(Exception):
    """stdout cannot be written: not a failure of the verb."""


class Invocation:
    """What the options say. Made before the arguments are parsed, so that an error in them is
    reported as they ask for it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.verb = "moorline"
        self.config_file: str | None = None
        self.as_json = "--json" in arguments
        self.debug = "--debug" in arguments
        self.quiet = False
        self.verbose = False
        self._meter: Meter | None = None

    def start(self, verb: str, options: dict[str, Any]) -> None:
        """The options that every verb has, as they were parsed."""
        self.verb = verb
        self.config_file = options.pop("config_file")
        self.as_json = options.pop("as_json")
        self.quiet = options.pop("quiet")
        self.verbose = options.pop("verbose")
        self.debug = options.pop("debug")

    def config(self, **flags: str | None) -> Config:
        return load_config(self.config_file, os.environ, flags)

    # -- talk ---------------------------------------------------------------------------------

    @property
    def progress(self) -> Meter:
        if self._meter is None:
            if self.quiet or sys.stderr is None:
                self._meter = Silent()
            else:
                self._meter = _bar() if _is_terminal(sys.stderr) else Lines(sys.stderr)
        return self._meter

    def finish(self, outcome: Outcome) -> int:
        """Say what the verb has to say; returns the exit code."""
        self.close()
        if self.as_json:
            _write(sys.stdout, json.dumps(outcome.fields) + "\n")
        else:
            for block in outcome.data:
                _write(sys.stdout, _rendered(block) if isinstance(block, Listing) else block)
            if not self.quiet:
                self._talk(outcome)
        if outcome.failure is None:
            return 0
        if not self.as_json:
            self._say_error(outcome.failure)
        return outcome.failure.exit_code

    def _talk(self, outcome: Outcome) -> None:
        if self.verbose and not any(isinstance(block, Listing) for block in outcome.data):
            for name, value in outcome.fields.items():
                if not isinstance(value, list | dict):
                    say(f"{name}: {value}")
        for note in outcome.notes:
            say(note)
        if outcome.summary:
            say(outcome.summary)
        if outcome.then and _is_terminal(sys.stderr):
            say(f"next: {outcome.then}")

    def fail(self, error: Error) -> int:
        """Report `error`; returns its exit code."""
        self.close()
        if isinstance(error, Interrupted) and _is_terminal(sys.stderr):
            say("")  # below the ^C
        if self.as_json:
            _write(sys.stdout, json.dumps(failure_fields(error)) + "\n")
        else:
            self._say_error(error)
        return error.exit_code

    def _say_error(self, error: Error) -> None:
        say(error.message, "moorline: ")
        for line in problem_lines(error.problems):
            say(f"  {line}")

    def close(self) -> None:
        if self._meter is not None:
            self._meter.close()

    # -- errors -------------------------------------------------------------------------------

    def guard(self, call: Callable[[], Any]) -> int:
        """The exit code of `call`, whatever happens in it."""
        try:
            with _terminated():
                code = call()
            return code if isinstance(code, int) else 0
        except _StdoutFailed as error:
            return self._stdout_failed(error)
        except (Exception, KeyboardInterrupt) as error:
            if self.debug and not isinstance(error, click.ClickException):
                import traceback

                _write(sys.stderr, traceback.format_exc())
            try:
                return self.fail(self._understood(error))
            except _StdoutFailed as failed:
                return self._stdout_failed(failed)

    def _understood(self, error: BaseException) -> Error:
        """`error` as one that a user can read."""
        if isinstance(error, Error):
            return error
        if isinstance(error, click.UsageError):
            return ConfigError(_usage(error))
        if isinstance(error, click.ClickException):
            return Error(error.format_message())
        if isinstance(error, KeyboardInterrupt | click.Abort):
            return Interrupted(INTERRUPTED)
        kind = type(error).__name__
        return Error(
            f"{self.verb} failed: {kind}: {error}. This is a fault in Moorline itself. Run the "
            "same command with --debug and report what it prints."
        )

    def _stdout_failed(self, failed: _StdoutFailed) -> int:
        """Nobody reads: that is how `moorline builds | head` ends. A full disk is a failure."""
        cause = failed.__cause__
        with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(cause, OSError) or isinstance(cause, BrokenPipeError):
            return 0
        self._say_error(from_os_error(cause, "writing the result to stdout"))
        return 1


def say(text: str, prefix: str = "") -> None:
    """A line on stderr. A stderr that is closed or full is no reason to fail."""
    safe = "\n".join(map(printable, text.splitlines()))
    with contextlib.suppress(OSError, ValueError):
        if _is_terminal(sys.stderr):
            from moorline import screen  # see there: dear, and of no use in a log

            screen.say(prefix, safe)
        elif sys.stderr is not None:
            sys.stderr.write(f"{prefix}{safe}\n")
            sys.stderr.flush()


def _bar() -> Meter:
    from moorline import screen

    return screen.Bar(screen.talk_console())


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        raise _StdoutFailed from error


def _rendered(listing: Listing) -> str:
    """A table with a line under its titles on a terminal, plain aligned text elsewhere."""
    if not listing.columns or not _is_terminal(sys.stdout):
        return listing.text
    from moorline import screen

    return screen.rendered(listing)


def _usage(error: click.UsageError) -> str:
    message = error.format_message()
    message = f"{message[:1].lower()}{message[1:]}" + "." * (message[-1:] not in ".?!")
    if error.ctx is None:
        return message
    return f"{message} See '{error.ctx.command_path} --help'."


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that its cleaning up happens."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- click ----------------------------------------------------------------------------------------

_EVERY_VERB = (
    click.option("--config", "config_file", type=click.Path(), metavar="FILE",
                 help=f"Configuration file. [{CONFIG_NAME}; variable MOORLINE_CONFIG]"),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, failures too."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, no summary."),
    click.option("-v", "--verbose", is_flag=True, help="Say more about the result."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)  # fmt: skip


class Verbs(click.Group):
    """The group of all verbs, in the order in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run and exit: click's own handling of errors is replaced by that of Invocation."""
        given = extra.pop("args", args[0] if args else None)
        arguments = list(sys.argv[1:] if given is None else given) or ["--help"]
        invocation = Invocation(arguments)
        extra |= {"prog_name": "moorline", "standalone_mode": False, "obj": invocation}
        sys.exit(invocation.guard(functools.partial(super().main, arguments, **extra)))

    def verb(self, function: Callable[..., Outcome]) -> click.Command:
        """Make `function` a verb: it gets the invocation and its options; its result is said."""
        name = function.__name__

        @click.pass_obj
        def run(invocation: Invocation, /, **options: Any) -> int:
            invocation.start(name, options)
            try:
                return invocation.finish(function(invocation, **options))
            except KeyboardInterrupt as error:  # before click makes an Abort of it
                raise Interrupted(INTERRUPTED) from error
            except OSError as error:  # before click takes EPIPE for that of stdout
                raise from_os_error(error, name) from error

        command = click.command(name)(functools.update_wrapper(run, function))
        for option in _EVERY_VERB:
            option(command)
        self.add_command(command)
        return command


def check_hook(text: str) -> Hook:
    """--check: an address is asked, anything else is a program and its words, split as sh does."""
    if text.startswith(("http://", "https://")):
        return Hook(url=text)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}.", param_hint="'--check'") from None
    if not words:
        raise click.BadParameter("it is empty.", param_hint="'--check'")
    return Hook(run=tuple(words))
