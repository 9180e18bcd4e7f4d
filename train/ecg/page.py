"""ECG paper: a record drawn to scale, antialiased, in a few milliseconds.

Scale: 25 mm/s and 10 mm/mV unless the style says otherwise (AHA/ACCF/HRS 2007, part I,
doi:10.1161/CIRCULATIONAHA.106.180200).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from train.ecg.carts import HEADERS, draw_date
from train.ecg.ink import Ink, compose
from train.ecg.paper_style import LAYOUTS, PALETTES, STYLES, PaperStyle, Rows, resolve_style, rows_of
from train.ecg.record import EcgRecord
from train.ecg.signal import LEADS

__all__ = ["LAYOUTS", "PALETTES", "STYLES", "Box", "Page", "PaperStyle", "draw_page", "resolve_style"]

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
        distortions: what `distort` has done to it, in order: names and strengths.
    """

    image: Image.Image
    px_per_mm: float
    lead_boxes: dict[str, Box]
    style: PaperStyle
    distortions: tuple[tuple[str, float], ...] = ()


def n_pages(record: EcgRecord, style: PaperStyle) -> int:
    """Pages that a whole record fills when each shows the next `style.seconds`."""
    return max(int(np.ceil(record.seconds / style.seconds - 1e-9)), 1)


def draw_page(
    record: EcgRecord,
    style: PaperStyle | None = None,
    rng: np.random.Generator | None = None,
    *,
    start: float = 0.0,
) -> Page:
    """Draw a record on paper.

    The leads of a row follow each other in time (column k of four shows seconds 2.5 k to 2.5 (k + 1));
    samples that are NaN or beyond the end of the record leave a gap. The same record, style and generator
    state give the same bytes.

    Args:
        record: any length, any sampling rate, one to twelve leads (the others NaN).
        style: of STYLES, or your own; `STYLES["square"]` if None.
        rng: needed if the style leaves something to chance.
        start: second of the record at which the page begins; see `n_pages` for a long record.

    Raises:
        ValueError: if the style is random and rng is None, the page begins outside of the record, or the layout is
            "recorded" and the record has no sample at all.
    """
    style = resolve_style(style or STYLES["square"], rng)
    if style.needs_generator and rng is None:
        raise ValueError(f"jitter_mm={style.jitter_mm}, header={style.header}: chance needs a generator")
    if not 0 <= start < record.seconds:
        raise ValueError(f"start={start} s lies outside of record {record.record_id} of {record.seconds:g} s")
    shift = (0, 0)
    if style.jitter_mm and rng is not None:  # whole pixels, so that pages share their paper
        x, y = np.trunc(rng.uniform(-style.jitter_mm, style.jitter_mm, 2) * style.px_per_mm).astype(int)
        shift = (int(x), int(y))
    signal = record.signal[:, round(start * record.hz) :]
    rows = _rows(style, signal, record.record_id)
    ink = Ink(style, per_px=max(4, int(np.ceil(record.hz / style.px_per_second))))
    content = style.seconds * style.px_per_second
    spare = style.width - content - style.pulse_mm * style.px_per_mm
    left = spare / 2 + style.pulse_mm * style.px_per_mm + shift[0]
    top = style.printed_px[0]
    room = style.height - sum(style.printed_px)  # for the traces
    name_mm = min(12.0, 0.4 * room / style.px_per_mm / len(rows))  # from the baseline to the leads' names
    boxes: dict[str, Box] = {}
    for i, leads in enumerate(rows):
        baseline = top + room * (i + 0.5) / len(rows) + shift[1]
        if style.pulse:
            _draw_pulse(ink, left, baseline)
        for lead, box in _draw_row(ink, signal, record.hz, leads, (left, baseline), name_mm).items():
            if lead not in boxes or box[2] - box[0] > boxes[lead][2] - boxes[lead][0]:
                boxes[lead] = box
    if style.header and rng is not None:
        _print_header(ink, rng)
    image = compose(style, shift, ink.cover())
    return Page(image=image, px_per_mm=style.px_per_mm, lead_boxes=boxes, style=style)


def _rows(style: PaperStyle, signal: np.ndarray, record_id: str) -> Rows:
    """The leads of each row; a rhythm lead that was not recorded gives way to the first one that was."""
    recorded = [lead for lead, values in zip(LEADS, signal, strict=True) if np.isfinite(values).any()]
    if style.layout == "recorded":
        if not recorded:
            raise ValueError(f"record {record_id} has no sample, so layout 'recorded' has no row")
        return tuple((lead,) for lead in recorded)
    rhythm = style.rhythm if style.rhythm in recorded or not recorded else recorded[0]
    return rows_of(style.layout, style.order, rhythm)


def _draw_row(
    ink: Ink, signal: np.ndarray, hz: float, leads: Sequence[str], origin: tuple[float, float], name_mm: float
) -> dict[str, Box]:
    """One row of leads, each with its share of the row's seconds; returns their boxes."""
    style, (left, baseline) = ink.style, origin
    seconds = style.seconds / len(leads)
    boxes: dict[str, Box] = {}
    for k, lead in enumerate(leads):
        x0 = left + k * seconds * style.px_per_second
        start = round(k * seconds * hz)
        part = signal[LEADS.index(lead)][start : start + round(seconds * hz) + 1]
        turned = style.order == "cabrera" and lead == "aVR"
        touched = ink.trace(x0, baseline, -part if turned else part, hz, seconds) if len(part) else None
        top, bottom = np.clip(touched or (baseline, baseline), 0.0, float(style.height))
        boxes[lead] = (x0, float(top), x0 + seconds * style.px_per_second, float(bottom))
        gap = style.px_per_mm if style.separators else 0.0
        if style.names:
            away = -name_mm if style.label_at == "above" else name_mm - style.label_mm
            ink.text("-aVR" if turned else lead, x0 + gap, baseline + away * style.px_per_mm, style.label_mm)
        if style.separators and k:
            ink.stroke(x0, baseline - 9 * style.px_per_mm, baseline - 6 * style.px_per_mm)
            ink.stroke(x0, baseline + 6 * style.px_per_mm, baseline + 9 * style.px_per_mm)
    return boxes


def _draw_pulse(ink: Ink, left: float, baseline: float) -> None:
    """1 mV, 3 mm wide between two feet of 1 mm, whatever the speed, just before the row."""
    fine = ink.per_px
    x0 = left - ink.style.pulse_mm * ink.style.px_per_mm
    columns = np.arange(round(x0 * fine), round(left * fine))
    share = np.linspace(0, 1, len(columns))
    y = np.where((share > 0.2) & (share < 0.8), baseline - ink.style.px_per_mv, baseline)
    ink.spans(columns, y, y, np.ones(len(columns), bool))


def _print_header(ink: Ink, rng: np.random.Generator) -> None:
    """A made-up date and time at the top; speed and gain, which are true, at the bottom."""
    style, mm = ink.style, ink.style.px_per_mm
    form = HEADERS[style.header_form]
    date = form.date.format(**draw_date(rng))
    for x, y, text in form.lines:
        ink.text(text.format(date=date), x * mm if x >= 0 else style.width + x * mm, y * mm, 3.0)
    for x, text in form.footer:
        said = text.format(speed=style.mm_per_second, gain=style.mm_per_mv)
        ink.text(said, x * mm if x >= 0 else style.width + x * mm, style.height - 6 * mm, 3.0)
