"""How many DataLoader workers feed 16 images a second: `python -m benchmarks data`.

Simulated patients, the square page of four tiles, the distortion, four questions a page, collated, in a DataLoader as
training makes it. Measured: images a second with 1 to all of this machine's cores as workers, and the processor
seconds that a page costs its worker, to which other jobs on the machine add little. Estimated from these seconds, and
marked so: the workers for 16 images a second, if each has a core of its own and they do not slow each other down.
"""

import datetime
import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import tyro
from torch.utils.data import DataLoader

from benchmarks.results import hardware
from minimllama import PRESETS, ImageTransform
from minimllama.console import say
from minimllama.nano import resolve_model
from minimllama.tokenizer import load_tokenizer
from train.dataset import EcgDataset, collate
from train.ecg import STYLES
from train.mixture import ComponentConfig, Mixture

GOAL = 16.0  # images per second
PAGES = 4  # per batch, as the paper has per GPU
QUESTIONS = 4  # per page


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to draw.

    Attributes:
        page: of STYLES.
        distort: presets.
        batches: of four pages, that each worker makes while time is taken.
        workers: the largest number; this machine's cores if 0.
        out: a file for the page; only printed if empty.
    """

    page: str = "square"
    distort: tuple[str, ...] = ("clean", "scan", "phone", "paper")
    batches: int = 8
    workers: int = 0
    out: str = ""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What was measured.

    Attributes:
        distort: the preset.
        workers: processes of the DataLoader.
        images_per_second: that arrived, by the clock.
        page_seconds: of the processor, in the workers, per page.
        load: average number of running processes on the machine when it ended, these included.
    """

    distort: str
    workers: int
    images_per_second: float
    page_seconds: float
    load: float


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)


def _worker_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of processes that have ended
    return used.ru_utime + used.ru_stime


def measure(dataset: EcgDataset, workers: int, batches: int) -> Rate:
    """Feed batches through a DataLoader; the first batch of each worker arrives before the clock starts."""
    config = replace(PRESETS["nano"], vision=PRESETS["11b-instruct"].vision)  # its tokenizer is here; the big tiles
    count = workers * (batches + 1)
    order = list(Mixture([len(dataset.sources[0])], [1.0], 1).batches(0, count * PAGES, PAGES))
    before = _worker_seconds()
    loader = DataLoader(
        dataset,
        batch_sampler=order,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=partial(collate, config=config),
        prefetch_factor=4,
        worker_init_fn=_start_worker,
    )
    began, timed = 0.0, 0
    for number, batch in enumerate(loader, 1):
        if number == workers:
            began = time.perf_counter()
        elif number > workers:
            timed += len(batch.n_tiles)
    rate = timed / (time.perf_counter() - began)
    del loader
    return Rate(
        distort=dataset.distort,
        workers=workers,
        images_per_second=rate,
        page_seconds=(_worker_seconds() - before) / (count * PAGES),
        load=os.getloadavg()[0],
    )


def measure_all(options: Options) -> Iterator[Rate]:
    """Every preset with 1, 2, ... workers."""
    tokenizer = load_tokenizer(resolve_model("nano"))
    tasks = ("report", "statements", "yes_no", "superclass")
    patients = ComponentConfig(source="simulated", n=1000, seed=1, tasks=tasks)
    for name in options.distort:
        transform, style = ImageTransform(560, 4), STYLES[options.page]
        dataset = EcgDataset([patients], style, transform, tokenizer, QUESTIONS, 2048, distort=name)
        for workers in range(1, (options.workers or os.cpu_count() or 1) + 1):
            yield measure(dataset, workers, options.batches)


def needed_workers(rate: Rate) -> int:
    """For 16 images a second, if each has a core and costs as many processor seconds as those that were measured."""
    return math.ceil(GOAL * rate.page_seconds)


def page(rates: Sequence[Rate], options: Options) -> str:
    """The Markdown page: what was measured, then what is estimated."""
    lines = [
        f"# Pages for training: {hardware()}",
        "",
        f"{datetime.date.today():%Y-%m-%d}, page `{options.page}`, {QUESTIONS} questions a page, batches of {PAGES}. "
        "Made by `python -m benchmarks data`.",
        "",
        "Measured, in a DataLoader as training makes it. By the clock, other jobs take their share: the load is the",
        "average number of running processes, the workers among them; with no other job, about the number of workers.",
        "",
        "| distort | workers | images/s by the clock | processor ms per page | load |",
        "|---|---|---|---|---|",
        *(
            f"| {r.distort} | {r.workers} | {r.images_per_second:.1f} | {1000 * r.page_seconds:.0f} | {r.load:.1f} |"
            for r in rates
        ),
        "",
        f"Estimated, not measured: workers for {GOAL:g} images a second, from the processor time per page of the row",
        "with the most workers, if each worker has a core of its own and more of them do not slow each other down.",
        "",
        "| distort | images/s of one worker with a core of its own | workers |",
        "|---|---|---|",
    ]
    most = {rate.distort: rate for rate in rates}  # the last one of each has the most workers
    lines += [f"| {name} | {1 / r.page_seconds:.1f} | {needed_workers(r)} |" for name, r in most.items()]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> int:
    """Print the page, and write it if it was asked for."""
    options = tyro.cli(Options, args=list(arguments), prog="python -m benchmarks data")
    torch.set_num_threads(1)
    text = page(list(measure_all(options)), options)
    say(text)
    if options.out:
        Path(options.out).write_text(text)
    return 0
