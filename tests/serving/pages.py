"""Builds whose every page says of which build it is, in every line: a mix of two cannot hide."""

from __future__ import annotations

import functools

from trees import Content

SIZES = {"index.html": 300, "css/site.css": 9_000, "img/big.bin": 300_000, "about/index.html": 900}
"""The same in each build, so that a mixed response would have the right length. The big one does
not fit into a socket's buffers: it is under way while the link moves."""

GROWS = "data/list.json"
"""A page that is longer in each build."""

PATHS = ("/index.html", "/css/site.css", "/img/big.bin", "/about/index.html", f"/{GROWS}")


@functools.cache
def page(build: int, path: str) -> bytes:
    """The content of `path` in build number `build`."""
    name = path.lstrip("/")
    size = SIZES.get(name, 500 + 37 * build)
    line = f"{name} of build {build:06}\n".encode()
    return (line * (size // len(line) + 1))[:size]


def build(number: int) -> dict[str, Content]:
    return {path.lstrip("/"): page(number, path) for path in PATHS}


def build_in(path: str, body: bytes) -> int:
    """The number of the build whose page this is, exactly; -1 when it is nobody's."""
    _, found, number = body[:80].partition(b" of build ")
    if not found or not number[:6].isdigit():
        return -1
    return int(number[:6]) if page(int(number[:6]), path) == body else -1
