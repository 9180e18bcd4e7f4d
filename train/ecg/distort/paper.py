"""Distortions of the sheet: handwriting, stains, fading, creases, folds, wrinkles. Sizes are in millimetres of paper.

Each takes the picture, its scale, a generator and a strength above 0, and returns a picture of the same size.

Shapes: H rows, W columns of pixels.
"""

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Rng = np.random.Generator


def shade(image: Image.Image, field: np.ndarray) -> Image.Image:
    """Multiply by a field that varies slowly, float [h, w] or [h, w, 3] between 0 and 1, stretched to the picture."""
    low = np.rint(255 * np.clip(field, 0, 1)).astype(np.uint8)
    large = Image.fromarray(low).resize(image.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(image, large if large.mode == "RGB" else Image.merge("RGB", (large, large, large)))


def smooth_noise(rng: Rng, height: int, width: int, cells: int) -> np.ndarray:
    """Noise between 0 and 1 that varies over a `cells`-th of the longer side, float32 [height, width]."""
    rows = max(round(cells * height / max(height, width)), 1) + 1
    columns = max(round(cells * width / max(height, width)), 1) + 1
    coarse = Image.fromarray(rng.random((rows, columns), dtype=np.float32), mode="F")
    return np.clip(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


def handwriting(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """One to four marks of a pen: scribbled words, circles, ticks, arrows, underlines."""
    out = image.copy()
    pens = ((25, 40, 130), (20, 20, 30), (170, 30, 35))
    ink = pens[rng.choice(3, p=[0.6, 0.25, 0.15])]
    marks = (_scribble, _circle, _tick, _arrow, _underline)
    for _ in range(max(round(rng.integers(1, 5) * min(strength, 1.5)), 1)):
        line = marks[rng.choice(len(marks), p=[0.4, 0.2, 0.15, 0.15, 0.1])](rng) * px_per_mm
        line = line - line.min(0)
        free = np.maximum(np.array(image.size) - line.max(0), 1)
        corner = rng.uniform(0, 1, 2) * free
        _draw_stroke(out, line + corner, ink, width=rng.uniform(0.3, 0.6) * px_per_mm)
    return out


def _draw_stroke(image: Image.Image, line: np.ndarray, ink: tuple[int, int, int], width: float) -> None:
    """A soft line through points [P, 2], drawn three times as large in a mask around it."""
    margin = int(width) + 2
    x0, y0 = np.floor(line.min(0)).astype(int) - margin
    w, h = np.ceil(line.max(0)).astype(int) + margin - (x0, y0)
    mask = Image.new("L", (3 * int(w), 3 * int(h)))
    points = [(float(x), float(y)) for x, y in 3 * (line - (x0, y0))]
    ImageDraw.Draw(mask).line(points, fill=215, width=max(round(3 * width), 1), joint="curve")
    image.paste(ink, (int(x0), int(y0)), mask.reduce(3))


def _wobble(rng: Rng, line: np.ndarray, mm: float) -> np.ndarray:
    """The same line by an unsteady hand."""
    n = len(line)
    knots = rng.normal(0, mm, (2, 8))
    return line + np.stack([np.interp(np.linspace(0, 7, n), np.arange(8), k) for k in knots], axis=1)


def _scribble(rng: Rng) -> np.ndarray:
    """Loops that look like a written word of 15 to 45 mm."""
    letters = int(rng.integers(5, 13))
    t = np.linspace(0, letters, 24 * letters)
    at, size = np.arange(letters + 1), rng.uniform(1.3, 2.2)
    tall = np.interp(t, at, rng.choice([0.6, 0.8, 1.0, 2.0], letters + 1))
    wide = np.interp(t, at, rng.uniform(0.2, 1.1, letters + 1))
    x = size * (1.7 * t + wide * np.sin(2 * np.pi * t))
    y = -size * tall * (np.cos(2 * np.pi * t + np.interp(t, at, rng.uniform(-1, 1, letters + 1))) + 0.3 * (tall > 1))
    slope = rng.uniform(-0.12, 0.05)
    return _wobble(rng, np.stack([x - 0.35 * y, y + slope * x], axis=1), 0.2)


def _circle(rng: Rng) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi * rng.uniform(1.0, 1.15), 60) + rng.uniform(0, 6.3)
    return _wobble(rng, np.stack([rng.uniform(8, 22) * np.cos(t), rng.uniform(6, 14) * np.sin(t)], axis=1), 0.5)


def _tick(rng: Rng) -> np.ndarray:
    return _wobble(rng, rng.uniform(0.7, 1.6) * np.array([[0.0, 0.0], [2.5, 4.0], [9.0, -6.0]]), 0.2)


def _arrow(rng: Rng) -> np.ndarray:
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(12, 28)
    tip = length * np.array([np.cos(angle), np.sin(angle)])
    barbs = [tip + 4 * np.array([np.cos(angle + d), np.sin(angle + d)]) for d in (2.6, -2.6)]
    return np.array([[0.0, 0.0], tip, barbs[0], tip, barbs[1]])


def _underline(rng: Rng) -> np.ndarray:
    x = np.linspace(0, rng.uniform(15, 45), 30)
    return _wobble(rng, np.stack([x, rng.uniform(-0.04, 0.04) * x], axis=1), 0.3)


def stain(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """One to three stains of a drink: a ring that a cup leaves, or a blot with a darker rim."""
    out = image
    for _ in range(int(rng.integers(1, 4))):
        radius = rng.uniform(8, 28)
        n = 160
        axis = np.linspace(-1.6, 1.6, n)
        x, y = axis[None], axis[:, None]
        angle = np.arctan2(y, x)
        lobes = sum(rng.normal(0, 0.05 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(1, 6))
        r = np.hypot(x, y) / (1 + lobes)
        rim = np.exp(-(((r - 1) / rng.uniform(0.03, 0.08)) ** 2))
        inside = 1 / (1 + np.exp((r - 1) / 0.02))
        is_ring = rng.random() < 0.5
        depth = rim * (0.45 + 0.55 * smooth_noise(rng, n, n, 5)) + inside * (0.06 if is_ring else 0.45)
        tint = np.array([0.30, 0.45, 0.70]) * rng.uniform(0.5, 1.0)  # brown takes blue away
        field = 1 - strength * rng.uniform(0.5, 1) * depth[..., None] * tint
        out = _shade_at(out, field, rng.uniform(0, 1, 2) * image.size, 1.6 * radius * px_per_mm)
    return out


def _shade_at(image: Image.Image, field: np.ndarray, centre: np.ndarray, half: float) -> Image.Image:
    """Multiply the square of half a side `half` around `centre` by a field."""
    x0, y0, x1, y1 = (round(v) for v in (*(centre - half), *(centre + half)))
    out = image.copy()
    part = out.crop((x0, y0, x1, y1))
    out.paste(shade(part, field), (x0, y0))
    return out


def fade(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Ink that has paled, more in some places: up to 75 % of the way to the paper."""
    field = rng.uniform(0.35, 0.75) * strength * (0.4 + 0.6 * smooth_noise(rng, 24, 24, 3))
    mask = Image.fromarray(np.rint(255 * np.clip(field, 0, 1)).astype(np.uint8))
    paper = tuple(int(v) for v in np.percentile(np.asarray(image)[::8, ::8].reshape(-1, 3), 80, axis=0))
    pale = Image.new("RGB", image.size, paper)
    return Image.composite(pale, image, mask.resize(image.size, Image.Resampling.BICUBIC))


def creases(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Two to six thin lines across the sheet where it was bent: a pale ridge with a dark side."""
    pixels = np.asarray(image).copy()
    height, width = pixels.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    for _ in range(int(rng.integers(2, 7))):
        angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.35)
        through = rng.uniform(0.1, 0.9, 2) * (width, height)
        along = (x - through[0]) * np.float32(np.cos(angle)) + (y - through[1]) * np.float32(np.sin(angle))
        spread = rng.uniform(0.2, 0.45) * px_per_mm
        at = np.flatnonzero(np.abs(along) < 4 * spread)
        d = along.ravel()[at] / spread
        ridge, side = np.exp(-(d**2)), np.exp(-((d - 1.6) ** 2) / 2)
        patchy = smooth_noise(rng, 1, 64, 12)[0]
        amount = strength * rng.uniform(0.5, 1) * patchy[(at % width) * 64 // width] ** 0.7
        old = pixels.reshape(-1, 3)[at].astype(np.float32)
        change = amount * (0.7 * ridge * (252 - old.T) - 90 * side)
        pixels.reshape(-1, 3)[at] = np.clip(old + change.T, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def folds(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """A sheet that was folded once or twice in each direction: panels of different brightness, worn edges."""
    width, height = image.size
    profile = []
    panels = ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3))[rng.integers(7)]
    for parts, mm in zip(panels, (width / px_per_mm, height / px_per_mm), strict=True):
        at = np.linspace(0, 1, 400)
        level = np.ones(400)
        for edge in np.arange(1, parts) / parts + rng.normal(0, 0.01, parts - 1):
            d = (at - edge) * mm
            slope = rng.choice([-1, 1]) * rng.uniform(0.06, 0.14) * strength
            level += slope * np.sign(d) * np.exp(-np.abs(d) / 25)
            level -= 0.35 * strength * np.exp(-((d / 0.5) ** 2))
        profile.append(level)
    field = profile[1][:, None] * profile[0][None]
    return shade(image, field / max(float(field.max()), 1.0))


def wrinkles(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Crumpled and smoothed again: facets that meet in short random edges, lit from one side."""
    width, height = image.size
    h, w, mm = height // 4, width // 4, px_per_mm / 4
    bend = [(smooth_noise(rng, h, w, 9) - 0.5) * np.float32(10 * mm) for _ in range(2)]
    x = np.arange(w, dtype=np.float32) + bend[0]
    y = np.arange(h, dtype=np.float32)[:, None] + bend[1]
    light = rng.uniform(0, 2 * np.pi)
    relief = np.zeros((h, w), np.float32)
    for _ in range(36):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(25, 90) * mm
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = x - np.float32(rng.uniform(0, w)), y - np.float32(rng.uniform(0, h))
        across, along = dx * cos + dy * sin, (dy * cos - dx * sin) / np.float32(length)
        tilt = across / (np.abs(across) + np.float32(0.5 * mm))  # one side faces the light, the other does not
        reach = np.square(across / np.float32(rng.uniform(8, 30) * mm)) + np.square(np.square(along))
        relief += np.float32(np.cos(angle - light) * rng.uniform(0.4, 1)) * tilt / (1 + reach)
    relief = np.tanh(relief / 2.2)
    return shade(image, 1 - 0.30 * strength * np.clip(0.6 - relief, 0, 1.6) / 1.6)
