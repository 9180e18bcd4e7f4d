"""Accuracy against what it costs, as one SVG file: trained parameters, time and memory, a panel each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from eval.ablate_spec import UNTUNED
from eval.svg import COLOURS

PANEL = (300, 250)
STYLE = (
    "text{font:11px sans-serif;fill:#222}.title{font-weight:bold}.grid{stroke:#ddd;fill:none}"
    "rect{fill:#fff}.bar{fill:none;stroke-width:1.4}"
)
COSTS = {"n_trained": "trained parameters", "seconds": "seconds of steps", "peak_memory_bytes": "peak memory, MiB"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A variant: what it cost, its accuracy, and the bounds of that."""

    name: str
    x: float
    y: float
    low: float
    high: float
    colour: str


def points_of(result: Mapping[str, Any], cost: str, protocol: str) -> list[Point]:
    """The variants that are done; those of which the cost is not known are left out."""
    points = []
    names = [name for name in result["rows"] if name != UNTUNED]
    for i, name in enumerate(names):
        row = result["rows"][name]
        value = row.get(cost)
        if not row["n_seeds"] or value is None:
            continue
        x = float(value["mean"] if isinstance(value, Mapping) else value)
        auc = row["protocols"][protocol]["auc"]
        low, high = auc["interval"] or (auc["min"], auc["max"])
        scale = 2**20 if cost == "peak_memory_bytes" else 1
        colour = COLOURS[i % len(COLOURS)]
        points.append(Point(name=name, x=x / scale, y=auc["mean"], low=low, high=high, colour=colour))
    return points


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.3g}"


def _panel(points: Sequence[Point], label: str, at: int, y_range: tuple[float, float], *, is_log: bool) -> list[str]:
    width, height = PANEL
    left, right, top, bottom = at + 48, at + width - 14, 34, height - 40
    xs = [math.log10(p.x) if is_log else p.x for p in points]
    margin = 0.08 * (max(xs) - min(xs)) or abs(xs[0]) * 0.1 or 1.0
    x0, x1, (y0, y1) = min(xs) - margin, max(xs) + margin, y_range

    def across(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (right - left)

    def down(y: float) -> float:
        return bottom - (y - y0) / (y1 - y0) * (bottom - top)

    out = []
    for i in range(5):
        y = y0 + (y1 - y0) * i / 4
        out.append(f'<path d="M{left} {down(y):.1f}H{right}" class="grid"/>')
        out.append(f'<text x="{left - 5}" y="{down(y) + 4:.1f}" text-anchor="end">{y:.3f}</text>')
    for i in range(3):
        x = x0 + (x1 - x0) * i / 2
        shown = _short(10**x if is_log else x)
        out.append(f'<path d="M{across(x):.1f} {top}V{bottom}" class="grid"/>')
        out.append(f'<text x="{across(x):.1f}" y="{bottom + 14}" text-anchor="middle">{shown}</text>')
    out.append(f'<text x="{(left + right) / 2}" y="{bottom + 31}" text-anchor="middle">{escape(label)}</text>')
    for point, x in zip(points, xs, strict=True):
        place = f"{across(x):.1f}"
        bar = f'<path d="M{place} {down(point.low):.1f}V{down(point.high):.1f}" class="bar" stroke="{point.colour}"/>'
        out.append(bar)
        out.append(f'<circle cx="{place}" cy="{down(point.y):.1f}" r="4.5" fill="{point.colour}"/>')
    return out


def plot_svg(result: Mapping[str, Any], protocol: str = "statements") -> str:
    """Three panels that share their vertical axis, and a legend.

    Args:
        result: of `eval.ablate_table.collect`, with at least one variant done.
        protocol: whose AUC is drawn.

    Raises:
        ValueError: if no variant is done.
    """
    panels = {cost: points_of(result, cost, protocol) for cost in COSTS}
    every = [point for points in panels.values() for point in points]
    if not every:
        raise ValueError(f"ablation {result['name']}: no variant is done, there is nothing to draw")
    low, high = min(p.low for p in every), max(p.high for p in every)
    margin = 0.08 * (high - low) or 0.01
    legend = {point.name: point.colour for point in every}
    width, height = PANEL[0] * len(COSTS), PANEL[1] + 16 * len(legend)
    title = f"{result['name']}: macro AUC, {protocol}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{STYLE}</style><rect width="100%" height="100%"/>',
        f'<text x="{width / 2}" y="18" text-anchor="middle" class="title">{escape(title)}</text>',
    ]
    for i, (cost, points) in enumerate(panels.items()):
        if points:
            y_range = (low - margin, high + margin)
            out += _panel(points, COSTS[cost], i * PANEL[0], y_range, is_log=cost == "n_trained")
    for i, (name, colour) in enumerate(legend.items()):
        y = PANEL[1] + 8 + 16 * i
        out.append(f'<circle cx="54" cy="{y - 4}" r="4.5" fill="{colour}"/><text x="64" y="{y}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
