"""The agent's zipapp: complete, standard library only, Python 3.9, and always the same bytes."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import moorline
from moorline.agent_file import AGENT_MODULES, MAIN, agent_bytes, agent_digest

PACKAGE = Path(moorline.__file__).parent
PYPY = shutil.which("pypy3")
NAMES = ["moorline." + name.removesuffix(".py").replace("/", ".") for name in AGENT_MODULES]
DOTTED = [name.removesuffix(".__init__") for name in NAMES]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / "agent"
    path.write_bytes(agent_bytes())
    return path


def tree_of(module: str) -> ast.Module:
    """The module's syntax; ValueError or SyntaxError for what Python 3.9 cannot read."""
    text = (PACKAGE / module).read_text(encoding="utf-8")
    return ast.parse(text, module, feature_version=(3, 9))


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that may be meant: `from a import b` is a, and a.b if there is such a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports are not used here"
            yield node.module
            for alias in node.names:
                path = PACKAGE.parent / node.module.replace(".", "/") / alias.name
                if path.is_dir() or path.with_suffix(".py").exists():
                    yield f"{node.module}.{alias.name}"


# -- what is in it --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", AGENT_MODULES)
def test_all_that_a_module_imports_is_there(module: str) -> None:
    for name in imports_of(tree_of(module)):
        top = name.partition(".")[0]
        assert name in DOTTED or top in sys.stdlib_module_names, f"{module} imports {name}"


def names_in(pattern: str) -> list[str]:
    """What a pattern with one pair of braces stands for."""
    start, _, rest = pattern.partition("{")
    names, _, end = rest.partition("}")
    return [start + name + end for name in names.split(",")]


def test_ruff_holds_exactly_the_agents_modules_to_its_python() -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    ruff = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["ruff"]
    targets: dict[str, str] = ruff["per-file-target-version"]
    ignores: dict[str, list[str]] = ruff["lint"]["per-file-ignores"]
    excused = [pattern for pattern, rules in ignores.items() if "UP045" in rules]

    expected = sorted(f"src/moorline/{name}" for name in AGENT_MODULES)
    assert set(targets.values()) == {"py39"}
    assert sorted(name for pattern in targets for name in names_in(pattern)) == expected
    assert sorted(name for pattern in excused for name in names_in(pattern)) == expected


def test_nothing_is_there_that_the_agent_does_not_import() -> None:
    """The agent is compiled at every start: what it does not need costs time."""
    needed, todo = {"moorline"}, ["moorline.startup"]
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        needed.add(name)
        todo.append(name.rpartition(".")[0])
        todo += [
            other
            for other in imports_of(tree_of(AGENT_MODULES[DOTTED.index(name)]))
            if other.startswith("moorline")
        ]

    assert needed == set(DOTTED)
    assert list(AGENT_MODULES) == sorted(AGENT_MODULES)


def test_it_holds_the_sources_unchanged(agent: Path) -> None:
    with zipfile.ZipFile(agent) as archive:
        found = {entry.filename: archive.read(entry) for entry in archive.infolist()}

    expected = {f"moorline/{name}": (PACKAGE / name).read_bytes() for name in AGENT_MODULES}
    assert found == {"__main__.py": MAIN.encode("ascii"), **expected}


# -- Python 3.9 -----------------------------------------------------------------------------------


def at_runtime(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations, which `from __future__ import annotations` leaves alone."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from at_runtime(child)


def names_a_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Subscript):
        return names_a_type(node.value)
    builtin = {"str", "bytes", "int", "float", "bool", "dict", "list", "set", "tuple", "frozenset"}
    return isinstance(node, ast.Name) and (
        node.id in builtin or (node.id[:1].isupper() and not node.id.isupper())
    )


NEWER_ARGUMENTS = {"slots", "kw_only", "strict"}
NEWER_NAMES = {"pairwise", "batched", "file_digest", "StrEnum", "Self", "TypeAlias", "ParamSpec",
               "assert_never", "chdir", "removed_in", "ExceptionGroup", "anext"}  # fmt: skip


@pytest.mark.parametrize("module", AGENT_MODULES)
def test_it_keeps_to_python_3_9(module: str) -> None:
    """The grammar, and what only fails when it runs."""
    tree = tree_of(module)
    for node in at_runtime(tree):
        where = f"{module}, line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            types = names_a_type(node.left) or names_a_type(node.right)
            assert not types, f"{where}: `X | Y` outside of an annotation"
        if isinstance(node, ast.Call):
            newer = {keyword.arg for keyword in node.keywords} & NEWER_ARGUMENTS
            assert not newer, f"{where}: {newer}"
        used = {getattr(node, "attr", None), getattr(node, "id", None)}
        if isinstance(node, ast.alias):
            used.add(node.name)
        assert not used & NEWER_NAMES, f"{where}: {used & NEWER_NAMES}"
    annotated = any(
        getattr(node, "annotation", None) or getattr(node, "returns", None)
        for node in ast.walk(tree)
    )
    futures = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert futures or not annotated


