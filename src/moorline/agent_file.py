"""The agent's zipapp: the program that runs on targets, made of this package's own modules.

The same source gives the same bytes on every machine and with every Python, because a bundle pins
the file by its SHA-256: names sorted, dates 1980, modes fixed, stored and not deflated (zlib's
output differs between its versions), sources unchanged and not compiled.
"""

from __future__ import annotations

import hashlib
import pkgutil
from functools import cache

from moorline.bundling import stored, zipped

# The agent and all that it imports; tests/test_agent_file.py proves that nothing is missing.
AGENT_MODULES = (
    "__init__.py",
    "agent.py",
    "aside.py",
    "asking.py",
    "build.py",
    "bundle.py",
    "compiled.py",
    "crew.py",
    "disk.py",
    "errors.py",
    "files.py",
    "garbage.py",
    "golive.py",
    "growing.py",
    "guard.py",
    "hashing.py",
    "held.py",
    "history.py",
    "hooks.py",
    "interrupts.py",
    "keeping.py",
    "layout/__init__.py",
    "layout/index.py",
    "layout/pack.py",
    "layout/pack_check.py",
    "layout/tree.py",
    "leaving.py",
    "ledger/__init__.py",
    "ledger/directory.py",
    "lines.py",
    "linked.py",
    "manifest.py",
    "place.py",
    "preparing.py",
    "progress.py",
    "proof.py",
    "record.py",
    "releases.py",
    "settings.py",
    "startup.py",
    "store.py",
    "target.py",
    "telling.py",
    "verifying.py",
    "wanted.py",
)

# Read by any Python 3: Amazon Linux 2 and RHEL 8 have an old python3, and often a newer one too.
MAIN = """\
import os
import sys


def find_newer():
    import shutil

    for minor in range(19, 8, -1):
        program = shutil.which("python3.%d" % minor)
        if program:
            os.execv(program, [program, "-I"] + sys.argv)
    sys.stdout.write(
        "moorline: deploy failed: python3 on this machine is Python %d.%d, and the agent needs 3.9 "
        "or newer. Nothing was changed. Install one: python3.9 to python3.19 are found on PATH. "
        "(exit 2)\\n" % sys.version_info[:2]
    )
    sys.exit(2)


def open_standard_files():
    # CodeDeploy closes stdin: without this the next file that is opened would take its place.
    while True:
        number = os.open(os.devnull, os.O_RDWR)
        if number > 2:
            os.close(number)
            break


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        find_newer()
    open_standard_files()
    os.umask(0o022)
    from moorline.startup import run

    run()
"""


@cache
def agent_bytes() -> bytes:
    """The zipapp, from wherever this package lies: a checkout, an installed wheel or a zip."""
    sources = {"__main__.py": MAIN.encode("ascii")}
    for name in AGENT_MODULES:
        sources[f"moorline/{name}"] = pkgutil.get_data("moorline", name) or b""
    return zipped(sources, stored, b"#!/usr/bin/env python3\n")


def agent_digest() -> str:
    """The SHA-256 of the agent in hex: its name in a store, and what a bundle pins."""
    return hashlib.sha256(agent_bytes()).hexdigest()
