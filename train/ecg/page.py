"""ECG paper: a record drawn to scale, antialiased, in a few milliseconds.

A trace is drawn column by column: inside a thin column it covers the rows from its lowest to its highest
point, so the fraction of each pixel that it covers is exact in y and sampled in x. All traces of a page are
one histogram and one cumulative sum. Scale: 25 mm/s and 10 mm/mV unless the style says otherwise
(AHA/ACCF/HRS 2007, part I, doi:10.1161/CIRCULATIONAHA.106.180200).

Shapes: H rows of pixels, W columns of pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import maximum_filter1d

from train.ecg.record import EcgRecord
from train.ecg.signal import LEADS

Colour = tuple[int, int, int]
BLACK: Colour = (20, 20, 20)
# name: (paper, minor lines, major lines, trace)
PALETTES: dict[str, tuple[Colour, Colour, Colour, Colour]] = {
    "pink": ((255, 250, 248), (253, 222, 222), (245, 178, 178), BLACK),
    "red": ((255, 255, 255), (255, 205, 200), (240, 120, 110), (0, 0, 40)),
    "brown": ((252, 248, 240), (240, 226, 208), (216, 186, 150), BLACK),
    "blue": ((250, 252, 255), (214, 228, 246), (150, 184, 228), (10, 10, 50)),
    "green": ((250, 255, 250), (214, 238, 214), (156, 208, 160), BLACK),
    "grey": ((255, 255, 255), (228, 228, 228), (186, 186, 186), (0, 0, 0)),
}
_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_LIMB, _CHEST = LEADS[:6], LEADS[6:]
# name: rows of the page from top to bottom; a row's leads share its width one after the other in time
LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "3x4+1": (*_ROWS, ("II",)),
    "3x4": _ROWS,
    "6x2+1": (*zip(_LIMB, _CHEST, strict=True), ("II",)),
    "6x2": tuple(zip(_LIMB, _CHEST, strict=True)),
    "12x1": tuple((lead,) for lead in LEADS),
    "strip": (("II",),),
}


@dataclass(frozen=True, kw_only=True)
class PaperStyle:
    """How a page looks.

    Attributes:
        width, height: pixels.
        px_per_mm: scale of the paper.
        layout: of LAYOUTS.
        seconds: length of a full row.
        mm_per_second, mm_per_mv: speed and gain.
        palette: of PALETTES, or "random".
        trace_mm: width of the trace.
        minor_grid: draw the 1 mm lines (5 mm lines are always drawn unless grid is False).
        grid, pulse, names: draw the grid, the 1 mV calibration pulse, the names of the leads.
        jitter_mm: largest random shift of the origin, in both directions.
    """

    width: int = 1120
    height: int = 1120
    px_per_mm: float = 4.2
    layout: str = "3x4+1"
    seconds: float = 10.0
    mm_per_second: float = 25.0
    mm_per_mv: float = 10.0
    palette: str = "pink"
    trace_mm: float = 0.35
    minor_grid: bool = True
    grid: bool = True
    pulse: bool = True
    names: bool = True
    jitter_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"page.layout={self.layout!r} is not one of {', '.join(LAYOUTS)}")
        if self.palette not in (*PALETTES, "random"):
            raise ValueError(f"page.palette={self.palette!r} is not one of {', '.join(PALETTES)}, random")
        if min(self.px_per_mm, self.seconds, self.mm_per_second, self.mm_per_mv, self.trace_mm) <= 0:
            raise ValueError("page: px_per_mm, seconds, mm_per_second, mm_per_mv and trace_mm must be positive")
        needed = self.seconds * self.px_per_second + self.pulse_mm * self.px_per_mm
        if self.width < needed:
            raise ValueError(f"page.width={self.width} px is too narrow for {self.seconds} s: at least {needed:.0f} px")

    @property
    def px_per_second(self) -> float:
        """Pixels along the time axis."""
        return self.mm_per_second * self.px_per_mm

    @property
    def px_per_mv(self) -> float:
        """Pixels along the voltage axis."""
        return self.mm_per_mv * self.px_per_mm

    @property
    def pulse_mm(self) -> float:
        """Paper that the calibration pulse takes at the left of each row."""
        return 5.0 if self.pulse else 0.0


# Sized so that Llama's image transform uses the tiles fully and does not rescale (docs/data.md, page sizes).
STYLES: dict[str, PaperStyle] = {
    "square": PaperStyle(),  # 2 x 2 tiles of 560
    "square448": PaperStyle(width=896, height=896, px_per_mm=3.4),  # 2 x 2 tiles of 448
    "wide": PaperStyle(width=1120, height=560, px_per_mm=4.2),  # 1 x 2 tiles of 560
    "wide448": PaperStyle(width=896, height=448, px_per_mm=3.4),  # 1 x 2 tiles of 448
    "tile448": PaperStyle(width=448, height=448, px_per_mm=1.7, minor_grid=False),  # one tile, the paper's literal size
    "nano": PaperStyle(width=512, height=256, px_per_mm=2.0, trace_mm=1.4, minor_grid=False, names=False),
}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A drawn page.

    Attributes:
        image: PIL RGB.
        px_per_mm: scale of the pixels.
        lead_boxes: per lead (x0, y0, x1, y1) in pixels around its trace; the longest row if a lead stands
            twice.
        style: as drawn, random choices resolved.
    """

    image: Image.Image
    px_per_mm: float
    lead_boxes: dict[str, Box]
    style: PaperStyle


