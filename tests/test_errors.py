"""Errors: one exit code a situation, and an OSError in words that a user can act on."""

from __future__ import annotations

import errno
import inspect
import os

import pytest

from moorline import errors
from moorline.errors import Conflict, Error, Mismatch, Problem, from_os_error, translated

EXIT_CODES = {
    "Error": 1,
    "SourceChanged": 1,
    "ShareDead": 1,
    "HookFailed": 1,
    "ConfigError": 2,
    "UnknownFormat": 2,
    "SourceRefused": 2,
    "Unsafe": 2,
    "Mismatch": 3,
    "NotFound": 4,
    "Conflict": 5,
    "PutBack": 6,
    "PutBackFailed": 7,
    "Interrupted": 130,
}


def test_every_error_has_the_exit_code_that_is_documented() -> None:
    classes = {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Error) and kind.__module__ == errors.__name__
    }
    assert {name: kind.exit_code for name, kind in classes.items()} == EXIT_CODES


def test_an_error_holds_its_message_and_all_problems() -> None:
    problems = [Problem("a", "extra file"), Problem("b", "missing")]
    error = Mismatch("two differences", problems=problems, live="7")
    assert (str(error), error.message) == ("two differences", "two differences")
    assert error.problems == (("a", "extra file"), ("b", "missing"))
    assert error.live == "7"


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "Free space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.ESTALE, "same command again"),
        (errno.EIO, "system log"),
        (errno.ENOTEMPTY, "Nothing that was whole before has been changed"),
    ],
)
def test_an_os_error_says_what_where_and_what_to_do(code: int, cure: str) -> None:
    error = from_os_error(OSError(code, os.strerror(code), "/mnt/x"), "publish")
    assert error.message.startswith(f"publish failed: {os.strerror(code)}: /mnt/x. ")
    assert cure in error.message
    assert error.exit_code == 1


def test_both_names_of_an_os_error_are_shown() -> None:
    error = from_os_error(OSError(errno.EXDEV, "no", b"/a", None, b"/b\xff"), "deploy")
    assert "/a -> /b\udcff" in error.message


@pytest.mark.parametrize("name", [7, "7", b"7"])
def test_a_descriptor_in_place_of_a_name_is_left_out(name: object) -> None:
    error = from_os_error(OSError(errno.EIO, "bad disk", name), "verify")
    assert error.message.startswith("verify failed: bad disk. ")


def test_an_os_error_without_a_number_still_makes_a_message() -> None:
    assert from_os_error(OSError("odd"), "verify").message.startswith("verify failed: odd. ")


def test_translated_turns_os_errors_and_nothing_else() -> None:
    with pytest.raises(Error, match="prune failed: gone: /x") as caught, translated("prune"):
        raise OSError(errno.ENOENT, "gone", "/x")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(Conflict), translated("prune"):
        raise Conflict("held")
    with pytest.raises(ZeroDivisionError), translated("prune"):
        _ = 1 // 0
