"""How a store keeps content: one protocol, two layouts, one contract test.

`pack` writes what is new into one large file for each publish; `tree` keeps plain folders, with
unchanged files as hard links. A `Draft` is a build being written into incoming/, a `Reader` is a
build that was published. Neither is trusted: whoever reads content compares it with the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Callable, Optional, Protocol

from moorline.manifest import Entry, Manifest
from moorline.scan import Progress, Source
from moorline.verifying import Verified

LAYOUTS = ("pack", "tree")
Times = dict[bytes, int]
"""The modification time of each file by path, in whole seconds by the store's clock: when the path
got its present content."""


@dataclass(frozen=True)
class Written:
    """What a publish wrote, and what it took over from earlier builds."""

    new_files: int
    new_bytes: int
    linked_files: int
    repaired: int = 0


class Draft(Protocol):
    """A build being written into the open folder `staging`; `write` first, then `finish` with the
    final times."""

    staging: int
    source: Source
    times: Times

    def write(self, progress: Progress) -> Written: ...
    def finish(self, times: Times) -> None: ...


class Reader(Protocol):
    """The content of one published build."""

    def contents(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """The bytes of each file wanted, in the order that suits the disk; not verified.

        Raises Mismatch for content that the build does not hold.
        """
        ...

    def verify(self, manifest: Manifest, progress: Progress) -> Verified:
        """Read every byte and list every difference."""
        ...

    def repair(self, draft: Draft, verified: Verified) -> int:
        """Write what `verified` found damaged anew, through `draft`; returns the repairs."""
        ...


Beat = Callable[[], None]
"""Called now and then during long work, so that others see that the publish is alive."""


@dataclass(frozen=True)
class Base:
    """The newest build of a store, which the next one takes over from: its open folder, what it
    holds, and the times of its files."""

    folder: int
    manifest: Manifest
    times: Times


def unchanged_paths(manifest: Manifest, base: Optional[Base]) -> frozenset[bytes]:
    """The files that the base build holds under the same path with the same content and mode.

    Only these keep their time and may be linked. A content that moved to another path does not take
    its time along: that path may have had other content of the same size and time in an earlier
    build, and a browser that saw it would be told "304 Not Modified".
    """
    if base is None:
        return frozenset()
    before = {(e.path, e.digest, e.mode) for e in base.manifest.files}
    return frozenset(e.path for e in manifest.files if (e.path, e.digest, e.mode) in before)


def file_times(manifest: Manifest, base: Optional[Base], created: int) -> Times:
    """The time of each file of a build: the base's where path and content stayed, else `created`.

    So unchanged content keeps its time across builds, and changed content never does: a web
    server's validators (nginx: time and size) tell them apart even when a source has one time for
    everything.
    """
    if base is None:
        return dict.fromkeys((e.path for e in manifest.files), created)
    kept, old = unchanged_paths(manifest, base), base.times
    return {e.path: old[e.path] if e.path in kept else created for e in manifest.files}
