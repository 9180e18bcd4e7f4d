"""`python -m benchmarks ideas`: what each idea gives. Our own job with the idea and without it, in turn.

Every idea is one function or one constant of the product; `SWITCHES` says which, and what stands there without it. Both
sides compute the same numbers (tests/benchmarks/test_ideas.py). Below them: how close the step's largest parts are to
what this machine can do at all, and what was tried and not kept.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

import lora.layers
import minimllama.checkpoint.files
import minimllama.layers
import minimllama.vision
from benchmarks.mid import MID, write_checkpoint
from benchmarks.ours import Loading, Training
from benchmarks.pairs import MIB, Spec, Timing, time_pair
from benchmarks.results import begin
from lora.layers import LoraLinear
from minimllama.chat import NO_LABEL
from minimllama.console import say


def attend_with_mask(q: Tensor, k: Tensor, v: Tensor, n_real: int, scale: float | None = None) -> Tensor:
    """`attend_around_padding` with Meta's mask: no padding query sees a padding key. [N, H, S, E] -> [N, H, S, E]."""
    is_padding = torch.arange(q.shape[2]) >= n_real
    mask = ~(is_padding[:, None] & is_padding)  # [S, S]
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)


class FusedKernel:
    """torch's own attention kernel in the place of `BlockedAttention`."""

    @staticmethod
    def apply(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q: [B, H, S, E], k, v: [B, G, Z, E] -> [B, H, S, E]."""
        return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


def adapt_step_by_step(x: Tensor, layers: Sequence[LoraLinear], *, like_peft: bool = False) -> tuple[Tensor, ...]:
    """`_adapted` as autograd would have it, every intermediate kept; `like_peft`: in the adapters' dtype, float32."""
    found = []
    for layer in layers:
        a, b = layer.lora_A, layer.lora_B
        seen = F.dropout(x, layer.dropout, layer.training)
        if like_peft:
            update = F.linear(F.linear(seen.to(a.dtype), a), b)
        else:
            update = F.linear(F.linear(seen, a.to(x.dtype)), b.to(x.dtype))
        found.append((F.linear(x, layer.weight, layer.bias) + layer.scale * update).to(x.dtype))
    return tuple(found)


def adapt_like_peft(x: Tensor, layers: Sequence[LoraLinear]) -> tuple[Tensor, ...]:
    """`adapt_step_by_step` in float32."""
    return adapt_step_by_step(x, layers, like_peft=True)


def loss_of_all_logits(head: nn.Module, hidden: Tensor, labels: Tensor, n_answer_tokens: int) -> Tensor:
    """`answer_loss` over the logits of every position."""
    logits = head(hidden).float().flatten(0, 1)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=NO_LABEL, reduction="sum") / n_answer_tokens


# idea: what to set, from the job: object, attribute, value
SWITCHES: dict[str, Callable[[Any], tuple[Any, str, Any]]] = {
    "padding": lambda job: (job.model.vision, "share_padding", False),
    "no mask": lambda _: (minimllama.vision, "attend_around_padding", attend_with_mask),
    "blocks": lambda _: (minimllama.layers, "BlockedAttention", FusedKernel),
    "few keys": lambda _: (minimllama.layers, "SHORT", 0),
    "shared inputs": lambda _: (LoraLinear, "share_inputs", False),
    "one function": lambda _: (lora.layers, "_adapted", adapt_step_by_step),
    "adapters' dtype": lambda _: (lora.layers, "_adapted", adapt_like_peft),
    "gaps": lambda _: (lora.layers, "FEW", float("inf")),
    "answers only": lambda job: (job, "answer_loss", loss_of_all_logits),
    "huge pages": lambda _: (minimllama.checkpoint.files, "HUGE", None),
}


class Step(Training):
    """A step without one idea; the other arguments are those of `Training`."""

    def __init__(self, folder: str, *, without: str = "", **arguments: Any) -> None:
        super().__init__(folder, **arguments)
        if without:
            setattr(*SWITCHES[without](self))


