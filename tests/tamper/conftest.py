"""Worlds that are made once in each worker."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorline import wanted
from tamper.stage import Stages

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    folder = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="m.", dir=folder) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield Stages(path)


@pytest.fixture
def stage(stages: Stages, monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.setattr(wanted, "HOST_FILE", str(stages.folder / "etc-moorline.toml"))
    return stages
