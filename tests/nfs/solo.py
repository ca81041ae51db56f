"""The real thing without privileges: ONE User-Mode Linux in which the kernel's own NFS server
exports an ext4 image to two clients of the same kernel.

The image has a size, so a full share is a real one; it lies in the guest's memory, so that the many
syncs of a server do not wait for a disk. Not here: a limit of links, power cuts of one
side only (`pair` has them).
"""

from __future__ import annotations

from pathlib import Path

from nfs.guest import HERE, Guest, lay_folder, remove_folder
from nfs.machine import EFS_OPTIONS, Machine, serve


class SoloRig:
    """Clients `a` and `b` of one share of `size_mb` megabytes."""

    def __init__(self, folder: Path, *, size_mb: int = 1024, memory: str = "768M") -> None:
        self.folder = lay_folder(folder)
        self.size_mb = size_mb
        self.guest = Guest(self.folder, "solo", memory=memory)
        self.a = Machine(self.guest, "a", "/mnt/a")
        self.b = Machine(self.guest, "b", "/mnt/b")

    def __enter__(self) -> SoloRig:
        try:
            self.guest.boot()
            serve(self.guest, "moorline", "actors", "power", "tracing")
            self.guest.shell(
                f"sh {HERE}/solo_setup.sh",
                environment={"EFS_OPTIONS": EFS_OPTIONS, "SIZE_MB": str(self.size_mb)},
            )
        except BaseException:
            self.guest.stop()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.guest.stop()
        if kind is None:
            remove_folder(self.folder)

    def delay(self, microseconds: int) -> None:
        """Let every packet of both clients wait; 0 ends that."""
        for client in (self.a.name, self.b.name):
            self.guest.shell(f"tc -n {client} qdisc del dev e0 root 2>/dev/null || true")
            if microseconds:
                self.guest.shell(
                    f"tc -n {client} qdisc add dev e0 root netem limit 100000 "
                    f"delay {microseconds}us"
                )

    def free_bytes(self) -> int:
        """What can still be written on the server's disk."""
        blocks, block_bytes = self.guest.shell("stat -f -c '%a %S' /mnt/export").split()
        return int(blocks) * int(block_bytes)
