"""The house has floors: a module imports only from lower ranks, never from its own or above.

This is the one place where the ranks stand. A new module is added here; if it does not fit, either
the import or the module is in the wrong room (DESIGN.md, module map).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import moorline

RANKS = {
    "": 0,  # moorline itself: the version
    "compiled": 1,
    "errors": 1,
    "garbage": 1,
    "interrupts": 1,
    "leaving": 1,
    "progress": 1,
    "record": 2,
    "build": 3,
    "manifest": 3,
    "lines": 4,
    "disk": 3,
    "settings": 3,
    "packing": 3,
    "hashing": 4,
    "files": 4,
    "history": 4,
    "aside": 4,
    "crew": 5,
    "keeping": 5,
    "source": 5,
    "scan": 6,
    "config": 6,
    "growing": 6,
    "verifying": 6,
    "guard": 6,
    "asking": 6,
    "layout": 7,
    "layout.index": 6,
    "layout.pack": 8,
    "layout.pack_check": 7,
    "layout.tree": 8,
    "layout.pack_draft": 9,
    "layout.tree_repair": 9,
    "layout.draft": 8,
    "layout.tree_draft": 10,
    "store": 9,
    "bundle": 9,
    "bundling": 10,
    "target": 9,
    "ledger": 9,
    "ledger.directory": 9,
    "founding": 10,
    "succession": 10,
    "reserving": 11,
    "repairing": 12,
    "publishing": 13,
    "place": 9,
    "hooks": 10,
    "wanted": 10,
    "telling": 10,
    "cleaning": 10,
    "agent_file": 11,
    "held": 10,
    "linked": 10,
    "releases": 10,
    "exporting": 10,
    "preparing": 11,
    "proof": 11,
    "results": 11,
    "audit": 12,
    "pinned": 12,
    "golive": 12,
    "agent": 13,
    "startup": 14,
    "workflow": 14,
    "wording": 13,
    "pipeline": 14,
    "pipeline.classic": 14,
    "meter": 14,
    "screen": 15,
    "output": 14,
    "site": 14,
    "demo": 15,
    "demo_table": 14,
    "invocation": 16,
    "cli": 17,
    "command": 18,
}

PURE = ("record", "build", "manifest", "lines", "settings", "packing")
"""No disk, no clock, no environment: everything they know was handed in."""
PURE_IMPORTS = {
    "__future__", "bisect", "collections", "dataclasses", "difflib", "functools", "hashlib", "json",
    "operator", "re", "typing", "zlib",
}  # fmt: skip

OPTIONAL = {"boto3", "botocore"}
"""What may be imported inside a function, because it may not be installed."""
DEFERRED = {
    ("bundle", "zipfile"),
    ("compiled", "zipfile"),
    ("cli", "moorline.demo.run_demo"),
    ("cli", "moorline.screen"),
    ("cli", "moorline.workflow"),
    ("command", "moorline.cli.main"),
    ("config", "pathspec.GitIgnoreSpec"),
    ("hashing", "selectors"),
    ("hashing", "socket"),
    ("hooks", "moorline.asking.ask"),
    ("invocation", "moorline.screen"),
    ("invocation", "traceback"),
    ("record", "difflib"),
    ("startup", "moorline.agent.main"),
    ("startup", "moorline.disk.Disk"),
    ("startup", "moorline.keeping.keep"),
    ("startup", "moorline.leaving.leave"),
    ("store", "moorline.layout.pack.PackReader"),
    ("store", "moorline.layout.pack_check.PackVerifier"),
    ("store", "moorline.layout.tree.TreeReader"),
    ("store", "moorline.layout.tree.TreeVerifier"),
    ("wording", "rich.cells.cell_len"),
    ("workflow", "difflib"),
    ("workflow", "moorline.audit.verify_all"),
    ("workflow", "moorline.audit.verify_build"),
    ("workflow", "moorline.audit.verify_target"),
    ("workflow", "moorline.bundling.write_bundle"),
    ("workflow", "moorline.exporting.write_export"),
    ("workflow", "moorline.founding.init_store"),
    ("workflow", "moorline.golive.GoLive"),
    ("workflow", "moorline.layout.draft.Written"),
    ("workflow", "moorline.pinned.NO_DIGEST"),
    ("workflow", "moorline.pinned.Pinned"),
    ("workflow", "moorline.publishing.Publisher"),
    ("workflow", "moorline.scan.scan"),
    ("workflow", "moorline.wanted.back_to"),
    ("workflow", "moorline.wanted.from_words"),
    ("workflow", "moorline.wanted.host_policy"),
}
"""Imports inside a function that are meant: dear and seldom needed, which the module says."""

ROOT = Path(moorline.__file__).parent


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of all that is imported anywhere: at the top, in functions, for typing only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(tree: ast.AST) -> set[str]:
    """Which modules of Moorline are imported, by their names in RANKS."""
    found = set()
    for name in imports(tree):
        if name.split(".")[0] != "moorline":
            continue
        inside = name.removeprefix("moorline").lstrip(".")
        while inside not in FILES:
            inside = inside.rpartition(".")[0]
        found.add(inside)
    return found


def parsed(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text())


def test_every_module_has_a_rank() -> None:
    missing, gone = FILES.keys() - RANKS.keys(), RANKS.keys() - FILES.keys()
    assert not missing, f"give {sorted(missing)} a rank in tests/test_layers.py and DESIGN.md"
    assert not gone, f"take {sorted(gone)} out of tests/test_layers.py"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_module_imports_only_from_lower_ranks(name: str) -> None:
    mine = RANKS.get(name, 0)
    wrong = {
        other: RANKS.get(other)
        for other in imported_modules(parsed(name))
        if RANKS.get(other, 99) >= mine and other != name
    }
    assert not wrong, f"{name} has rank {mine} and imports {wrong}"


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_import_hides_in_a_function_or_behind_a_condition(name: str) -> None:
    tree = parsed(name)
    hidden = set(imports(tree)) - set(imports(ast.Module(_top(tree), [])))
    hidden -= {what for where, what in DEFERRED if where == name}
    assert {h.split(".")[0] for h in hidden} <= OPTIONAL, f"{name} hides {sorted(hidden)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("__import__", "importlib.import_module"), f"{name}: {called}"


def _top(tree: ast.Module) -> list[ast.stmt]:
    """What is imported at once, and what is for annotations only."""
    found: list[ast.stmt] = []
    found += [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found += [n for n in node.body if isinstance(n, ast.Import | ast.ImportFrom)]
    return found


@pytest.mark.parametrize("name", [n for n in PURE if n in FILES])
def test_pure_modules_see_no_disk_no_clock_no_environment(name: str) -> None:
    used = {i.split(".")[0] for i in imports(parsed(name))} - {"moorline"}
    assert used <= PURE_IMPORTS
    below = {other for other in imported_modules(parsed(name)) if other}
    assert below <= {*PURE, "errors"}


def agents_modules() -> list[str]:
    """What the agent's zipapp holds: the agent, and all that it imports."""
    found, todo = set(), ["startup"]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += imported_modules(parsed(name))
    return sorted(found)