@lru_cache(maxsize=32)
def _paper(style: PaperStyle, shift: tuple[float, float]) -> np.ndarray:
    """Empty paper with grid, float32 [H, W, 3]."""
    paper, minor, major, _ = PALETTES[style.palette]
    out = np.empty((style.height, style.width, 3), np.float32)
    out[:] = paper
    if style.grid:
        for step_mm, colour, wanted in ((1, minor, style.minor_grid), (5, major, True)):
            if wanted:
                width = style.px_per_mm * (0.10 if step_mm == 1 else 0.18)
                for axis, origin in ((1, shift[0]), (0, shift[1])):
                    cover = _line_cover(out.shape[axis], step_mm * style.px_per_mm, origin, max(width, 0.5))
                    cover = cover[None, :, None] if axis == 1 else cover[:, None, None]
                    out = out * (1 - cover) + np.array(colour, np.float32) * cover
    out.setflags(write=False)
    return out


def _line_cover(n: int, pitch: float, origin: float, width: float) -> np.ndarray:
    """How much of each of n pixels is covered by lines `width` px wide every `pitch` px, float32 [n]."""
    edges = np.arange(n + 1, dtype=np.float64) - origin + width / 2
    inked = np.floor(edges / pitch) * width + np.minimum(edges % pitch, width)
    return np.diff(inked).astype(np.float32)


