"""Break the source on purpose, once for each row of the table, and see which test notices.

    python tests/mutations/run.py [--markdown] [WORDS OF A NAME ...]

Every break is made in a private copy of the project, never in the work tree. First the tests named
in the table run on the unbroken copy: they have to pass. Exit 1 when a mutation survives or when
its old text is not there exactly once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from mutations.table import MUTATIONS, Mutation  # noqa: E402

COPIED = ("src", "tests", "scripts", "pyproject.toml", "requirements.txt", "README.md")
LIMIT_S = 600


class Outcome(NamedTuple):
    """`caught_by` is the test that failed; empty when none did."""

    mutation: Mutation
    caught_by: str
    seconds: float
    note: str = ""


def problems(mutation: Mutation, root: Path = ROOT) -> list[str]:
    """Why a mutation cannot be applied to the source as it is."""
    found = []
    for edit in mutation.edits:
        times = (root / "src" / "moorline" / edit.file).read_text().count(edit.old)
        if times != 1:
            found.append(f"{mutation.name}: stands {times} times in {edit.file}: {edit.old!r}")
    return found


def apply(mutation: Mutation, root: Path) -> None:
    for edit in mutation.edits:
        path = root / "src" / "moorline" / edit.file
        path.write_text(path.read_text().replace(edit.old, edit.new))


def copied(folder: Path) -> Path:
    """A copy of what the tests need; all else is taken from the work tree's environment. Every user
    may read it, since some tests run as another one."""
    folder.chmod(0o755)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)
    return folder


def run_tests(root: Path, tests: Iterable[str]) -> tuple[int, str]:
    """pytest's exit code and what it printed."""
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment["PYTHONPATH"] = str(root / "src")
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests],
        cwd=root, env=environment, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


def tried(mutation: Mutation) -> Outcome:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant.") as name:
        root = copied(Path(name))
        apply(mutation, root)
        code, printed = run_tests(root, mutation.tests)
    failed = re.search(r"^FAILED (\S+?::[^\n]+?)(?: - |$)", printed, re.MULTILINE)
    caught = failed[1] if code == 1 and failed else ""
    note = "" if code in (0, 1) else f"pytest ended with {code}: {printed[-300:]}"
    return Outcome(mutation, caught, time.monotonic() - started, note)


def baseline(chosen: list[Mutation]) -> str:
    """What the named tests print on the unbroken source when one of them fails; else nothing."""
    tests = dict.fromkeys(test for mutation in chosen for test in mutation.tests)
    with tempfile.TemporaryDirectory(prefix="mutant.") as name:
        code, printed = run_tests(copied(Path(name)), tests)
    return "" if code == 0 else printed


def shown(outcomes: list[Outcome], *, markdown: bool) -> str:
    rows = [(o.mutation.name, o.mutation.invariant, o.caught_by or o.note or "NOBODY",
             f"{o.seconds:.0f}") for o in outcomes]  # fmt: skip
    if markdown:
        rows = [(name, which, by if by == "NOBODY" else f"`{by.removeprefix('tests/')}`", seconds)
                for name, which, by, seconds in rows]  # fmt: skip
    titles = ("mutation", "breaks", "caught by", "seconds")
    if markdown:
        lines = [titles, ("---",) * 4, *rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in lines)
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *rows)
    )


def main(arguments: list[str]) -> int:
    words = [word for word in arguments if not word.startswith("--")]
    chosen = [m for m in MUTATIONS if all(word in m.name for word in words)]
    if wrong := [problem for mutation in chosen for problem in problems(mutation)]:
        print("\n".join(wrong))
        return 1
    if failed := baseline(chosen):
        print(f"the tests fail without any mutation:\n{failed}")
        return 1
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outcomes = list(pool.map(tried, chosen))
    print(shown(outcomes, markdown="--markdown" in arguments))
    survived = [outcome for outcome in outcomes if not outcome.caught_by]
    print(f"\n{len(outcomes) - len(survived)} of {len(outcomes)} mutations were caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