@pytest.mark.parametrize("name", agents_modules())
def test_the_agent_needs_nothing_but_python(name: str) -> None:
    used = {i.split(".")[0] for i in imports(parsed(name))} - {"moorline"}
    assert used <= sys.stdlib_module_names


CHANGES = {
    "os": {
        "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "makedirs", "link", "symlink",
        "chmod", "fchmod", "chown", "fchown", "lchown", "utime", "truncate", "ftruncate", "fsync",
        "mknod", "mkfifo", "write", "pwrite", "sync", "removedirs", "renames", "copy_file_range",
        "sendfile",
    },
    "shutil": {"copy", "copy2", "copyfile", "copytree", "rmtree", "move", "chown"},
}  # fmt: skip
METHODS = {
    "write_text", "write_bytes", "touch", "unlink", "rmdir", "rename", "mkdir", "symlink_to",
    "hardlink_to", "chmod",
}  # fmt: skip
PIPES = {"hashing", "hooks", "guard"}
"""Talk to processes through pipes: os.write is not a change of a disk there."""


@pytest.mark.parametrize(
    "name", [n for n in agents_modules() if n != "disk"] + ["reserving", "repairing", "publishing"]
)
def test_only_disk_changes_a_disk(name: str) -> None:
    """Else a crash test could not stop it there."""
    for node in ast.walk(parsed(name)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"{name}, line {node.lineno}: open()"
        elif isinstance(node.func, ast.Attribute):
            owner, method = ast.unparse(node.func.value), node.func.attr
            allowed = {"write"} if name in PIPES else set()
            changes = CHANGES.get(owner, set()) - allowed
            assert method not in changes, f"{name}, line {node.lineno}: {owner}.{method}"
            if method in METHODS:
                assert "disk" in owner.split("."), f"{name}, line {node.lineno}: {owner}.{method}"


COSTLY = {"moorline.workflow", "moorline.store", "moorline.golive", "moorline.publishing",
          "pathspec", "rich", "zipfile", "difflib", "subprocess", "socket", "tempfile"}  # fmt: skip
STARTS = {
    "the command before it knows its verb": ("moorline.cli", set()),
    "every verb": ("moorline.workflow", {"moorline.workflow", "moorline.store"}),
    "publish": ("moorline.publishing", {"moorline.store", "moorline.publishing"}),
    "the agent": (
        "moorline.agent", {"moorline.store", "moorline.golive", "subprocess", "tempfile"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_a_start_imports_only_what_it_needs(start: str) -> None:
    module, needed = STARTS[start]
    script = f"import sys; sys.path[:] = {sys.path!r}; import {module}; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & COSTLY == needed
