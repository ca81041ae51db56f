"""Namespaces, or the reason why there are none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from baddisks.namespace import Namespace
from baddisks.shop import Shop
from nfs import needs


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    needs.need_root()
    needs.need_mounts()
    with Namespace() as space:
        yield space


@pytest.fixture
def shop(space: Namespace, layout: str) -> Iterator[Shop]:
    """With each layout; nothing is mounted yet."""
    with tempfile.TemporaryDirectory(prefix="m.", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Shop(space, Path(name).resolve(), layout)


@pytest.fixture
def packs(space: Namespace) -> Iterator[Shop]:
    """With layout pack."""
    with tempfile.TemporaryDirectory(prefix="m.", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Shop(space, Path(name).resolve(), "pack")
