"""What the agent's zipapp starts: the agent, by code that an earlier start compiled."""

from __future__ import annotations

import contextlib
import os
import sys

from moorline.compiled import Compiled, read_whole


def run() -> None:
    """Run the agent and end the process; never returns. A run that succeeded keeps what had to be
    compiled for it."""
    fd = os.open(sys.argv[0], os.O_RDONLY | os.O_CLOEXEC)
    try:
        compiled = Compiled(read_whole(fd))
    finally:
        os.close(fd)
    sys.meta_path.insert(0, compiled)
    from moorline.agent import main  # only now: this, and all that it imports, comes from there
    from moorline.leaving import leave

    code = main()
    # -I makes Python itself pass over that variable.
    unwanted = sys.dont_write_bytecode or os.environ.get("PYTHONDONTWRITEBYTECODE")
    if compiled.new and not code and not unwanted:
        # It was said that all is well, and so it is: a full disk or a SIGTERM changes nothing.
        with contextlib.suppress(OSError, KeyboardInterrupt):
            from moorline.disk import Disk
            from moorline.keeping import keep

            keep(Disk(), compiled.name, compiled.new)
    leave(code)
