"""For whoever works on a budget: which function of moorline costs which NFS requests.

    cd tests && ../.venv/bin/python -m nfs.trace publish deploy --files 200

Boots a SoloRig (5 s, no privileges) and runs the steps of `costs`, from cold caches. The moorline
that is traced is the one that Python imports: PYTHONPATH=/another/worktree/src names another.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import moorline
from nfs.costs import STEPS, costs
from nfs.solo import SoloRig


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="m.") as name:
        here = Path(name)
        with SoloRig(here / "solo") as rig:
            found = costs(
                rig, here, files=options.files, layout=options.layout, steps=options.steps,
                traced=() if options.totals else options.steps,
            )  # fmt: skip
    sys.stdout.write(f"{Path(moorline.__file__).parent}, {options.files} files, {options.layout}\n")
    for step, cost in found.items():
        sys.stdout.write(f"\n== {step}: {cost}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nfs.trace", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--layout", default="pack", choices=("pack", "tree"))
    parser.add_argument("--totals", action="store_true", help="count only: quicker, no callers")
    options = parser.parse_args()
    options.steps = options.steps or STEPS
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; steps are {', '.join(STEPS)}")
    return options


if __name__ == "__main__":
    main()
