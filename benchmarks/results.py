"""results.json: what every part of the benchmarks found last, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FORMAT = 2
_SAME = ("cpu", "cores", "kernel", "file_system")


def add_section(
    results: Path, name: str, section: dict[str, Any], machine: dict[str, Any]
) -> None:  # fmt: skip
    """Each part is kept as soon as it is there: a long run may be stopped. What was measured on
    another machine is not kept beside it."""
    whole: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    if whole.get("format") != FORMAT or not _is_same(whole["machine"], machine):
        whole = {"format": FORMAT, "sections": {}}
    whole["machine"] = machine
    made = {"date": machine["date"], "source": machine["versions"].get("source", "unknown")}
    whole["sections"][name] = {**section, **made}
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(whole, indent=1) + "\n")


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[name] == other[name] for name in _SAME)
