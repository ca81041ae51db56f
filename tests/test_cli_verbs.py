"""Every verb through the command line on real folders: from init to rollback, in text and JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from moorline.cli import moorline
from trees import SITE, write_tree

EDIT = {"index.html": b"<h1>two</h1>", "new.txt": b"new"}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: empty, and short, because a store's path in a bundle has a limit."""
    for name in os.environ:
        if name.startswith(("MOORLINE_", "CODEBUILD_")):
            monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(prefix="m.") as name:
        monkeypatch.chdir(name)
        yield Path(name).resolve()


@pytest.fixture
def site(folder: Path) -> Path:
    return write_tree(folder / "site", SITE)


def run(line: str) -> Result:
    return CliRunner().invoke(moorline, line.split())


def done(line: str) -> Result:
    """Run what must succeed."""
    result = run(line)
    assert result.exit_code == 0, result.output
    return result


def answer(line: str, exit_code: int = 0) -> dict[str, Any]:
    """The one object that --json prints, with nothing beside it."""
    result = run(f"{line} --json")
    assert (result.exit_code, result.stderr) == (exit_code, ""), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.get("exit", 0) == exit_code
    return found


@pytest.fixture
def store(folder: Path, layout: str) -> Path:
    done(f"init --store store --app shop --layout {layout}")
    return folder / "store"


@pytest.fixture
def two_builds(store: Path, site: Path) -> Path:
    """Builds a and b in a store, with a bundle each; the target serves nothing yet."""
    done("publish site --id a --bundle a.zip")
    write_tree(site, EDIT)
    done("publish site --id b --bundle b")
    return store


@pytest.fixture
def serving_b(two_builds: Path, folder: Path) -> Path:
    """A target that went from build a to build b."""
    done("deploy a.zip --target target")
    done("deploy ./b --target target")
    return folder / "target"


def page(target: Path) -> bytes:
    return (target / "current" / "index.html").read_bytes()


def damage(store: Path) -> None:
    """Change one byte of every pack, or of every stored index.html."""
    packs = [path for path in (store / "packs").iterdir() if path.is_file()]
    for path in packs or (store / "builds").glob("*/tree/index.html"):
        path.chmod(0o644)
        content = bytearray(path.read_bytes())
        content[content.index(b"<h1>") + 1] ^= 1
        path.write_bytes(content)


# -- from nothing to a build ----------------------------------------------------------------------


def test_init_makes_a_store_and_a_file_that_says_so(folder: Path) -> None:
    first = done("init --store store --app shop")
    text = (folder / "moorline.toml").read_text()
    (folder / "moorline.toml").write_text(text + "# mine\n")
    again = answer("init")

    assert first.stdout == ""
    assert first.stderr == (f"store for shop at {folder}/store, layout pack; wrote moorline.toml\n")
    assert f'path = "{folder}/store"' in text
    assert (again["app"], again["layout"], again["config_written"]) == ("shop", "pack", False)
    assert (folder / "moorline.toml").read_text().endswith("# mine\n")


def test_the_application_is_named_after_the_folder(folder: Path) -> None:
    (folder / "blog").mkdir()
    os.chdir(folder / "blog")

    assert answer("init --store ../store")["app"] == "blog"


def test_publish_prints_the_id_and_nothing_else(store: Path, site: Path) -> None:
    result = done("publish site --id shop-41")

    assert result.stdout == "shop-41\n"
    assert result.stderr.startswith(f"published shop-41 to {store} (digest ")
    assert " reused, in " in result.stderr


def test_publish_in_json(store: Path, site: Path) -> None:
    first = answer("publish site --id a --bundle a.zip")
    again = answer("publish site --id a")

    assert (first["id"], first["files"], first["already"]) == ("a", 6, False)
    assert first["bundle"] == "a.zip"
    assert first["bundle_bytes"] == os.path.getsize("a.zip") <= 1000
    assert (again["digest"], again["new_files"], again["already"]) == (first["digest"], 0, True)


