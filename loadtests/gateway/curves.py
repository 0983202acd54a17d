"""Latency against offered load, drawn as SVG: one panel a percentile, one line a server. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loadtests.figures import number
from loadtests.gateway.open_loop import PERCENTILES, Latencies

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 76, 14, 34, 44
STYLE = 'role="img" font-family="system-ui, sans-serif" font-size="13"'
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f", "#e69f00")
"""Told apart with every kind of colour vision (Okabe and Ito)."""


@dataclass(frozen=True)
class Curve:
    """What one server did.

    Attributes:
        name: of the server.
        points: by rising load.
    """

    name: str
    points: Sequence[Latencies]


def draw(curves: Sequence[Curve]) -> str:
    """One SVG with a panel for each percentile; the latency's axis is logarithmic, the same in all panels.

    Args:
        curves: at least one point in all.

    Raises:
        ValueError: there is no point.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        raise ValueError("no latency was measured: there is nothing to draw")
    most_load = max(point.offered for point in points)
    values = [value for point in points for value in point.percentiles_ms if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    axes = _Axes(most_load * 1.03, low, max(high, low + 1))
    rows = math.ceil(len(PERCENTILES) / 2)
    legend_height = 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {rows * HEIGHT + legend_height}" {STYLE}>',
        "<title>Latency against offered load</title>",
        f'<rect width="{2 * WIDTH}" height="{rows * HEIGHT + legend_height}" fill="#ffffff"/>',
        *_legend(curves),
    ]
    for at, percentile in enumerate(PERCENTILES):
        x, y = at % 2 * WIDTH, at // 2 * HEIGHT + legend_height
        parts += [f'<g transform="translate({x} {y})">', *_panel(percentile, at, curves, axes), "</g>"]
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Axes:
    most_load: float
    low: int
    high: int

    def x(self, load: float) -> float:
        return LEFT + load / self.most_load * (WIDTH - LEFT - RIGHT)

    def y(self, value_ms: float) -> float:
        share = (math.log10(max(value_ms, 10.0**self.low)) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def loads(self) -> list[float]:
        """Round numbers along the load's axis, about five."""
        rough = self.most_load / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(one * unit for one in (1, 2, 5, 10) if one * unit >= rough)
        return [step * one for one in range(int(self.most_load / step) + 1)]


def _legend(curves: Sequence[Curve]) -> list[str]:
    found, x = [], LEFT
    for at, curve in enumerate(curves):
        colour = _colour(at)
        found.append(f'<line x1="{x}" y1="16" x2="{x + 24}" y2="16" stroke="{colour}" stroke-width="3"/>')
        found.append(f'<text x="{x + 30}" y="20" fill="#222222">{escape(curve.name)}</text>')
        x += 60 + 8 * len(curve.name)
    return found


def _panel(percentile: float, at: int, curves: Sequence[Curve], axes: _Axes) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    found = [f'<text x="{LEFT}" y="{TOP - 12}" fill="#222222" font-weight="600">p{percentile:g}</text>']
    for power in range(axes.low, axes.high + 1):
        y = axes.y(10.0**power)
        found.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>')
        text = f"{number(10.0**power)} ms"
        found.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" fill="#555555" text-anchor="end">{text}</text>')
    for load in axes.loads():
        x = axes.x(load)
        found.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#eeeeee"/>')
        text = number(load)
        found.append(f'<text x="{x:.1f}" y="{bottom + 17}" fill="#555555" text-anchor="middle">{text}</text>')
    middle = (LEFT + right) / 2
    found.append(
        f'<text x="{middle}" y="{bottom + 36}" fill="#555555" text-anchor="middle">offered load, calls/s</text>'
    )
    for which, curve in enumerate(curves):
        places = [(axes.x(point.offered), axes.y(point.percentiles_ms[at])) for point in curve.points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        colour = _colour(which)
        found.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), point in zip(places, curve.points, strict=True):
            said = f"{curve.name}: {number(point.offered)} calls/s, {number(point.percentiles_ms[at])} ms"
            found.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{escape(said)}</title></circle>'
            )
    return found


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]