def test_the_checks_above_find_what_they_are_for() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n case 1: pass", feature_version=(3, 9))
    (union,) = ast.parse("A = dict[str, int] | None").body
    assert any(names_a_type(n.left) for n in ast.walk(union) if isinstance(n, ast.BinOp))
    (flags,) = ast.parse("A = os.O_RDONLY | O_CREAT").body
    assert not any(names_a_type(n.right) for n in ast.walk(flags) if isinstance(n, ast.BinOp))


@pytest.mark.skipif(not PYPY, reason="no pypy3 here")
def test_every_module_imports_under_python_3_9(agent: Path) -> None:
    script = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "assert sys.version_info[:2] == (3, 9), sys.version\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "print(sys.modules['moorline.agent'].__file__)\n"
    )
    command = [str(PYPY), "-I", "-W", "error", "-c", script, str(agent), *DOTTED]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"{agent}/moorline/agent.py"


@pytest.mark.parametrize("python", [sys.executable, *([PYPY] if PYPY else [])])
def test_it_runs_without_anything_installed(agent: Path, tmp_path: Path, python: str) -> None:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", 'umask 077; exec "$@" <&-', "sh", python, "-I", "-S"]
        return subprocess.run(
            [*command, str(agent), *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    assert run("--version").stdout.strip() == moorline.__version__
    done = run("hook", str(tmp_path), "/mnt/store", LIFECYCLE_EVENT="BeforeInstall")
    assert done.returncode == 2
    assert "reading the bundle failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def run_main(script: str, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    """`__main__.py` with `script` in front of it, in place of what an old interpreter would be."""
    command = [sys.executable, "-I", "-c", script + MAIN, *arguments]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True)


def test_the_first_lines_are_read_by_any_python_3() -> None:
    ast.parse(MAIN, feature_version=(3, 4))


def test_an_old_python_looks_for_a_newer_one(tmp_path: Path) -> None:
    for name in ("python3.12", "python3.9", "python3.8"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    old = "import sys\nsys.version_info = (3, 7, 16)\nsys.argv[0] = '/tmp/agent'\n"

    done = run_main(old, "hook", "/a b", "/mnt", path=f"{tmp_path}:/bin")

    assert done.stdout == "python3.12 -I /tmp/agent hook /a b /mnt\n"


def test_an_old_python_alone_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "python3.8").symlink_to("/bin/true")
    old = "import sys\nsys.version_info = (3, 7, 16)\n"

    done = run_main(old, "hook", path=str(tmp_path))

    assert done.returncode == 2
    assert "is Python 3.7, and the agent needs 3.9 or newer" in done.stdout


def test_standard_files_are_open_and_files_readable_by_all(tmp_path: Path) -> None:
    """CodeDeploy closes stdin, and a file opened by the agent must not become it."""
    probe = """
import os, sys, types
def run():
    number = os.open("/dev/zero", os.O_RDONLY)
    mask = os.umask(0)
    print(number > 2, os.readlink("/proc/self/fd/0"), oct(mask))
sys.modules["moorline"] = types.ModuleType("moorline")
sys.modules["moorline.startup"] = types.SimpleNamespace(run=run)
"""
    command = ["/bin/sh", "-c", 'umask 077; exec "$@" <&-', "sh", sys.executable, "-I", "-c"]

    done = subprocess.run([*command, probe + MAIN], capture_output=True, text=True)

    assert done.stdout == "True /dev/null 0o22\n", done.stderr


# -- always the same bytes ------------------------------------------------------------------------


def test_it_says_nothing_about_the_machine_that_made_it() -> None:
    data = agent_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()

    assert data.startswith(b"#!/usr/bin/env python3\nPK\3\4")
    assert [entry.filename for entry in entries] == sorted(e.filename for e in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.create_system for entry in entries} == {3}


def test_its_name_is_the_digest_of_its_bytes(agent: Path) -> None:
    assert agent_digest() == hashlib.sha256(agent.read_bytes()).hexdigest()


SHOW = "import sys; sys.path.insert(0, sys.argv[1]); import moorline.agent_file as a; "
SHOW += "print(a.__file__, a.agent_digest())"


@pytest.mark.parametrize("python", [sys.executable, *([PYPY] if PYPY else [])])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_it_is_the_same_from_anywhere(tmp_path: Path, python: str, packed: bool) -> None:
    """From a copy as a wheel installs it, from a zip as in moorline.pyz, by another Python."""
    copy = tmp_path / "else where"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy / "moorline", ignore=ignored, copy_function=shutil.copyfile)
    if packed:
        shutil.make_archive(str(copy), "zip", copy)
        copy = copy.with_suffix(".zip")

    done = subprocess.run(
        [python, "-I", "-B", "-c", SHOW, str(copy)],
        cwd="/", env={"TZ": "Asia/Tokyo", "PATH": os.environ["PATH"]},
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    place, digest = done.stdout.rsplit(maxsplit=1)
    assert place.startswith(f"{copy}/")
    assert digest == agent_digest()
