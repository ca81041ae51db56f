"""What the script `moorline` starts: the command line, without what a short process need not do.

Imports make some hundred thousand objects that all stay: nobody looks for dead ones among them,
then or later. And nobody takes them apart at the end.
"""

from __future__ import annotations

import gc

from moorline.garbage import uncollected
from moorline.leaving import leave


def main() -> None:
    """Run the command line and end the process. Never returns."""
    with uncollected():
        from moorline.cli import main as run
    gc.freeze()
    try:
        run()
    except SystemExit as end:
        leave(int(end.code or 0))
