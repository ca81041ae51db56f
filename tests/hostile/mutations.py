"""Valid inputs, damaged: worth more than random bytes, which no parser reads far.

`mutated` needs only a `random.Random`: the same seed gives the same input on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]

NUMBERS = (
    b"0", b"-1", b"-0", b"00", b"1", b"007", b"4294967296", b"9223372036854775807",
    b"9223372036854775808", b"4611686018427387904", b"99999999999", b"999999999999",
    b"1000000000000", b"999999999999999999", b"9" * 19, b"9" * 400, b"9" * 5000, b"1e5", b"1E400",
    b"1.5", b"0x10", b"+1", b" 1", b"1 ", b"1_000", b"NaN", b"Infinity", b"null", b"true", b'"1"',
    "\u0661\u0662".encode(), "\uff11".encode(), "\u00b2".encode(),
)  # fmt: skip
WORDS = (
    b"", b"\0", b"\r\n", b"\n", b"\t", b" ", b"/", b"//", b".", b"..", b"../..", b"/etc/passwd",
    b"../../../../../../etc/passwd", b"..%2F", b"%2E%2E", b"%00", b"%", b"%zz", b"\\", b"\\u0000",
    b"\\ud800", b"\\udc80", b"\\ud83d\\ude00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc0\xaf",
    b"\x1b[2J",
    b"a" * 256, b"a" * 5000, b"[" * 200, b'{"a":' * 200, b'"', b"'", b"$(id)", b"`id`", b";", b"-",
    b"--help", "\u202e".encode(), "n\u0303".encode(), "\u00f1".encode(), b"releases/x",
    b"/a/builds/b",
)  # fmt: skip


def _flip(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    if not text:
        return b"\x01"
    at = rng.randrange(len(text))
    return text[:at] + bytes([text[at] ^ 1 << rng.randrange(8)]) + text[at + 1 :]


def _cut(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _remove(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.randrange(1, 20) :]


def _insert(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(WORDS) + text[at:]


def _number(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    return _replace(rng, text, rb"[0-9]+", NUMBERS)


def _word(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    return _replace(rng, text, rb"[^\s\":,{}\[\]]+", WORDS)


def _json_text(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    quoted = [b'"' + word.replace(b'"', b"") + b'"' for word in WORDS]
    return _replace(rng, text, rb'"[^"]*"', [*quoted, *NUMBERS, b"[]", b"{}", b'["a",1]'])


def _replace(rng: Random, text: bytes, pattern: bytes, new: Sequence[bytes]) -> bytes:
    found = list(re.finditer(pattern, text))
    if not found:
        return text + rng.choice(new)
    match = rng.choice(found)
    return text[: match.start()] + rng.choice(new) + text[match.end() :]


def _double(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    lines = text.splitlines(keepends=True) or [b"\n"]
    at = rng.randrange(len(lines))
    return b"".join([*lines[:at], lines[at] * rng.choice((2, 2, 3, 400)), *lines[at + 1 :]])


def _swap(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    lines = text.splitlines(keepends=True) or [b"\n"]
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _line_ends(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    return text.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b" \n", b"\x85", b"")))


def _foreign(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else b""
    return rng.choice((other, text + other, other + text, text[: len(text) // 2] + other))


def _wide(rng: Random, text: bytes, others: Sequence[bytes]) -> bytes:
    encoding = rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-be"))
    return text.decode("latin-1").encode(encoding)


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _cut, _remove, _insert, _number, _number, _word, _word, _json_text, _json_text, _double,
    _swap, _line_ends, _foreign, _wide,
)  # fmt: skip


def mutated(rng: Random, text: bytes, others: Sequence[bytes] = ()) -> bytes:
    """`text` after one to three mutations; `others` are good files of another kind."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice(MUTATIONS)(rng, text[: 1 << 16], others)
    return text
