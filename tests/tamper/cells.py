"""The matrix as one table: place, act, and what deploy and verify have to say of it.

    python tests/tamper/cells.py        prints it for the documentation

Exit 0 is for what changes nothing that anybody is served; each such cell says why.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a program

from damages import DAMAGES

FILES = {"bin/run": 17, "css/site.css": 6, "img/a.png": 2400, "img/b.png": 2400, "index.html": 12}
"""The files of trees.SITE that have content, with their sizes."""
GONE = ("remove", "rename", "to a directory", "to a full directory", "to a link", "to a FIFO")
CHANGED = ("flip a bit", "truncate", "append", "empty", "swap")


class Answer(NamedTuple):
    """An exit code, the problems by path, and words of the message. `#` is any token or digest."""

    exit: int
    problems: Mapping[str, str] = {}
    says: str = ""


class Cell(NamedTuple):
    place: str
    act: str
    deploy: Answer
    verify: Answer
    why: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.act}"


FINE = Answer(0)


def _files(problem: str) -> dict[str, str]:
    return {path: problem.format(size) for path, size in FILES.items()}


def _row(place: str, acts: tuple[str, ...], deploy: Answer, verify: Answer) -> Iterator[Cell]:
    for act in acts:
        yield Cell(place, act, deploy, verify)


def _fine(place: str, why: Mapping[str, str]) -> Iterator[Cell]:
    for act, reason in why.items():
        yield Cell(place, act, FINE, FINE, reason)


# -- the store ------------------------------------------------------------------------------------


def _pack() -> Iterator[Cell]:
    one, here = {"index.html": "pack # is damaged here"}, "pack # is damaged here"
    yield Cell("pack", "flip a bit", Answer(3, {"index.html": "content differs"}), Answer(3, one))
    short = Answer(3, {"index.html": "has 0 bytes, should be 12"})
    yield Cell("pack", "truncate", short, Answer(3, one))
    nothing = Answer(3, _files("has 0 bytes, should be {}"))
    yield Cell("pack", "empty", nothing, Answer(3, _files(here)))
    yield Cell("pack", "swap", Answer(3, _files("content differs")), Answer(3, _files(here)))
    yield from _row("pack", GONE, nothing, Answer(3, _files("pack # is missing")))
    unread = "no index names these bytes, so nobody reads them"
    mode = "a pack's mode is no part of the build"
    yield from _fine("pack", {"append": unread, "add": unread, "chmod": mode})


def _index() -> Iterator[Cell]:
    damaged = Answer(3, {".": "the build's index is missing or damaged"})
    yield from _row("index, pack", (*CHANGED, *GONE), damaged, damaged)
    why = "it tells only times there, which are no part of the build: files get the build's own"
    for act in (*CHANGED, *GONE):
        yield Cell("index, tree", act, FINE, damaged, why)
    for layout in ("pack", "tree"):
        yield from _fine(f"index, {layout}", {"add": _ADDED, "chmod": _MODE})


_ADDED = "no part of the build is called so"
_MODE = "the file's mode is no part of the build"


def _records() -> Iterator[Cell]:
    manifest = Answer(3, says="manifest of build b .* Publish the same build again")
    for layout in ("pack", "tree"):
        name = f"manifest.gz, {layout}"
        yield from _row(name, (*CHANGED, *GONE), manifest, manifest)
        yield from _fine(name, {"add": _ADDED, "chmod": _MODE})
        name = f"build.json, {layout}"
        damaged = Answer(3, says="build.json .* Publish the same build again")
        acts = ("flip a bit", "append", "empty", "swap", *GONE)
        yield from _row(name, acts, damaged, damaged)
        end = "only the last newline is gone"
        yield from _fine(name, {"truncate": end, "add": _ADDED, "chmod": _MODE})
        liar = f"digest in build.json, {layout}"
        yield Cell(liar, "flip a bit", FINE, manifest, "the digest in the bundle is what counts")


def _kept() -> Iterator[Cell]:
    """Verified with `--all`: a build's bundle names them, the build does not."""
    wrong = "is not what its name says"
    file = Answer(3, {"settings/#.json": wrong})
    refused = Answer(3, says="settings/#.json was changed")
    in_place = tuple(act for act in (*CHANGED, *GONE) if act not in ("remove", "rename", "swap"))
    yield from _row("settings", in_place, refused, file)
    both = Answer(3, {"settings/#.json": wrong, "agent/#.pyz": wrong})
    yield Cell("settings", "swap", refused, both)
    lost = Answer(4, says="does not hold settings/#.json. Publish the same build again")
    why = "only a bundle says that it should be there"
    for act in ("remove", "rename"):
        yield Cell("settings", act, lost, FINE, why)
    yield from _fine("settings", {"add": _ADDED, "chmod": _MODE})
    note = "deploy.sh refuses it (3; 4 when it is no file); `moorline deploy` says so in a note"
    for act in in_place:
        yield Cell("agent", act, FINE, Answer(3, {"agent/#.pyz": wrong}), note)
    yield Cell("agent", "swap", refused, both, "the settings were swapped with it")
    for act in ("remove", "rename"):
        yield Cell("agent", act, FINE, FINE, "deploy.sh waits for it, then exit 4")
    yield from _fine("agent", {"add": _ADDED, "chmod": _MODE})


