"""`python -m benchmarks growth`: how a LoRA step's time and memory grow with text, batch, tiles and ranks.

Every point is a process of its own. Exponents are slopes of straight lines through the logarithms: 1 is proportional,
0 is constant; the last doubling's slope stands beside, because a fixed share (the page, for text) hides the rest.

Seconds are the processor's, of the median step. Memory is the process's peak over the loaded model; for ranks, what a
rank holds of weights and optimizer under zero3, beside the same.
"""

import argparse
import datetime
import math
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.mid import ALPHA, DROPOUT, MID, R, clear_unused_slots, make_inputs
from benchmarks.pairs import MIB, status_bytes
from benchmarks.results import hardware
from lora import TuneConfig, apply_tuning
from minimllama import MiniMllama, ModelConfig
from minimllama.console import say
from minimllama.init import initialise
from minimllama.sizes import TextConfig, VisionConfig
from train.distributed import start, stop
from train.loss import answer_loss
from train.optim import MasterAdamW, OptimConfig, local
from train.shard import ShardConfig, shard

SMALL = ModelConfig(
    vision=VisionConfig(width=160, n_heads=2, mlp_width=640, n_local_layers=4, n_global_layers=1, taps=(1, 3)),
    text=TextConfig(
        width=512, mlp_width=1792, n_layers=5, n_heads=4, n_kv_heads=2, cross_layers=(3,), vocab_size=8000,
        bos_id=1, eos_ids=(2,), pad_id=3,
    ),
    image_token_id=8000,
)  # fmt: skip
SIZES = {"small": SMALL, "mid": MID}
COLOURS = ("#1f5fa8", "#c23b22", "#2e8b57", "#8a5fbf")


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is stepped: text tokens, pages, tiles of each, and ranks with as many pages each."""

    length: int = 128
    batch: int = 1
    tiles: int = 1
    ranks: int = 1


SWEEPS: dict[str, list[Point]] = {
    "length": [Point(length=n) for n in (128, 256, 512, 1024, 2048)],
    "batch": [Point(batch=n) for n in (1, 2, 4, 8)],
    "tiles": [Point(tiles=n) for n in (1, 2, 3, 4)],
    "ranks": [Point(ranks=n, length=64) for n in (1, 2, 4)],
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of one point: seconds of each step, peak bytes over the loaded model, and bytes held between steps."""

    seconds: list[float]
    peak: int
    held: int


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through log y over log x."""
    logs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True)]
    mean_x, mean_y = (statistics.mean(column) for column in zip(*logs, strict=True))
    over = sum((a - mean_x) * (b - mean_y) for a, b in logs)
    return over / sum((a - mean_x) ** 2 for a, _ in logs)


def measure(point: Point, config: ModelConfig, steps: int) -> Found:
    """In this process, which is one of point.ranks."""
    torch.set_num_threads(1)
    world = start("cpu")
    model = clear_unused_slots(initialise(MiniMllama(config), torch.Generator().manual_seed(0))).to(torch.bfloat16)
    apply_tuning(model, TuneConfig(r=R, alpha=ALPHA, dropout=DROPOUT))
    shard(model.train(), world, ShardConfig(strategy="zero3"))
    given = make_inputs(point.batch, point.length, point.tiles, 32, config=config)
    optimizer = MasterAdamW(model, OptimConfig(peak_lr=1e-4))
    n_answers = int((given.labels >= 0).sum()) * world.size
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    seconds = []
    for _ in range(steps + 1):
        began = time.process_time()
        hidden = model(given.tokens, given.images, given.visible, hidden=True)
        answer_loss(model.text.lm_head, hidden, given.labels, n_answers).backward()
        optimizer.step(optimizer.gradient_norm(), 1e-4)
        seconds.append(time.process_time() - began)
    held = sum(local(p).nbytes for p in model.parameters())
    held += sum(value.nbytes for state in optimizer.adamw.state.values() for value in state.values())
    return Found(seconds=seconds[1:], peak=status_bytes("VmHWM") - before, held=held)


def _process(rank: int, port: int, pipe: Connection, point: Point, size: str, steps: int) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": point.ranks, "LOCAL_WORLD_SIZE": point.ranks}
    os.environ.update({name: str(value) for name, value in numbers.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    pipe.send(measure(point, SIZES[size], steps))
    stop()


def run_point(point: Point, size: str, steps: int) -> Found:
    """In fresh processes; the first rank's numbers.

    Raises:
        EOFError: if a process died; its traceback stands above.
    """
    context = multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    for rank in range(point.ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_process, args=(rank, port, theirs, point, size, steps), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    found = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join(30)
    return found[0]


Results = dict[str, list[tuple[int, Found]]]
QUANTITIES: dict[str, Callable[[Found], float]] = {
    "s per step": lambda found: statistics.median(found.seconds),
    "peak MiB": lambda found: found.peak / MIB,
    "held MiB": lambda found: found.held / MIB,
}


def page(results: Results, command: str, size: str, note: str) -> str:
    """Markdown: a table of points and one of exponents."""
    lines = [
        f"# Growth of a LoRA step: {hardware()}",
        "",
        f"{datetime.date.today():%Y-%m-%d}, size {size}, bfloat16, one thread per rank, torch {torch.__version__}. "
        f"Made by `{command}`. {note}".rstrip(),
        "",
        "What is not varied: 128 text tokens (64 for ranks), one page per rank, one tile; ranks: zero3, one page each.",
        "Seconds of the processor, of one rank; peak: over the loaded model; held: weights and moments of a rank.",
        "",
        "| varied | at | " + " | ".join(QUANTITIES) + " |",
        "|---|---|" + "---|" * len(QUANTITIES),
    ]
    for name, points in results.items():
        for x, found in points:
            lines.append(f"| {name} | {x} | " + " | ".join(f"{get(found):.3g}" for get in QUANTITIES.values()) + " |")
    lines += ["", "| exponent of | in | over all points | last two points |", "|---|---|---|---|"]
    for name, points in results.items():
        x = [value for value, _ in points]
        for quantity, get in QUANTITIES.items():
            y = [get(found) for _, found in points]
            if len(x) > 1 and (quantity != "held MiB" or name == "ranks"):
                lines.append(f"| {quantity} | {name} | {exponent(x, y):.2f} | {exponent(x[-2:], y[-2:]):.2f} |")
    return "\n".join([*lines, ""])


def chart(results: Results) -> str:
    """Time and memory over the first point's, both axes in doublings. SVG."""
    side, left, top = 220, 60, 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * side + 3 * left + 60}" height="{side + 90}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for panel, quantity in enumerate(("s per step", "peak MiB")):
        x0, get = left + panel * (side + left + 30), QUANTITIES[quantity]
        out.append(f'<text x="{x0}" y="{top - 10}">{quantity}, times the first point</text>')
        for i in range(5):
            at = side * i / 4
            out.append(f'<path d="M{x0} {top + side - at:.1f}h{side} M{x0 + at:.1f} {top}v{side}" stroke="#ddd"/>')
            out.append(f'<text x="{x0 - 6}" y="{top + side - at + 4:.1f}" text-anchor="end">{2**i}</text>')
            out.append(f'<text x="{x0 + at:.1f}" y="{top + side + 16}" text-anchor="middle">{2**i}</text>')
        out.append(f'<text x="{x0 + side / 2}" y="{top + side + 34}" text-anchor="middle">times as much</text>')
        for number, (name, points) in enumerate(results.items()):
            first_x, first_y = points[0][0], get(points[0][1])
            places = [
                (x0 + side / 4 * math.log2(x / first_x), top + side - side / 4 * math.log2(get(found) / first_y))
                for x, found in points
            ]
            colour, line = COLOURS[number % 4], " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
            if panel == 0:
                out.append(
                    f'<text x="{left + 110 * number}" y="{top + side + 55}" fill="{colour}">&#9679; {name}</text>'
                )
    return "\n".join([*out, "</svg>", ""])


def main(arguments: Sequence[str]) -> int:
    """Measure, and write page and chart after every sweep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=3, help="of each point, after one that is not counted")
    parser.add_argument("--out", type=Path, required=True, help="a Markdown file; the chart stands beside it")
    parser.add_argument("--note", default="", help="a sentence for the page")
    options = parser.parse_args(list(arguments))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: Results = {}
    for name in options.only:
        results[name] = []
        for point in SWEEPS[name]:
            found = run_point(point, options.size, options.steps)
            results[name].append((getattr(point, name), found))
            say(
                f"{name} {getattr(point, name)}: " + ", ".join(f"{get(found):.3g} {q}" for q, get in QUANTITIES.items())
            )
        command = " ".join(["python -m benchmarks growth", *arguments])
        picture = options.out.with_suffix(".svg")
        picture.write_text(chart(results))
        options.out.write_text(page(results, command, options.size, options.note) + f"\n![growth]({picture.name})\n")
    return 0
