"""Hostile files that people thought of. Each is given to every parser; most refuse most of them.

For what is large see test_bounds; for what a folder can hold in place of a file see test_places.
"""

from __future__ import annotations

import io
import struct
import zipfile

H = b"0" * 64
T = b"0" * 16


def _zip(names: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in names.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def _manifest(*lines: bytes) -> bytes:
    return b"moorline-manifest 1\nd 755 0 - .\n" + b"".join(line + b"\n" for line in lines)


def _index(*lines: bytes) -> bytes:
    return b"moorline-index 1\n" + b"".join(line + b"\n" for line in lines)


TEXTS = (
    b"", b"\n", b"\r\n", b"\0", b" ", b"\xff", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}", b"{}", b"[]",
    b"null", b"true", b"7", b'"x"', b"{", b"}", b"{}{}", b"{}\n{}", b'{"format":1}',
    b'{"format":2}',
    b'{"format":1e999}', b'{"format":NaN}', b'{"format":-Infinity}', b'{"format":true}',
    b'{"format":"1"}', b'{"format":[1]}', b'{"a":1,"a":2}', b'{"\\ud800":1}', b'{"id":"\\ud800"}',
    "{\"format\": \u0661}".encode(), "\u0661".encode(), b"-0", b"0x10", b"01",
    '{"format":1}'.encode("utf-16"), '{"format":1}'.encode("utf-32"), b"{'format':1}",
    b'{"format":1,}', b'{"format":1}\0', b'{"format":1}//', b"# only a comment", b"=", b"[", b"[[",
    b"a = 1", b'a = "1', b"a = '''", b"[a]\n[a]", b"a.b.c = 1", b"[store]\npath = 7",
    b"store = 1979-05-27T07:32:00Z", b'store = "/a"\nstore = "/b"', b'store = "\\ud800"',
    b'store = "/\\U0010ffff"', b'roots = ["a", ["b"]]', b"roots = [", b"users = []\nusers = []",
    b"9" * 5000, b"[target]\nkeep_releases = " + b"9" * 5000, b"x" * 5000,
)  # fmt: skip
MANIFESTS = (
    _manifest(b"f 644 1 " + H + b" ../x"), _manifest(b"f 644 1 " + H + b" /etc/passwd"),
    _manifest(b"f 644 1 " + H + b" a/../b"), _manifest(b"f 644 1 " + H + b" a//b"),
    _manifest(b"f 644 1 " + H + b" a/b"), _manifest(b"f 644 1 " + H + b" ./a"),
    _manifest(b"f 644 1 " + H + b" a/"), _manifest(b"f 644 1 " + H + b" %00"),
    _manifest(b"f 644 1 " + H + b" %2E%2E"), _manifest(b"f 644 1 " + H + b" %2E%2E%2Fx"),
    _manifest(b"f 644 1 " + H + b" a%2Fb"), _manifest(b"f 644 1 " + H + b" %61"),
    _manifest(b"f 644 1 " + H + b" a", b"f 644 1 " + H + b" a"),
    _manifest(b"f 644 1 " + H + b" b", b"f 644 1 " + H + b" a"),
    _manifest(b"l 777 4 - a /etc", b"f 644 1 " + H + b" a/b"),
    _manifest(b"f 644 1 " + H + b" a", b"f 644 1 " + H + b" a/b"),
    _manifest(b"f 4755 1 " + H + b" a"), _manifest(b"f 999 1 " + H + b" a"),
    _manifest(b"f 644 -1 " + H + b" a"), _manifest(b"f 644 01 " + H + b" a"),
    _manifest("f 644 \u0661 ".encode() + H + b" a"), _manifest(b"f 644 " + b"9" * 30 + b" " + H),
    _manifest(b"f 644 1 " + H.replace(b"0", b"G") + b" a"), _manifest(b"c 644 0 - a"),
    _manifest(b"l 777 0 - a "), _manifest(b"l 777 3 - a b"), _manifest(b"d 755 0 - ."),
    _manifest(b"d 755 7 - a"), _manifest(b"f 644 1 - a"), _manifest(b"d 755 0 " + H + b" a"),
    _manifest()[:-1], _manifest() * 2, b"moorline-manifest 1\n", b"moorline-manifest 2\n",
    _manifest(b"f 644 1 " + H + b" " + b"a" * 256), _manifest(b"d 755 0 - " + b"a/" * 2100 + b"a"),
    _manifest().replace(b"\n", b"\r\n"), b"moorline-manifest 1\nf 644 1 " + H + b" .\n",
)  # fmt: skip
PACK = b"pack " + T + b" 5"
INDEXES = (
    _index(PACK, b"0 0 0 1", b"1 0 0 1"), _index(PACK, b"00 0 0 1"), _index(PACK, b"-1 0 0 1"),
    _index(b"pack ../../etc/passwd 5"), _index(b"pack " + T + b" -5"), _index(b"- 0 0"),
    _index(PACK, b"pack " + T + b" 9", b"0 0 0 9", b"1 0 0 9"), _index(PACK, PACK, b"1 0 0 1"),
    _index(PACK, b"0 " + b"9" * 18 + b" 1 1"), _index(PACK, b"0 0 " + b"9" * 12 + b" 1"),
    _index(PACK, b"0 0 1 " + b"9" * 12), _index(PACK, b"0 0 " + b"9" * 5000 + b" 1"),
    _index(PACK, b"0 5", b"0 9 - 0 0 0"), _index(PACK, b"0 0 0 0 - 0 0 0"), _index(PACK, b"0  0 0"),
    _index(PACK, b"0 0 0 1 "), _index(PACK, b" 0 0 0 1"), _index(PACK, b"0\t0 0 1"),
    _index(PACK, b"0 0 0 1\r"), _index(PACK, b"0 0 0 1", b""), _index(PACK, b"0 0 0 +1"),
    _index(PACK, b"0 0 0 1_0"), _index(PACK, "0 0 0 \u0661".encode()), _index(PACK, b"0 0 1e5 1"),
    _index(PACK, b"0 -0 0 1"), _index(PACK, b"0 0-0 0 1"), _index(PACK, b"0 0 0 1", PACK),
    _index(b"- 0 0 0", PACK), _index(PACK, b"0 0 0 1")[:-1], _index()[:-1], _index(b""),
    _index(b"pack " + T + b" 5", H + b" 0 0 1 1"), b"moorline-index 2\n",
    _index(*[b"pack %016x 1" % i for i in range(200)]),
    _index(*[b"pack %016x 1" % i for i in range(200)], b"199 0 0 0"),
)  # fmt: skip
_GOOD = {
    "appspec.yml": b"version: 0.0\n",
    "deploy.sh": b"#!/bin/sh\na=" + H + b"\n",
    "build.json": b'{"moorline":"1 a %s 9 %s"}' % (H, H),
}
_END = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, 46, 0, 0)
ZIPS = (
    _zip(_GOOD), _zip({}), _zip({**_GOOD, "../x": b"x"}), _zip({**_GOOD, "/etc/x": b"x"}),
    _zip({f"../{name}": data for name, data in _GOOD.items()}),
    _zip({f"a/{name}": data for name, data in _GOOD.items()}),
    _zip({**_GOOD, "build.json": b"0" * (10 << 20)}, compression=zipfile.ZIP_DEFLATED),
    _zip({**_GOOD, "build.json": b"0" * 9999}, compression=zipfile.ZIP_BZIP2),
    _zip({**_GOOD, "build.json": b"0" * 9999}, compression=zipfile.ZIP_LZMA),
    _zip(_GOOD)[:-1], _zip(_GOOD)[:-22] + _END, _END, b"PK\5\6" + b"\xff" * 18,
    _zip(_GOOD).replace(b"PK\1\2", b"PK\1\3", 1), _zip(_GOOD) + b"x" * 70_000,
    _zip(_GOOD) + struct.pack("<IQIIQ", 0x07064B50, 0, 0, 1, 1 << 60),
)  # fmt: skip
BUILDS = tuple(
    b'{"moorline":"' + text + b'"}'
    for text in (b"1 a " + H + b" 9 " + H + b" x", b"1 ../x " + H + b" 9 " + H, b"2 a", b"1", b"",
                 b"1 a " + H + b" -9 " + H, b"1 a " + H + b" " + b"9" * 19 + b" " + H,
                 b"1  " + H + b" 9 " + H, b"1 a " + H.upper() + b" 9 " + H,
                 b"1 a\\n " + H + b" 9 " + H, b"1 \\ud800 " + H + b" 9 " + H,
                 "1 \u0661 ".encode() + H + b" 9 " + H)
)  # fmt: skip
SCRIPTS = (
    b"a=" + H, b"a=" + H + b"\na=" + H, b" a=" + H, b"a=" + H + b" ", b"a='" + H + b"'",
    b"a=" + H + b"\r\n", b"a=$(id)", b"\xff" * 100 + b"\na=" + H, b"\na=" + H + b"\n",
    b"a=" + H + b"\n" + b"#" * 70_000,
)  # fmt: skip
SETTINGS = tuple(
    b'{"app":"a","format":1,"store_id":"x",' + text + b"}"
    for text in (b'"target":{"root":"/a/../b"}', b'"target":{"root":"/"}', b'"target":[]',
                 b'"target":{"linked":["../x/"]}', b'"target":{"linked":["/x/"]}',
                 b'"target":{"linked":["a/","a/b/"]}', b'"target":{"linked":["\\u0000/"]}',
                 b'"target":{"linked":["\\ud800/"]}', b'"target":{"linked":[""]}',
                 b'"target":{"owner":"root; id"}', b'"target":{"keep_releases":1e2}',
                 b'"hooks":{"check":[{"run":[]}]}', b'"hooks":{"check":[{"run":["\\ud800"]}]}',
                 b'"hooks":{"check":[{"run":["./../x"]}]}', b'"hooks":{"check":[{"run":"id"}]}',
                 b'"hooks":{"check":[{"url":"file:///etc/passwd"}]}', b'"hooks":{"x":[]}',
                 b'"hooks":{"check":[{"url":"http://a","contains":"\\ud800"}]}',
                 b'"hooks":{"after_switch":[{"url":"http://a"}]}', b'"groups":{"a":7}',
                 b'"groups":{"a":{"linked":["b/"]}}', b'"groups":{"a":{"hooks":7}}',
                 b'"groups":{"\\ud800":{}}', b'"groups":{"a":{"root":"x"}}')
)  # fmt: skip

CORPUS: tuple[bytes, ...] = (
    *TEXTS, *MANIFESTS, *INDEXES, *ZIPS, *BUILDS, *SCRIPTS, *SETTINGS,
)  # fmt: skip
