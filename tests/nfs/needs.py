"""What a rig needs of the machine that runs the tests: each says what is missing and how to get it.

Nothing here skips: a machine that cannot run these tests has not shown what they prove. `.ci/run`
installs every program; root, tun, FUSE and loop devices are what a virtual machine has, and a
container that is given them.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "linux.uml": "user-mode-linux",
    "exportfs": "nfs-kernel-server",
    "mount.nfs4": "nfs-common",
    "modprobe": "kmod",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "ganesha.nfsd": "nfs-ganesha",
    "gcc": "gcc",
    "fusermount3": "fuse3",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def need_programs(*names: str) -> None:
    missing = [name for name in names if shutil.which(name, path=_PATH) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        pytest.fail(f"not installed: {', '.join(missing)}. Debian: apt-get install {packages}")


def need_user_mode_linux() -> None:
    """Whether it runs is seen when the first guest boots: what the kernel said is in the error."""
    if platform.machine() != "x86_64":
        pytest.fail(f"User-Mode Linux exists for x86-64 only, this is {platform.machine()}")
    need_programs("linux.uml", "mount.nfs4", "modprobe", "ip")


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root: namespaces, mounts, a server that opens files by handle")


def need_tun() -> None:
    _need_device("/dev/net/tun", "two machines are wired by tun devices")
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"needs network namespaces: {done.stderr.strip()}")


def need_mtab() -> None:
    if not Path("/etc/mtab").exists():
        pytest.fail("ganesha reads /etc/mtab: ln -s /proc/self/mounts /etc/mtab")


def need_fuse() -> None:
    need_programs("fusermount3")
    _need_device("/dev/fuse", "a share that imitates EFS is a FUSE mount")


def _need_device(path: str, why: str) -> None:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        pytest.fail(f"needs {path} ({error.strerror}): {why}")


def need_mounts() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs none /mnt"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(f"needs mount namespaces: {done.stderr.strip()}")


def need_loop() -> None:
    need_programs("mkfs.ext4")
    done = subprocess.run(["losetup", "-f"], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"needs loop devices: {done.stderr.strip()}")
