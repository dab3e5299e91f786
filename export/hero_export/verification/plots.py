"""The plots of a verification's report, as SVG that stands in the page itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f6feb", "#d1570a", "#2a8f4f", "#9a3fb5", "#b3261e", "#007c89", "#7a6a00", "#5b5bd6", "#8c4a2f", "#3d5a80")
WIDTH, LEFT, RIGHT, ROW, TOP = 760, 250, 90, 24, 14
CHART_HEIGHT = 240


@dataclass(frozen=True)
class Bar:
    """A line of ``bars``.

    Attributes:
        label: in front of it.
        value: its length.
        text: behind it.
        low, high: ends of an interval around the value; None draws none.
        wrong: drawn as what failed.
    """

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    wrong: bool = False


def bars(lines: Sequence[Bar]) -> str:
    """Horizontal bars from zero, with intervals where there are any."""
    most = max((max(line.value, line.high or 0.0) for line in lines), default=0.0) or 1.0
    room = WIDTH - LEFT - RIGHT
    height = TOP + ROW * len(lines)

    def place(value: float) -> float:
        return LEFT + room * max(0.0, value) / most

    parts = []
    for number, line in enumerate(lines):
        middle = TOP + ROW * number + ROW / 2 - 4
        colour = "#b3261e" if line.wrong else COLOURS[0]
        parts.append(f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(line.label)}</text>')
        parts.append(
            f'<rect x="{LEFT}" y="{middle - 7:.1f}" width="{place(line.value) - LEFT:.1f}" height="14" fill="{colour}" '
            'fill-opacity="0.75"/>'
        )
        if line.low is not None and line.high is not None:
            start, end = place(line.low), place(line.high)
            parts.append(f'<path d="M{start:.1f} {middle:.1f}H{end:.1f}" stroke="#111" stroke-width="1.5"/>')
            parts += [f'<path d="M{x:.1f} {middle - 4:.1f}v8" stroke="#111" stroke-width="1.5"/>' for x in (start, end)]
        behind = max(place(line.value), place(line.high or 0.0)) + 6
        parts.append(f'<text x="{behind:.1f}" y="{middle + 4:.1f}">{escape(line.text)}</text>')
    return _svg(height, parts)


def curves(series: Mapping[str, Sequence[float]], axis: str) -> str:
    """One line per name over 0, 1, 2, ..., on a logarithmic scale of powers of ten; zeros lie at its lower end.

    Args:
        series: values of each line.
        axis: what the horizontal axis counts.
    """
    positive = [value for values in series.values() for value in values if value > 0 and math.isfinite(value)]
    low = math.floor(math.log10(min(positive))) if positive else -8
    high = math.ceil(math.log10(max(positive))) if positive else 0
    high = max(high, low + 1)
    count = max((len(values) for values in series.values()), default=1)
    left, bottom = 60, CHART_HEIGHT - 30

    def x(number: int) -> float:
        return left + (WIDTH - left - 200) * number / max(1, count - 1)

    def y(value: float) -> float:
        power = math.log10(value) if value > 0 and math.isfinite(value) else low
        return bottom - (bottom - TOP) * (min(max(power, low), high) - low) / (high - low)

    parts = []
    for power in range(low, high + 1):
        level = y(10.0**power)
        parts.append(f'<path d="M{left} {level:.1f}H{x(count - 1):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{level + 4:.1f}" text-anchor="end">1e{power}</text>')
    parts.append(f'<text x="{left}" y="{CHART_HEIGHT - 8}">{escape(axis)}</text>')
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>'
            for place, value in enumerate(values)
        ]
        level = TOP + 16 * number + 8
        parts.append(f'<rect x="{WIDTH - 190}" y="{level - 8}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - 174}" y="{level + 1}">{escape(name)}</text>')
    return _svg(max(CHART_HEIGHT, TOP + 16 * len(series) + 16), parts)


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12">' + "".join(parts) + "</svg>"
    )
