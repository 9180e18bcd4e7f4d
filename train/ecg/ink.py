"""Ink on paper: antialiased traces as coverage, empty grid paper, printed text.

A trace is drawn column by column: inside a thin column it covers the rows from its lowest to its highest point, so
the fraction of each pixel that it covers is exact in y and sampled in x. Only pixels that ink touches are computed.

Shapes: H rows of pixels, W columns of pixels.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import maximum_filter1d

from train.ecg.paper_style import PALETTES, PaperStyle

Shift = tuple[int, int]


@dataclass(frozen=True)
class GridPaper:
    """Empty paper with its grid, a margin wider than the page so that it can be cut out at any whole shift.

    Attributes:
        exact: float32 [H + 2 margin, W + 2 margin, 3].
        rounded: the same as uint8.
        margin: pixels.
    """

    exact: np.ndarray
    rounded: np.ndarray
    margin: int

    def cut(self, style: PaperStyle, shift: Shift) -> np.ndarray:
        """The page whose grid is moved by `shift` (right, down), uint8 [H, W, 3]."""
        x, y = self.margin - shift[0], self.margin - shift[1]
        return self.rounded[y : y + style.height, x : x + style.width].copy()

    def below(self, style: PaperStyle, shift: Shift, at: np.ndarray) -> np.ndarray:
        """Exact colours under the pixels of these numbers, float32 [n, 3]."""
        row, column = np.divmod(at, style.width)
        return self.exact[row + (self.margin - shift[1]), column + (self.margin - shift[0])]


@lru_cache(maxsize=8)
def grid_paper(style: PaperStyle, margin: int) -> GridPaper:
    """Draw paper for a style."""
    paper, minor, major, _ = PALETTES[style.palette]
    out = np.empty((style.height + 2 * margin, style.width + 2 * margin, 3), np.float32)
    out[:] = paper
    if style.grid:
        for step_mm, colour, wanted in ((1, minor, style.minor_grid), (5, major, True)):
            if wanted:
                width = style.px_per_mm * (0.10 if step_mm == 1 else 0.18)
                for axis in (1, 0):
                    cover = _line_cover(out.shape[axis], step_mm * style.px_per_mm, margin, max(width, 0.5))
                    cover = cover[None, :, None] if axis == 1 else cover[:, None, None]
                    out = out * (1 - cover) + np.array(colour, np.float32) * cover
    rounded = np.rint(out).astype(np.uint8)
    out.setflags(write=False)
    rounded.setflags(write=False)
    return GridPaper(out, rounded, margin)


def _line_cover(n: int, pitch: float, origin: float, width: float) -> np.ndarray:
    """How much of each of n pixels is covered by lines `width` px wide every `pitch` px, float32 [n]."""
    edges = np.arange(n + 1, dtype=np.float64) - origin + width / 2
    inked = np.floor(edges / pitch) * width + np.minimum(edges % pitch, width)
    return np.diff(inked).astype(np.float32)


@lru_cache(maxsize=256)
def text_mask(text: str, size: int) -> np.ndarray:
    """A line of text as coverage, float32 [h, w]; Pillow's own font, which is free."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(mask, np.float32) / 255


