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


def base_sources(manifest: Manifest, base: Optional[Base]) -> dict[bytes, bytes]:
    """For each file that the base build holds too, its path there: the same path, else, for a
    path that is new, any path with the same content and mode.

    A path that existed with other content takes nothing from elsewhere: it would take the other
    file's time along, and that time may once have stood for its own old content.
    """
    if base is None:
        return {}
    before = base.manifest.by_path
    anywhere = {(entry.digest, entry.mode): entry.path for entry in reversed(base.manifest.files)}
    sources = {}
    for entry in manifest.files:
        old = before.get(entry.path)
        if old is not None:
            if (old.digest, old.mode) == (entry.digest, entry.mode):
                sources[entry.path] = entry.path
        elif (entry.digest, entry.mode) in anywhere:
            sources[entry.path] = anywhere[entry.digest, entry.mode]
    return sources


def file_times(manifest: Manifest, base: Optional[Base], created: int) -> Times:
    """The time of each file of a build: the base's where the content stayed, else `created`.

    So unchanged content keeps its time across builds, and changed content never does: a web
    server's validators (nginx: time and size) tell them apart even when a source has one time for
    everything.
    """
    sources = base_sources(manifest, base)
    old = {} if base is None else base.times
    return {e.path: old.get(sources.get(e.path, b""), created) for e in manifest.files}
