"""A run's curves as one picture, drawn with Pillow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, LEFT, TOP = 480, 220, 70, 30  # px, of one panel
INK, PALE, BLUE = "#222222", "#dddddd", "#1f5fa8"

Points = Sequence[tuple[float, float]]


def _panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, points: Points) -> None:
    font = ImageFont.load_default(12)
    x0, y0 = corner[0] + LEFT, corner[1] + TOP
    x1, y1 = corner[0] + WIDTH - 20, corner[1] + HEIGHT - 30
    draw.text((corner[0] + LEFT, corner[1] + 8), title, INK, font)
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    span, length = (high - low) or 1.0, (last - first) or 1.0
    for value, y in ((high, y0), (low, y1)):
        draw.line([(x0, y), (x1, y)], PALE)
        draw.text((corner[0] + 4, y - 7), f"{value:.3g}", INK, font)
    for value, x in ((first, x0), (last, x1 - 30)):
        draw.text((x, y1 + 6), f"{value:g}", INK, font)
    places = [(x0 + (x1 - x0) * (x - first) / length, y1 - (y1 - y0) * (y - low) / span) for x, y in points]
    if len(places) > 1:
        draw.line(places, BLUE, 2)
    for x, y in places if len(places) < 30 else ():
        draw.ellipse([x - 2, y - 2, x + 2, y + 2], BLUE)


def draw_curves(log: Sequence[dict[str, Any]], validations: Sequence[dict[str, Any]], out: Path) -> None:
    """Write a PNG with a panel for each quantity that has numbers: over steps, left to right.

    Args:
        log: lines of log.jsonl.
        validations: lines of validation.jsonl.
        out: the file.
    """
    rows = [(log, name, name) for name in ("loss", "grad_norm", "lr", "images_per_s")]
    rows += [(validations, name, f"validation {name}") for name in ("loss", "macro_auc", "macro_f1")]
    panels = []
    for lines, name, title in rows:
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        if points:
            panels.append((title, points))
    n_rows = -(-len(panels) // 2)
    image = Image.new("RGB", (2 * WIDTH, max(n_rows, 1) * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, (title, points) in enumerate(panels):
        _panel(draw, (number % 2 * WIDTH, number // 2 * HEIGHT), title, points)
    image.save(out)
