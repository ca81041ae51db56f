"""Publish one site again and again, one page edited each time: `python -m benchmarks.week OPTIONS`.

One process and one line of JSON for each publish. The store's size is looked at after every tenth.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import disk_bytes, written_bytes
from moorline import workflow
from moorline.config import Config, load_config
from moorline.layout.index import Index

LOOK_EVERY = 10


def publish_week(*, site: str, store: str, builds: int, pages: list[str], added: str) -> None:
    root, config = Path(site), load_config(flags={"store": store})
    for number in range(builds):
        if number:
            _edit(root, pages[number % len(pages)], added, number)
        line = _publish(root, config, number)
        if (number + 1) % LOOK_EVERY == 0:
            line["store_bytes"] = disk_bytes(Path(store))
        sys.stdout.write(json.dumps(line) + "\n")


def _publish(root: Path, config: Config, number: int) -> dict[str, Any]:
    before = written_bytes("self")
    result = workflow.publish(str(root), config=config, id=f"b{number:04}")
    return {
        "seconds": result.seconds,
        "written_bytes": written_bytes("self") - before,
        "new_bytes": result.new_bytes,
        "packs": _packs(Path(config.store) / "builds" / result.id / "index"),
        "site_bytes": result.bytes,
    }


def _packs(index: Path) -> int:
    """How many packs a build reads from; none in layout tree."""
    if not index.exists():
        return 0
    return len(Index.parse(index.read_bytes()).packs)


def _edit(root: Path, page: str, added: str, number: int) -> None:
    """Another page each time, both of its files; every tenth time an image is added."""
    for name in (page, f"page-data/{Path(page).parent}/page-data.json"):
        path = root / name
        path.write_bytes(path.read_bytes()[:-40] + f"edited for build {number:15}\n".encode())
    if number % 10 == 0:
        content = (root / added).read_bytes()
        (root / f"{added}.{number}.png").write_bytes(content[:-8] + number.to_bytes(8, "big"))


if __name__ == "__main__":
    publish_week(**json.loads(sys.argv[1]))
