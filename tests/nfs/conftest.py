"""The rigs: each is started when the first test of this folder asks for it, and kept to the last.

There is one rig of a kind on a machine, however many workers pytest-xdist has: with its `--dist
loadfile` all tests of this folder go to one worker (`pytest_xdist_make_scheduler` in the conftest
above).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfs import needs
from nfs.pair import Rig
from nfs.simulator import Simulator
from nfs.solo import SoloRig


@pytest.fixture(scope="package")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoloRig]:
    """One guest with the kernel's NFS server and two clients, a and b."""
    needs.need_user_mode_linux()
    needs.need_programs("exportfs", "mkfs.ext4")
    with SoloRig(tmp_path_factory.mktemp("solo")) as rig:
        yield rig


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Two guests, a and b, and a server between them that can be made to fail."""
    needs.need_root()
    needs.need_tun()
    needs.need_user_mode_linux()
    needs.need_programs("ganesha.nfsd", "gcc")
    needs.need_mtab()
    with Rig(tmp_path_factory.mktemp("pair")) as rig:
        yield rig


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """An empty folder for many files, in memory where there is room (containers have little)."""
    memory = "/dev/shm"
    roomy = os.path.isdir(memory) and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as name:
        yield Path(name)


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Simulator]:
    """A share that imitates EFS, mounted on this machine; no latency until a test orders it."""
    needs.need_fuse()
    with Simulator(tmp_path / "efs.backing", tmp_path / "efs") as share:
        yield share
