"""`python -m benchmarks scaling`: several GPUs on paper. Step time and traffic of every strategy, from formulas.

Nothing here was measured on several GPUs. Sizes, operations, memory and bytes are counted (train/plan.py,
train/flops.py); ASSUMED speeds turn them into seconds:

    compute  = executed operations of one GPU / (reached share x matrix product)
    traffic  = bytes that a GPU receives / slowest link of the ring
    hsdp     = bytes inside a node / its link + GPUs of a node x bytes between nodes / a node's network
    step     = between max(compute, traffic), all overlapped, and compute + traffic, nothing overlapped

A ring passes every border between nodes once, so a node's whole network is one link of it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from lora import TuneConfig, apply_tuning
from minimllama import PRESETS, MiniMllama
from minimllama.console import say
from train.flops import Work, first_trained, step_flops
from train.plan import GIB, Kept, PlanConfig, Sizes, activation_bytes, measure, plan_memory, received_bytes
from train.settings import ComputeConfig

MATRIX_PRODUCT = 790e12  # FLOP/s, bfloat16, of one H200: a large product as others measured it; not by us
REACHED = 0.5  # share of it that a step reaches: our goal; `python -m benchmarks gpu` measures it
CARD_GIB = {"80": 79.1, "141": 139.8}  # A100 and H100, H200
NVLINK, PCIE = 300e9, 20e9  # bytes/s that a GPU receives in a ring inside a node: H100 and H200; PCIe 4 x16
PAGES, LENGTH, ANSWERS = 4, 512, 64  # of one GPU and step: one question per page
STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "hsdp")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """GPUs and what joins them.

    Attributes:
        n: GPUs.
        node: of them in one node.
        inside: bytes/s that a GPU receives from its node's others.
        between: bytes/s of a node's network, for all its GPUs together.
    """

    n: int
    node: int
    inside: float = NVLINK
    between: float = 0.0


CLUSTERS = {
    "4 PCIe": Cluster(n=4, node=4, inside=PCIE),
    "4 NVLink": Cluster(n=4, node=4),
    "8 NVLink": Cluster(n=8, node=8),
    "64, 8 x 400": Cluster(n=64, node=8, between=8 * 400e9 / 8),  # a network card for every GPU
    "64, 400": Cluster(n=64, node=8, between=400e9 / 8),  # Gb/s -> bytes/s
    "64, 200": Cluster(n=64, node=8, between=200e9 / 8),
}


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A model and a method, counted on the meta device: sizes, executed operations, bytes kept for the backward."""

    sizes: Sizes
    executed: float
    kept: Kept
    recipe: Any


@cache
def count(preset: str, method: str) -> Counted:
    """With activation checkpointing in both towers."""
    tuning = TuneConfig(method=method)
    with torch.device("meta"):
        model = MiniMllama(PRESETS[preset]).to(torch.bfloat16)
        apply_tuning(model, tuning)
    recipe = SimpleNamespace(
        tuning=tuning,
        batch=SimpleNamespace(images_per_forward=PAGES, accumulate=1),
        data=SimpleNamespace(questions_per_image=1),
        compute=ComputeConfig(dtype="bfloat16", checkpoint_activations=True),
    )
    forward, both = step_flops(model, Work(pages=PAGES, rows=PAGES, length=LENGTH, answers=PAGES * ANSWERS))
    plan = PlanConfig(length=LENGTH, answers=ANSWERS)
    kept = activation_bytes(PRESETS[preset], recipe, plan, first=first_trained(model))  # type: ignore[arg-type]
    return Counted(sizes=measure(model, torch.bfloat16), executed=both + forward, kept=kept, recipe=recipe)


def memory_gib(counted: Counted, strategy: str, cluster: Cluster) -> float:
    """Of one GPU."""
    plan = PlanConfig(ranks=cluster.n, group=cluster.node, length=LENGTH, answers=ANSWERS)
    return plan_memory(strategy, counted.sizes, counted.kept, counted.recipe, plan).total / GIB


def compute_seconds(counted: Counted) -> float:
    """Of one GPU and step."""
    return counted.executed / (REACHED * MATRIX_PRODUCT)


def traffic_seconds(counted: Counted, strategy: str, cluster: Cluster) -> float:
    """Of one GPU and step, if nothing else happened meanwhile."""
    total = received_bytes(strategy, counted.sizes, cluster.n, cluster.node, 1)
    if cluster.n == cluster.node:
        return total / cluster.inside
    if strategy != "hsdp":
        return total / min(cluster.inside, cluster.between)
    inside = received_bytes("zero3", counted.sizes, cluster.node, cluster.node, 1)
    return inside / cluster.inside + cluster.node * (total - inside) / cluster.between


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return name.ljust(7) + "".join(cell.rjust(width) for cell in cells)


def table(preset: str, method: str) -> str:
    """Memory, traffic and step time of every strategy."""
    counted = count(preset, method)
    sizes, compute = counted.sizes, compute_seconds(counted)
    lines = [
        f"{preset} {method}: F = {sizes.frozen / 1e9:.2f}e9 frozen, T = {sizes.trained / 1e9:.2f}e9 trained; "
        f"{counted.executed / 1e12:.0f} TFLOP, {compute:.2f} s of computing per GPU and step",
        "  GiB per GPU and the card (GB) it fits; GB received per GPU and step",
        _row("", ["4", "8", "64", "4", "8", "64"], 12),
    ]
    three = [CLUSTERS[name] for name in ("4 NVLink", "8 NVLink", "64, 400")]
    for strategy in STRATEGIES:
        cells = []
        for cluster in three:
            gib = memory_gib(counted, strategy, cluster)
            fits = next((card for card, room in CARD_GIB.items() if gib < 0.95 * room), "none")
            cells.append(f"{gib:.1f} {fits:>4}")
        cells += [f"{received_bytes(strategy, sizes, c.n, c.node, 1) / 1e9:.1f}" for c in three]
        lines.append(_row(strategy, cells, 12))
    lines += ["  s per step: all traffic overlapped .. none", _row("", list(CLUSTERS), 14)]
    for strategy in STRATEGIES:
        cells = []
        for cluster in CLUSTERS.values():
            traffic = traffic_seconds(counted, strategy, cluster)
            cells.append(f"{max(compute, traffic):.2f}..{compute + traffic:.2f}")
        lines.append(_row(strategy, cells, 14))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--presets", nargs="+", default=["11b", "90b"], choices=PRESETS)
    parser.add_argument("--methods", nargs="+", default=["lora", "partial", "full"])
    options = parser.parse_args(list(arguments))
    say("\n\n".join(table(preset, method) for preset in options.presets for method in options.methods))
    return 0
