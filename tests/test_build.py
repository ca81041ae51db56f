"""BuildId and the values that stand in build.json, in history and in the ledger."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorline.build import (
    MOST_SECONDS,
    MOST_SEQUENCE,
    Build,
    BuildId,
    Pin,
    Release,
    TargetRecord,
    build_id,
    checked_digest,
    checked_token,
)
from moorline.errors import ConfigError

DIGEST = "a1" * 32
TOKEN = "0123456789abcdef"
ids = st.from_regex(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z"), fullmatch=True).map(build_id)
short_texts = st.text(max_size=30).filter(lambda text: "\0" not in text)
places = st.just("") | st.from_regex(
    re.compile(r"(?:releases|/mnt/store/builds)/[A-Za-z0-9][a-z0-9-]{0,9}/tree\Z"), fullmatch=True
).map(lambda place: place.replace("/tree", ".7") if place.startswith("r") else place)
numbers = st.integers(0, 1 << 40)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
tokens = st.binary(min_size=8, max_size=8).map(bytes.hex)

builds = st.builds(
    Build,
    id=ids,
    digest=digests,
    manifest_bytes=numbers,
    sequence=st.integers(0, MOST_SEQUENCE),
    token=tokens,
    created=st.integers(0, MOST_SECONDS),
    files=numbers,
    size_bytes=numbers,
    revision=short_texts,
    tool=short_texts,
)
releases = st.builds(
    Release,
    n=numbers,
    step=st.sampled_from(("intended", "live", "failed", "restored")),
    id=ids,
    digest=digests,
    mode=st.sampled_from(("copy", "link")),
    source=st.sampled_from(("bundle", "s3", "share")),
    time=numbers,
    place=places,
    manifest_bytes=numbers,
    settings=st.just("") | digests,
    agent=st.just("") | digests,
    deployment=short_texts,
    stage=short_texts,
    reason=short_texts,
    left=short_texts,
)
pins = st.builds(Pin, id=ids, reason=short_texts, by=short_texts, time=numbers)
target_records = st.builds(
    TargetRecord,
    target=short_texts,
    root=short_texts,
    host=short_texts,
    time=numbers,
    stage=short_texts,
    current=st.none() | ids,
    previous=st.none() | ids,
    deploying=st.none() | ids,
    since=numbers,
)


@pytest.mark.parametrize("text", ["0", "a", "Z", "a.b_c-d", "1" * 100, "site-42.3f2a9c1", "a..b"])
def test_good_ids(text: str) -> None:
    assert build_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "-rf",
        "_a",
        ".hidden",
        "x" * 101,
        "a\n",
        "\na",
        "a b",
        "a:b",
        "a%2F",
        "caf\u00e9",
        "\u0661",
        "\uff11",
        "a\0",
        "a\udcff",
        "$(id)",
    ],
)
def test_bad_ids_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a build id"):
        build_id(text)


@given(st.text(max_size=110))
def test_an_accepted_id_is_one_harmless_word(text: str) -> None:
    try:
        good = build_id(text)
    except ConfigError:
        return
    assert good.isascii()
    assert 1 <= len(good) <= 100
    assert not set(good) & set("/\\ \n\t\0'\"$`*?[]{}()<>|&;:%~#!")
    assert good[0] not in ".-"


@pytest.mark.parametrize(
    "text", ["", "a1" * 31, "A1" * 32, "a1" * 32 + "\n", "g1" * 32, "../" * 21]
)
def test_bad_digests_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"here: .* is not a SHA-256"):
        checked_digest(text, "here")
    assert checked_digest(DIGEST, "here") == DIGEST


@pytest.mark.parametrize("text", ["", TOKEN[:-1], TOKEN.upper(), TOKEN + "\n", "../" * 5 + "a"])
def test_bad_tokens_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"here: .* is not a token"):
        checked_token(text, "here")
    assert checked_token(TOKEN, "here") == TOKEN


@given(builds)
def test_a_build_comes_back_from_its_text(build: Build) -> None:
    assert Build.parse(build.text(), "here") == build


@given(releases)
def test_a_release_comes_back_from_its_text(release: Release) -> None:
    assert Release.parse(release.text(), "here") == release
    assert release.text().count(b"\n") == 1


@given(pins)
def test_a_pin_comes_back_from_its_text(pin: Pin) -> None:
    assert Pin.parse(pin.text(), "here") == pin


@given(target_records)
def test_a_target_record_comes_back_from_its_text(record: TargetRecord) -> None:
    assert TargetRecord.parse(record.text(), "here") == record
    assert record.pins() == [
        id for id in (record.current, record.previous, record.deploying) if id is not None
    ]


def fields(**changes: Any) -> bytes:
    good: dict[str, Any] = {
        "format": 1,
        "id": "7",
        "digest": DIGEST,
        "manifest_bytes": 9,
        "sequence": 1,
        "token": TOKEN,
        "created": 1_700_000_000,
        "files": 3,
        "bytes": 70,
    }
    return json.dumps({k: v for k, v in {**good, **changes}.items() if v is not None}).encode()


def test_the_fields_of_a_build_json() -> None:
    build = Build.parse(fields(), "here")
    assert (build.id, build.digest, build.sequence, build.size_bytes) == ("7", DIGEST, 1, 70)
    assert json.loads(build.text()) == {**json.loads(fields()), "revision": "", "tool": ""}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../x"},
        {"id": None},
        {"id": 7},
        {"digest": "A1" * 32},
        {"digest": None},
        {"token": "x"},
        {"sequence": -1},
        {"sequence": MOST_SEQUENCE + 1},
        {"sequence": True},
        {"sequence": "1"},
        {"files": 1.5},
        {"bytes": None},
        {"created": 1 << 63},
        {"revision": 5},
        {"revision": "x" * 4097},
        {"format": None},
        {"format": "1"},
    ],
)
def test_a_damaged_build_json_is_refused_with_its_place(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"here|is not a build id"):
        Build.parse(fields(**changes), "here")


def test_an_unknown_format_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"format 2; this moorline reads format 1\. Use a newer"):
        Build.parse(fields(format=2), "here")


def test_fields_of_a_newer_writer_are_ignored() -> None:
    assert Build.parse(fields(future=[1]), "here") == Build.parse(fields(), "here")


def test_a_target_record_with_a_hostile_id_is_refused() -> None:
    text = TargetRecord("t", "/srv", "h", 1, current="7").text().replace(b'"7"', b'"../7"')
    with pytest.raises(ConfigError, match="is not a build id"):
        TargetRecord.parse(text, "here")


def test_a_release_moves_on_by_steps() -> None:
    first = Release(1, "intended", BuildId("7"), DIGEST, "copy", "bundle", 10)
    live = first.at("live", 12, reason="rollback")
    assert (live.step, live.time, live.reason, live.n) == ("live", 12, "rollback", 1)
    assert first.step == "intended"
