"""The rigs: each is started once, by the one xdist worker that runs its tests.

A module says with `pytest.mark.xdist_group` which rig it uses; with `--dist loadgroup` all tests of
a group run in one worker, so no two workers start the same rig.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nfs import needs
from nfs.pair import Rig
from nfs.solo import SoloRig


@pytest.fixture(scope="session")
def solo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoloRig]:
    """One guest with the kernel's NFS server and two clients, a and b."""
    needs.need_user_mode_linux()
    needs.need_programs("exportfs", "mkfs.ext4")
    with SoloRig(tmp_path_factory.mktemp("solo")) as rig:
        yield rig


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Two guests, a and b, and a server between them that can be made to fail."""
    needs.need_root()
    needs.need_tun()
    needs.need_user_mode_linux()
    needs.need_programs("ganesha.nfsd", "gcc")
    with Rig(tmp_path_factory.mktemp("pair")) as rig:
        yield rig
