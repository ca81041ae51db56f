"""What the demonstration shows at its end: its steps beside the classic way's, as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from moorline.wording import amount, counted

STEPS = {
    "publish": "publish the site",
    "deploy": "deploy it to 8 targets",
    "publish_edit": "edit a page, publish again",
    "deploy_edit": "deploy that to 8 targets",
    "rollback": "roll PROD back (2 targets)",
    "refuse": "deploy tampered: refused",
    "repair": "publish again: repaired",
    "deploy_new": "deploy to the new target",
}
_CAPTION = (
    "Measured in this run, one target after the other. Moved: what crosses the network, both ways "
    "(content, manifest, index, agent, bundle; for the classic way the zip). All of it is folders "
    "on one disk here: the share and the classic way's bucket are as near as they can be. The "
    "classic way's first deploy is left out for time."
)


def print_result(console: Console, result: dict[str, Any]) -> None:
    """One table, and two lines that say what it comes to."""
    site, edit = result["site"], result["edit"]
    title = f"A site of {counted(site['files'], 'file')}, {amount(site['bytes'])}"
    table = Table(box=box.SIMPLE_HEAD, title=title, caption=_CAPTION, caption_justify="left")
    table.add_column("step")
    for name in ("seconds", "moved", "files\nreused", "classic\nseconds", "classic\nmoved"):
        table.add_column(name, justify="right")
    for step in result["steps"]:
        reused = f"{step['reused_files']:,}" if step["reused_files"] else "-"
        table.add_row(STEPS[step["step"]], *_cells(step), reused, *_cells(step["classic"]))
    console.print(table)
    ours, theirs = edit["moorline"], edit["classic"]
    console.print(
        "One page edited, published and live on 8 targets, against the classic way:\n"
        f"  {result['times_faster']:,.0f} times faster: "
        f"{ours['seconds']:.1f} s, not {theirs['seconds']:.1f} s\n"
        f"  {result['times_fewer_bytes']:,.0f} times fewer bytes: "
        f"{amount(ours['bytes'])}, not {amount(theirs['bytes'])}"
    )
    if result["folder"]:
        console.print(f"All of it is in {result['folder']}", markup=False)


def _cells(cost: dict[str, Any] | None) -> tuple[str, str]:
    """Seconds and bytes; dashes where the classic way has no such step."""
    return (f"{cost['seconds']:.2f}", amount(cost["bytes"])) if cost else ("-", "-")