class Load(Loading):
    """Reading the checkpoint without one idea."""

    def __init__(self, folder: str, *, without: str = "") -> None:
        super().__init__(folder)
        if without:
            setattr(*SWITCHES[without](self))


@dataclass(frozen=True, kw_only=True)
class Idea:
    """One row.

    Attributes:
        name: as printed.
        predicted: before it was built, and why.
        job: "benchmarks.ideas:Step", "benchmarks.ideas:Load" or one of ours.py.
        on, off: arguments of the job with the idea and without it.
        quantity: which of the job's times.
    """

    name: str
    predicted: str
    job: str = "benchmarks.ideas:Step"
    on: Mapping[str, Any] = field(default_factory=dict)
    off: Mapping[str, Any] = field(default_factory=dict)
    quantity: str = "step"


def _step(name: str, without: str, predicted: str, tiles: int) -> Idea:
    given = {"tiles": tiles}
    return Idea(name=name, predicted=predicted, on=given, off={**given, "without": without})


def _decode(name: str, predicted: str, on: Mapping[str, Any], off: Mapping[str, Any], batch: int = 1) -> Idea:
    on, off = ({"tiles": 1, "batch": batch, **given} for given in (on, off))
    return Idea(name=name, predicted=predicted, job="benchmarks.ours:Generation", on=on, off=off, quantity="decode")


def _weights(name: str, how: str, predicted: str, batch: int = 1) -> Idea:
    return _decode(name, predicted, {"weights": how}, {"weights": "plain"}, batch)


def _compiled(name: str, weights: str, predicted: str) -> Idea:
    return _decode(name, predicted, {"weights": weights, "compile": True}, {"weights": weights})


# Predictions: FLOPs at "mid" are counted, 2 per product, backward passes and recomputed scores too; trials were made
# with throw-away code before the product's.
IDEAS = [
    _step("padding computed once, 1 tile", "padding", "2.0: 0.70 of 1.42 TFLOP", 1),
    _step("padding computed once, 2 tiles", "padding", "1.4: 1.01 of 1.42 TFLOP", 2),
    _step("no mask in the vision tower, 4 tiles", "no mask", "1.3: the blocks below take no mask", 4),
    _step("attention in blocks, 4 tiles", "blocks", "1.3, by a trial", 4),
    _step("attention in blocks, 1 tile", "blocks", "less: a quarter of the scores", 1),
    _step("plain attention for few keys, 1 tile", "few keys", "1.0: only text has so few", 1),
    _step("adapters of one input share it, 4 tiles", "shared inputs", "less memory", 4),
    _step("one function per adapted layer, 4 tiles", "one function", "less memory", 4),
    _step("adapters in the activations' dtype, 4 tiles", "adapters' dtype", "1.2, by PEFT with both", 4),
    _step("dropped positions instead of masks, 4 tiles", "gaps", "a twentieth of the random numbers", 4),
    _step("vocabulary only at answers, 1 tile", "answers only", "1.08: 0.70 of 0.76 TFLOP", 1),
    _weights("decode with fused and packed weights", "fast", "1.24, by a trial of fused ones"),
    _weights("decode with int8 weights", "int8", "2 at most: half the bytes to read"),
    _weights("decode with fused and packed weights, batch 8", "fast", "1.19, by a trial of fused ones", 8),
    _compiled("decode with compiled layers, fused and packed weights", "fast", "none made before it was built"),
    _compiled("decode with compiled layers, int8 weights", "int8", "none made before it was built"),
    Idea(
        name="loading into huge pages",
        predicted="1.6, by a trial",
        job="benchmarks.ideas:Load",
        off={"without": "huge pages"},
        quantity="load",
    ),
]


