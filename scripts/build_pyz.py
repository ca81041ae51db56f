"""Build moorline.pyz: the whole command with what it needs in one file.

The file is a zip of the wheels' contents with a `__main__.py`, made so that the same inputs give
the same bytes on every machine: names sorted, dates 1980, modes fixed, stored and not deflated
(zlib's output differs between its versions). It runs with `python3 -I -S moorline.pyz`.

The dependencies are the wheels that requirements.txt pins, their hashes checked here again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"

# Rich needs these only for source listings, tracebacks and Markdown, which Moorline does not
# print. They are 4.9 of 6.9 MB. tests/test_pyz.py imports every module of ours without them.
LEFT_OUT = {"pygments", "markdown-it-py", "mdurl"}

MAIN = """\
import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):
        sys.stderr.write(
            "moorline failed to start: this is Python %d.%d. It needs Python 3.11 or newer. "
            "Run it as: python3.11 %s\\n" % (sys.version_info[0], sys.version_info[1], sys.argv[0])
        )
        sys.exit(2)
    from moorline.command import main

    main()
"""


def run(*arguments: str | Path) -> None:
    """Run a module of this interpreter; show what it said only when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"build_pyz failed: python -m {arguments[0]}:\n{done.stdout}")


def download_wheels(folder: Path) -> Path:
    options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder)]
    run("pip", "download", *options, "--requirement", REQUIREMENTS)
    return folder


def build_own_wheel(folder: Path) -> Path:
    run("build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("moorline-*.whl")
    return wheel


def pinned_wheels(folder: Path) -> Iterator[Path]:
    """The wheels that requirements.txt names, in its order, without those left out."""
    pinned = REQUIREMENTS.read_text(encoding="utf-8")
    for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", pinned, re.MULTILINE):
        if name in LEFT_OUT:
            continue
        wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        if not wheel.is_file():
            sys.exit(f"build_pyz failed: {wheel} is missing. Run: make clean-venv pyz")
        if f"sha256:{sha256(wheel.read_bytes())}" not in pinned:
            sys.exit(f"build_pyz failed: {wheel} has another hash than requirements.txt says.")
        yield wheel


def wanted(name: str) -> bool:
    """Keep code and data; of the metadata keep what names the version and the licence.

    RECORD, INSTALLER, direct_url.json and the like describe one installation.
    """
    folder, _, rest = name.partition("/")
    if folder.endswith(".dist-info"):
        return rest == "METADATA" or rest.startswith("licenses/")
    return not name.endswith(("/", ".pyc"))


def merge(wheels: Iterable[Path]) -> dict[str, bytes]:
    files = {"__main__.py": MAIN.encode("ascii")}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in filter(wanted, archive.namelist()):
                if name in files:
                    sys.exit(f"build_pyz failed: two wheels hold {name}.")
                files[name] = archive.read(name)
    return files


def pack(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    out.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build moorline.pyz, reproducibly.")
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--wheels", type=Path, help="folder with the wheels of requirements.txt (else downloaded)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moorline-pyz-") as scratch:
        wheels = arguments.wheels or download_wheels(Path(scratch) / "wheels")
        own = build_own_wheel(Path(scratch) / "own")
        archive = pack(merge([*pinned_wheels(wheels), own]))
    output: Path = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(archive)
    output.chmod(0o755)
    checksum = f"{sha256(archive)}  {output.name}\n"
    output.with_name(output.name + ".sha256").write_text(checksum, encoding="ascii")
    print(f"{checksum.strip()}  {len(archive):,} bytes")


if __name__ == "__main__":
    main()
