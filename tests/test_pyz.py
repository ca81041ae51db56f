"""moorline.pyz: one reproducible file that needs nothing but Python."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import moorline

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
WHEELS = Path(sys.prefix) / "wheels"  # put there by the Makefile
INPUTS = ["src", "scripts", "pyproject.toml", "requirements.txt", "LICENSE", ".gitignore"]


def build(root: Path, output: Path) -> Path:
    wheels = ["--wheels", str(WHEELS)] if WHEELS.is_dir() else []
    subprocess.run([sys.executable, root / "scripts/build_pyz.py", *wheels, output], check=True)
    return output


def run_bare(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as on a machine where nothing is installed."""
    command = [sys.executable, "-I", "-S", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("pyz") / "moorline.pyz")


def test_the_same_source_elsewhere_gives_the_same_bytes(pyz: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another checkout"
    elsewhere.mkdir()
    for name in [*INPUTS, "README.md"]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, elsewhere / name, copy_function=shutil.copyfile)
        elif (ROOT / name).exists():
            shutil.copyfile(ROOT / name, elsewhere / name)

    again = build(elsewhere, tmp_path / "moorline.pyz")

    assert again.read_bytes() == pyz.read_bytes()


def test_the_checksum_file_is_what_sha256sum_reads(pyz: Path) -> None:
    digest = hashlib.sha256(pyz.read_bytes()).hexdigest()

    assert Path(f"{pyz}.sha256").read_text() == f"{digest}  moorline.pyz\n"


def test_it_says_nothing_about_the_machine_that_made_it(pyz: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pyz.read_bytes())) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]

    assert names == sorted(set(names))
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert not [
        name for name in names if name.endswith((".pyc", ".so", "RECORD", "direct_url.json"))
    ]
    assert str(ROOT).encode() not in pyz.read_bytes()


def test_it_runs_where_nothing_is_installed(pyz: Path, tmp_path: Path) -> None:
    done = run_bare(pyz, "--version", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert moorline.__version__ in done.stdout


def test_every_module_and_every_data_file_is_inside(pyz: Path, tmp_path: Path) -> None:
    """Each module imports too, although some of what rich can do without is left out."""
    script = """
import importlib, importlib.resources, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import moorline
for module in pkgutil.walk_packages(moorline.__path__, "moorline."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
def show(folder, prefix):
    for item in folder.iterdir():
        if item.is_dir():
            show(item, prefix + item.name + "/")
        else:
            print(prefix + item.name, len(item.read_bytes()))
show(importlib.resources.files("moorline"), "")
"""
    package = ROOT / "src/moorline"
    expected = {
        f"{file.relative_to(package)} {file.stat().st_size}"
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    done = run_bare("-c", script, pyz, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == expected


def test_an_older_python_is_told_what_to_do(pyz: Path, tmp_path: Path) -> None:
    script = """
import runpy, sys
sys.version_info = (3, 9, 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = run_bare("-c", script, pyz, cwd=tmp_path)

    assert done.returncode == 2
    assert "It needs Python 3.11 or newer. Run it as: python3.11 " in done.stderr


def test_it_publishes_and_deploys(pyz: Path, tmp_path: Path) -> None:
    """The agent is built from the source inside the zip, and workers start from there."""
    site = tmp_path / "site"
    site.mkdir()
    for number in range(50):
        (site / f"page-{number}.html").write_text(f"page {number}")

    for arguments in (
        ["init", "--store", "store", "--app", "site"],
        ["publish", "site", "--id", "build-1", "--bundle", "bundle.zip"],
        ["deploy", "bundle.zip", "--target", "target"],
    ):
        done = run_bare(pyz, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    assert (tmp_path / "target/current/page-7.html").read_text() == "page 7"
