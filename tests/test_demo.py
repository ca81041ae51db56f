"""The demonstration, on a small site; and the site that it makes."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from moorline import demo, demo_table, wanted
from moorline.disk import Disk
from moorline.errors import ConfigError, Error, NotFound, SourceRefused
from moorline.manifest import Manifest, difference
from moorline.meter import Silent
from moorline.pipeline import classic
from moorline.scan import scan
from moorline.settings import HostPolicy
from moorline.site import edit_page, edit_text, make_site, make_versions
from trees import snapshot

STEPS = ["publish", "deploy", "publish_edit", "deploy_edit", "rollback", "refuse", "repair",
         "deploy_new"]  # fmt: skip
SMALL_DIGEST = "307d8f1d3a2e1e240015f7518bf2e9a7c1e083d87ed27b990e15da54e12a5e2c"
DIGEST = "f78c6fb165461c24a614e96d1a01e237a56266144c8cda0815266b5771d04224"
COMPARED = {"publish", "publish_edit", "deploy_edit", "rollback"}


def manifest(root: Path) -> Manifest:
    return scan(Disk(), root).manifest


def differing(old: Path, new: Path) -> set[str]:
    found = difference(manifest(old), manifest(new))
    assert not found.added and not found.removed
    return {entry.shown for _, entry in found.changed}


# -- the site -------------------------------------------------------------------------------------


def test_the_site_is_the_same_on_every_machine(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_site(tmp_path / "site", pages=10)
    finally:
        os.umask(before)

    assert manifest(tmp_path / "site").digest == SMALL_DIGEST


@pytest.mark.slow
def test_the_site_of_the_demonstration_is_the_same_on_every_machine(tmp_path: Path) -> None:
    make_site(tmp_path / "site")

    made = manifest(tmp_path / "site")
    assert made.digest == DIGEST
    assert len(made.files) == 2_505
    assert sum(entry.kind == "d" for entry in made.entries) == 2_039
    assert made.size_bytes == 85_626_537 <= demo.MADE_BYTES


def test_editing_a_page_changes_its_two_files_and_nothing_else(tmp_path: Path) -> None:
    make_site(tmp_path / "site", pages=10)
    shutil.copytree(tmp_path / "site", tmp_path / "edited")

    edited = edit_page(tmp_path / "edited")

    page, data = edited
    assert page.endswith("/index.html")
    assert data == f"page-data/{page.removesuffix('/index.html')}/page-data.json"
    assert differing(tmp_path / "site", tmp_path / "edited") == {page, data}
    sentence = "<p>Corrected: the ferry leaves at nine.</p>\n"
    assert f"{sentence}</article>" in (tmp_path / "edited" / page).read_text()
    fields = json.loads((tmp_path / "edited" / data).read_bytes())
    assert fields["result"]["data"]["html"].endswith(sentence)


def test_version_b_shares_no_edited_file_with_version_a(tmp_path: Path) -> None:
    make_site(tmp_path / "site", pages=10)
    source = scan(Disk(), tmp_path / "site")

    edited = make_versions(tmp_path / "a", tmp_path / "b", source)

    assert manifest(tmp_path / "a") == manifest(tmp_path / "site") == source.manifest
    assert differing(tmp_path / "a", tmp_path / "b") == set(edited)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.css", "b.js", "z/page.HTML"], "z/page.HTML"),
        (["data.json", "a.bin", "notes.txt"], "data.json"),
        (["b.bin", "a.bin"], "a.bin"),
    ],
)
def test_the_file_to_edit_is_a_page_if_there_is_one(
    names: list[str], expected: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text")
        (tmp_path / name).chmod(0o444)

    assert edit_text(tmp_path, manifest(tmp_path)) == expected

    assert (tmp_path / expected).read_bytes() == b"text\n"
    assert (tmp_path / expected).stat().st_mode & 0o777 == 0o444


# -- the demonstration ----------------------------------------------------------------------------


class Shown(NamedTuple):
    """What one run returned, and what it printed."""

    result: dict[str, Any]
    text: str


def run(folder: Path | None, site: Path | None, *, as_json: bool = False) -> Shown:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    result = demo.run_demo(
        str(folder) if folder else None, str(site) if site else None, console, as_json, Silent()
    )
    assert isinstance(console.file, io.StringIO)
    return Shown(result, console.file.getvalue())


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder with a short name and a user's own build in it. Nothing waits for the disk, and
    temporary folders are made below."""
    with (
        tempfile.TemporaryDirectory(prefix="m.") as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        base = Path(name).resolve()
        patch.setattr(Disk, "sync", lambda self, fd: None)
        patch.setattr(Disk, "sync_all", lambda self, fd: None)
        patch.setattr(os, "sync", lambda: None)
        patch.setattr(wanted, "HOST_FILE", str(base / "none.toml"))
        patch.setattr(tempfile, "tempdir", str(base))
        make_site(base / "own", pages=5)
        (base / "own/latest").symlink_to("index.html")
        yield base


@pytest.fixture(scope="module")
def shown(base: Path) -> Shown:
    """One run on the user's build, all of it kept in base/demo."""
    before = snapshot(base / "own")
    shown = run(base / "demo", base / "own")
    assert snapshot(base / "own") == before, "the user's build was touched"
    return shown


@pytest.fixture
def own(base: Path, tmp_path: Path) -> Path:
    """A copy of the user's build, to be spoilt."""
    shutil.copytree(base / "own", tmp_path / "own", symlinks=True)
    return tmp_path / "own"


def test_it_shows_every_step_and_what_it_comes_to(shown: Shown) -> None:
    result, text = shown

    assert [step["step"] for step in result["steps"]] == STEPS
    assert {step["step"] for step in result["steps"] if step["classic"]} == COMPARED
    assert all(step["seconds"] > 0 for step in result["steps"])
    assert json.loads(json.dumps(result)) == result
    assert all(demo_table.STEPS[step] in text for step in STEPS)
    faster, fewer = text.splitlines()[-3:-1]
    assert "times faster" in faster
    assert "times fewer bytes" in fewer


def test_the_stages_serve_what_the_story_says(shown: Shown, base: Path) -> None:
    live = shown.result["live"]
    edited = shown.result["site"]["edited"][0]

    assert live == {
        "DEV": ["build-2", "build-2"],
        "QA": ["build-2", "build-2"],
        "STAGING": ["build-2", "build-2"],
        "PROD": ["build-1", "build-1"],
        "NEW": ["build-2"],
    }
    targets, hosts = base / "demo/targets", base / "demo/hosts"
    old, new = (base / "own" / edited).read_bytes(), (base / "demo/site-2" / edited).read_bytes()
    assert old != new
    for name, expected in (("prod-1", old), ("prod-2", old), ("qa-2", new), ("new-1", new)):
        assert (targets / name / "current" / edited).read_bytes() == expected
    assert manifest(hosts / "prod-1/www") == manifest(base / "own")
    assert manifest(hosts / "dev-2/www") == manifest(base / "demo/site-2")


def test_the_tampered_build_is_refused_and_the_old_one_stays_live(shown: Shown) -> None:
    result, text = shown

    refusal = result["refusal"]
    assert (refusal["exit"], refusal["live"]) == (3, "build-1")
    assert [problem["path"] for problem in refusal["problems"]] == result["site"]["edited"]
    assert "refused, exit code 3" in text
    assert " ".join(refusal["error"].split()[:5]) in text
    assert "live there, as before: build-1" in text


def test_an_edit_moves_little(shown: Shown, base: Path) -> None:
    """The edited page and the records of the build, not the build."""
    result = shown.result

    steps = {step["step"]: step for step in result["steps"]}
    files = result["site"]["files"]
    assert steps["publish_edit"]["reused_files"] == files - 1
    assert steps["deploy_edit"]["reused_files"] == 8 * (files - 1)
    assert steps["rollback"]["bytes"] == 0
    assert steps["publish"]["bytes"] > result["site"]["bytes"] > steps["publish_edit"]["bytes"]
    zipped = (base / "demo/bucket/build-2.zip").stat().st_size
    assert steps["deploy_edit"]["classic"]["bytes"] == 8 * zipped
    assert result["edit"]["classic"]["bytes"] == 9 * zipped


def test_without_a_folder_nothing_is_left(base: Path) -> None:
    left = set(os.listdir(base))

    result, text = run(None, base / "own", as_json=True)

    assert set(os.listdir(base)) == left
    assert result["folder"] is None
    assert text == ""


def test_an_interrupted_run_cleans_up_too(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = set(os.listdir(base))

    def interrupted(*_: object) -> classic.Uploaded:
        raise KeyboardInterrupt

    monkeypatch.setattr(classic, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(None, base / "own")

    assert set(os.listdir(base)) == left


@pytest.mark.slow
def test_the_demonstration_as_it_is(base: Path) -> None:
    result, text = run(None, None)

    assert result["site"]["files"] == 2_505
    assert result["steps"][2]["reused_files"] == 2_503
    assert result["times_fewer_bytes"] > 50
    assert "A site of 2,505 files, 86 MB" in text
    assert max(map(len, text.splitlines())) <= 80


# -- what it refuses ------------------------------------------------------------------------------


def test_a_folder_with_something_in_it(own: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        run(own.parent, own)


def test_a_folder_inside_of_the_site(own: Path) -> None:
    with pytest.raises(ConfigError, match="lies in"):
        run(own / "demo", own)


def test_a_folder_whose_path_no_bundle_could_hold(own: Path) -> None:
    with pytest.raises(ConfigError, match="--folder"):
        run(own.parent / "a folder", own)


def test_a_site_that_is_none(own: Path) -> None:
    with pytest.raises(NotFound, match="no directory"):
        run(None, own / "none")


def test_a_site_that_no_build_may_be(own: Path) -> None:
    os.mkfifo(own / "pipe")

    with pytest.raises(SourceRefused) as refused:
        run(None, own)

    assert [problem.path for problem in refused.value.problems] == ["pipe"]


def test_a_site_without_a_file(tmp_path: Path, base: Path) -> None:
    (tmp_path / "bare/directory").mkdir(parents=True)

    with pytest.raises(ConfigError, match="holds no file"):
        run(None, tmp_path / "bare")


def test_a_disk_without_room(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    with pytest.raises(Error, match=r"1\.0 MB free.*--folder"):
        run(None, own)


def test_a_host_with_rules_of_its_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "host_policy", lambda disk: HostPolicy(store="/mnt/efs/shop"))

    with pytest.raises(ConfigError, match="this host has rules for deploys"):
        run(None, own)