def _folder() -> Iterator[Cell]:
    for layout in ("pack", "tree"):
        name, lost = f"builds/b, {layout}", Answer(4, says="no build b in the store")
        acts = ("remove", "rename", "to a file", "to a link", "to a FIFO")
        yield from _row(name, acts, lost, lost)
        damaged = Answer(3, says="build.json is missing")
        yield from _row(name, ("empty", "to a full directory"), damaged, damaged)
        yield from _fine(name, {"add": _ADDED, "chmod": _MODE})


def content_problems(problems: Mapping[str, str]) -> dict[str, str]:
    """What of a damaged tree a mode-copy deploy meets: it takes only contents from there."""
    found = {}
    for path, problem in problems.items():
        if path in FILES or path == "css/empty.css":
            if problem.startswith(("has ", "content ")):
                found[path] = problem
            elif not problem.startswith("mode "):
                found[path] = "missing in the store, or no file there"
    if "img/a.png" in found:  # the same content: read once, for both
        found["img/b.png"] = found["img/a.png"]
    return found


def _trees() -> Iterator[Cell]:
    for act, (_, problems) in DAMAGES.items():
        found = Answer(3, problems)
        yield Cell("tree, mode link", act, found, found)
        wanted = content_problems(problems)
        why = "" if wanted else "mode copy takes only contents from a tree; this is none"
        yield Cell("tree, mode copy", act, Answer(3, wanted) if wanted else FINE, found, why)


STORE = (*_pack(), *_index(), *_records(), *_kept(), *_folder())
TREES = tuple(_trees())


# -- the target -----------------------------------------------------------------------------------


class Kept(NamedTuple):
    """A change of what a target keeps in .moorline: what `verify` says of it while the release is
    live, and a rollback to it while it is not."""

    place: str
    act: str
    verify: Answer
    rollback: Answer
    why: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.act}"


def _target() -> Iterator[Kept]:
    suffix = {"manifests": "", "settings": ".json", "agents": ".pyz"}
    said = {
        "manifests": Answer(4, says="holds no whole copy of build a"),
        "settings": Answer(4, says="the settings of build a are missing"),
        "agents": FINE,
    }
    special = {  # the settings are read first, and as far as they mean the same they are
        **{(place, "swap"): (said["settings"], "settings were swapped with it") for place in said},
        ("settings", "truncate"): (FINE, "only the last newline is gone"),
    }
    for place, back in said.items():
        lost = {f".moorline/{place}/#{suffix[place]}": "missing or damaged"}
        why = "" if back.exit else "the agent that runs is another file"
        for act in (*CHANGED, *GONE):
            yield Kept(place, act, Answer(3, lost), *special.get((place, act), (back, why)))
        yield Kept(place, "add", FINE, FINE, "removed by the next deploy")
        yield Kept(place, "chmod", FINE, FINE, "its digest is what counts")


KEPT = tuple(_target())


# -- for the documentation ------------------------------------------------------------------------


def _said(answer: Answer) -> str:
    if not answer.exit:
        return "0"
    first = next(iter(answer.problems.items()), None)
    more = f" and {len(answer.problems) - 1} more" if len(answer.problems) > 1 else ""
    return f"{answer.exit}" + (f": `{first[0]}` {first[1]}{more}" if first else "")


def table() -> Iterator[str]:
    yield "| in the store | what is done | deploy | verify | |"
    yield "|---|---|---|---|---|"
    for cell in (*STORE, *TREES):
        said = (_said(cell.deploy), _said(cell.verify), cell.why)
        yield f"| {cell.place} | {cell.act} | {' | '.join(said)} |"
    yield ""
    yield "| on the target | what is done | verify | rollback to it, without the share | |"
    yield "|---|---|---|---|---|"
    for kept in KEPT:
        said = (_said(kept.verify), _said(kept.rollback), kept.why)
        yield f"| .moorline/{kept.place} | {kept.act} | {' | '.join(said)} |"
    for act, (_, problems) in DAMAGES.items():
        yield f"| live release | {act} | {_said(Answer(3, problems))} | 4 | |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in table())
