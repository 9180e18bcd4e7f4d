"""Small line charts as SVG text, for reports that are one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f5fa8", "#c0392b", "#27805b", "#8e44ad", "#b9770e", "#444444")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def _ticks(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / 4 for i in range(5)]


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (340, 300),
    limits: tuple[float, float, float, float] | None = None,
) -> str:
    """A chart with axes, grid and legend.

    Args:
        lines: at least one, each with at least one point.
        title, x_label, y_label: texts.
        size: pixels.
        limits: (x0, x1, y0, y1); those of the data if None.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not lines or not any(len(line.x) for line in lines):
        raise ValueError(f"chart {title!r} has no points")
    xs, ys = [v for line in lines for v in line.x], [v for line in lines for v in line.y]
    x0, x1, y0, y1 = limits or (min(xs), max(xs), min(ys), max(ys))
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)
    width, height = size
    left, right, top, bottom = 52, 10, 26, 40 + 14 * len(lines)

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x0) / (x1 - x0) * (width - left - right)
        return across, height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)

    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    out = [f'<svg {box} role="img" aria-label="{escape(title)}">']
    out.append(f'<text x="{width / 2}" y="15" text-anchor="middle" class="title">{escape(title)}</text>')
    for tick in _ticks(x0, x1):
        x, y = place(tick, y0)
        out.append(f'<path d="M{x:.1f} {top}V{y:.1f}" class="grid"/>')
        out.append(f'<text x="{x:.1f}" y="{y + 13:.1f}" text-anchor="middle">{tick:g}</text>')
    for tick in _ticks(y0, y1):
        x, y = place(x0, tick)
        out.append(f'<path d="M{x:.1f} {y:.1f}H{width - right}" class="grid"/>')
        out.append(f'<text x="{x - 4:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    out.append(f'<text x="{width / 2}" y="{height - bottom + 28}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(
        f'<text transform="translate(11 {height / 2 - 20}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(line.x, line.y, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        y = height - bottom + 44 + 14 * i
        out.append(f'<path d="M{left} {y - 4}h18" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{left + 24}" y="{y}">{escape(line.name)}</text>')
    return "\n".join([*out, "</svg>"])