class Ink:
    """Traces of a page as vertical spans in thin columns, `per_px` to a pixel, and text."""

    def __init__(self, style: PaperStyle, per_px: int) -> None:
        self.style, self.per_px = style, per_px
        self.columns: list[np.ndarray] = []
        self.low: list[np.ndarray] = []
        self.high: list[np.ndarray] = []
        self.texts: list[tuple[np.ndarray, float, float]] = []

    def trace(
        self, x0: float, baseline: float, mv: np.ndarray, hz: float, seconds: float
    ) -> tuple[float, float] | None:
        """Draw samples from x0 on; returns the rows (top, bottom) that the ink touches, None if there is no ink."""
        style, fine = self.style, self.per_px
        first, last = round(x0 * fine), round((x0 + seconds * style.px_per_second) * fine)
        when = ((np.arange(first, last) + 0.5) / fine - x0) / style.px_per_second * hz
        known = np.isfinite(mv)
        if not known.all():  # up to a gap the trace goes on as if it ended beyond it, not towards 0
            if not known.any():
                return None
            mv = np.interp(np.arange(len(mv)), np.flatnonzero(known), mv[known])
        level = baseline - mv * style.px_per_mv
        low = np.interp(when, np.arange(len(mv)), level)
        high = low.copy()
        # samples between the middles of two columns count too, so that a peak is drawn up to its tip;
        # a column holds one at most (see per_px in draw_page)
        at = np.floor((x0 + np.arange(len(mv)) / hz * style.px_per_second) * fine).astype(int) - first
        inside = known & (at >= 0) & (at < len(low))
        at, tips = at[inside], level[inside]
        low[at], high[at] = np.minimum(low[at], tips), np.maximum(high[at], tips)
        there = (when <= len(mv) - 1) & known[np.clip(np.rint(when).astype(int), 0, len(mv) - 1)]
        return self.spans(np.arange(first, last), low, high, there)

    def spans(
        self, columns: np.ndarray, low: np.ndarray, high: np.ndarray, there: np.ndarray
    ) -> tuple[float, float] | None:
        """Ink from low to high in each fine column where `there`; thickened by the pen in both directions."""
        pen = self.style.trace_mm * self.style.px_per_mm
        reach = max(round(pen * self.per_px), 1) | 1
        low = -maximum_filter1d(np.where(there, -low, -np.inf), reach + 1) - pen / 2
        high = maximum_filter1d(np.where(there, high, -np.inf), reach + 1) + pen / 2
        inked = (high > low) & (columns >= 0) & (columns < self.style.width * self.per_px)
        if not inked.any():
            return None
        self._fill(columns[inked] // self.per_px, low[inked], high[inked])
        return float(low[inked].min()), float(high[inked].max())

    def _fill(self, columns: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        height = self.style.height
        self.columns.append(columns)
        self.low.append(np.clip(low, 0, height))
        self.high.append(np.clip(high, 0, height))

    def stroke(self, x: float, top: float, bottom: float) -> None:
        """A thin upright stroke."""
        columns = np.arange(round((x - 0.5) * self.per_px), round((x + 0.5) * self.per_px))
        columns = columns[(columns >= 0) & (columns < self.style.width * self.per_px)]
        self._fill(columns // self.per_px, np.full(len(columns), top), np.full(len(columns), bottom))

    def text(self, text: str, x: float, y: float, size_mm: float) -> None:
        """Print text with its upper left corner at (x, y)."""
        self.texts.append((text_mask(text, max(round(size_mm * self.style.px_per_mm), 6)), x, y))

    def cover(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels with ink: their numbers in reading order, and how much of each is covered, float32 in (0, 1]."""
        height, width = self.style.height, self.style.width
        out = np.zeros(height * width)
        if self.columns:
            columns, low, high = map(np.concatenate, (self.columns, self.low, self.high))
            first = low.astype(np.int64)
            n = np.ceil(high).astype(np.int64) - first  # pixels of each span
            span = np.repeat(np.arange(len(n)), n)
            row = np.arange(len(span)) - np.repeat(np.cumsum(n) - n, n) + first[span]
            part = np.minimum(high[span], row + 1) - np.maximum(low[span], row)
            out = np.bincount(row * width + columns[span], part, out.size)
        for mask, x, y in self.texts:
            x0, y0 = max(round(x), 0), max(round(y), 0)
            target = out.reshape(height, width)[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
            np.maximum(target, mask[: target.shape[0], : target.shape[1]] * self.per_px, out=target)
        at = np.flatnonzero(out)
        return at, np.minimum(out[at] / self.per_px, 1).astype(np.float32)


def compose(style: PaperStyle, shift: Shift, ink: tuple[np.ndarray, np.ndarray]) -> Image.Image:
    """The style's paper, moved by `shift` pixels, with ink of `Ink.cover` on it."""
    look = PaperStyle(**{name: getattr(style, name) for name in _OF_PAPER})  # pages that share paper share its copy
    paper = grid_paper(look, int(np.ceil(style.jitter_mm * style.px_per_mm)))
    at, cover = ink
    out = paper.cut(style, shift)
    below, trace = paper.below(style, shift, at), np.array(PALETTES[style.palette][3], np.float32)
    out.reshape(-1, 3)[at] = np.rint(below + (trace - below) * cover[:, None]).astype(np.uint8)
    return Image.fromarray(out)


_OF_PAPER = ("width", "height", "px_per_mm", "palette", "minor_grid", "grid", "seconds", "mm_per_second", "pulse")
