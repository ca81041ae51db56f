"""The modules that the agent shares with us, under the oldest Python that a target may have.

The agent's own tests run its zipapp; this publishes, damages, mends and verifies, in both layouts,
with more files than are hashed without worker processes.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import moorline

SCRIPT = """
import os, sys
from moorline.build import build_id
from moorline.disk import Disk
from moorline.publishing import Publisher
from moorline.scan import scan
from moorline.verifying import verify
from moorline.founding import init_store
from moorline.store import open_store

assert sys.version_info[:2] == (3, 9), sys.version
store, source, layout = sys.argv[1:]

def publish(id):
    with open_store(Disk(), store) as opened:
        return Publisher(opened).publish(scan(Disk(), source), build_id(id)).written

def wrong(id):
    with open_store(Disk(), store) as opened, opened.open_build(build_id(id)) as build:
        manifest = build.manifest()
        found = {e.digest: b"".join(c) for e, c in build.reader(manifest).contents(manifest.files)}
        assert len(found) == 500
        return build.verify(manifest).problems

init_store(Disk(), store, app="site", layout=layout).close()
assert publish("1").new_files == 500
with open(source + "/d/f7", "wb") as file:
    file.write(b"new")
written = publish("2")
assert (written.new_files, written.linked_files) == (1, 499), written
assert wrong("1") == wrong("2") == ()
os.unlink(store + "/builds/2/manifest.gz")
assert publish("2").repaired == 1
assert wrong("2") == ()
manifest = scan(Disk(), source).manifest
os.chmod(source, 0o755)
assert verify(Disk(), source, manifest).problems == ()
os.unlink(source + "/l")
assert [p.path for p in verify(Disk(), source, manifest).problems] == ["l"]
print("good")
"""


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pack", "tree"])
@pytest.mark.parametrize("python", ["pypy3", "python3.9"])
def test_store_and_scan_under_python_3_9(tmp_path: Path, python: str, layout: str) -> None:
    command = [python, "-c", "import sys; print(sys.version_info[:2])"]
    try:
        version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no {python} here")
    if version != "(3, 9)":
        pytest.skip(f"{python} is {version}")
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    for number in range(500):
        (source / "d" / f"f{number}").write_bytes(b"%d" % number * 50)
    (source / "l").symlink_to("d")
    environment = {**os.environ, "PYTHONPATH": str(Path(moorline.__file__).parent.parent)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    run = subprocess.run(
        [python, "-c", SCRIPT, tmp_path / "store", source, layout],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "good\n"), run.stderr
