"""BuildId, Build, Release, Pin: values, their text and validation. Pure: no disk, no clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, NewType, Optional

from moorline.errors import ConfigError, UnknownFormat
from moorline.record import Record, record_text

BuildId = NewType("BuildId", str)

_BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN = re.compile(r"[0-9a-f]{16}")
_PLACE = re.compile(r"releases/[A-Za-z0-9][A-Za-z0-9._-]*|/.*/tree", re.DOTALL)
BUILD_FORMAT = 1
LAYOUTS = ("pack", "tree")  # in which a store keeps builds: `layout`
MOST_SEQUENCE = 10**9  # a publish each second for 30 years
MOST_SECONDS = 10**11 - 1  # what a file's time may say (store.py)


def build_id(text: str) -> BuildId:
    """`text` as a BuildId. Raises ConfigError for anything that is not one.

    The rule makes an id safe as a file name, in a shell word and in a URL, at once.
    """
    if not _BUILD_ID.fullmatch(text):
        raise ConfigError(
            f"{text[:120]!r} is not a build id. An id has 1 to 100 of the characters "
            "A-Z a-z 0-9 . _ - and starts with a letter or a digit."
        )
    return BuildId(text)


def checked_digest(text: str, where: str) -> str:
    """`text` as a SHA-256 in 64 lower-case hex digits. Raises ConfigError."""
    if not _DIGEST.fullmatch(text):
        raise ConfigError(f"{where}: {text[:80]!r} is not a SHA-256 digest in hex.")
    return text


def checked_token(text: str, where: str) -> str:
    """`text` as a token: 16 hex digits that name one attempt. Raises ConfigError."""
    if not _TOKEN.fullmatch(text):
        raise ConfigError(f"{where}: {text[:40]!r} is not a token.")
    return text


@dataclass(frozen=True)
class Build:
    """An immutable tree with an id, made once by CI: what builds/<id>/build.json says.

    `digest` names the content; `sequence` orders the builds of a store; `created` is in whole
    seconds by the store's clock, and larger than that of every earlier build.
    """

    id: BuildId
    digest: str
    manifest_bytes: int
    sequence: int
    token: str
    created: int
    files: int
    size_bytes: int
    revision: str = ""
    tool: str = ""

    @classmethod
    def parse(cls, text: bytes, where: str) -> Build:
        record = Record.parse(text, where)
        if record.number("format") != BUILD_FORMAT:
            raise UnknownFormat(
                f"{where} has format {record.number('format')}; this moorline reads format "
                f"{BUILD_FORMAT}. Use a newer moorline."
            )
        return cls(
            id=build_id(record.text("id")),
            digest=checked_digest(record.text("digest"), where),
            manifest_bytes=record.number("manifest_bytes"),
            sequence=record.number("sequence", most=MOST_SEQUENCE),
            token=checked_token(record.text("token"), where),
            created=record.number("created", most=MOST_SECONDS),
            files=record.number("files"),
            size_bytes=record.number("bytes"),
            revision=record.text("revision", ""),
            tool=record.text("tool", ""),
        )

    def text(self) -> bytes:
        fields = dict(self.__dict__)
        fields["bytes"] = fields.pop("size_bytes")
        return record_text({"format": BUILD_FORMAT, **fields})


@dataclass(frozen=True)
class Release:
    """One step of one build on one target: one row of the target's history.

    `n` numbers the releases of a target and is never reused. `step` is intended, live, failed or
    restored. `source` says who vouches for the digest: bundle, s3 or share. `left` is the build
    that a rollback or a put-back moved away from: it is not good to go back to.
    """

    n: int
    step: str
    id: BuildId
    digest: str
    mode: str
    source: str
    time: int
    place: str = ""
    manifest_bytes: int = 0
    settings: str = ""
    agent: str = ""
    deployment: str = ""
    stage: str = ""
    reason: str = "deploy"
    left: str = ""

    @classmethod
    def parse(cls, text: bytes, where: str) -> Release:
        record = Record.parse(text, where)
        return cls(
            n=record.number("n"),
            step=record.text("step"),
            id=build_id(record.text("id")),
            digest=checked_digest(record.text("digest"), where),
            mode=record.text("mode"),
            source=record.text("source"),
            time=record.number("time"),
            place=_checked_place(record),
            manifest_bytes=record.number("manifest_bytes", 0),
            settings=_digest_or_none(record, "settings"),
            agent=_digest_or_none(record, "agent"),
            deployment=record.text("deployment", ""),
            stage=record.text("stage", ""),
            reason=record.text("reason", "deploy"),
            left=record.text("left", ""),
        )

    def text(self) -> bytes:
        return record_text(self.__dict__)

    def at(self, step: str, time: int, **changes: Any) -> Release:
        """The same release one step further."""
        return replace(self, step=step, time=time, **changes)


def _checked_place(record: Record) -> str:
    """Where a release lies: below its target, or a tree on the share."""
    place = record.text("place", "")
    if place and (not _PLACE.fullmatch(place) or ".." in place.split("/")):
        raise record.wrong("place", "a folder in releases/, or the tree of a build")
    return place


def _digest_or_none(record: Record, name: str) -> str:
    """It becomes the name of a file."""
    text = record.text(name, "")
    return checked_digest(text, record.where) if text else ""


@dataclass(frozen=True)
class Pin:
    """A statement that a build is needed: by a person, with a reason."""

    id: BuildId
    reason: str
    by: str
    time: int

    @classmethod
    def parse(cls, text: bytes, where: str) -> Pin:
        record = Record.parse(text, where)
        return cls(
            id=build_id(record.text("id")),
            reason=record.text("reason"),
            by=record.text("by", ""),
            time=record.number("time"),
        )

    def text(self) -> bytes:
        return record_text(self.__dict__)


@dataclass(frozen=True)
class TargetRecord:
    """What one target says in the ledger: the build it serves, the one it would go back to, and
    the one it is about to serve. All three are pinned by this statement."""

    target: str
    root: str
    host: str
    time: int
    stage: str = ""
    current: Optional[str] = None
    previous: Optional[str] = None
    deploying: Optional[str] = None
    since: int = 0

    @classmethod
    def parse(cls, text: bytes, where: str) -> TargetRecord:
        record = Record.parse(text, where)
        ids: dict[str, Optional[str]] = {}
        for name in ("current", "previous", "deploying"):
            value = record.optional_text(name)
            ids[name] = None if value is None else build_id(value)
        return cls(
            target=record.text("target", most=64),
            root=record.text("root"),
            host=record.text("host", ""),
            time=record.number("time"),
            stage=record.text("stage", ""),
            since=record.number("since", 0),
            **ids,
        )

    def text(self) -> bytes:
        return record_text(self.__dict__)

    def pins(self) -> list[str]:
        return [b for b in (self.current, self.previous, self.deploying) if b is not None]
