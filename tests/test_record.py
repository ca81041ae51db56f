"""Records: small JSON files that anybody may have written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.errors import ConfigError
from moorline.record import MAX_RECORD_BYTES, Record, record_text

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def record(**fields: Any) -> Record:
    return Record(fields, "x.json")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": "\xff"}',
        b"\0",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": %s}' % (b"9" * 10_000),
        b" " * (MAX_RECORD_BYTES + 1),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_json_object_is_refused_with_the_name_of_the_file(text: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^x\.json "):
        Record.parse(text, "x.json")


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_an_object_or_a_config_error(text: bytes) -> None:
    try:
        parsed = Record.parse(text, "x.json")
    except ConfigError:
        return
    assert isinstance(parsed.fields, dict)


NO_TEXT: list[Any] = [1, True, 1.5, [], {}, None, "x" * 4097, "nul\0"]
NO_NUMBER: list[Any] = [
    True,
    False,
    "1",
    1.0,
    float("nan"),
    float("inf"),
    -1,
    1 << 63,
    [],
    {},
    None,
]
NO_FLAG: list[Any] = [0, 1, "true", None, [], {}]
NO_TEXTS: list[Any] = [1, "abc", {"a": "b"}, [1], ["a", None], [["a"]], None]
NO_OBJECT: list[Any] = [1, "abc", [], [{}], None, True]
NO_OBJECTS: list[Any] = [1, "abc", {}, ["a"], [{}, 1], None]


@pytest.mark.parametrize(
    ("reader", "wrong"),
    [("text", value) for value in NO_TEXT]
    + [("number", value) for value in NO_NUMBER]
    + [("flag", value) for value in NO_FLAG]
    + [("texts", value) for value in NO_TEXTS]
    + [("record", value) for value in NO_OBJECT]
    + [("records", value) for value in NO_OBJECTS],
)
def test_a_wrong_type_is_refused_with_file_and_field(reader: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^x\.json: 'field' "):
        getattr(record(field=wrong), reader)("field")


@pytest.mark.parametrize("reader", ["text", "number", "flag"])
def test_a_missing_field_is_refused_unless_there_is_a_default(reader: str) -> None:
    with pytest.raises(ConfigError, match="'field' is missing"):
        getattr(record(), reader)("field")
    default = {"text": "d", "number": 5, "flag": True}[reader]
    assert getattr(record(), reader)("field", default) == default


def test_good_values_come_back() -> None:
    fields = record(t="x", n=7, f=False, ts=["a", "b"], r={"k": "v"}, rs=[{"k": 1}, {}])
    assert fields.text("t") == "x"
    assert fields.number("n") == 7
    assert fields.flag("f") is False
    assert fields.texts("ts") == ["a", "b"]
    assert fields.record("r").text("k") == "v"
    assert [inner.fields for inner in fields.records("rs")] == [{"k": 1}, {}]
    assert fields.optional_text("t") == "x"
    assert fields.optional_text("absent") is None
    assert record().texts("absent") == []
    assert record().records("absent") == []
    assert record().record("absent").fields == {}


def test_numbers_have_bounds() -> None:
    assert [record(n=n).number("n", least=2, most=4) for n in (2, 3, 4)] == [2, 3, 4]
    for n in (1, 5):
        with pytest.raises(ConfigError, match="a whole number from 2 to 4"):
            record(n=n).number("n", least=2, most=4)


def test_texts_have_a_length() -> None:
    assert record(t="xx").text("t", most=2) == "xx"
    with pytest.raises(ConfigError, match="at most 2 characters"):
        record(t="xxx").text("t", most=2)


def test_a_nested_field_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^x\.json: outer: 'inner' must be"):
        record(outer={"inner": 1}).record("outer").text("inner")


def test_an_unknown_key_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"x\.json: unknown key 'moed'\. Did you mean 'mode'\?"):
        record(moed=1).only(("root", "mode"))
    with pytest.raises(ConfigError, match=r"unknown key 'zzz'\. Known: root, mode\."):
        record(zzz=1).only(("root", "mode"))
    record(mode=1).only(("root", "mode"))


@given(st.dictionaries(st.text(max_size=8), json_values.filter(lambda value: value is not None)))
def test_written_records_are_one_ascii_line_and_do_not_depend_on_the_order(
    fields: dict[str, Any],
) -> None:
    text = record_text(fields)
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert text.isascii()
    assert text == record_text(dict(reversed(list(fields.items()))))
    assert record_text(Record.parse(text, "x").fields) == text


def test_a_field_without_a_value_is_not_written() -> None:
    assert record_text({"a": None, "b": 1}) == b'{"b":1}\n'
