"""Every layout, distortion and preset in one picture each: `python -m train.ecg.contact_sheet docs/images`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from train.ecg import DISTORTIONS, PRESETS, STYLES, Page, distort, draw_page, simulate_ecg
from train.ecg.carts import CARTS
from train.ecg.paper_style import LAYOUTS, PALETTES, PaperStyle

CELL, CAPTION = 380, 22  # pixels of a page and of the line above it
SEED = 3


def sheet(pages: Sequence[tuple[str, Page]], columns: int) -> Image.Image:
    """Pages in rows, each with its name above it."""
    rows = -(-len(pages) // columns)
    out = Image.new("RGB", (columns * (CELL + 8) + 8, rows * (CELL + CAPTION + 8) + 8), (250, 250, 250))
    pen, font = ImageDraw.Draw(out), ImageFont.load_default(15)
    for i, (name, page) in enumerate(pages):
        x, y = 8 + i % columns * (CELL + 8), 8 + i // columns * (CELL + CAPTION + 8)
        small = page.image.copy()
        small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        pen.text((x, y), name, fill=(30, 30, 30), font=font)
        out.paste(small, (x, y + CAPTION))
    return out


def layouts() -> list[tuple[str, Page]]:
    """Every layout, the palettes in turn; Cabrera's order, 50 mm/s, 5 and 20 mm/mV, gaps, few leads; looks of carts."""
    record = simulate_ecg(["AFIB", "CRBBB"], np.random.default_rng(1))
    rng, look = np.random.default_rng(SEED), STYLES["varied"]
    drawn: list[tuple[str, Page]] = []
    for name, palette in zip(LAYOUTS, PALETTES, strict=False):
        drawn.append((f"{name}, {palette}", draw_page(record, replace(look, layout=name, palette=palette), rng)))
    others: dict[str, PaperStyle] = {
        "Cabrera, red": replace(look, layout="3x4+1", order="cabrera", palette="red"),
        "50 mm/s, 5 s": replace(look, layout="6x2", mm_per_second=50.0, seconds=5.0, palette="pink"),
        "5 mm/mV": replace(look, layout="12x1", mm_per_mv=5.0, palette="orange"),
        "20 mm/mV": replace(look, layout="3x4+1", mm_per_mv=20.0, palette="green"),
        "no grid": replace(look, layout="3x4+1", palette="grey", grid=False),
    }
    drawn += [(name, draw_page(record, style, rng)) for name, style in others.items()]
    gaps = record.signal.copy()
    gaps[:, 3500:] = np.nan
    gaps[0, 500:900] = np.nan
    short = replace(record, signal=gaps)
    drawn.append(("7 s, I lost for a while", draw_page(short, replace(look, layout="6x2+1", palette="blue"), rng)))
    few = np.full_like(record.signal, np.nan)
    few[[0, 1, 7]] = record.signal[[0, 1, 7]]
    three = replace(record, signal=few)
    drawn.append(("three leads, 'recorded'", draw_page(three, replace(look, layout="recorded", palette="pink"), rng)))
    drawn += [(f"like {name}", draw_page(record, STYLES[name], rng)) for name in CARTS]
    return drawn


def distortions() -> list[tuple[str, Page]]:
    """Every distortion at strength 1 on the same page."""
    page = draw_page(simulate_ecg(["INJIN"], np.random.default_rng(2)), STYLES["square"])
    return [(name, distort(page, np.random.default_rng(SEED + i), name)) for i, name in enumerate(DISTORTIONS)]


def presets() -> list[tuple[str, Page]]:
    """Four draws of each preset."""
    page = draw_page(simulate_ecg(["LVH"], np.random.default_rng(4)), STYLES["square"])
    names = [name for name in PRESETS if name != "clean"]
    return [(name, distort(page, np.random.default_rng(seed), name)) for name in names for seed in range(4)]


def main(arguments: Sequence[str]) -> int:
    """Write layouts.jpg, distortions.jpg and presets.jpg into a folder."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m train.ecg.contact_sheet FOLDER\n")
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, pages, columns in (
        ("layouts", layouts(), 5),
        ("distortions", distortions(), 5),
        ("presets", presets(), 4),
    ):
        sheet(pages, columns).save(folder / f"{name}.jpg", quality=82)
        sys.stdout.write(f"wrote {folder / name}.jpg, {len(pages)} pages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
