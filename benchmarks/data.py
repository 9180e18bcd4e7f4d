"""How many DataLoader workers feed 16 images a second: `python -m benchmarks.data`.

Simulated patients, the square page of four tiles, the distortion, four questions a page, collated; the same code as
in training. Measured: processor time of one busy core. Extrapolated from it: how many such workers make 16 images a
second, if each has a core of its own and they do not slow each other down.
"""

import math
import os
import time
from dataclasses import dataclass, replace

import tyro

from minimllama import PRESETS, ImageTransform
from minimllama.console import say
from minimllama.nano import resolve_model
from minimllama.tokenizer import load_tokenizer
from train.dataset import EcgDataset, collate
from train.ecg import STYLES
from train.mixture import ComponentConfig, Mixture

GOAL = 16.0  # images per second


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to draw.

    Attributes:
        page: of STYLES.
        distort: presets, one row each.
        n: pages per row.
    """

    page: str = "square"
    distort: tuple[str, ...] = ("clean", "scan", "phone", "paper")
    n: int = 32


def main(options: Options) -> None:
    """Print one row per preset."""
    import torch

    torch.set_num_threads(1)
    tokenizer = load_tokenizer(resolve_model("nano"))
    patients = ComponentConfig(
        source="simulated", n=1000, seed=1, tasks=("report", "statements", "yes_no", "superclass")
    )
    config = replace(PRESETS["nano"], vision=PRESETS["11b-instruct"].vision)  # its tokenizer is here; the big tiles
    say(f"page {options.page}, {os.cpu_count()} cores here; processor time, batches of 4")
    say(f"| distort | ms per page | images/s of one worker | workers for {GOAL:g} images/s (extrapolated) |")
    say("|---|---|---|---|")
    for name in options.distort:
        dataset = EcgDataset([patients], STYLES[options.page], ImageTransform(560, 4), tokenizer, 4, 2048, distort=name)
        batches = list(Mixture([1000], [1.0], 1).batches(0, options.n + 4, 4))
        collate([dataset[item] for item in batches[0]], config)
        began = time.process_time()
        for batch in batches[1:]:
            collate([dataset[item] for item in batch], config)
        seconds = (time.process_time() - began) / options.n
        say(f"| {name} | {1000 * seconds:.0f} | {1 / seconds:.1f} | {math.ceil(GOAL * seconds)} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
