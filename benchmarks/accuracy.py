"""How far bfloat16 is from float32, on both sides: `python -m benchmarks.accuracy`.

The timed runs are in bfloat16, where two correct implementations differ by rounding. So each is compared with the same
computation in float32: relative errors (norm of the difference over the norm) of the logits, the loss and the
adapters' gradients of one step, the gradients of all layers together.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from benchmarks.mid import write_checkpoint
from benchmarks.pairs import Spec, Worker
from minimllama.console import say

WORST = 1.3  # our error may be this many times theirs


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare one LoRA step in bfloat16 with float32.

    Attributes:
        tiles, n_tokens: of the page and the text.
        folder: of the random checkpoint.
    """

    tiles: int = 4
    n_tokens: int = 512
    folder: Path = Path("runs/bench/mid")


def compute(side: str, dtype: str, options: Options) -> dict[str, Tensor]:
    """Logits, loss and gradients of a step in semantics "hf", without dropout."""
    arguments = {"folder": str(options.folder), "tiles": options.tiles, "n_tokens": options.n_tokens}
    more = {"dtype": dtype, "semantics": "hf", "adapter": True, "dropout": 0.0}
    with Worker(Spec(job=f"benchmarks.{side}:Training", arguments={**arguments, **more}), threads=1) as worker:
        found = worker.ask("check")
    gradients = [value.flatten() for name, value in sorted(found.items()) if "lora_" in name]
    return {"logits": found["logits"], "loss": found["loss"], "gradients": torch.cat(gradients)}


def main(options: Options) -> None:
    """Print one row per quantity.

    Raises:
        AssertionError: if our error is more than WORST times theirs, beyond a thousandth.
    """
    write_checkpoint(options.folder)
    exact = compute("ours", "float32", options)
    sides = {side: compute(side, "bfloat16", options) for side in ("ours", "theirs")}
    say("| relative error in bfloat16 | ours | transformers + PEFT |\n|---|---|---|")
    for name, reference in exact.items():
        errors = {side: float((found[name] - reference).norm() / reference.norm()) for side, found in sides.items()}
        say(f"| {name} | {errors['ours']:.1e} | {errors['theirs']:.1e} |")
        assert errors["ours"] <= WORST * errors["theirs"] + 1e-3, f"{name}: less exact than transformers + PEFT"


if __name__ == "__main__":
    main(tyro.cli(Options))