def test_publish_takes_its_id_from_ci(
    store: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEBUILD_BUILD_NUMBER", "41")
    monkeypatch.setenv("CODEBUILD_RESOLVED_SOURCE_VERSION", "0123456789abcdef")
    assert done("publish site").stdout == "41-01234567\n"

    monkeypatch.setenv("MOORLINE_ID", "from-the-variable")
    assert done("publish site").stdout == "from-the-variable\n"


def test_a_dry_run_of_publish_writes_nothing(store: Path, site: Path) -> None:
    before = sorted(store.rglob("*"))

    result = done("publish site --id a --bundle a.zip --dry-run")

    assert result.stderr.startswith(f"would publish a to {store}")
    assert (sorted(store.rglob("*")), Path("a.zip").exists()) == (before, False)


def test_what_the_file_excludes_is_not_published(store: Path, site: Path) -> None:
    text = Path("moorline.toml").read_text()
    Path("moorline.toml").write_text(text.replace(
        "[publish]", '[publish]\nexclude = ["*.png", "/css/"]'))  # fmt: skip

    done("publish site --id a")

    assert ".png" not in done("show a -v").stdout.replace("logo.png", "")
    assert "css" not in done("show a -v").stdout


# -- looking at builds ----------------------------------------------------------------------------


def test_builds_lists_the_newest_first(two_builds: Path) -> None:
    rows = done("builds").stdout.splitlines()
    found = answer("builds")["builds"]

    assert [row.split()[0] for row in rows] == ["build", "b", "a"]
    assert [build["id"] for build in found] == ["b", "a"]
    assert found[0]["sequence"] > found[1]["sequence"]


def test_show_tells_one_build(two_builds: Path) -> None:
    found = answer("show b")

    assert found["files"] == 7
    assert found["path"] == f"{two_builds}/builds/b"
    assert f"digest    {found['digest']}\n" in done("show b").stdout


def test_diff_tells_what_changed(two_builds: Path) -> None:
    result = done("diff a b")
    found = answer("diff a b")

    assert "+  new.txt     3 bytes\n" in result.stdout
    assert "~  index.html  content (12 -> 12 bytes)\n" in result.stdout
    assert result.stderr == "from a to b: 1 added, 0 removed, 1 changed\n"
    assert [entry["path"] for entry in found["added"]] == ["new.txt"]
    assert [entry["path"] for entry in found["changed"]] == ["index.html"]


def test_export_writes_a_plain_folder(two_builds: Path, site: Path) -> None:
    result = done("export b out")

    assert result.stdout == "out\n"
    assert Path("out/index.html").read_bytes() == (site / "index.html").read_bytes()
    assert os.readlink("out/img/logo.png") == "a.png"
    assert run("export b out").exit_code == 2


def test_pins_keep_a_build_until_they_are_removed(two_builds: Path) -> None:
    CliRunner().invoke(moorline, ["pin", "a", "--reason", "the audit"])
    pinned = answer("builds")["builds"][1]

    assert pinned["pins"] == ["the audit"]
    assert answer("unpin a") == {"id": "a", "removed": 1}
    assert answer("unpin a") == {"id": "a", "removed": 0}
    assert answer("builds")["builds"][1]["pins"] == []


# -- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a.zip", "./b", "b"])
def test_deploy_from_zip_folder_and_store(what: str, two_builds: Path, folder: Path) -> None:
    result = done(f"deploy {what} --target target")

    assert result.stdout == ""
    assert f"deployed {what.strip('./')[0]} to {folder}/target (copy): " in result.stderr
    assert page(folder / "target") == (b"<h1>one</h1>" if what == "a.zip" else b"<h1>two</h1>")


def test_deploy_in_json(two_builds: Path, folder: Path) -> None:
    first = answer("deploy a.zip --target target")
    second = answer("deploy ./b --target target")

    assert (first["id"], first["live"], first["previous"]) == ("a", "a", None)
    assert (first["copied_files"], first["verified_files"]) == (6, 6)
    assert (second["live"], second["previous"]) == ("b", "a")
    assert (second["mode"], second["pinned"]) == ("copy", True)
    assert (second["target"], second["copied_files"]) == (str(folder / "target"), 2)
    assert second["verified_files"] == 7


def test_status_tells_what_is_live_where(serving_b: Path) -> None:
    (row,) = answer("status")["targets"]

    assert (row["root"], row["id"], row["previous"]) == (str(serving_b), "b", "a")
    assert done("status").stdout.splitlines()[1].split()[2:4] == [str(serving_b), "b"]
    assert answer("builds")["builds"][0]["live_on"] == [str(serving_b)]


def test_a_dry_run_of_deploy_and_rollback_changes_nothing(
    two_builds: Path, serving_b: Path
) -> None:
    deployed = done("deploy a.zip --target target --dry-run")
    back = done("rollback --target target --dry-run")

    assert deployed.stderr.endswith(f"would deploy a to {serving_b} (copy)\n")
    assert back.stderr.endswith(f"would roll {serving_b} back to a (copy)\n")
    assert page(serving_b) == b"<h1>two</h1>"


def test_rollback_and_the_history_of_it(serving_b: Path) -> None:
    result = done("rollback --target target")

    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(f"rolled {serving_b} back to a (copy): ")
    assert page(serving_b) == b"<h1>one</h1>"
    assert answer("rollback --target target --to b")["live"] == "b"
    live = [row for row in answer("history --target target")["releases"] if row["step"] == "live"]
    assert [row["id"] for row in live] == ["a", "b", "a", "b"]
    assert "rollback" in done("history --target target").stdout


def test_settings_travel_with_the_bundle(store: Path, site: Path, folder: Path) -> None:
    with open("moorline.toml", "a") as file:
        file.write(f'[groups.PROD]\nroot = "{folder}/production"\n')
    done("publish site --id a --bundle a.zip")

    done("deploy a.zip --stage PROD")

    assert page(folder / "production") == b"<h1>one</h1>"


# -- verify ---------------------------------------------------------------------------------------


def test_verify_reads_every_byte(two_builds: Path) -> None:
    result = done("verify b")

    assert result.stdout == ""
    assert result.stderr.startswith(f"verified b in {two_builds}/builds/b: 7 files, ")
    assert answer("verify --all")["ok"] is True


def test_verify_lists_what_differs_in_the_store(two_builds: Path) -> None:
    damage(two_builds)

    result = run("verify a")
    found = answer("verify a", exit_code=3)

    assert (result.exit_code, result.stdout.split()[0]) == (3, "index.html")
    assert result.stderr.startswith("moorline: build a does not match its manifest: 1 difference")
    assert (found["id"], found["ok"]) == ("a", False)
    assert [problem["path"] for problem in found["problems"]] == ["index.html"]
    assert answer("verify --all", exit_code=3)["ok"] is False


def test_verify_lists_what_differs_on_a_target(serving_b: Path) -> None:
    live = serving_b / "current" / "extra.log"
    live.parent.chmod(0o755)
    live.write_bytes(b"written by the application")

    found = answer("verify --target target", exit_code=3)

    assert [problem["path"] for problem in found["problems"]] == ["extra.log"]
    assert "linked" in found["problems"][0]["problem"]
    assert "Deploy the same build again" in found["error"]


# -- every exit code ------------------------------------------------------------------------------


def test_2_is_usage_or_configuration(store: Path, site: Path, layout: str) -> None:
    Path("empty").mkdir()
    (site / ".git").mkdir()
    refused = answer("publish site", exit_code=2)
    (site / ".git").rmdir()

    assert answer("publish empty", exit_code=2)["error"].startswith("nothing to publish: empty")
    assert refused["problems"][0]["path"] == ".git"
    assert "is not a build id" in answer("publish site --id ../x", exit_code=2)["error"]
    assert answer("show -- -x", exit_code=2)["exit"] == 2
    Path("moorline.toml").write_text("ap = 1")
    assert "Did you mean 'app'?" in answer("builds", exit_code=2)["error"]


def test_2_is_mode_link_in_a_store_of_packs(two_builds: Path, layout: str) -> None:
    result = run("deploy a.zip --target target --mode link")

    assert result.exit_code == (2 if layout == "pack" else 0)
    assert ("tree" in result.stderr) is (layout == "pack")


def test_3_is_a_damaged_build_and_the_old_release_stays(two_builds: Path, folder: Path) -> None:
    done("deploy a.zip --target target")
    damage(two_builds)

    found = answer("deploy ./b --target target", exit_code=3)

    assert found["live"] == "a"
    assert found["problems"]
    assert page(folder / "target") == b"<h1>one</h1>"


def test_4_is_not_found(two_builds: Path) -> None:
    Path("bare").mkdir()

    for line in ("show c", "diff a c", "export c out", "verify c", "pin c --reason x",
                 "publish missing", "builds --store missing", "builds --store bare",
                 "deploy missing.zip --target target", "deploy c --target target",
                 "rollback --target missing"):  # fmt: skip
        assert answer(line, exit_code=4)["error"], line


def test_5_is_an_id_with_other_content(two_builds: Path, site: Path) -> None:
    error = answer("publish site --id a", exit_code=5)["error"]

    assert error.startswith("build a exists with other content")


def test_6_is_put_back(serving_b: Path) -> None:
    found = answer("deploy a.zip --target target --check false", exit_code=6)

    assert found["live"] == "b"
    assert page(serving_b) == b"<h1>two</h1>"


def test_6_on_a_first_deploy_leaves_nothing_live(two_builds: Path, folder: Path) -> None:
    found = answer("deploy a.zip --target target --check false", exit_code=6)

    assert found["live"] is None
    assert not (folder / "target" / "current").exists()


def test_7_is_a_put_back_that_failed(store: Path, site: Path) -> None:
    with open("moorline.toml", "a") as file:
        file.write('[[hooks.after_switch]]\nrun = ["./bin/run"]\n')
    write_tree(site, {"bin/run": (b"#!/bin/sh\ntest ! -e broken\n", 0o755)})
    done("publish site --id a --bundle a.zip")
    write_tree(site, {"bin/run": (b"#!/bin/sh\nexit 1\n", 0o755), **EDIT})
    done("publish site --id b --bundle b.zip")
    done("deploy a.zip --target target")
    hook = Path("target/current/bin/run")
    hook.chmod(0o755)
    hook.write_bytes(b"#!/bin/sh\nexit 1\n")

    found = answer("deploy b.zip --target target", exit_code=7)

    assert found["live"] == "a"
