"""Build the example site twice, before and after a small edit, and ship both builds with Moorline.

`run.py build`: install, generate, build A, edit one post and add one image, build B, compare.
`run.py ship`: publish and deploy A, then B, with every layout and mode, and check what is live.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import generate

SITE = Path(__file__).resolve().parent
GATSBY = "node_modules/.bin/gatsby"
MARKER = ".made-by-run-py"
EDITED_POST = 1500
ADDED_IMAGE = "added-photo.png"
PATHS_SHOWN = 20
BUILD_IDS = {"A": "a", "B": "b"}
MODES = {"pack": ["copy"], "tree": ["copy", "link"]}


class Failure(Exception):
    """Something the user can mend; its text says what."""


# --- build -------------------------------------------------------------------


def build(out: Path) -> None:
    if not (SITE / GATSBY).exists():
        with timed("npm ci"):
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--loglevel=error"], SITE)
    with timed("clean and generate"):
        clean()
        generate.generate(SITE)
    build_site(out / "A")
    edit()
    build_site(out / "B")
    report(out / "A", out / "B")


def clean() -> None:
    for name in ("content", "static/images", ".cache", "public"):
        remove(SITE / name)


def build_site(destination: Path) -> None:
    """`gatsby build`, keeping .cache and public of an earlier build as CI caches do."""
    settings = {"CI": "1", "GATSBY_TELEMETRY_DISABLED": "1"}
    with timed(f"gatsby build, then copy public/ to {destination.name}"):
        run(["node", GATSBY, "build"], SITE, settings)
        remove(destination)
        shutil.copytree(SITE / "public", destination)


def edit() -> None:
    """What an editor does: one more picture and one more paragraph in one post."""
    path = next((SITE / "content/posts").glob(f"*-{EDITED_POST:04d}.json"))
    post = json.loads(path.read_text(encoding="utf-8"))
    post["images"].append({"file": ADDED_IMAGE, "caption": "The morning after"})
    post["paragraphs"].append("Added the day after: the line held, and so did the cleat.")
    generate.write_post(SITE, post)
    generate.write_image(SITE, ADDED_IMAGE)
    print(f"edited content/posts/{path.name}, added static/images/{ADDED_IMAGE}", flush=True)


def report(tree_a: Path, tree_b: Path) -> None:
    for tree in (tree_a, tree_b):
        print(f"{tree.name}: {describe(tree)}")
    a, b = hash_tree(tree_a), hash_tree(tree_b)
    differences = {
        "added": sorted(b.keys() - a.keys()),
        "changed": sorted(path for path in a.keys() & b.keys() if a[path] != b[path]),
        "removed": sorted(a.keys() - b.keys()),
    }
    for kind, paths in differences.items():
        print(f"{kind}: {len(paths)}")
        for path in paths[:PATHS_SHOWN]:
            print(f"    {path}")
    print(f"unchanged: {len(a.keys() & b.keys()) - len(differences['changed'])}")


# --- ship --------------------------------------------------------------------


def ship(out: Path, moorline: str) -> None:
    program = find_program(moorline)
    for name in BUILD_IDS:
        if not (out / name).is_dir():
            raise Failure(f"{out / name} is missing. Run first: run.py build --out {out}")
    remove(out / "ship")
    os.sync()  # so that writing back the builds does not slow down what is timed below
    for layout, modes in MODES.items():
        ship_layout(out, layout, modes, program)


def ship_layout(out: Path, layout: str, modes: list[str], program: str) -> None:
    folder = out / "ship" / layout
    folder.mkdir(parents=True)
    print(f"\n# layout {layout}")

    def moorline(*arguments: str) -> None:
        run_shown([program, *arguments], folder)

    moorline("init", "--store", "store", "--layout", layout, "--app", "gatsby")
    for name, build_id in BUILD_IDS.items():
        tree = f"../../{name}"
        moorline(
            "publish", tree, "--store", "store", "--bundle", f"{build_id}.zip", "--id", build_id
        )
    for mode in modes:
        for name, build_id in BUILD_IDS.items():
            moorline("deploy", f"{build_id}.zip", "--target", f"site-{mode}", "--mode", mode)
            check_live(folder / f"site-{mode}" / "current", out / name)


def check_live(current: Path, build_folder: Path) -> None:
    """Do not take Moorline's word: compare what is live with the build, file by file."""
    live, built = hash_tree(current.resolve()), hash_tree(build_folder)
    wrong = sorted(path for path in live.keys() | built.keys() if live.get(path) != built.get(path))
    if wrong:
        raise Failure(
            f"{current}: {len(wrong)} files differ from {build_folder}, such as {wrong[0]}"
        )
    shown = f"{current.parent.name}/{current.name}"
    print(f"# {shown} holds exactly {build_folder.name}: {len(live):,} files compared by SHA-256")


# --- running and measuring ---------------------------------------------------


def run(command: list[str], folder: Path, settings: dict[str, str] | None = None) -> None:
    find_program(command[0])
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, cwd=folder, env={**os.environ, **(settings or {})}).returncode
    if status != 0:
        raise Failure(f"{shlex.join(command)} ended with exit code {status}")


def run_shown(command: list[str], folder: Path) -> None:
    """Print the command, its output as it comes, and its time."""
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    print(f"$ {shown}", flush=True)
    start = time.perf_counter()
    status = subprocess.run(command, cwd=folder, stderr=subprocess.STDOUT).returncode
    print(f"# {time.perf_counter() - start:.2f} s", flush=True)
    if status != 0:
        raise Failure(f"{shown} ended with exit code {status}")


def find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Failure(f"{name} was not found. Install it, or put its folder on PATH.")
    return os.path.abspath(found)


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"# {what}: {time.perf_counter() - start:.1f} s", flush=True)


def remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def files_below(tree: Path) -> Iterator[Path]:
    return (path for path in tree.rglob("*") if path.is_file())


def hash_tree(tree: Path) -> dict[str, str]:
    return {path.relative_to(tree).as_posix(): hash_file(path) for path in files_below(tree)}


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(tree: Path) -> str:
    sizes_bytes = [path.stat().st_size for path in files_below(tree)]
    folders = sum(path.is_dir() for path in tree.rglob("*"))
    return f"{len(sizes_bytes):,} files, {folders:,} directories, {sum(sizes_bytes) / 1e6:.0f} MB"


# --- command line ------------------------------------------------------------


def prepare_out(out: Path) -> Path:
    """Only a folder that is new, empty or ours: what lies in it is replaced."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / MARKER).exists():
        raise Failure(f"{out} has other contents. Choose an empty folder.")
    (out / MARKER).touch()
    return out


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["build", "ship"])
    parser.add_argument("--out", type=Path, default=SITE / "builds", help="folder for the builds")
    parser.add_argument("--moorline", default="moorline", help="program to ship with")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        out = prepare_out(arguments.out.resolve())
        if arguments.step == "build":
            build(out)
        else:
            ship(out, arguments.moorline)
    except (Failure, OSError) as failure:
        print(f"run.py: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
