"""Pages: a page image to normalised tiles, against transformers' image processor."""

import numpy as np
from PIL import Image

from benchmarks.cases import Case


def draw_one() -> Image.Image:
    """A page of a simulated record."""
    from train.ecg import STYLES, draw_page, simulate_ecg

    rng = np.random.default_rng(0)
    return draw_page(simulate_ecg(["AFIB"], rng), next(iter(STYLES.values())), rng).image


CASES = [
    Case(
        name=f"page to {tiles} tiles",
        job="Tiling",
        arguments={"tiles": tiles},
        check={"tiles": tiles},
        needs_folder=False,
        units={"tiling": (1, "page")},
    )
    for tiles in (4, 2)
]
