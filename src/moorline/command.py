"""What the script `moorline` starts: the command line, without what a short process need not do.

Imports make tens of thousands of objects that all stay: looking for dead cycles among them, and
taking them apart at the end, takes a tenth of the time of a deploy that costs what changed.
"""

from __future__ import annotations

import gc

from moorline.leaving import leave

MOST_UNSEEN = 100_000
"""New objects before Python looks for dead cycles: some 10 MB, and more than a short run makes."""


def main() -> None:
    """Run the command line and end the process. Never returns."""
    gc.set_threshold(MOST_UNSEEN)
    from moorline.cli import main as run

    try:
        run()
    except SystemExit as end:
        leave(int(end.code or 0))
