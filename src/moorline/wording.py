"""Sizes, counts, times and tables as people read them. Pure: no disk, no clock, no screen.

Tables import what only they need: most verbs print none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


def amount(size_bytes: float) -> str:
    """`size_bytes` for people: 871 bytes, 41 KB, 1.2 MB, 477 MB. Powers of 1,000."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} bytes" if size_bytes != 1 else "1 byte"
    for unit in ("KB", "MB", "GB", "TB"):
        size_bytes /= 1000
        if size_bytes < 999.5 or unit == "TB":
            break
    return f"{size_bytes:.1f} {unit}" if size_bytes < 9.95 else f"{size_bytes:,.0f} {unit}"


def moment(seconds: int) -> str | None:
    """A time as 2026-01-31T08:15:00Z; None for never."""
    try:
        return (
            datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
        )
    except (ValueError, OverflowError, OSError):  # a record may hold any number
        return str(seconds)


def counted(number: int, noun: str) -> str:
    """1 file, 7,530 files."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey; records come from a shared disk."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
                   for c in text)  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """Rows under column titles; no titles, no header. Titles in `right` are columns of numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Aligned by spaces, never cut: for pipes and logs."""
        from rich.cells import cell_len

        lines = [*([self.columns] if self.columns else []), *self.rows]
        count = max(map(len, lines), default=0)
        widths = [max(cell_len(line[i]) for line in lines) for i in range(count)]
        right = [i < len(self.columns) and self.columns[i] in self.right for i in range(count)]
        text = ""
        for line in lines:
            cells = []
            for cell, width, is_right in zip(line, widths, right, strict=True):
                space = " " * (width - cell_len(cell))
                cells.append(space + cell if is_right else cell + space)
            text += "  ".join(cells).rstrip() + "\n"
        return text
