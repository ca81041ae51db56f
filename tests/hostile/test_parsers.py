"""Every parser answers hostile bytes with a documented error, or with something safe to use.

The corpus is what people thought of; the rest are mutations of good files, with seeds that are the
same every time. `python -m hostile.fuzz` goes on with others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from counts import Count
from hostile.corpus import CORPUS
from hostile.fuzz import attempt
from hostile.parsers import NAMES, Parser, parsers, samples

EXAMPLES = 150


@pytest.fixture(scope="module")
def every() -> dict[str, Parser]:
    found = {parser.name: parser for parser in parsers()}
    assert tuple(found) == NAMES
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_good_is_accepted(name: str, every: dict[str, Parser]) -> None:
    for text in every[name].good:
        assert every[name].try_(text)


@pytest.mark.parametrize("name", NAMES)
def test_mutations_of_what_is_good(name: str, every: dict[str, Parser], count: Count) -> None:
    for seed in range(EXAMPLES):
        attempt(every[name], seed)
        count.add("hostile inputs")


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus(name: str, every: dict[str, Parser], count: Count) -> None:
    for text in CORPUS:
        try:
            every[name].try_(text)
        except BaseException as error:
            error.add_note(repr(text[:200]))
            raise
        count.add("hostile inputs")


@pytest.mark.parametrize("name", NAMES)
def test_a_good_file_of_another_kind(name: str, every: dict[str, Parser], count: Count) -> None:
    for texts in samples().values():
        for text in texts:
            every[name].try_(text)
            count.add("hostile inputs")


@pytest.mark.parametrize("start", [b"", b"\n", b"x\n"])
def test_a_newest_manifest_without_its_beginning_is_none(
    start: bytes, every: dict[str, Parser], count: Count
) -> None:
    """Its first line is a file then, and there is one row less than files."""
    _, _, lines = every["base"].good[0].partition(b"\nf ")
    assert not every["base"].try_(start + b"f " + lines)
    count.add("hostile inputs")


# Fields of records that become names, arguments or times, each with what it must not hold.
PLANTED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "row": ("settings", ("../../x", "x", "0" * 63, "\ud800")),
    "row agent": ("agent", ("../../x", "0" * 65, 7)),
    "row place": ("place", ("../x", "releases/../../x", "releases/.x", "/a/../tree", "x", "/etc",
                            "releases/a/b", "\udc00" * 9, "\ud800")),
    "row id": ("id", ("..", "a/b", "", "-x", ".x", "a" * 101, "\u0661", "a\n")),
    "build": ("created", (-1, 10**11, 1 << 62, 1 << 63, 1.5, "7", None, True)),
    "build sequence": ("sequence", (-1, 1 << 63, "1", "\u0661", 1e3)),
    "build token": ("token", ("", "x" * 16, "0" * 15, "0" * 17, "0" * 16 + "\n", "../../../../x")),
    "pin": ("reason", ("\ud800", "\0", "a" * 4097, 7, None)),
    "ledger-target": ("current", ("../x", "", "a/b", 7, "\ud800")),
    "settings": ("store_id", ("\ud800", "\0", 7, None)),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANTED)
def test_a_field_that_would_lead_elsewhere_is_refused(
    case: str, every: dict[str, Parser], count: Count
) -> None:
    name, _, _ = case.partition(" ")
    field, values = PLANTED[case]
    fields = json.loads(every[name].good[0])
    assert every[name].try_(json.dumps({**fields, field: fields[field]}).encode())
    for value in values:
        text = json.dumps({**fields, field: value}).encode()
        assert not every[name].try_(text), f"{field}={value!r} was accepted"
        count.add("hostile inputs")


@pytest.mark.parametrize(
    "id", ["../../pins/x", "/tmp/x", "..", "", "\ud800", "\u00e9" * 8, "0" * 15, "a/b", "x" * 16]
)
def test_a_target_that_gives_itself_an_odd_id_gets_another(
    id: str, every: dict[str, Parser], count: Count
) -> None:
    """It names the target's file in the ledger, on the share."""
    fields = json.loads(samples()["target"][0])
    assert every["target-target.json"].try_(json.dumps({**fields, "id": id}).encode())
    count.add("hostile inputs")


def test_a_naive_reader_is_caught(tmp_path: Path) -> None:
    """The checks of this file are able to fail: a reader that joins what it is told."""

    def naive(text: bytes) -> object:
        return open(tmp_path / json.loads(text)["settings"], "rb").read()

    parser = Parser("naive", samples()["row"], naive)
    with pytest.raises((KeyError, OSError, ValueError, TypeError)):
        for seed in range(EXAMPLES):
            attempt(parser, seed)
