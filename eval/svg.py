"""Line charts as SVG text, for reports that are one file: one large, or many small ones of the unit square."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1f5fa8", "#c0392b", "#27805b", "#8e44ad", "#b9770e", "#444444")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve of a chart.

    Attributes:
        name: for the legend.
        x, y: its points.
        colour: of COLOURS, or another; by its place among the curves if empty.
        is_dashed: for what is compared with.
        dots: radius in pixels of a dot at each point; none if empty.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = ""
    is_dashed: bool = False
    dots: Sequence[float] = ()


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


def small_chart(
    lines: Sequence[Line],
    *,
    title: str,
    subtitle: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (214, 250),
) -> str:
    """A chart of the unit square for a page full of them: no legend, but the curves' names in their colours on top.

    Args:
        lines: at least one, points in [0, 1]; a curve without a name is not listed.
        title, subtitle: two lines; the whole of both is the tooltip.
        x_label, y_label: texts.
        size: pixels.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not any(len(line.x) for line in lines):
        raise ValueError(f"chart {title!r} has no points")
    width, height = size
    left, right, top, bottom = 34, 10, 50, 32
    across, down = width - left - right, height - top - bottom

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * across, top + (1 - y) * down

    whole = escape(f"{title}: {subtitle}")
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    out = [f'<svg {box} role="img" aria-label="{whole}"><title>{whole}</title>']
    out.append(f'<text x="{left}" y="13" class="title">{escape(_cut(title, 28))}</text>')
    out.append(f'<text x="{left}" y="27" class="fine">{escape(_cut(subtitle, 32))}</text>')
    for value in (0, 0.5, 1):
        x, y = left + value * across, top + (1 - value) * down
        out.append(f'<path d="M{x:.1f} {top}v{down}M{left} {y:.1f}h{across}" class="grid"/>')
        out.append(f'<text x="{x:.1f}" y="{top + down + 12}" text-anchor="middle" class="fine">{value:g}</text>')
        out.append(f'<text x="{left - 4}" y="{y + 3:.1f}" text-anchor="end" class="fine">{value:g}</text>')
    below = f'x="{left + across / 2}" y="{height - 5}"'
    turned = f'transform="translate(9 {top + down / 2:.0f}) rotate(-90)"'
    for where, label in ((below, x_label), (turned, y_label)):
        out.append(f'<text {where} text-anchor="middle" class="fine">{escape(label)}</text>')
    coloured = [(line, line.colour or COLOURS[i % len(COLOURS)]) for i, line in enumerate(lines)]
    out += [mark for line, colour in coloured for mark in _marks(line, colour, place)]
    names = [f'<tspan style="fill:{colour}">{escape(line.name)}</tspan>' for line, colour in coloured if line.name]
    out.append(f'<text x="{left}" y="42" class="fine">{" &#160; ".join(names)}</text>')
    return "\n".join([*out, "</svg>"])


def _marks(line: Line, colour: str, place: Callable[[float, float], tuple[float, float]]) -> list[str]:
    """A curve, and its dots if it has some."""
    at = [place(x, y) for x, y in zip(line.x, line.y, strict=True)]
    dashes = ' stroke-dasharray="4 3"' if line.is_dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    marks = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dashes}/>']
    for (x, y), radius in zip(at, line.dots or (), strict=bool(line.dots)):
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>')
    return marks


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."