def _median_ms(work: Callable[[], object], times: int = 15) -> float:
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def limits() -> Iterator[tuple[str, str]]:
    """Where the rest of the step goes: products beside the machine's best, and what a softmax could cost less."""
    rows, keys, width = 512, 4 * (MID.vision.tokens_per_tile), MID.vision.width // MID.vision.n_heads

    def rate(m: int, k: int, n: int) -> str:
        a, b, out = (torch.randn(shape).bfloat16() for shape in ((m, k), (n, k), (m, n)))
        return f"{2e-6 * m * k * n / _median_ms(lambda: torch.mm(a, b.T, out=out)):.0f} GFLOP/s"

    yield "a large product, 1024 x 1024 x 1024", rate(1024, 1024, 1024)
    yield f"queries by keys of one block, {rows} x {width} x {keys}", rate(rows, width, keys)
    yield f"probabilities by values, {rows} x {keys} x {width}", rate(rows, keys, width)
    yield f"an adapter's A, {keys} x {MID.vision.width} x 64", rate(keys, MID.vision.width, 64)
    scores = torch.randn(rows, keys).bfloat16()
    out, other = torch.empty_like(scores), scores.to_mkldnn()
    yield f"softmax of {rows} x {keys}, in place", f"{_median_ms(lambda: torch.softmax(scores, -1, out=out)):.2f} ms"
    yield "only exp of them", f"{_median_ms(lambda: torch.exp(scores, out=out)):.2f} ms"
    yield "oneDNN's softmax", f"{_median_ms(lambda: other.softmax(-1)):.2f} ms"
    yield "the two copies that it needs", f"{_median_ms(lambda: scores.to_mkldnn().to_dense()):.2f} ms"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run our own jobs with and without each idea.

    Attributes:
        only: ideas whose name contains one of these texts.
        rounds: timings of each side, after one that is not counted.
        threads: of each side.
        out: Markdown file.
        folder: where the random checkpoint is made and kept.
        note: a sentence for the page.
    """

    only: tuple[str, ...] = ()
    rounds: int = 3
    threads: int = 1
    out: Path = Path("runs/bench/ideas.md")
    folder: Path = Path("runs/bench/mid")
    note: str = ""


def chosen(only: Sequence[str]) -> list[Idea]:
    """The ideas that are asked for.

    Raises:
        ValueError: if none is.
    """
    found = [idea for idea in IDEAS if not only or any(text in idea.name for text in only)]
    if not found:
        raise ValueError(f"no idea has {' or '.join(only)} in its name; there are {', '.join(i.name for i in IDEAS)}")
    return found


def row(idea: Idea, timing: Timing) -> str:
    """One line of the table; the time without the idea over that with it."""
    low, high = timing.ratio_range
    seconds = (f"{statistics.median(side):.3g}" for side in (timing.ours, timing.theirs))
    peaks = f"{timing.our_memory / MIB:.0f} / {timing.their_memory / MIB:.0f}"
    given = f"**{timing.ratio:.2f}** ({low:.2f}..{high:.2f})"
    return f"| {idea.name} | {idea.quantity} | {idea.predicted} | {given} | {' / '.join(seconds)} | {peaks} |"


HEAD = """\
| idea | what | predicted | measured (range of rounds) | seconds with / without | peak over the loaded model, MiB |
|---|---|---|---|---|---|"""


def main(arguments: Sequence[str]) -> int:
    """Time the ideas, print, and write the page after each."""
    options = tyro.cli(Options, args=list(arguments), prog="python -m benchmarks ideas")
    ideas = chosen(options.only)
    write_checkpoint(options.folder)
    torch.set_num_threads(options.threads)
    lines = [*begin(["ideas", *arguments], options.threads, options.note), "", HEAD]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for idea in ideas:
        on, off = (Spec(job=idea.job, arguments={"folder": str(options.folder), **how}) for how in (idea.on, idea.off))
        timings = time_pair(on, off, rounds=options.rounds, threads=options.threads)
        lines.append(row(idea, next(one for one in timings if one.name == idea.quantity)))
        options.out.write_text("\n".join(lines) + "\n")
        say(lines[-1])
    lines += ["", "| limit of this machine, bfloat16 | |", "|---|---|"]
    lines += [f"| {what} | {found} |" for what, found in limits()]
    options.out.write_text("\n".join(lines) + "\n")
    say(f"wrote {options.out}")
    return 0
