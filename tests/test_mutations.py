"""The table of deliberate breaks fits the source and the tests: else `make mutations` is worthless.

That each of them is noticed takes a minute for each, and is tried by `make mutations`.
"""

from __future__ import annotations

import re

import pytest

from mutations.run import ROOT, problems
from mutations.table import MUTATIONS, Mutation


def test_every_barrier_order_and_check_is_broken_once() -> None:
    names = [mutation.name for mutation in MUTATIONS]

    assert len(names) >= 25
    assert len(set(names)) == len(names)
    assert {m.invariant for m in MUTATIONS} == {f"I{n}" for n in range(1, 8)}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_can_be_applied_and_is_a_program(mutation: Mutation) -> None:
    assert not problems(mutation)
    for file in {edit.file for edit in mutation.edits if edit.file.endswith(".py")}:
        text = (ROOT / "src" / "moorline" / file).read_text()
        for edit in mutation.edits:
            if edit.file == file:
                text = text.replace(edit.old, edit.new)
        compile(text, file, "exec")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_tests_that_should_notice_it_exist(mutation: Mutation) -> None:
    for test in mutation.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text()
        assert not name or re.search(rf"^def {name.partition('[')[0]}\(", text, re.MULTILINE), test
