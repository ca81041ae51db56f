"""The examples and the pages that show commands and files: they parse, they hold together, and what
CodeBuild would run does run here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorline.bundle import NAMES, read_bundle
from moorline.config import parse_config
from moorline.disk import Disk
from moorline.packing import MOST_PACKS
from moorline.settings import parse_host_policy
from moorline.workflow import init
from test_layers import RANKS

ROOT = Path(__file__).resolve().parent.parent
PIPELINE = ROOT / "examples/codepipeline"
NAMES_OF_PAGES = (
    "README.md",
    "DESIGN.md",
    "CHANGELOG.md",
    "docs/codepipeline.md",
    "docs/serving.md",
)
PAGES = [ROOT / name for name in NAMES_OF_PAGES]

# -- a reader for the YAML that a buildspec needs --------------------------------------------------


def read_yaml(text: str) -> Any:
    """Mappings, lists and plain or quoted texts, by indentation; anything else is an error."""
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    value, rest = _block(lines)
    assert not rest, rest[:1]
    return value


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _block(lines: list[str]) -> tuple[Any, list[str]]:
    depth = _indent(lines[0])
    is_list = lines[0].lstrip().startswith("- ")
    found: dict[str, Any] = {}
    items: list[str] = []
    while lines and _indent(lines[0]) == depth:
        line, lines = lines[0].strip(), lines[1:]
        if is_list:
            assert line.startswith("- "), line
            items.append(_text(line[2:]))
            continue
        match = re.fullmatch(r"([A-Za-z0-9_-]+):(?: (.+))?", line)
        assert match, line
        name, plain = match.groups()
        assert name not in found, f"{name} stands twice"
        if plain is None:
            found[name], lines = _block(lines)
        else:
            found[name] = _text(plain)
    assert not lines or _indent(lines[0]) < depth, lines[:1]
    return (items if is_list else found), lines


def _text(plain: str) -> str:
    if plain[0] in "'\"":
        assert plain[-1] == plain[0] and plain.count(plain[0]) == 2, plain
        return plain[1:-1]
    assert plain[0] not in "&*!|>%@`[]{},?:" and ": " not in plain and " #" not in plain, plain
    return plain


# -- the pipeline's buildspec ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def buildspec() -> Any:
    return read_yaml((PIPELINE / "buildspec.yml").read_text(encoding="ascii"))


def test_the_buildspec_has_the_keys_that_codebuild_knows(buildspec: Any) -> None:
    assert set(buildspec) <= {"version", "run-as", "env", "phases", "artifacts", "cache", "reports"}
    assert set(buildspec["phases"]) == {"install", "build", "post_build"}
    for name, phase in buildspec["phases"].items():
        known = {"commands", "finally", "on-failure", "run-as"}
        assert set(phase) <= known | ({"runtime-versions"} if name == "install" else set())
        assert phase["commands"]
    assert buildspec["version"] == "0.2"
    assert buildspec["artifacts"] == {"base-directory": "bundle", "files": ["**/*"]}
    assert buildspec["env"]["exported-variables"] == ["MOORLINE_ID"]
    assert not [name for name in buildspec["env"]["variables"] if name.startswith("CODEBUILD_")]


def test_it_publishes_only_what_succeeded_and_only_onto_the_mount(buildspec: Any) -> None:
    gate, mount, publish, export = buildspec["phases"]["post_build"]["commands"]
    assert "CODEBUILD_BUILD_SUCCEEDING" in gate
    assert mount.startswith("mountpoint -q")
    assert " publish " in publish and publish.startswith('MOORLINE_ID="$(')
    assert export == "export MOORLINE_ID"


@pytest.fixture
def codebuild(tmp_path: Path, buildspec: Any) -> Iterator[Any]:
    """A folder where the phases run as in CodeBuild: one shell, which a failing command ends."""
    root = tmp_path / "src"
    (root / "public").mkdir(parents=True)
    (root / "public/index.html").write_text("<h1>One</h1>")
    (root / "moorline.toml").write_bytes((PIPELINE / "moorline.toml").read_bytes())
    init(str(tmp_path / "store"), app="shop", folder=str(tmp_path))
    tool = tmp_path / "moorline.pyz"
    source = f"import sys; sys.path[:0] = {sys.path!r}\nfrom moorline.command import main\nmain()\n"
    tool.write_text(source)
    programs = tmp_path / "bin"
    programs.mkdir()

    def program(name: str, text: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)

    program("python3", f'exec {sys.executable} "$@"')
    program("mountpoint", '[ "$1" = -q ] && [ "$2" = /mnt/builds ] && [ -z "$NO_MOUNT" ]')
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MOORLINE_STORE": str(tmp_path / "store"),
        "CODEBUILD_BUILD_SUCCEEDING": "1",
        "CODEBUILD_BUILD_NUMBER": "217",
        "CODEBUILD_RESOLVED_SOURCE_VERSION": "3f2a9c1d00000000000000000000000000000000",
        **buildspec["env"]["variables"],
    }

    def run(**extra: str) -> subprocess.CompletedProcess[str]:
        commands = buildspec["phases"]["post_build"]["commands"]
        script = "".join(f"{command} || exit\n" for command in commands)
        script = script.replace("/tmp/moorline.pyz", str(tool)) + 'env | grep "^MOORLINE_ID="'
        return subprocess.run(
            ["sh", "-c", script], cwd=root, env=environment | extra, capture_output=True, text=True
        )

    yield run


def test_its_commands_write_the_bundle_that_the_pipeline_takes(
    codebuild: Any, tmp_path: Path
) -> None:
    done = codebuild()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "MOORLINE_ID=217-3f2a9c1d\n"
    folder = tmp_path / "src/bundle"
    assert sorted(file.name for file in folder.iterdir()) == sorted(NAMES)
    assert read_bundle(Disk(), str(folder)).id == "217-3f2a9c1d"
    assert b"/mnt/builds/shop" in (folder / "deploy.sh").read_bytes()


@pytest.mark.parametrize("broken", [{"CODEBUILD_BUILD_SUCCEEDING": "0"}, {"NO_MOUNT": "1"}])
def test_a_failed_build_or_a_missing_mount_publishes_nothing(
    codebuild: Any, tmp_path: Path, broken: dict[str, str]
) -> None:
    done = codebuild(**broken)
    assert done.returncode != 0 and done.stdout == ""
    assert not (tmp_path / "src/bundle").exists()
    assert not list((tmp_path / "store/builds").iterdir())


# -- its settings ---------------------------------------------------------------------------------


def test_the_settings_fit_the_buildspec(buildspec: Any) -> None:
    config = parse_config((PIPELINE / "moorline.toml").read_bytes())
    mount = buildspec["env"]["variables"]["MOUNT"]
    assert config.store.startswith(mount + "/")
    settings = config.settings
    assert (settings.mode, settings.root, settings.store) == ("copy", "/srv/shop", config.store)
    assert settings.check and settings.after_switch
    assert settings.for_group("shop-prod").check[0].contains


@pytest.mark.parametrize("file", sorted(PIPELINE.iterdir()), ids=lambda file: file.name)
def test_an_example_names_no_host_and_no_machine(file: Path) -> None:
    text = file.read_text(encoding="ascii")
    addresses = set(re.findall(r"\b(?:https?|s3)://[^\s\"'/]+", text))
    assert addresses <= {"http://localhost", "s3://example-tools"}
    assert not re.search(r"/(?:home|root|work|Users)/|\b[0-9]{12}\b|\bfs-[0-9a-f]{8}", text)


# -- the pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if file.startswith("https:"):
            continue
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, titles), target


def _anchor(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_configurations_on_the_pages_are_valid() -> None:
    readme = _blocks(ROOT / "README.md", "toml")
    assert readme
    for block in readme:
        parse_config(block.encode())
    for block in _blocks(ROOT / "docs/serving.md", "toml"):
        parse_config(b'app = "shop"\n[store]\npath = "/mnt/shop"\n' + block.encode())
    (policy,) = _blocks(ROOT / "docs/codepipeline.md", "toml")
    assert parse_host_policy(policy.encode()).modes == ("copy",)
    (project,) = _blocks(ROOT / "docs/codepipeline.md", "json")
    mount = json.loads(project)["fileSystemLocations"][0]["mountPoint"]
    assert mount in (PIPELINE / "buildspec.yml").read_text()


@pytest.mark.slow
def test_what_the_readme_shows_is_what_happens(here: Path) -> None:
    """Its first session, with other numbers, digests and paths."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## 60 seconds") : text.index("## On AWS")]
    shown = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    shown = shown[shown.index("$ mkdir /tmp/try && cd /tmp/try") :]
    (here / "bin").mkdir()
    tool = here / "bin/moorline"
    tool.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "from moorline.command import main; main()" "$@"\n'
    )
    tool.chmod(0o755)
    script = "exec 2>&1\n"
    for line in shown:
        if line.startswith("$ "):
            script += f"cat <<'END'\n{line}\nEND\n{line[2:].replace('/tmp/try', str(here / 't'))}\n"

    environment = {"PATH": f"{here}/bin:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)

    printed = done.stdout.replace(str(here / "t"), "/tmp/try").splitlines()
    assert [_like(line) for line in printed] == [_like(line) for line in shown]


def _like(line: str) -> str:
    """The line without what differs from run to run."""
    line = re.sub(r"digest [0-9a-f]{8}", "digest", line)
    return line if line.startswith("$ ") else re.sub(r"\d+(\.\d+)?", "#", line)


def test_the_pages_keep_to_the_facts_of_the_code() -> None:
    design = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
    assert f"at most {('one', 'two', 'three', 'four')[MOST_PACKS - 1]} packs" in design
    table = re.findall(r"^ +([0-9]+) +([a-z_/]+)\.py ", design, re.MULTILINE)
    shown = {
        module.removesuffix("/__init__").replace("/", "."): int(rank) for rank, module in table
    }
    empty = {"", "ledger", "pipeline"}  # packages without code of their own
    assert shown == {name: rank for name, rank in RANKS.items() if name not in empty}
