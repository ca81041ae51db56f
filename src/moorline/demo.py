"""The demonstration: all of it in one folder, without AWS, beside the classic way.

It makes a site (or takes a build of the user's own), publishes it, deploys it to four stages, edits
one page, publishes and deploys again, rolls PROD back, changes one byte in the store and shows that
the build is refused. Then the classic way does the same. Everything in the table was measured in
this run; nothing is computed from anything else.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from moorline import workflow
from moorline.config import Config
from moorline.demo_table import print_result
from moorline.disk import Disk
from moorline.errors import ConfigError, Error, Mismatch, translated
from moorline.layout.index import Index
from moorline.meter import Meter
from moorline.pipeline import classic
from moorline.results import DeployResult, PublishResult
from moorline.scan import scan
from moorline.settings import HostPolicy, checked_path, settings_of
from moorline.site import PAGES, make_versions
from moorline.wanted import HOST_FILE, host_policy
from moorline.wording import amount, counted

STAGES = {stage: (f"{stage.lower()}-1", f"{stage.lower()}-2")
          for stage in ("DEV", "QA", "STAGING", "PROD")}  # fmt: skip
NEW = "new-1"  # a target that joins late
FIRST, SECOND = "build-1", "build-2"
MADE_BYTES = 86_000_000  # what `make_site` writes
ROOM = 32  # times the site's size: site, store, 9 targets, bucket, 8 hosts and their 10 archives


@dataclass(frozen=True)
class Cost:
    """What a step took; `bytes` crossed the network."""

    seconds: float
    bytes: int
    reused_files: int = 0

    def __add__(self, other: Cost) -> Cost:
        seconds, bytes_ = self.seconds + other.seconds, self.bytes + other.bytes
        return Cost(seconds, bytes_, self.reused_files + other.reused_files)


def run_demo(
    folder: str | None, site: str | None, console: Console, as_json: bool, progress: Meter
) -> dict[str, Any]:
    """Run the demonstration and return what was measured, as plain values for JSON.

    `site` is a build of the user's own, which is only read. Everything is written below `folder`,
    which stays; without one, below a temporary folder, which is removed again however this ends.
    """
    started = time.monotonic()
    with translated("demo"), _place(folder, site) as place:
        demo = _Demo(place, None if as_json else console, progress)
        demo.make_builds(site)
        demo.moorline()
        demo.classic()
        result = demo.result() | {"folder": str(place) if folder else None}
        if not folder:
            demo.say("Cleaning up ...")
    result["seconds"] = round(time.monotonic() - started, 3)
    if not as_json:
        print_result(console, result)
    return result


@contextlib.contextmanager
def _place(folder: str | None, site: str | None) -> Iterator[Path]:
    """The empty folder to work in."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="moorline-demo-") as name:
            try:
                yield _usable(Path(name), site)
            finally:
                _clear(Path(name))
        return
    place = Path(folder).absolute()
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise ConfigError(f"{place} is not empty. Name a new folder with --folder.")
    yield _usable(place, site)


def _clear(place: Path) -> None:
    """Remove what lies below, with several threads, because unlink waits for the disk; what is
    left is up to the temporary directory's own removal."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(functools.partial(shutil.rmtree, ignore_errors=True), place.glob("*/*")))


def _usable(place: Path, site: str | None) -> Path:
    """Raises ConfigError when this host has rules for deploys, when the copies would lie inside of
    what is copied, and when deploy.sh could not hold the store's path."""
    if host_policy(Disk()) != HostPolicy():
        raise ConfigError(
            f"this host has rules for deploys, in {HOST_FILE}. Run the demonstration on a machine "
            "that serves nothing."
        )
    if site and place.resolve().is_relative_to(Path(site).resolve()):
        raise ConfigError(f"{place} lies in {site}. Name another folder with --folder.")
    checked_path(f"{place}/store", "the demonstration's folder (choose one with --folder)")
    for folder in (place, place / "targets", place / "hosts"):
        folder.mkdir(exist_ok=True)
        _spread(folder)
    return place


def _spread(folder: Path) -> None:
    """Ask ext4 to put the folders in `folder` far apart, as on the disks of several machines.

    Without a journal ext4 passes over every inode that was deleted nearby in the last minutes,
    again for each new file: measured 0.75 instead of 0.08 ms a file, in both ways alike.
    """
    get_flags, set_flags, top_of_trees = 0x80086601, 0x40086602, 0x00020000  # linux/fs.h
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(fd, get_flags, struct.pack("l", 0)))
            fcntl.ioctl(fd, set_flags, struct.pack("l", flags | top_of_trees))
    finally:
        os.close(fd)


