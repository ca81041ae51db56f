"""The same steps on a share with EFS's latency: a mount where every request waits.

The mount is the simulator of the tests on real NFS (tests/nfs/fuse_share.py): programs run here at
full speed, only what they ask of the share takes its time. (The rigs with a real NFS client run in
User-Mode Linux, where a system call costs 53 us in place of 0.3: there, the CPU would be measured.)
Every step meets a mount of its own, so that no client has anything cached, as in a fresh CI
container or on another machine. What prepares a step does not wait. The programs that ask for one
thing after the other need minutes in which they do nothing but wait: they run beside each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.goals import FLOOR
from benchmarks.measuring import Command, clear_away
from benchmarks.ours import ROOT, Ours
from benchmarks.peers import NO_PROOF, Alone
from benchmarks.rounds import Comparison, Plan, Rounds, Say
from benchmarks.scenario import Contender, Site, Step, command, make_folder, switch_to
from benchmarks.trees import Pair, make_pair, size_of

sys.path.append(str(ROOT / "tests"))  # the simulator belongs to the tests
from nfs.simulator import Simulator

READ_US, WRITE_US = 1000, 2700
"""One request, as the EFS user guide gives them: about 1 ms to read, 2.7 ms to write."""
EFS = {"meta": READ_US, "read": READ_US, "change": WRITE_US, "write": WRITE_US}
CHANGING = frozenset(
    ("mkdir", "symlink", "link", "rename", "unlink", "rmdir", "chmod", "chown", "truncate",
     "utimens", "create", "write")
)  # fmt: skip
KEYS = ("first", "publish", "copy_new", "copy", "verify")
FILES = (2_000, 7_500)
GATSBY_FILES = 7_518  # of the shape at scale 1


@dataclass(frozen=True)
class MountedSite(Site):
    """The store lies on the mount; builds and targets are local."""

    @property
    def mount(self) -> Path:
        return self.work / "efs"

    @property
    def store(self) -> Path:
        return self.mount / "store"

    @property
    def behind(self) -> Path:
        return self.work / "efs.behind" / "store"


class DelayedRounds(Rounds):
    """Rounds whose steps each get a mount of their own; its latency is `latency`."""

    def __init__(self, pair: Pair, work: Path, say: Say, latency: Mapping[str, int]) -> None:
        super().__init__(pair, work, say)
        self.latency = latency

    def _site(self) -> MountedSite:
        site = MountedSite(self.pair.a, self.pair.b, self.work / "site")
        site.work.mkdir()
        return site

    def _floor(self) -> None:
        """T, the time of hashing, is no measure here."""

    def _step(self, contender: Contender, site: Site, step: Step, *, check: bool) -> None:
        if step.key in KEYS:
            super()._step(contender, site, replace(step, grows=None), check=check)

    def _prepare(self, step: Step, site: Site) -> None:
        if step.prepare:
            with _mounted(site, {}):
                super()._prepare(step, site)

    def _sample(self, step: Step, site: Site) -> dict[str, Any]:
        with _mounted(site, self.latency) as share:
            before = share.operations()
            sample = super()._sample(step, site)
            requests = share.operations() - before
            return {**sample, "requests": dict(requests), "at_once": share.most_in_flight()}


@contextlib.contextmanager
def _mounted(site: Site, latency: Mapping[str, int]) -> Iterator[Simulator]:
    assert isinstance(site, MountedSite)
    with Simulator(site.behind.parent, site.mount) as share:
        share.order(latency=dict(latency))
        yield share


@dataclass(frozen=True)
class OneFile(Alone):
    """The floor: no way of storing a build can be quicker than one file with its bytes."""

    name: str = FLOOR
    programs: tuple[str, ...] = ("cp", "find", "xargs")

    def steps(self, site: Site) -> Iterator[Step]:
        one, there, target = site.work / "one", site.store / "one", site.target(1)
        join = 'find "$0" -type f -print0 | xargs -0 cat > "$1"'
        prepare = (make_folder(site.store, target), command("sh", "-c", join, site.b, one))
        yield Step("first", (command("cp", one, there),), prepare, proof=NO_PROOF)
        yield Step("copy_new", (command("cp", there, target),), proof=NO_PROOF)
        yield Step("verify", (command("cp", there, "/dev/null"),), proof=NO_PROOF)


@dataclass(frozen=True)
class WholeTree(Alone):
    """A folder for each build, written and read as a whole by one program. That the share or the
    target holds A makes no difference: each is measured once."""

    name: str
    argv: tuple[str, ...]
    slow: bool = True

    @property
    def programs(self) -> tuple[str, ...]:
        return self.argv[:1]

    def steps(self, site: Site) -> Iterator[Step]:
        made, target = site.store / "B", site.target(2)
        yield Step(
            "publish", (command(*self.argv, f"{site.b}/", made),),
            (make_folder(site.store, target),),
            makes=site.behind / "B", like=site.b, proof=NO_PROOF, also=("first",),
        )  # fmt: skip
        yield Step(
            "copy",
            (
                command(*self.argv, f"{made}/", target / "B", label="copy"),
                switch_to(target / "B", target / "current"),
            ),
            makes=target / "B", like=site.b, proof=NO_PROOF, also=("copy_new",),
        )  # fmt: skip


@dataclass(frozen=True)
class Snapshots(Alone):
    """rsync with hard links to the build before. It compares sizes and times: with --checksum it
    would read the whole store at every publish."""

    name: str = "rsync -a --link-dest"
    programs: tuple[str, ...] = ("rsync",)
    slow: bool = True

    def steps(self, site: Site) -> Iterator[Step]:
        target = site.target(2)
        yield Step(
            "publish", (self._sync(site.b, site.store / "B", site.store / "A"),),
            (make_folder(site.behind, target), command("cp", "-a", site.a, site.behind / "A")),
            makes=site.behind / "B", like=site.b, proof=NO_PROOF,
        )  # fmt: skip
        yield Step(
            "copy",
            (
                self._sync(site.store / "B", target / "B", target / "A"),
                switch_to(target / "B", target / "current"),
            ),
            (command("cp", "-a", site.a, target / "A"),),
            makes=target / "B", like=site.b, proof=NO_PROOF,
        )  # fmt: skip

    def _sync(self, source: Path, to: Path, base: Path) -> Command:
        return command("rsync", "-a", f"--link-dest={base}", f"{source}/", f"{to}/", label="rsync")


@dataclass(frozen=True)
class Md5OnShare(Alone):
    """The article's check of a build on the share."""

    name: str = "md5sum -c"
    programs: tuple[str, ...] = ("md5sum", "find")
    slow: bool = True

    def steps(self, site: Site) -> Iterator[Step]:
        sums = site.work / "sums"
        listing = 'cd "$0" && find . -type f -exec md5sum {} + > "$1"'
        prepare = (
            make_folder(site.behind),
            command("cp", "-a", site.b, site.behind / "B"),
            command("sh", "-c", listing, site.b, sums),
        )
        check = command("md5sum", "-c", "--quiet", sums, cwd=site.store / "B")
        yield Step("verify", (check,), prepare, proof="listed files")


