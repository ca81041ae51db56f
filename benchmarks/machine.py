"""On what, when and with which programs a run was made."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_VERSIONS = {
    "moorline": (str(Path(sys.executable).with_name("moorline")), "--version"),
    "coreutils": ("cp", "--version"),
    "rsync": ("rsync", "--version"),
    "ostree": ("ostree", "--version"),
    "casync": ("casync", "--version"),
    "restic": ("restic", "version"),
    "zip": ("zip", "-v"),
    "unzip": ("unzip", "-v"),
    "curl": ("curl", "--version"),
    "s3rver": ("s3rver", "--version"),
}
_KNOWN_BY = ("Version: '", "This is Zip")


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    system: str
    file_system: str
    python: str
    date: str
    versions: dict[str, str]

    @classmethod
    def here(cls, work: Path) -> Machine:
        return cls(
            cpu=_after("/proc/cpuinfo", "model name\t: "),
            cores=len(os.sched_getaffinity(0)),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            kernel=platform.release(),
            system=_after("/etc/os-release", "PRETTY_NAME=").strip('"'),
            file_system=file_system(work),
            python=platform.python_version(),
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            versions={name: _version(argv) for name, argv in _VERSIONS.items()} | _commit(),
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`: its longest mount point decides. One that
    lies in a file is named as that: what is written goes through two of them."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, type_, *_ = line.split()
        inside = str(folder.resolve()).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, type_ + (" in a file" if "/loop" in device else "")
    return kind


def _after(path: str, label: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line[len(label) :] for line in lines if line.startswith(label)), "unknown")


def _commit() -> dict[str, str]:
    """Which source was measured: `git describe`, with "-dirty" where files differ from it."""
    described = _version(("git", "-C", str(ROOT), "describe", "--always", "--dirty"))
    return {} if described in ("absent", "unknown") else {"source": described}


def _version(argv: tuple[str, ...]) -> str:
    if shutil.which(argv[0]) is None:
        return "absent"
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = [line.strip(" .") for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    named = [line for line in lines if any(mark in line for mark in _KNOWN_BY)]
    return (named or lines or ["unknown"])[0][:60]
