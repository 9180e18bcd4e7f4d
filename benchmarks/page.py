"""Pages: a page image to normalised tiles, against transformers' image processor.

`python -m benchmarks.page` times drawing itself: plain, scanned, and as the model's tensor, on one core, beside what
ecg-image-kit (27b90f5) took for a page of 2200 x 1700 pixels. Its figures were not measured here: one process on one
core of a shared 2-core Xeon, PTB-XL 00001_lr at 100 Hz, median of 8, imports excluded.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.cases import Case
from minimllama import ImageTransform
from minimllama.console import say
from train.ecg import STYLES, Page, distort, draw_page, simulate_ecg

KIT = {"plain": 1.05, "augmented": 2.78}  # seconds; augmented: rotation, noise, crop, colour temperature


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


def median_ms(action: Callable[[int], object], rounds: int) -> float:
    """Median processor time of one call in ms, after one that is not counted; calls get the numbers 0, 1, ..."""
    action(0)
    seconds = []
    for i in range(rounds):
        began = time.process_time()
        action(i)
        seconds.append(time.process_time() - began)
    return 1000 * statistics.median(seconds)


def draw_times(rounds: int = 60) -> None:
    """Print ms per page at the size of four tiles, and times as fast as ecg-image-kit."""
    import torch

    torch.set_num_threads(1)
    records = [simulate_ecg(["AFIB", "CRBBB"], np.random.default_rng(i), hz=500) for i in range(8)]
    style, transform = STYLES["square"], ImageTransform(560, 4)

    def draw(i: int) -> Page:
        return draw_page(records[i % 8], style)

    def scan(i: int, preset: str = "scan") -> Page:
        return distort(draw(i), np.random.default_rng(i), preset)

    def decode(i: int) -> object:
        return transform([[scan(i).image]]).pixels

    rows: list[tuple[str, Callable[[int], object], str, float | None]] = [
        ("plain", draw, "plain", 15),
        ("scan", scan, "augmented", 60),
        ("scan, to a tensor of 4 tiles", decode, "augmented", 90),
        ("phone", lambda i: scan(i, "phone"), "augmented", None),
        ("paper", lambda i: scan(i, "paper"), "augmented", None),
    ]
    say(f"{style.width} x {style.height} px, {style.px_per_mm} px/mm, 500 Hz; processor time on one core")
    say("| page | median ms | goal | times ecg-image-kit's 2200 x 1700 | per pixel |")
    say("|---|---|---|---|---|")
    share = style.width * style.height / (2200 * 1700)
    for name, action, beside, goal in rows:
        ms = median_ms(action, rounds)
        ratio = 1000 * KIT[beside] / ms
        met = "" if goal is None else f"{goal:g} {'met' if ms <= goal else 'missed'}"
        say(f"| {name} | {ms:.1f} | {met} | {ratio:.0f} | {ratio * share:.0f} |")


if __name__ == "__main__":
    draw_times()
