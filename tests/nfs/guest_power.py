"""In a guest: the power goes in the middle of a verb, and what ext4 kept is looked at.

    python -m nfs.guest_power FOLDER shut SEED SCENARIO=CUTS ...    prints the number of cuts
    python -m nfs.guest_power FOLDER wait SCENARIO MOMENT           hangs there
    python -m nfs.guest_power FOLDER look SCENARIO                  prints what is live

Store and target are two ext4 file systems, each in an image in FOLDER. `shut` cuts them off as
xfstests does: an ioctl stops all writing at once, what was only in memory is lost, and the next
mount replays the journal. `wait` goes as far as a moment (middle, switch, end), makes the file
FOLDER/now and hangs: the machine itself is to lose its power, and `look` comes after it is back.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from crash.invariants import Truth
from crash.scenarios import SCENARIOS, SPECS, Scenario
from nfs.stepping import SteppingDisk
from trees import write_tree
from world import World

IMAGE_MB = 24
OPTIONS = ("", "noauto_da_alloc", "data=writeback,noauto_da_alloc")
"""The last two keep less: without them ext4 writes a file out when it is renamed over another."""

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, fs/ext4/ext4.h
LOG_FLUSHED, LOG_LOST = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Disks:
    """Two images on loop devices: of the target and all else at `here`, of the store below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here = Path(f"/mnt/tmp/power{str(folder).replace('/', '.')}")
        self.here.mkdir(exist_ok=True)
        self.places = {"local": self.here, "store": self.here / "store"}
        self.devices: dict[str, str] = {}

    def attach(self, *, new: bool) -> None:
        for name in self.places:
            image = self.folder / f"{name}.image"
            if new:
                image.write_bytes(b"")
                os.truncate(image, IMAGE_MB << 20)
            done = _run("losetup", "--find", "--show", str(image))
            self.devices[name] = done.strip()
            if new:
                _run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", self.devices[name])

    def detach(self) -> None:
        for device in self.devices.values():
            _run("losetup", "--detach", device)

    @contextlib.contextmanager
    def mounted(self, options: str = "") -> Iterator[None]:
        try:
            for name, place in self.places.items():
                place.mkdir(exist_ok=True)
                _mount(self.devices[name], place, options)
            yield
        finally:
            for place in reversed(self.places.values()):
                _libc.umount2(os.fsencode(place), 0)
        for place in self.places.values():
            assert not place.is_mount(), f"{place} is busy"

    def save(self) -> None:
        """What `restore` puts back: the images as they are now."""
        for name in self.places:
            (self.folder / f"{name}.saved").touch()
            _copy_data(self.folder / f"{name}.image", self.folder / f"{name}.saved")

    def restore(self) -> None:
        """Nothing is mounted, so the kernel holds nothing of the devices."""
        for name in self.places:
            _copy_data(self.folder / f"{name}.saved", self.folder / f"{name}.image")

    def shut_down(self, how: int) -> None:
        for place in self.places.values():
            shut_down(place, how)


def shut_down(place: Path, how: int) -> None:
    """Cut the file system at `place` off its disk."""
    fd = os.open(place, os.O_RDONLY)
    fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", how))
    os.close(fd)


def _copy_data(source: Path, target: Path) -> None:
    """All of a sparse file; the target stays the file that it is."""
    with source.open("rb", buffering=0) as old, target.open("r+b", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(0)
        new.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(old.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            for at in range(start, end, 1 << 20):
                os.pwrite(new.fileno(), os.pread(old.fileno(), min(end - at, 1 << 20), at), at)


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _mount(device: str, place: Path, options: str) -> None:
    words = (os.fsencode(device), os.fsencode(place), b"ext4", 0, os.fsencode(options))
    if _libc.mount(*words):
        raise OSError(ctypes.get_errno(), f"mount -o {options} {device}")


def prepared(scenario: Scenario, disks: Disks) -> World:
    """The world that the scenario starts from, all of it on the devices."""
    disks.attach(new=True)
    with disks.mounted():
        world = World(disks.here, scenario.layout)
        for id, spec in SPECS.items():
            write_tree(disks.here / "src" / id, spec)
        scenario.prepare(world)
    disks.save()
    return world


def operations(scenario: Scenario, world: World, disks: Disks) -> list[str]:
    disk = SteppingDisk()
    with disks.mounted():
        scenario.run(world, disk)
    disks.restore()
    return disk.operations


def run_until(scenario: Scenario, world: World, at: int, cut: Callable[[], None]) -> None:
    """In a child, which ends at the cut: before operation `at`, or when all is done."""

    def ending() -> None:
        cut()
        os._exit(0)

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            scenario.run(world, SteppingDisk(at, ending))
            ending()
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"{scenario} failed before the power went"


# -- what is asked for ----------------------------------------------------------------------------


def shut(disks: Disks, seed: str, *orders: str) -> int:
    done = 0
    for name, cuts in (order.split("=") for order in orders):
        done += shut_one(disks, SCENARIOS[name], seed, int(cuts))
    return done


def shut_one(disks: Disks, scenario: Scenario, seed: str, cuts: int) -> int:
    """The first cut comes when the verb has said that it is done."""
    chance = random.Random(f"{scenario} {seed}")
    world = prepared(scenario, disks)
    steps = operations(scenario, world, disks)
    moments = [len(steps), *chance.sample(range(len(steps)), cuts - 1)]
    truth = Truth(disks.here.parent / f"truth.{uuid4()}")
    for turn, at in enumerate(moments):
        options, how = chance.choice(OPTIONS), (LOG_LOST, LOG_FLUSHED)[turn % 2]
        try:
            with disks.mounted(options):
                run_until(scenario, world, at, functools.partial(disks.shut_down, how))
            with disks.mounted():
                truth.holds(world, scenario, done=at == len(steps))
                if turn % 3 == 0:
                    truth.recovers(world, scenario)
        except BaseException as error:
            before = [*steps, "the end"][at]
            error.add_note(f"{scenario}: cut before {at}: {before}; {options!r}, shutdown {how}")
            raise
        disks.restore()
    disks.detach()
    return len(moments)


def wait(disks: Disks, name: str, moment: str) -> None:
    scenario = SCENARIOS[name]
    world = prepared(scenario, disks)
    steps = operations(scenario, world, disks)
    if moment == "switch":
        at = 1 + steps.index("rename current")
    else:
        at = {"middle": len(steps) // 2, "end": len(steps)}[moment]

    def now() -> None:
        (disks.folder / "now").write_text(moment)
        while True:
            signal.pause()

    with disks.mounted(OPTIONS[-1]):
        run_until(scenario, world, at, now)


def look(disks: Disks, name: str) -> str:
    scenario = SCENARIOS[name]
    disks.attach(new=False)
    truth = Truth(disks.here.parent / f"truth.{uuid4()}")
    with disks.mounted():
        world = World(disks.here, scenario.layout)
        truth.holds(world, scenario, done=(disks.folder / "now").read_text() == "end")
        live = truth.live(world)
        truth.recovers(world, scenario)
    disks.detach()
    return live


def main() -> None:
    folder, what, *others = sys.argv[1:]
    do: dict[str, Callable[..., object]] = {"shut": shut, "wait": wait, "look": look}
    sys.stdout.write(json.dumps(do[what](Disks(Path(folder)), *others)))


if __name__ == "__main__":
    main()
