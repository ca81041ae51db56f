"""While a large build is in memory nobody looks for cycles; afterwards as before."""

from __future__ import annotations

import gc

import pytest

from moorline.garbage import uncollected


def test_collection_rests_and_goes_on() -> None:
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled(), "the outer one still holds"
    assert gc.isenabled()


def test_also_after_an_error_and_as_a_decorator() -> None:
    @uncollected()
    def fails() -> None:
        assert not gc.isenabled()
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            fails()
        assert gc.isenabled()


def test_who_had_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
