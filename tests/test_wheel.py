"""The wheel: built as a user builds it, installed where nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import moorline

ROOT = Path(__file__).resolve().parent.parent
WHEELS = Path(sys.prefix) / "wheels"  # put there by the Makefile


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def files(package: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(package)): file.read_bytes()
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.mark.slow
def test_it_installs_into_an_empty_environment_and_runs(tmp_path: Path) -> None:
    """`python -m build` makes the wheel from the source archive, so that one is complete too."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("dist/moorline-*.whl")
    run(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    offline = ["--no-index", "--find-links", str(WHEELS)] if WHEELS.is_dir() else []
    run("venv/bin/pip", "install", *offline, wheel, cwd=tmp_path)

    assert moorline.__version__ in run("venv/bin/moorline", "--version", cwd=tmp_path)
    run("venv/bin/pip", "check", cwd=tmp_path)
    show_path = "import moorline; print(moorline.__path__[0])"
    package = Path(run("venv/bin/python", "-c", show_path, cwd=tmp_path))
    assert package.is_relative_to(tmp_path / "venv")
    assert files(package) == files(ROOT / "src/moorline")
