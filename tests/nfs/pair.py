"""Two machines against one server with EFS's manners: two User-Mode Linux guests, nfs-ganesha, and
between ganesha and its disk a shim with a limit of links, latency, and errors on order.

Power cuts and partitions are real: a guest is killed, its packets are dropped, the server is killed
and started again. All traffic stays inside a network namespace that has no way out. The server
opens files by handle, which overlayfs (a container's root) cannot: so the share is a tmpfs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from nfs.guest import DIES_WITH_US, HERE, Guest, GuestError, lay_folder, remove_folder
from nfs.machine import EFS_OPTIONS, Machine, serve

OPERATIONS = (
    "LOOKUP", "GETATTR", "OPEN", "CREATE", "READ", "WRITE", "COMMIT", "LINK", "RENAME", "REMOVE",
    "MKDIR", "SYMLINK", "READLINK", "SETATTR",
)  # fmt: skip
"""What the shim can delay, fail and count, in the order of efs_shim.c."""

_GANESHA = """
NFS_CORE_PARAM {{
    NFS_Port = 2049; Bind_addr = 0.0.0.0; Protocols = 4;
    Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}}
NFSV4 {{
    Minor_Versions = 1; Only_Numeric_Owners = true; Delegations = false;
    Lease_Lifetime = 10; Grace_Period = 5; Graceless = true;
    RecoveryBackend = fs; RecoveryRoot = {folder}/recovery;
}}
EXPORT {{
    Export_Id = 1; Path = {folder}/share; Pseudo = /efs; Access_Type = RW;
    Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


_START_S = 60
_LARGE = 64 << 10
_WORDS = 8  # of an operation on the page; efs_shim.c has their order
_LATENCY, _ERROR, _TIMES, _HOLD, _PASS, _HELD = range(1, 7)


class Shim:
    """EFS's manners, effective at once: a page of memory that the server's process shares."""

    def __init__(self, folder: Path) -> None:
        self.page_file = folder / "shim.page"
        self.library = folder / "shim.so"
        self.page_file.write_bytes(bytes(mmap.PAGESIZE))
        with self.page_file.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        source = str(HERE / "efs_shim.c")
        subprocess.run(
            ["gcc", "-O2", "-shared", "-fPIC", "-o", str(self.library), source, "-ldl"], check=True
        )
        self._put(1, _LARGE)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "EFS_SHIM_CTL": str(self.page_file)}

    def close(self) -> None:
        self._page.close()

    def link_limit(self, most: int) -> None:
        self._put(0, most)

    def latency(self, **microseconds: int) -> None:
        """By operation, READ=600; none for those that are not named."""
        for name in OPERATIONS:
            self._put(_word(name, _LATENCY), microseconds.get(name, 0))

    def fail(self, operation: str, code: int, times: int = 1) -> None:
        """The next `times` calls of an operation fail with errno `code`."""
        for word, value in ((_TIMES, 0), (_ERROR, code), (_TIMES, times)):  # off while it changes
            self._put(_word(operation, word), value)

    def hold(self, operation: str, *, after: int = 0) -> None:
        """From now on, `after` so many, calls of an operation wait in the server until `release`.
        Of READ and WRITE only large ones count: the contents of builds."""
        self._put(_word(operation, _PASS), after)
        self._put(_word(operation, _HOLD), 1)

    def held(self, operation: str) -> int:
        """How many calls wait now."""
        held: int = struct.unpack_from("=q", self._page, 8 * _word(operation, _HELD))[0]
        return held

    def release(self) -> None:
        """Whatever is held goes on."""
        for name in OPERATIONS:
            self._put(_word(name, _HOLD), 0)

    def forget_held(self) -> None:
        """What a server held when it died is not held any more."""
        self.release()
        for name in OPERATIONS:
            self._put(_word(name, _HELD), 0)

    def _put(self, index: int, value: int) -> None:
        struct.pack_into("=q", self._page, 8 * index, value)


def _word(operation: str, word: int) -> int:
    return 8 + _WORDS * OPERATIONS.index(operation) + word


class Rig:
    """Machines `a` and `b`, each a guest with the share at /mnt/efs."""

    def __init__(self, folder: Path, *, memory: str = "384M") -> None:
        self.folder = lay_folder(folder)
        self.space = f"moorline{os.getpid()}"
        # nsenter: the mount namespace of "ip netns exec" would hold on to the mounts of others.
        self.enter = ("nsenter", f"--net=/run/netns/{self.space}")
        self.share = self.folder / "share"
        self._server: subprocess.Popen[bytes] | None = None
        self.a, self.b = (self._machine(n, name, memory) for n, name in ((1, "a"), (2, "b")))

    def _machine(self, number: int, name: str, memory: str) -> Machine:
        settings = (
            f"vec0:transport=tap,ifname=tap{number},depth=128,gro=1",
            f"RIG_ADDRESS=10.77.{number}.2",
        )
        guest = Guest(self.folder, name, memory=memory, enter=self.enter, settings=settings)
        return Machine(guest, name, "/mnt/efs")

    def __enter__(self) -> Rig:
        try:
            (self.folder / "recovery").mkdir()
            self.share.mkdir()
            (self.folder / "ganesha.conf").write_text(_GANESHA.format(folder=self.folder))
            self.shim = Shim(self.folder)
            self.shim.link_limit(177)
            subprocess.run(["mount", "-t", "tmpfs", "share", str(self.share)], check=True)
            self._wire()
            ready = [machine.guest.start() for machine in (self.a, self.b)]
            self.start_server()
            for machine, booting in zip((self.a, self.b), ready, strict=True):
                machine.guest.boot(booting)
                self._mount(machine)
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._down()
        self.shim.close()
        if kind is None:
            remove_folder(self.folder)

    def _down(self) -> None:
        for machine in (self.a, self.b):
            machine.guest.stop()
        self.stop_server()
        subprocess.run(["ip", "netns", "del", self.space], stderr=subprocess.DEVNULL)
        if self.share.is_mount():
            subprocess.run(["umount", str(self.share)])

    def _wire(self) -> None:
        """A wire for each guest, and tap0: ganesha will not listen where only lo has an address."""
        _ip("netns", "add", self.space)
        _ip("-n", self.space, "link", "set", "lo", "up")
        for number in range(3):
            tap = f"tap{number}"
            _ip("-n", self.space, "tuntap", "add", "dev", tap, "mode", "tap")
            _ip("-n", self.space, "addr", "add", f"10.77.{number}.1/30", "dev", tap)
            _ip("-n", self.space, "link", "set", tap, "up")

    def _mount(self, machine: Machine) -> None:
        serve(machine.guest, "moorline")
        number = {"a": 1, "b": 2}[machine.name]
        machine.shell(
            f"mkdir -p {machine.share} {machine.local} && "
            f"mount -t nfs4 -o {EFS_OPTIONS} 10.77.{number}.1:/efs {machine.share}"
        )

    # -- trouble ------------------------------------------------------------------------------

    def restart(self, machine: Machine) -> None:
        """Boot a machine whose power was cut, and mount the share again."""
        machine.guest.boot()
        self._mount(machine)

    def cut_wire(self, machine: Machine) -> None:
        """Drop every packet that leaves `machine`. (Taking its tap down breaks UML's driver.)"""
        machine.shell("tc qdisc add dev vec0 root netem loss 100%")

    def mend_wire(self, machine: Machine) -> None:
        machine.shell("tc qdisc del dev vec0 root")

    def start_server(self) -> None:
        command = [
            *DIES_WITH_US, *self.enter, "ganesha.nfsd", "-F", "-C",
            "-L", f"{self.folder}/ganesha.log", "-f", f"{self.folder}/ganesha.conf",
            "-p", f"{self.folder}/ganesha.pid",
        ]  # fmt: skip
        with open(self.folder / "ganesha.out", "ab") as out:
            self._server = subprocess.Popen(
                command, env={**os.environ, **self.shim.environment}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._server.poll() is None:
            if self._listens():
                return
            time.sleep(0.05)
        log = (self.folder / "ganesha.log").read_text(errors="replace")
        raise GuestError(f"ganesha does not listen:\n{log}")

    def _listens(self) -> bool:
        command = [*self.enter, "ss", "-Hltn", "sport = :2049"]
        return bool(subprocess.run(command, capture_output=True).stdout.strip())

    def stop_server(self) -> None:
        """Kill it: it has no chance to finish anything."""
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                self._server.send_signal(signal.SIGKILL)
            self._server.wait()
            self._server = None
            self.shim.forget_held()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
