"""What a rig needs of the machine that runs the tests.

A program that is missing fails the test: `.ci/run` installs all of them. What no package can give
(a feature of the kernel, rights of the user) skips the test, with its name.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
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
    if platform.machine() != "x86_64":
        pytest.skip(f"User-Mode Linux exists for x86-64 only, this is {platform.machine()}")
    need_programs("linux.uml", "mount.nfs4", "modprobe", "ip")
    said = _said_by_a_kernel_without_root()
    if "Linux version" not in said:
        last = (said.splitlines() or ["it says nothing"])[-1]
        pytest.skip(f"User-Mode Linux cannot run here (it needs ptrace): {last}")


@functools.cache
def _said_by_a_kernel_without_root() -> str:
    words = ["linux.uml", "mem=32M", "root=/dev/none", "panic=-1", "con=null", "con0=null,fd:1"]
    folder = {"HOME": tempfile.gettempdir(), "TMPDIR": tempfile.gettempdir()}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"PATH": _PATH, **folder}, timeout=60,
    )  # fmt: skip
    return done.stdout.decode(errors="replace")


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts, a server that opens files by handle")


def need_tun() -> None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"needs the kernel's tun device: /dev/net/tun: {error.strerror}")
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs network namespaces: {done.stderr.strip()}")


def need_mtab() -> None:
    if not Path("/etc/mtab").exists():
        pytest.fail("ganesha reads /etc/mtab: ln -s /proc/self/mounts /etc/mtab")


def need_fuse() -> None:
    need_programs("fusermount3")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"needs FUSE in the kernel: /dev/fuse: {error.strerror}")


def need_mounts() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t tmpfs none /mnt"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"needs mount namespaces: {done.stderr.strip()}")


def need_loop() -> None:
    need_programs("mkfs.ext4")
    done = subprocess.run(["losetup", "-f"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs loop devices: {done.stderr.strip()}")
