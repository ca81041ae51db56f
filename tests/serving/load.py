"""Requests without a pause, each answer judged: a program of its own.

    python -m serving.load PORT TIMELINE PAUSE PATH ...

Some connections stay open for all requests, and in each round one is new. Prints as JSON how many
answers came, how many builds they showed, and what was wrong: anything but status 200 with exactly
the bytes of a build that may be live. `under_load` runs it for a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serving.daemons import LIMIT_S, wait_until
from serving.pages import PATHS, build_in
from serving.timeline import Timeline
from serving.visits import Broken, Connection

OPEN = 6
PAUSE_S = 0.002
"""After each round, where the load is to leave most of the machine to what happens meanwhile."""
TESTS = Path(__file__).resolve().parent.parent


class Visitor:
    """One process of the load."""

    def __init__(self, port: int, timeline: Timeline, paths: Sequence[str]) -> None:
        self.port = port
        self.timeline = timeline
        self.paths = paths
        self.turn = 0
        self.open: list[Connection] = []
        self.seen: Counter[int] = Counter()
        self.wrong: Counter[str] = Counter()

    def run(self, pause_s: float) -> None:
        parent = os.getppid()
        while not self.timeline.stopped and os.getppid() == parent:
            self._round()
            time.sleep(pause_s)

    def _round(self) -> None:
        """One request on each connection, all under way at the same time."""
        asked: list[tuple[Connection, str, int]] = []
        fresh = None
        try:
            while len(self.open) < OPEN:
                self.open.append(Connection(self.port))
            fresh = Connection(self.port)
            for connection in (*self.open, fresh):
                asked.append((connection, self._next(), self.timeline.settled))
                connection.send(asked[-1][1])
            for connection, path, settled in asked:
                self._judge(path, settled, connection)
        except Broken as broken:
            self.wrong[str(broken)] += 1
            while self.open:
                self.open.pop().close()
        finally:
            if fresh is not None:
                fresh.close()
            self.timeline.round_done(self.wrong.total())

    def _next(self) -> str:
        self.turn += 1
        return self.paths[self.turn % len(self.paths)]

    def _judge(self, path: str, settled: int, connection: Connection) -> None:
        answer = connection.answer()
        if answer.status != 200:
            self.wrong[f"{path}: status {answer.status}"] += 1
            return
        build, allowed = build_in(path, answer.body), self.timeline.allowed(settled)
        self.seen[build] += 1
        if build < 0:
            self.wrong[f"{path}: bytes that are of no build"] += 1
        elif build not in allowed:
            self.wrong[f"{path}: a build that is not live"] += 1


@dataclass
class Load:
    """What came of it; complete once `under_load` has ended."""

    timeline: Timeline
    responses: int = 0
    builds: int = 0
    wrong: Counter[str] = field(default_factory=Counter)


@contextmanager
def under_load(
    folder: Path, port: int, first: int = 1, paths: Sequence[str] = PATHS, pause_s: float = 0
) -> Iterator[Load]:
    """Load on the server at `port`, where build number `first` is live, while the block runs."""
    load = Load(Timeline(folder / "timeline", first))
    words = [str(port), str(folder / "timeline"), str(pause_s), *paths]
    command = [sys.executable, "-m", "serving.load", *words]
    with (folder / "load").open("xb") as output:
        visitor = subprocess.Popen(command, stdout=output, cwd=TESTS)
    try:
        wait_until(lambda: load.timeline.rounds > 0, visitor)
        yield load
    finally:
        load.timeline.stop()
        visitor.wait(LIMIT_S)
    assert visitor.returncode == 0
    found = json.loads((folder / "load").read_text())
    load.responses = sum(found["seen"].values())
    load.builds = len(found["seen"])
    load.wrong.update(found["wrong"])


def main() -> None:
    port, timeline, pause_s, *paths = sys.argv[1:]
    visitor = Visitor(int(port), Timeline(Path(timeline)), paths)
    visitor.run(float(pause_s))
    sys.stdout.write(json.dumps({"seen": visitor.seen, "wrong": visitor.wrong}))


if __name__ == "__main__":
    main()
