"""A browser asks whether what it holds is still current: nginx says 304 when it is, whatever builds
came and went in between, and never when it is not.

What a browser may hold is anything that any target of the application ever answered for a path:
behind a load balancer the next one that it asks is another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counts import Count
from moorline import workflow
from moorline.errors import HookFailed, PutBack
from moorline.history import previous_of
from serving.daemons import nginx
from serving.visits import Answer, Connection
from trees import write_tree
from world import World

PATHS = ("a", "b", "d/c", "d/e")
CONTENTS = (b"one!", b"two!", b"tri!", b"other")
"""Three of one size: only the time can tell them apart."""

ONE_TIME = 1_000_000_000
"""Of every source file, as from tools that normalise times."""

MODES = {"pack": ("copy",), "tree": ("copy", "link")}

SERVER = """
server {{
    listen 80;
    server_name ~^(?<target>.+)$;
    root {top}/$target/current;
    location / {{ {more} }}
}}
"""

Spec = dict[str, tuple[bytes, int]]
"""A build: content and mode of each file."""


class Held(NamedTuple):
    """What a browser keeps: a page, and how to ask whether it is still current."""

    body: bytes
    etag: str
    modified: str

    @property
    def conditions(self) -> list[dict[str, str]]:
        etag, modified = {"if_none_match": self.etag}, {"if_modified_since": self.modified}
        return [etag, modified, etag | modified]


class Site:
    """One application: its store, a target for each mode, and the browsers of its visitors."""

    def __init__(self, top: Path, port: int, layout: str) -> None:
        self.here = Path(tempfile.mkdtemp(prefix="", dir=top))
        self.here.chmod(0o755)
        self.world = World(self.here, layout)
        self.connection = Connection(port)
        self.roots = {mode: Path(f"{self.here}.{mode}") for mode in MODES[layout]}
        self.builds: list[Spec] = []
        self.live = 0
        self.held: dict[str, dict[int, Held]] = {path: {} for path in PATHS}
        self.asked = 0

    # -- what happens -------------------------------------------------------------------------

    def publish(self, spec: Spec) -> int:
        """The number of the new build."""
        self.builds.append(dict(spec))
        number = str(len(self.builds))
        source = write_tree(self.here / "src" / number, dict(spec))
        for file in source.rglob("*"):
            os.utime(file, (ONE_TIME, ONE_TIME))
        workflow.publish(
            str(source), config=self.world.config, id=number, bundle=self.world.bundle(number),
            disk=self.world.disk, environment={},
        )  # fmt: skip
        return len(self.builds)

    def deploy(self, number: int) -> None:
        for mode, root in self.roots.items():
            self.world.deploy(str(number), root, mode=mode)
        self._went_live(number)

    def rollback(self) -> None:
        """To the build before, when there is one."""
        number = self.live
        for root in self.roots.values():
            self.world.root = root
            with self.world.target() as target:
                previous = previous_of(target.history(), target.live_id())
            if previous is not None:
                number = int(self.world.rollback().id)
        self._went_live(number)

    def put_back(self, number: int) -> None:
        """Build `number` is live, and seen, until its check fails."""
        for mode, root in self.roots.items():
            self.world.root = root
            with self.world.going_live(str(number), mode=mode) as going:
                switched = going.switch(going.prepare())
                self._look(mode, number)
                if not switched.already:
                    with pytest.raises(PutBack):
                        going.put_back(switched, HookFailed("the check hook failed"))
                else:
                    going.check(switched)
        self._went_live(self.live)

    # -- what browsers see --------------------------------------------------------------------

    def _went_live(self, number: int) -> None:
        self.live = number
        for mode in self.roots:
            self._look(mode, number)

    def get(self, mode: str, path: str, **headers: str) -> Answer:
        self.asked += 1
        return self.connection.get(f"/{path}", host=self.roots[mode].name, **headers)

    def _look(self, mode: str, number: int) -> None:
        """Ask a target on which build `number` is live for everything, with all that is held."""
        spec = self.builds[number - 1]
        for path, held in self.held.items():
            answer = self.get(mode, path)
            if path in spec:
                assert (answer.status, answer.body) == (200, spec[path][0])
                headers = answer.headers
                now = Held(answer.body, headers["etag"], headers["last-modified"])
                assert held.setdefault(number, now) == now, f"{path}: two targets differ"
            else:
                assert answer.status == 404
            for earlier, known in held.items():
                self._ask_again(mode, path, known, number, self._stayed(path, earlier, number))

    def _stayed(self, path: str, one: int, other: int) -> bool:
        """Whether `path` is the same in all builds from one to the other."""
        first, last = sorted((one, other))
        return len({self.builds[at].get(path) for at in range(first - 1, last)}) == 1

    def _ask_again(self, mode: str, path: str, known: Held, number: int, stayed: bool) -> None:
        now = self.builds[number - 1].get(path, (None, 0))[0]
        for condition in known.conditions:
            answer = self.get(mode, path, **condition)
            if answer.status == 304:
                assert now == known.body, f"{path}: 304 for changed content, {condition}"
            else:
                assert not stayed, f"{path}: {answer.status} for unchanged content, {condition}"
                assert now is None or answer.body == now
        rest = self.get(mode, path, range="bytes=1-", if_range=known.etag)
        if rest.status == 206:
            assert now == known.body, f"{path}: the end of another build for a download"

    def close(self) -> None:
        self.connection.close()
        for folder in (self.here, *self.roots.values()):
            shutil.rmtree(folder)


# -- any history ----------------------------------------------------------------------------------

Edit = tuple[str, str, str, bytes]
paths, contents = st.sampled_from(PATHS), st.sampled_from(CONTENTS)
kinds = st.sampled_from(("write", "write", "swap", "rename", "rename", "remove", "mode"))
edits = st.lists(st.tuples(kinds, paths, paths, contents), max_size=2)
verbs = st.sampled_from(("deploy", "deploy", "deploy", "rollback", "put back", "old one"))
histories = st.lists(st.tuples(verbs, edits), min_size=2, max_size=6)
specs = st.dictionaries(paths, contents.map(lambda data: (data, 0o644)), min_size=2)


def edited(before: Spec, edits: Sequence[Edit]) -> Spec:
    spec = dict(before)
    for kind, path, other, content in edits:
        if kind == "write":
            spec[path] = (content, 0o644)
        elif path in spec and kind == "remove":
            del spec[path]
        elif path in spec and kind == "mode":
            spec[path] = (spec[path][0], 0o644 ^ 0o755 ^ spec[path][1])
        elif path in spec and kind == "rename":
            spec[other] = spec.pop(path)
        elif path in spec and other in spec and kind == "swap":
            spec[path], spec[other] = spec[other], spec[path]
    return spec or before  # an empty build is refused


def happen(site: Site, verb: str, spec: Spec) -> None:
    if verb == "rollback":
        site.rollback()
    elif verb == "old one":
        site.deploy((site.live + len(site.builds)) // 2)
    elif verb == "put back":
        site.put_back(site.publish(spec))
    else:
        site.deploy(site.publish(spec))


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """Where the targets of all histories lie."""
    with tempfile.TemporaryDirectory(prefix="m.") as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.fixture(scope="module")
def port(top: Path) -> Iterator[int]:
    """One nginx for all of them."""
    with nginx(top / "nginx", SERVER.format(top=top, more="")) as port:
        yield port


A_AND_B: Spec = {"a": (b"one!", 0o644), "b": (b"two!", 0o644)}
GONE_AND_BACK: list[tuple[str, list[Edit]]] = [
    ("deploy", [("remove", "a", "a", b"")]),
    ("deploy", [("rename", "b", "a", b"")]),
]
"""A path comes back with what another path held since the same moment."""


@pytest.mark.slow
@pytest.mark.parametrize("layout", MODES)
def test_304_is_said_exactly_when_it_is_true(
    top: Path, port: int, layout: str, count: Count
) -> None:
    @settings(max_examples=40)
    @given(specs, histories)
    @example(A_AND_B, GONE_AND_BACK)
    def any_history(spec: Spec, history: list[tuple[str, list[Edit]]]) -> None:
        site = Site(top, port, layout)
        try:
            site.deploy(site.publish(spec))
            for verb, changes in history:
                spec = edited(spec, changes)
                happen(site, verb, spec)
        finally:
            site.close()
        count.add("conditional histories", 1)
        count.add("conditional requests", site.asked)

    any_history()
