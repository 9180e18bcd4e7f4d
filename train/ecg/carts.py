"""Looks of real carts and programs: grid colours, labels, and what is printed around the traces.

What is known, and from where, stands at each look. What its source does not tell is ours, chosen so that the looks
differ: shades of grid and ink, sizes, places in millimetres. No colour was measured on a cart's paper, nothing was
copied, and no vendor has seen it. Date and filter are made up; the names of measurements stand without their values, as
on a page from which they were removed: values would answer the questions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Colour = tuple[int, int, int]
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is printed around the traces.

    Attributes:
        date: format of the made-up date and time.
        lines: (millimetres from the left edge, or from the right one if negative; millimetres from the top; text).
        footer: (millimetres from the left edge; text), 6 mm above the lower edge.
        top_mm: paper that the lines take.
    """

    date: str
    lines: tuple[tuple[float, float, str], ...]
    footer: tuple[tuple[float, str], ...]
    top_mm: float = 8.0


BOTTOM_MM = 8.0  # paper that the footer takes
_GE = ("Vent. rate", "PR interval", "QRS duration", "QT/QTc", "P-R-T axes")
_PHILIPS = ("Rate", "PR", "QRSD", "QT", "QTc")
# name: header. "plain" is nobody's.
HEADERS: dict[str, Header] = {
    "plain": Header(
        date="{day:02d}-{MON}-{year}  {hour:02d}:{minute:02d}:{second:02d}",
        lines=((6, 3, "{date}"), (-40, 3, "RESTING ECG")),
        footer=((6, "{speed:g} mm/s   {gain:g} mm/mV"),),
    ),
    # GE MAC and MUSE, from printouts in teaching material, recalled: date as 12-MAY-2009 10:11:12, five measurements in
    # a column, speed and gain at the lower left without blanks, then filter and program.
    "ge": Header(
        date="{day:02d}-{MON}-{year} {hour:02d}:{minute:02d}:{second:02d}",
        lines=((70, 3, "{date}"), *((6.0, 3.0 + 3.6 * i, text) for i, text in enumerate(_GE))),
        footer=((6, "{speed:g}mm/s   {gain:g}mm/mV   150Hz   12SL"),),
        top_mm=22.0,
    ),
    # Philips PageWriter, from printouts in teaching material, recalled: Speed, Limb and Chest named at the bottom, the
    # filter at its right, measurements in a column under short names.
    "philips": Header(
        date="{month}/{day}/{year}  {hour12}:{minute:02d}:{second:02d} {half}",
        lines=((50, 3, "{date}"), *((6.0, 3.0 + 3.6 * i, text) for i, text in enumerate(_PHILIPS))),
        footer=(
            (40, "Speed: {speed:g} mm/sec   Limb: {gain:g} mm/mV   Chest: {gain:.1f} mm/mV"),
            (170, "F 60~ 0.15-100 Hz"),
        ),
        top_mm=22.0,
    ),
    # Schiller Cardiovit: pages of 25 and 50 mm/s, leads in 4 x 3 with a rhythm lead or in 12 x 1, by a service handbook
    # (art. 2.540037). Dates as 12.05.2009 are the custom of its country; where things stand is ours.
    "schiller": Header(
        date="{day:02d}.{month:02d}.{year}  {hour:02d}:{minute:02d}",
        lines=((-60, 3, "{date}"),),
        footer=((-60, "{speed:g} mm/s  {gain:g} mm/mV"),),
    ),
    # Mortara and Welch Allyn ELI, from printouts, recalled: gain, speed and filter in one line. The date is ours.
    "mortara": Header(
        date="{month:02d}/{day:02d}/{year} {hour:02d}:{minute:02d}:{second:02d}",
        lines=((6, 3, "{date}"),),
        footer=((-90, "{gain:g} mm/mV  {speed:g} mm/s  0.05-150 Hz"),),
    ),
    # ecg-image-kit 27b90f5, which drew ECGInstruct: seen on its pages; no header.
    "ecg-image-kit": Header(date="", lines=(), footer=((50, "{speed:g}mm/s"), (100, "{gain:g}mm/mV")), top_mm=0.0),
}

# name: (paper, minor lines, major lines, trace). Carts print black on red or pink grids; the shades are ours.
CART_PALETTES: dict[str, tuple[Colour, Colour, Colour, Colour]] = {
    "ge": ((255, 253, 252), (255, 214, 214), (250, 150, 150), (0, 0, 0)),
    "philips": ((255, 246, 243), (250, 206, 198), (240, 158, 146), (10, 10, 10)),
    "schiller": ((255, 252, 247), (252, 218, 200), (232, 140, 104), (24, 20, 20)),
    "mortara": ((255, 255, 255), (252, 200, 212), (228, 110, 138), (16, 16, 24)),
    "ecg-image-kit": ((255, 255, 255), (254, 223, 219), (255, 0, 0), (13, 13, 13)),  # as measured on its pages
}

# name: fields of a PaperStyle that a look decides. Labels above the trace: GE, Philips; below: seen on ecg-image-kit's
# pages (11 points); the other places and sizes are ours.
CARTS: dict[str, dict[str, Any]] = {
    name: {
        "palette": name,
        "header": True,
        "header_form": name,
        "label_mm": label_mm,
        "label_at": at,
        "separators": cut,
    }
    for name, label_mm, at, cut in (
        ("ge", 3.4, "above", True),
        ("philips", 3.8, "above", False),
        ("schiller", 2.8, "above", False),
        ("mortara", 3.0, "above", True),
        ("ecg-image-kit", 3.9, "below", True),
    )
}


def draw_date(rng: np.random.Generator) -> dict[str, Any]:
    """A made-up day and time, as the fields of `Header.date`."""
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(12)), int(rng.integers(1998, 2026))
    hour, minute, second = int(rng.integers(24)), int(rng.integers(60)), int(rng.integers(60))
    return {
        "day": day, "month": month + 1, "MON": MONTHS[month], "year": year, "hour": hour, "minute": minute,
        "second": second, "hour12": (hour + 11) % 12 + 1, "half": "AM" if hour < 12 else "PM",
    }  # fmt: skip
