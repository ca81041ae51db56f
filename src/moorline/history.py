"""What a target remembers: its history's rows, and the deployment under way. Pure values.

Which release to go back to is decided here, from the rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from moorline.build import Release
from moorline.record import Record, record_text


@dataclass(frozen=True)
class Deploying:
    """The deployment under way: what its three processes share, in deploying.json.

    `previous` is what `current` said when it was prepared; `place` what it will say; `already` that
    the target served this very release before. Times are in seconds by this machine's clock.
    """

    deployment: str
    group: str
    release: Release
    previous: str
    phase: str
    started: int
    prepared: int = 0
    already: bool = False
    pinned: bool = False

    @classmethod
    def parse(cls, text: bytes, where: str) -> Deploying:
        record = Record.parse(text, where)
        return cls(
            deployment=record.text("deployment"),
            group=record.text("group", ""),
            release=Release.parse(record_text(record.record("release").fields), where),
            previous=record.text("previous", ""),
            phase=record.text("phase"),
            started=record.number("started"),
            prepared=record.number("prepared", 0),
            already=record.flag("already", False),
            pinned=record.flag("pinned", False),
        )

    def text(self) -> bytes:
        return record_text({**self.__dict__, "release": self.release.__dict__})


def previous_of(rows: list[Release], live: Optional[str]) -> Optional[Release]:
    """The release to go back to: the newest row that passed its check, is of another build than
    the live one, and was not left by a rollback or a put-back after that."""
    good: dict[str, Release] = {}
    for row in rows:
        if row.left:
            good.pop(row.left, None)
        if row.step == "live":
            good.pop(row.id, None)
            good[row.id] = row
    for row in reversed(list(good.values())):
        if row.id != live:
            return row
    return None


def find_release(rows: list[Release], id: str) -> Optional[Release]:
    """The newest row in which build `id` was live, for a rollback to that very build."""
    for row in reversed(rows):
        if row.id == id and row.step == "live":
            return row
    return None