def absent() -> str:
    """Why no share can be simulated here, or nothing."""
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (Debian: fuse3)"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    return ""


def contenders() -> tuple[Contender, ...]:
    """Slow is who waits for thousands of requests, and leaves both cores to others meanwhile."""
    trees = WholeTree("cp -r", ("cp", "-rT")), WholeTree("rsync -a", ("rsync", "-a"))
    waiting = Ours("tree", slow=True), *trees, Snapshots(), Md5OnShare()
    return (Ours("pack"), OneFile(), *waiting)


def tables(
    work: Path, scale: float, words: list[str], plan: Plan, say: Say
) -> dict[str, Any]:  # fmt: skip
    """One table for each number of files, or why there is none."""
    if why := absent():
        return {"absent": why, "tables": []}
    home = work / "latency"
    chosen = [c for c in contenders() if any(word in c.name for word in words)]
    try:
        counts = sorted({max(20, round(files * scale)) for files in FILES})
        pairs = [_pair(home, files, say) for files in counts]
        waited = _beside_each_other(pairs, [c for c in chosen if c.slow], say)
        return {"absent": "", "tables": [_table(p, chosen, waited[p], plan, say) for p in pairs]}
    finally:
        clear_away(home)


def _pair(home: Path, files: int, say: Say) -> Pair:
    say(f"latency: making builds of {files} files")
    pair = make_pair("gatsby", home / str(files), scale=files / GATSBY_FILES)
    return replace(pair, name=f"latency, {files} files")


def _beside_each_other(
    pairs: list[Pair], slow: list[Contender], say: Say
) -> dict[Pair, list[Comparison]]:
    """One round of each contender on each pair, all at the same time."""
    once = Plan(1, 1)
    found: dict[Pair, list[Future[Comparison]]] = {pair: [] for pair in pairs}
    with ThreadPoolExecutor(max_workers=max(1, len(pairs) * len(slow))) as pool:
        for pair in pairs:
            for number, contender in enumerate(slow):
                work = pair.a.parent / f"beside-{number}"
                work.mkdir()
                rounds = DelayedRounds(pair, work, say, EFS)
                found[pair].append(pool.submit(rounds.run, [contender], once))
    return {pair: [each.result() for each in futures] for pair, futures in found.items()}


def _table(
    pair: Pair, chosen: list[Contender], waited: list[Comparison], plan: Plan, say: Say
) -> dict[str, Any]:
    """The quick ones, beside those that were there before; then ours and the floor at once."""
    work = pair.a.parent
    rounds = DelayedRounds(pair, work, say, EFS)
    for other in waited:
        rounds.found.add(other)
    delayed = rounds.run([c for c in chosen if not c.slow], plan)
    say(f"{pair.name}: the same without latency")
    undelayed = [c for c in chosen if isinstance(c, Ours | OneFile)]
    at_once = DelayedRounds(pair, work, say, {}).run(undelayed, Plan(1, 1))
    return {
        "size": asdict(size_of(pair.b)),
        "largest_directory": _largest_directory(pair.b),
        "read_us": READ_US,
        "write_us": WRITE_US,
        "changing": sorted(CHANGING),
        "delayed": asdict(delayed),
        "at_once": asdict(at_once),
    }


def _largest_directory(root: Path) -> int:
    return max(len(folders) + len(names) for _, folders, names in os.walk(root))
