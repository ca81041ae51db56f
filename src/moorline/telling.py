"""What a target tells the ledger: what it serves, would go back to, and is about to serve."""

from __future__ import annotations

from moorline.build import BuildId, TargetRecord
from moorline.history import previous_of
from moorline.target import Target


def target_record(target: Target, stage: str, deploying: BuildId | None) -> TargetRecord:
    """The record of `target` as it is now."""
    rows = target.history()
    live = target.live(rows)
    previous = previous_of(rows, live.id if live else None)
    return TargetRecord(
        target=target.identity(),
        root=target.root,
        host=target.host,
        time=int(target.disk.now()),
        stage=stage,
        current=live.id if live else None,
        previous=previous.id if previous else None,
        deploying=deploying,
        since=live.time if live else 0,
    )