class _Demo:
    """One run: the folder it works in, and what each step cost, ours and classic."""

    def __init__(self, place: Path, console: Console | None, progress: Meter) -> None:
        self.place = place
        self.store = place / "store"
        self.builds = {FIRST: place / "site-1", SECOND: place / "site-2"}
        self.config = Config(
            app="demo", store=str(self.store), settings=settings_of({}, app="demo")
        )
        self.ours: dict[str, Cost] = {}
        self.theirs: dict[str, Cost] = {}
        self.refusal: dict[str, Any] = {}
        self.edited: list[str] = []
        self._console = console
        self._progress = progress

    def say(self, text: str) -> None:
        """One line, with the bar out of the way."""
        self._progress.close()
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False)

    # -- the two builds -----------------------------------------------------------------------

    def make_builds(self, site: str | None) -> None:
        """Version A, and version B: the same with one page edited."""
        source = scan(Disk(), site, progress=self._progress) if site else None
        if source and not source.manifest.files:
            raise ConfigError(f"nothing to edit: {site} holds no file. Name a build.")
        _check_room(self.place, source.manifest.size_bytes if source else MADE_BYTES)
        self.say(f"Copying {site} ..." if site else f"Making a site of {PAGES:,} pages ...")
        self.edited = make_versions(self.builds[FIRST], self.builds[SECOND], source)
        os.sync()  # so that the first measured step does not pay for this one

    # -- our way ------------------------------------------------------------------------------

    def moorline(self) -> None:
        """Every step of the table, in order."""
        workflow.init(str(self.store), app="demo", layout="pack", folder=str(self.place))
        for id, suffix in ((FIRST, ""), (SECOND, "_edit")):
            self.say(f"Publishing {id}, then deploying it to DEV, QA, STAGING, PROD ...")
            self.ours[f"publish{suffix}"] = self._publish(id)
            self.ours[f"deploy{suffix}"] = self._deploy_everywhere(id)
        self.say("Rolling PROD back ...")
        self.ours["rollback"] = _sum(self._roll_back(target, "PROD") for target in STAGES["PROD"])
        self._deploy(FIRST, NEW, "NEW")
        self._tamper()
        self.say("Deploying it to a new target ...")
        self.ours["refuse"] = self._refused(SECOND)
        self.say(f"Publishing {SECOND} again, then deploying it to the new target ...")
        self.ours["repair"] = self._publish(SECOND)
        self.ours["deploy_new"] = self._deploy(SECOND, NEW, "NEW")

    def _publish(self, id: str) -> Cost:
        with _timed() as seconds:
            result = workflow.publish(
                str(self.builds[id]), config=self.config, id=id, bundle=self._bundle(id),
                progress=self._progress, environment={},
            )  # fmt: skip
        return Cost(seconds(), self._published_bytes(result), result.linked_files)

    def _deploy_everywhere(self, id: str) -> Cost:
        stages = STAGES.items()
        return _sum(
            self._deploy(id, target, stage) for stage, targets in stages for target in targets
        )

    def _deploy(self, id: str, target: str, stage: str) -> Cost:
        with _timed() as seconds:
            result = workflow.deploy(
                self._bundle(id), config=self.config, target=self._root(target), stage=stage,
                progress=self._progress,
            )  # fmt: skip
        return Cost(seconds(), self._deployed_bytes(id, result), result.reused_files)

    def _roll_back(self, target: str, stage: str) -> Cost:
        with _timed() as seconds:
            result = workflow.rollback(
                config=self.config, target=self._root(target), stage=stage, progress=self._progress
            )
        return Cost(seconds(), result.copied_bytes, result.reused_files)

    def _tamper(self) -> None:
        """Change one byte of the edited page, where the store keeps it."""
        edited = workflow.diff(FIRST, SECOND, config=self.config).changed[0][1]
        index = Index.parse((self.store / "builds" / SECOND / "index").read_bytes())
        manifest = workflow.show(SECOND, config=self.config).manifest
        place = index.of(manifest.files)[edited.digest]
        at = place.offset + place.length // 2
        with (self.store / "packs" / place.pack).open("r+b") as pack:
            pack.seek(at)
            byte = pack.read(1)[0]
            pack.seek(at)
            pack.write(bytes([byte ^ 1]))
        self.say(f"Tampering with {SECOND}: one byte of {edited.shown} in packs/{place.pack} ...")

    def _refused(self, id: str) -> Cost:
        """What is live afterwards is not taken from the error: it is read, and hashed."""
        with _timed() as seconds:
            try:
                self._deploy(id, NEW, "NEW")
            except Mismatch as error:
                refusal = error
            else:
                raise Error("demo failed: a build that was tampered with went live.")
        (live,) = workflow.verify(config=self.config, target=self._root(NEW))
        if live.id != FIRST or not live.ok:
            raise Error(f"demo failed: a refused deploy left {live.id} live.")
        self.refusal = {
            "error": refusal.message,
            "exit": refusal.exit_code,
            "problems": [problem._asdict() for problem in refusal.problems],
            "live": live.id,
        }
        self.say(f"  refused, exit code {refusal.exit_code}: {refusal.message}")
        for path, problem in refusal.problems:
            self.say(f"    {path}: {problem}")
        self.say(f"  live there, as before: {live.id}, {counted(live.files, 'file')} verified")
        return Cost(seconds(), self._deployed_bytes(id, None))

    def _bundle(self, id: str) -> str:
        return str(self.place / f"{id}.zip")

    def _root(self, target: str) -> str:
        return str(self.place / "targets" / target)

    # -- what crossed the network -------------------------------------------------------------

    def _published_bytes(self, result: PublishResult) -> int:
        """What a publish wrote to the share and the bucket, and what it read: the base build's
        records; all content of a build that was there, which is proved again. The agent is written
        once, and proved with such a build."""
        moved = result.new_bytes + result.bundle_bytes
        moved += sum(self._record_bytes(id) for id in {FIRST, result.id})
        moved += self._agent_bytes() if result.already or result.id == FIRST else 0
        return moved + (result.bytes if result.already else 0)

    def _deployed_bytes(self, id: str, result: DeployResult | None) -> int:
        """What a target read from the bucket and the share: the agent only the first time."""
        moved = os.path.getsize(self._bundle(id)) + self._record_bytes(id)
        if result is None:
            return moved
        return moved + result.copied_bytes + (0 if result.previous else self._agent_bytes())

    def _record_bytes(self, id: str) -> int:
        """The build's manifest, index and build.json."""
        return sum(file.stat().st_size for file in (self.store / "builds" / id).iterdir())

    def _agent_bytes(self) -> int:
        return sum(file.stat().st_size for file in (self.store / "agent").iterdir())

    # -- the classic way ----------------------------------------------------------------------

    def classic(self) -> None:
        """The steps that the classic way has too, the first deploy left out: it moves all of a
        build each time, so that a host with nothing to remove is its best case."""
        for id, step in ((FIRST, "publish"), (SECOND, "publish_edit")):
            self.say(f"The classic way: zipping {id}, copying it to the bucket ...")
            done = classic.publish(self.builds[id], self.place / "bucket", f"{id}.zip")
            self.theirs[step] = Cost(done.seconds, done.bytes)
        self.say("The classic way: fetching, unzipping and copying it on 8 hosts ...")
        hosts = [target for targets in STAGES.values() for target in targets]
        self.theirs["deploy_edit"] = self._install(SECOND, hosts)
        self.say("The classic way: rolling PROD back ...")
        self.theirs["rollback"] = self._install(FIRST, STAGES["PROD"])

    def _install(self, id: str, hosts: Iterable[str]) -> Cost:
        artifact, place = self.place / "bucket" / f"{id}.zip", self.place / "hosts"
        done = [classic.deploy(artifact, place / host) for host in hosts]
        return _sum(Cost(installed.seconds, installed.bytes) for installed in done)

    # -- the result ---------------------------------------------------------------------------

    def _live(self) -> dict[str, list[str | None]]:
        """What each stage serves, by its targets' own word in the ledger."""
        live: dict[str, list[str | None]] = {}
        for record in sorted(workflow.status(self.config), key=lambda record: record.root):
            live.setdefault(record.stage, []).append(record.current)
        return live

    def result(self) -> dict[str, Any]:
        """Everything measured; seconds and bytes of an edit are of publishing and 8 deploys."""
        ours = self.ours["publish_edit"] + self.ours["deploy_edit"]
        theirs = self.theirs["publish_edit"] + self.theirs["deploy_edit"]
        first = workflow.show(FIRST, config=self.config).line.build
        return {
            "site": {"files": first.files, "bytes": first.size_bytes, "edited": self.edited},
            "steps": [
                {
                    "step": step,
                    **_plain(cost),
                    "reused_files": cost.reused_files,
                    "classic": _plain(self.theirs[step]) if step in self.theirs else None,
                }
                for step, cost in self.ours.items()
            ],
            "edit": {"moorline": _plain(ours), "classic": _plain(theirs)},
            "times_faster": round(theirs.seconds / ours.seconds, 1),
            "times_fewer_bytes": round(theirs.bytes / ours.bytes, 1),
            "refusal": self.refusal,
            "live": self._live(),
        }


# -- the steps' small parts -----------------------------------------------------------------------


@contextlib.contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    """Yields what returns the seconds that the block took, once it has ended."""
    start = end = time.perf_counter()
    yield lambda: end - start
    end = time.perf_counter()


def _check_room(place: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(place).free
    if free < ROOM * size_bytes:
        raise Error(
            f"demo failed: {place} has {amount(free)} free, and the copies of both ways take "
            f"{amount(ROOM * size_bytes)}. Name a folder on a larger disk with --folder."
        )


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, start=Cost(0.0, 0))


def _plain(cost: Cost) -> dict[str, Any]:
    return {"seconds": round(cost.seconds, 3), "bytes": cost.bytes}
