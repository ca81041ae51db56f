"""Comparing two manifests line by line finds what a set of their lines would."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorline.errors import Mismatch
from moorline.lines import file_lines, same_files
from moorline.manifest import HEADER, Entry, Manifest
from trees import directory_entry, entries, file_entry, manifests


@given(entries(20), st.data())
def test_the_same_files_of_two_builds_are_found(tree: list[Entry], data: st.DataObject) -> None:
    """As a set of lines would find them, whatever was changed, added or removed."""
    other = data.draw(entries(20))
    both = {e.path: e for e in [*other, *data.draw(st.lists(st.sampled_from(tree)))]}
    try:
        one, two = Manifest.of(tree), Manifest.of(both.values())
    except Mismatch:
        assume(False)
    lines = list(file_lines(two.text))
    expected = [lines.index(line) if line in lines else -1 for line in file_lines(one.text)]
    assert list(same_files(one, two.text)) == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_same_files_of_two_large_builds_are_found(seed: int) -> None:
    """Larger than the stretches that are compared at once; some lines are longer than those."""
    chance = random.Random(seed)
    names = sorted({b"d/%0*d" % (chance.choice((5, 240)), n) for n in range(0, 6000, 2)})
    old = {name: file_entry(name, b"x") for name in names} | {b"d": directory_entry(b"d")}
    new = dict(old)
    for name in chance.sample(names, 3 ** (seed % 6)):
        new[name + b"0"] = file_entry(name + b"0", b"added")
        new[name] = file_entry(name, chance.choice((b"x", b"y", b"z")))
    for name in chance.sample(names, 3 ** (seed % 5)):
        del new[name]
    one, two = (Manifest.of([directory_entry(), *e.values()]) for e in (new, old))
    numbers = {line: number for number, line in enumerate(file_lines(two.text))}
    assert list(same_files(one, two.text)) == [
        numbers.get(line, -1) for line in file_lines(one.text)
    ]
    assert list(same_files(two, two.text)) == list(range(len(names)))


@given(manifests(), st.binary(max_size=200), st.randoms())
def test_a_text_in_no_order_gives_nothing_wrong(
    manifest: Manifest, noise: bytes, shuffler: random.Random
) -> None:
    lines = [*file_lines(manifest.text), b"f", b"f ", b"f 644 1 x %zz", b"f " + noise]
    shuffler.shuffle(lines)
    old = HEADER + b"\n".join([*lines, b""])
    found = list(file_lines(old))
    for mine, number in zip(file_lines(manifest.text), same_files(manifest, old), strict=True):
        assert number == -1 or found[number] == mine
