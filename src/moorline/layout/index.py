"""Where the contents of a build lie in packs: the file builds/<id>/index.

    moorline-index 1
    pack <token> <bytes>
    <digest> <pack number> <offset> <length> <proved>

`proved` is when the content was last read and found right, in seconds by the store's clock. The
index is a locator and not trusted; it may be replaced (by rename) to repair or to note a proof.
Empty contents lie nowhere: their pack number is `-`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from moorline.disk import DAMAGE, Disk
from moorline.errors import Mismatch
from moorline.files import read_file

HEADER = b"moorline-index 1\n"
MAX_INDEX_BYTES = 256 << 20

_PACK = re.compile(rb"pack ([0-9a-f]{16}) ([0-9]{1,18})")
_CONTENT = re.compile(rb"([0-9a-f]{64}) (-|[0-9]{1,2}) ([0-9]{1,18}) ([0-9]{1,18}) ([0-9]{1,18})")


class Place(NamedTuple):
    """Where one content lies; `pack` is a token, or "" for an empty content."""

    pack: str
    offset: int
    length: int
    proved: int


@dataclass(frozen=True)
class Index:
    """Content digest -> Place, and the packs with their sizes in bytes."""

    packs: dict[str, int]
    places: dict[str, Place]

    @classmethod
    def parse(cls, text: bytes) -> Index:
        """Raises Mismatch for a text that is no index, or points outside of its packs."""
        if not text.startswith(HEADER) or not text.endswith(b"\n"):
            raise Mismatch("the build's index is damaged or of an unknown format.")
        packs: dict[str, int] = {}
        places: dict[str, Place] = {}
        names: list[str] = []
        for line in text[len(HEADER) :].split(b"\n")[:-1]:
            content = _CONTENT.fullmatch(line)
            if content is not None:
                digest, number, offset, length, proved = content.groups()
                pack = "" if number == b"-" else _numbered(names, int(number))
                place = Place(pack, int(offset), int(length), int(proved))
                if place.offset + place.length > (packs[pack] if pack else 0):
                    raise Mismatch("the build's index points outside of a pack.")
                places[digest.decode()] = place
                continue
            match = _PACK.fullmatch(line)
            if match is None:
                raise Mismatch("the build's index has a line that is none.")
            names.append(match.group(1).decode())
            packs[names[-1]] = int(match.group(2))
        return cls(packs, places)

    @property
    def text(self) -> bytes:
        numbers = {token: number for number, token in enumerate(self.packs)}
        lines = [HEADER]
        lines += [b"pack %s %d\n" % (token.encode(), size) for token, size in self.packs.items()]
        for digest, place in sorted(self.places.items(), key=lambda item: item[1]):
            number = b"%d" % numbers[place.pack] if place.pack else b"-"
            lines.append(b"%s %s %d %d %d\n" % (digest.encode(), number, *place[1:]))
        return b"".join(lines)


def _numbered(names: list[str], number: int) -> str:
    if number >= len(names):
        raise Mismatch("the build's index names a pack that it does not list.")
    return names[number]


def read_index(disk: Disk, build: int) -> Index:
    """The index of the build folder open as `build`. Raises Mismatch, also when there is none."""
    try:
        return Index.parse(read_file(disk, b"index", build, most=MAX_INDEX_BYTES))
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        raise Mismatch("the build's index is missing or no file.") from None
