"""How a store keeps content: two layouts, one contract test.

`pack` writes what is new into one large file for each publish; `tree` keeps plain folders, with
unchanged files as hard links. A `Reader` is a build that was published, a `Draft` (see `draft`) one
being written. Neither is trusted: whoever reads content compares it with the manifest, as a
`Verifier` does with all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from moorline.disk import Disk
from moorline.errors import Mismatch, Problem
from moorline.files import read_file
from moorline.manifest import MAX_MANIFEST_BYTES, STORED, Entry, decompressed, most_compressed

Times = dict[bytes, int]
"""The modification time of each file by path, in whole seconds by the store's clock: when the path
got its present content."""


class Reader(Protocol):
    """The content of one published build."""

    def contents(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """The bytes of each file wanted, in the order that suits the disk; not verified.

        Reading one that the build does not hold raises Mismatch, and the others can go on.
        """
        ...


def missing(entry: Entry, problem: str) -> Iterator[bytes]:
    """The bytes of a content that is not there: reading them raises."""
    raise Mismatch(
        f"the store does not hold the content of {entry.shown}. "
        "Publish the same build again: that repairs it.",
        problems=[Problem(entry.shown, problem)],
    )
    yield b""


def read_manifest(disk: Disk, folder: int, most: int = MAX_MANIFEST_BYTES) -> bytes:
    """The text of the manifest in the open `folder` of a build: whatever it says, but no longer
    than `most` bytes. Raises Mismatch when it is not stored as `compressed` does it."""
    return decompressed(read_file(disk, STORED, folder, most=most_compressed(most)), most)
