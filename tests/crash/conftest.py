"""What the tests of this folder share: a folder in memory, and the truth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crash.invariants import Truth

MEMORY = Path("/dev/shm")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a short name, in memory where that is possible: nothing in here asks
    what a device does, and thousands of runs should not wait for one. Nor should they copy and hash
    an agent of 250 KB that none of them starts."""
    folder = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="mc.", dir=folder, ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        from moorline import agent_file, wanted

        monkeypatch.setattr(wanted, "HOST_FILE", str(path / "etc-moorline.toml"))
        monkeypatch.setattr(agent_file, "agent_bytes", lambda: b"an agent")
        yield path


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    from crash.invariants import Truth

    return Truth(tmp_path_factory.mktemp("truth"))


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy target says so at once: both verbs run in one process, one of them stands still."""
    from moorline.target import Target

    lock = getattr(Target.lock, "__wrapped__")  # noqa: B009
    monkeypatch.setattr(lock, "__defaults__", (0.0,))