@lru_cache(maxsize=64)
def _name_mask(text: str, size: int) -> np.ndarray:
    """A lead's name as coverage, float32 [h, w]; Pillow's own font, which is free."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font)
    return np.asarray(mask, np.float32) / 255


class _Ink:
    """Traces of a page as vertical spans in thin columns, accumulated to coverage [H, W]."""

    def __init__(self, style: PaperStyle, per_px: int) -> None:
        self.style, self.per_px = style, per_px
        self.columns: list[np.ndarray] = []
        self.low: list[np.ndarray] = []
        self.high: list[np.ndarray] = []

    def trace(
        self, x0: float, baseline: float, mv: np.ndarray, hz: float, seconds: float
    ) -> tuple[float, float] | None:
        """Draw samples from x0 on; returns the rows (top, bottom) that the ink touches, None if there is no ink."""
        style, fine = self.style, self.per_px
        first, last = round(x0 * fine), round((x0 + seconds * style.px_per_second) * fine)
        when = ((np.arange(first, last) + 0.5) / fine - x0) / style.px_per_second * hz
        known = np.isfinite(mv)
        level = baseline - np.where(known, mv, 0) * style.px_per_mv
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
        height = self.style.height
        self.columns.append(columns[inked] // self.per_px)
        self.low.append(np.clip(low[inked], 0, height))
        self.high.append(np.clip(high[inked], 0, height))
        return float(low[inked].min()), float(high[inked].max())

    def cover(self) -> np.ndarray:
        """Coverage in [0, 1], float32 [H, W]."""
        height, width = self.style.height, self.style.width
        out = np.zeros((height + 2) * width)
        if self.columns:
            columns = np.concatenate(self.columns)
            for edges, sign in ((np.concatenate(self.low), 1.0), (np.concatenate(self.high), -1.0)):
                row = np.floor(edges).astype(int)
                part = edges - row
                cells = np.concatenate([row * width + columns, (row + 1) * width + columns])
                out += np.bincount(cells, np.concatenate([sign * (1 - part), sign * part]), out.size)
        cover = np.cumsum(out.reshape(height + 2, width)[:height], axis=0, dtype=np.float64) / self.per_px
        return np.clip(cover, 0, 1).astype(np.float32)


def resolve_style(style: PaperStyle, rng: np.random.Generator | None) -> PaperStyle:
    """Draw what the style leaves to chance.

    Raises:
        ValueError: if it leaves something to chance and there is no generator.
    """
    if style.palette != "random":
        return style
    if rng is None:
        raise ValueError("palette='random' needs a generator")
    return replace(style, palette=str(rng.choice(list(PALETTES))))


def draw_page(record: EcgRecord, style: PaperStyle | None = None, rng: np.random.Generator | None = None) -> Page:
    """Draw a record on paper.

    The leads of a row follow each other in time (column k of four shows seconds 2.5 k to 2.5 (k + 1));
    samples that are NaN or beyond the end of the record leave a gap. The same record, style and generator
    state give the same bytes.

    Args:
        record: any length, any sampling rate.
        style: of STYLES, or your own; `STYLES["square"]` if None.
        rng: needed if the style leaves something to chance.

    Raises:
        ValueError: if the style is random and rng is None.
    """
    style = resolve_style(style or STYLES["square"], rng)
    shift = (0.0, 0.0)
    if style.jitter_mm:
        if rng is None:
            raise ValueError(f"jitter_mm={style.jitter_mm} needs a generator")
        shift = tuple(rng.uniform(-style.jitter_mm, style.jitter_mm, 2) * style.px_per_mm)
    rows = LAYOUTS[style.layout]
    ink = _Ink(style, per_px=max(4, int(np.ceil(record.hz / style.px_per_second))))
    content = style.seconds * style.px_per_second
    spare = style.width - content - style.pulse_mm * style.px_per_mm
    left = spare / 2 + style.pulse_mm * style.px_per_mm + shift[0]
    boxes: dict[str, Box] = {}
    labels: list[tuple[str, float, float]] = []
    for i, leads in enumerate(rows):
        baseline = style.height * (i + 0.5) / len(rows) + shift[1]
        if style.pulse:
            _draw_pulse(ink, left, baseline)
        for lead, box in _draw_row(ink, record, leads, left, baseline).items():
            if lead not in boxes or box[2] - box[0] > boxes[lead][2] - boxes[lead][0]:
                boxes[lead] = box
            labels.append((lead, box[0], baseline))
    cover = ink.cover()
    if style.names:
        for text, x, baseline in labels:
            _stamp(
                cover,
                _name_mask(text, max(round(3.2 * style.px_per_mm), 6)),
                x,
                baseline - 12 * style.px_per_mm,
            )
    image = _compose(_paper(style, shift if style.jitter_mm else (0.0, 0.0)), PALETTES[style.palette][3], cover)
    return Page(image=image, px_per_mm=style.px_per_mm, lead_boxes=boxes, style=style)


def _draw_row(ink: _Ink, record: EcgRecord, leads: Sequence[str], left: float, baseline: float) -> dict[str, Box]:
    """One row of leads, each with its share of the row's seconds; returns their boxes."""
    style = ink.style
    seconds = style.seconds / len(leads)
    boxes: dict[str, Box] = {}
    for k, lead in enumerate(leads):
        x0 = left + k * seconds * style.px_per_second
        start = round(k * seconds * record.hz)
        part = record.signal[LEADS.index(lead)][start : start + round(seconds * record.hz) + 1]
        touched = ink.trace(x0, baseline, part, record.hz, seconds) if len(part) else None
        top, bottom = np.clip(touched or (baseline, baseline), 0.0, float(style.height))
        boxes[lead] = (x0, float(top), x0 + seconds * style.px_per_second, float(bottom))
    return boxes


def _draw_pulse(ink: _Ink, left: float, baseline: float) -> None:
    """1 mV for 0.2 s (at 25 mm/s: 5 mm) just before the row."""
    fine = ink.per_px
    x0 = left - ink.style.pulse_mm * ink.style.px_per_mm
    columns = np.arange(round(x0 * fine), round(left * fine))
    share = np.linspace(0, 1, len(columns))
    y = np.where((share > 0.2) & (share < 0.8), baseline - ink.style.px_per_mv, baseline)
    ink.spans(columns, y, y, np.ones(len(columns), bool))


def _stamp(cover: np.ndarray, mask: np.ndarray, x: float, y: float) -> None:
    """Put a mask on the coverage with its upper left corner at (x, y), cut at the borders."""
    x0, y0 = max(round(x), 0), max(round(y), 0)
    target = cover[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
    np.maximum(target, mask[: target.shape[0], : target.shape[1]], out=target)


def _compose(paper: np.ndarray, trace: Colour, cover: np.ndarray) -> Image.Image:
    """Paper with ink where it is covered."""
    out = paper + (np.array(trace, np.float32) - paper) * cover[..., None]
    return Image.fromarray(np.rint(out).astype(np.uint8))
