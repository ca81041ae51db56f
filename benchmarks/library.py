"""One verb of Moorline's library, run as a program of its own: VERB {"option": ...}.

Only what no command does: forgetting targets so that a build may be removed, or switching a hundred
times in a row. Each verb imports what it needs: a start is part of what is measured, and casync's
holds nothing of its other verbs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from moorline.leaving import leave

WEEK_S = 7 * 86_400


def tell(value: object) -> None:
    """One line of JSON for whoever started this."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def init(*, store: str, layout: str) -> None:
    from moorline import workflow

    workflow.init(store, app="benchmark", layout=layout, folder=os.path.dirname(store))


def publish_less(*, source: str, store: str, id: str, bundle: str, less: int) -> None:
    """The source without one file, another one for each number `less`."""
    from dataclasses import replace

    from moorline import workflow
    from moorline.config import load_config

    paths = sorted(os.path.join(at, name) for at, _, names in os.walk(source) for name in names)
    left_out = os.path.relpath(paths[less], source)
    config = replace(load_config(flags={"store": store}), exclude=(f"/{left_out}",))
    workflow.publish(source, config=config, id=id, bundle=bundle)


def forget(*, store: str) -> None:
    """No target needs any build from now on."""
    folder = os.path.join(store, "ledger", "targets")
    for name in os.listdir(folder):
        if name.endswith(".json"):
            os.unlink(os.path.join(folder, name))


def remove_build(*, store: str, id: str) -> None:
    """All of it at once: into the trash, and out of it as if the grace period had passed."""
    from moorline.build import build_id
    from moorline.cleaning import clean, remove, store_time
    from moorline.disk import Disk
    from moorline.store import open_store

    with open_store(Disk(), store) as opened:
        remove(opened, build_id(id), "benchmark")
        clean(opened, store_time(opened) + WEEK_S)


def switch(*, target: str, times: int) -> None:
    """Milliseconds of each of `times` switches, there and back between two releases."""
    from moorline.disk import Disk
    from moorline.target import open_target

    lasted = []
    with open_target(Disk(), target) as opened, opened.lock():
        here = opened.current()
        other = next(row.place for row in reversed(opened.history()) if row.place != here)
        for number in range(times * 2):
            started = time.perf_counter()
            opened.switch(here if number % 2 else other)
            lasted.append((time.perf_counter() - started) * 1000)
    tell(lasted)


VERBS: dict[str, Callable[..., None]] = {
    "init": init, "publish_less": publish_less, "forget": forget, "remove": remove_build,
    "switch": switch,
}  # fmt: skip


def main() -> None:
    verb, options = sys.argv[1], json.loads(sys.argv[2])
    arguments: dict[str, Any] = options
    VERBS[verb](**arguments)
    leave(0)  # as the command does


if __name__ == "__main__":
    main()
