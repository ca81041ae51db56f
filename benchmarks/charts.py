"""Line charts and bars as SVG: no more than docs/benchmarks.md needs, and no library for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

Points = Sequence[tuple[float, float]]
_COLOURS = ("#0b6e99", "#d9730d", "#6940a5", "#448361", "#787774")
_LEFT, _TOP, _WIDTH, _HEIGHT = 64, 54, 520, 220


def lines(
    title: str, x_label: str, y_label: str, series: Mapping[str, Points], *, log: bool = False
) -> str:
    """One line for each series, from zero; `log` makes both axes logarithmic."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    across, up = _axis(xs, log), _axis(ys, log)
    parts = [_text(_LEFT, 22, title, "title"), *_grid(across, up, x_label, y_label)]
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        at = " ".join(f"{_x(across, x):.1f},{_y(up, y):.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{at}"/>')
        parts.append(_text(_LEFT + 12, _TOP + 16 + 16 * number, name, "name", colour))
    return _svg(_LEFT + _WIDTH + 24, _TOP + _HEIGHT + 48, parts)


def bars(title: str, unit: str, rows: Mapping[str, float], own: str) -> str:
    """One bar for each row, the shortest first; those whose names begin with `own` stand out."""
    top = max(rows.values())
    parts = [_text(16, 22, title, "title")]
    for number, (name, value) in enumerate(sorted(rows.items(), key=lambda row: row[1])):
        y, colour = 36 + 22 * number, _COLOURS[0] if name.startswith(own) else "#b8b6b1"
        width = max(1.0, 300 * value / top)
        parts.append(_text(190, y + 14, name, "right"))
        parts.append(f'<rect x="198" y="{y + 2}" width="{width:.1f}" height="16" fill="{colour}"/>')
        parts.append(_text(204 + width, y + 14, f"{value:.3g} {unit}"))
    return _svg(600, 48 + 22 * len(rows), parts)


class _Axis:
    def __init__(self, least: float, most: float, ticks: list[float], log: bool) -> None:
        self.least, self.most, self.ticks, self.log = least, most, ticks, log

    def share(self, value: float) -> float:
        if self.log:
            least = math.log10(self.least)
            return (math.log10(max(value, self.least)) - least) / (math.log10(self.most) - least)
        return (value - self.least) / (self.most - self.least)


def _axis(values: Sequence[float], log: bool) -> _Axis:
    if log:
        low = math.floor(math.log10(min(values)))
        high = max(low + 1, math.ceil(math.log10(max(values))))
        return _Axis(10**low, 10**high, [10**power for power in range(low, high + 1)], True)
    most = max(values) or 1
    step = 10 ** math.floor(math.log10(most))
    step = next(s for s in (step / 5, step / 2, step, step * 2) if most / s <= 8)
    count = math.ceil(most / step)
    return _Axis(0, count * step, [number * step for number in range(count + 1)], False)


def _x(axis: _Axis, value: float) -> float:
    return _LEFT + _WIDTH * axis.share(value)


def _y(axis: _Axis, value: float) -> float:
    return _TOP + _HEIGHT * (1 - axis.share(value))


def _grid(across: _Axis, up: _Axis, x_label: str, y_label: str) -> list[str]:
    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH
    parts = [_text(_LEFT + _WIDTH / 2, bottom + 38, x_label, "middle")]
    parts.append(_text(_LEFT - 8, _TOP - 14, y_label, "right"))
    for tick in up.ticks:
        y = _y(up, tick)
        parts.append(f'<path stroke="#e3e2e0" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{tick:g}", "right"))
    for tick in across.ticks:
        x = _x(across, tick)
        parts.append(f'<path stroke="#9b9a97" d="M{x:.1f} {bottom}v5"/>')
        parts.append(_text(x, bottom + 20, f"{tick:,g}", "middle"))
    return parts


_STYLE = (
    "text{font:12px sans-serif;fill:#37352f}.title{font-size:14px;font-weight:bold}"
    ".middle{text-anchor:middle}.right{text-anchor:end}.name{font-weight:bold}"
)


def _text(x: float, y: float, text: str, kind: str = "", colour: str = "") -> str:
    fill = f' style="fill:{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{fill}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    back = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", back, *parts, "</svg>\n"])


def place(docs: Path, name: str, title: str, svg: str) -> str:
    """Write a chart into the folder; the Markdown that shows it."""
    (docs / f"{name}.svg").write_text(svg, encoding="utf-8")
    return f"\n![{title}]({name}.svg)\n"
