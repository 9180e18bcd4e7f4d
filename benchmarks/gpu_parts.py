"""What benchmarks/gpu.py measures beside steps; each part yields its results as it has them.

Shapes: B samples, T text tokens.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_steps import profile, step
from benchmarks.mid import Inputs, make_questions
from benchmarks.on_device import (
    DTYPE,
    SIZES,
    Row,
    Task,
    Watch,
    attempt,
    build_ours,
    build_theirs,
    copy_weights,
    forget_peak,
    held_bytes,
    inputs_on,
    keywords_on,
    peak_bytes,
    repeat,
)
from minimllama import generate, next_token_logits
from minimllama.visibility import image_visibility
from minimllama.weights import hold_weights


def card(task: Task) -> Iterator[Row]:
    """What the device reaches in a large matrix product, and in a large copy."""
    side, n = (8192, 2**31) if task.device.type == "cuda" else (1024, 2**26)

    def product() -> Row:
        a, b = (torch.randn(side, side, device=task.device, dtype=DTYPE) for _ in range(2))
        return {"flops_per_s": 2 * side**3 / statistics.median(repeat(lambda: a @ b, task.device, 3, 30))}

    def copy() -> Row:
        a, b = (torch.zeros(n, device=task.device, dtype=torch.uint8) for _ in range(2))
        return {"bytes_per_s": 2 * n / statistics.median(repeat(lambda: b.copy_(a), task.device, 3, 30))}

    yield attempt({"case": "matrix product"}, product)
    yield attempt({"case": "copy, read and written"}, copy)


def build(task: Task) -> Iterator[Row]:
    """Seconds to make the model, and its bytes."""

    def case() -> Row:
        before = held_bytes(task.device)
        with Watch(task.device) as watch:
            model = build_ours(task.size, task.device)
        counted = sum(p.nbytes for p in model.parameters())
        return {"seconds": watch.seconds, "held_bytes": held_bytes(task.device) - before, "weight_bytes": counted}

    yield attempt({"case": "random weights on the device"}, case)


def agree(task: Task) -> Iterator[Row]:
    """The logits of both, from the same weights, in transformers' semantics."""

    @torch.no_grad()
    def case() -> Row:
        ours, theirs = build_ours(task.size, task.device, "hf"), build_theirs(task.size, task.device)
        copy_weights(ours, theirs)
        given = inputs_on(task, 1, min(task.length, 64), 8)
        mine = ours(given.tokens, given.images, given.visible.cpu()).float()
        other = theirs(**keywords_on(task.device, given)).logits.float()
        error = float((mine - other).norm() / other.norm())
        return {"relative_error": error, "same_choice": float((mine.argmax(-1) == other.argmax(-1)).float().mean())}

    yield attempt({"case": "logits in bfloat16"}, case)


def decode(task: Task, side: str, *, compiled: bool) -> Iterator[Row]:
    """A prompt of 64 tokens and a page, then greedy decoding.

    Compiled, a first token is decoded before the watch starts: ours records its graph then. transformers compiles a
    step over a static cache by itself, on GPUs only.
    """
    first = 2 if compiled else 1
    static = {"cache_implementation": "static"} if compiled else {}
    model: Any
    if side == "ours":
        model = hold_weights(build_ours(task.size, task.device), "fast")
    else:
        model = build_theirs(task.size, task.device)
        model.generation_config.eos_token_id = None
    for batch in task.decode_batches:

        def case(batch: int = batch) -> Row:
            given = inputs_on(task, batch, 64, 8)
            keywords = keywords_on(task.device, given)

            def run(n: int) -> object:
                if side == "theirs":
                    return model.generate(**keywords, max_new_tokens=n, do_sample=False, **static)
                return generate(model, list(given.tokens), given.images, max_new_tokens=n, compile=compiled)

            forget_peak(task.device)
            before = held_bytes(task.device)
            prefill = repeat(lambda: run(first), task.device, task.case_seconds / 3, 5)
            whole = repeat(lambda: run(first + task.new_tokens), task.device, task.case_seconds, 3)
            seconds = [one - statistics.median(prefill) for one in whole]
            peak = peak_bytes(task.device) - before
            return {"prefill": prefill, "decode": seconds, "new_tokens": task.new_tokens, "peak_bytes": peak}

        yield attempt({"side": side, "batch": batch, "compiled": compiled}, case)


def score(task: Task, side: str) -> Iterator[Row]:
    """Log-odds of yes against no for many questions about one page; theirs is timed on eight and scaled up."""
    model: Any = build_ours(task.size, task.device) if side == "ours" else build_theirs(task.size, task.device)
    config = SIZES[task.size]
    prompt, suffixes, answers = make_questions(task.labels, config=config)

    @torch.no_grad()
    def case() -> Row:
        images = inputs_on(task, 1, 8, 4).images
        if side == "ours":
            seconds = repeat(
                lambda: next_token_logits(model, [prompt], suffixes, answers, images), task.device, task.case_seconds
            )
            return {"seconds": seconds}
        timed = suffixes[:8]

        def questions() -> None:
            for suffix in timed:
                tokens = torch.cat([prompt, suffix])[None]
                visible = image_visibility(tokens, images.n_tiles, config.image_token_id, config.vision.max_tiles)
                asked = Inputs(tokens=tokens, labels=tokens, images=images, visible=visible)
                float(model(**keywords_on(task.device, asked), logits_to_keep=1).logits[0, -1, answers[0]])

        found = repeat(questions, task.device, task.case_seconds, 3)
        return {"seconds": [one * len(suffixes) / len(timed) for one in found], "timed": len(timed)}

    yield attempt({"side": side, "labels": task.labels}, case)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process of the script.

    Attributes:
        run: yields the results.
        seconds: after which it is ended.
        needs_theirs: whether transformers and PEFT must be installed.
    """

    run: Callable[[Task], Iterator[Row]]
    seconds: float
    needs_theirs: bool = False


PARTS = {  # in the order in which they run; compiling comes last, because it may take all the time there is
    "card": Part(run=card, seconds=30),
    "build": Part(run=build, seconds=30),
    "agree": Part(run=agree, seconds=60, needs_theirs=True),
    "step": Part(run=partial(step, side="ours", compiled=False), seconds=60),
    "step, theirs": Part(run=partial(step, side="theirs", compiled=False), seconds=80, needs_theirs=True),
    "decode": Part(run=partial(decode, side="ours", compiled=False), seconds=50),
    "decode, theirs": Part(run=partial(decode, side="theirs", compiled=False), seconds=60, needs_theirs=True),
    "score": Part(run=partial(score, side="ours"), seconds=30),
    "score, theirs": Part(run=partial(score, side="theirs"), seconds=40, needs_theirs=True),
    "profile": Part(run=profile, seconds=30),
    "compiled decode": Part(run=partial(decode, side="ours", compiled=True), seconds=90),
    "compiled decode, theirs": Part(run=partial(decode, side="theirs", compiled=True), seconds=90, needs_theirs=True),
    "compiled step": Part(run=partial(step, side="ours", compiled=True), seconds=100),
    "compiled step, theirs": Part(run=partial(step, side="theirs", compiled=True), seconds=100, needs_theirs=True),
}
