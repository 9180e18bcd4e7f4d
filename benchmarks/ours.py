"""The jobs of minimllama. The same names stand in theirs.py."""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.mid import ALPHA, CANVASES, DROPOUT, MID, R, make_inputs, make_questions
from benchmarks.pairs import Stopwatch, fresh_memory, touch
from lora import TuneConfig, apply_tuning, load_adapter
from lora.peft_format import adapted_layers
from minimllama import ImageTransform, MiniMllama, generate, load_model
from minimllama.checkpoint.hf import hf_namer
from minimllama.likelihood import next_token_logits
from minimllama.packed import pack_weights
from minimllama.weights import hold_weights
from train.activation import checkpoint_blocks
from train.loss import answer_loss
from train.optim import MasterAdamW, OptimConfig

PREFIX = "base_model.model."


class Training:
    """One optimizer step: forward, backward, clipping, AdamW.

    Args:
        folder: the checkpoint.
        method: of `TuneConfig`.
        dtype: of the base.
        batch, n_tokens, tiles: of the inputs.
        semantics: "meta" is ours, "hf" the one that transformers has too.
        dropout: of the adapters.
        checkpointing: recompute activations.
        adapter: start from the checkpoint's adapter, whose update is not zero.
    """

    def __init__(
        self,
        folder: str,
        *,
        method: str = "lora",
        dtype: str = "bfloat16",
        batch: int = 1,
        n_tokens: int = 512,
        tiles: int = 4,
        semantics: str = "meta",
        dropout: float = DROPOUT,
        checkpointing: bool = False,
        adapter: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.model = load_model(folder, dtype=getattr(torch, dtype), semantics=semantics)
        if adapter:
            load_adapter(self.model, Path(folder) / "adapter")
            for layer in adapted_layers(self.model).values():
                layer.dropout = dropout
        else:
            apply_tuning(self.model, TuneConfig(method=method, r=R, alpha=ALPHA, dropout=dropout))
        if checkpointing:
            checkpoint_blocks(self.model)
        self.model.train()
        self.inputs = make_inputs(batch, n_tokens, tiles)
        self.optimizer = MasterAdamW(self.model, OptimConfig(peak_lr=1e-4))
        self.answer_loss = answer_loss

    def loss(self) -> Tensor:
        """Mean cross entropy of the supervised tokens."""
        given = self.inputs
        hidden = self.model(given.tokens, given.images, given.visible, hidden=True)
        return self.answer_loss(self.model.text.lm_head, hidden, given.labels, int((given.labels >= 0).sum()))

    def check(self) -> dict[str, Tensor]:
        """Loss, logits, and the gradient of every adapter by PEFT's name for it."""
        given = self.inputs
        with torch.no_grad():
            logits = self.model.eval()(given.tokens, given.images, given.visible)
        self.model.train()
        loss = self.loss()
        loss.backward()
        found = {"loss": loss, "logits": logits}
        namer = hf_namer(MID.text.cross_layers, "memory")
        for name, layer in adapted_layers(self.model).items():
            for part in ("lora_A", "lora_B"):
                found[f"{PREFIX}{namer(name)}.{part}"] = getattr(layer, part).grad
        self.optimizer.forget()
        return found

    def run(self) -> dict[str, float]:
        """One step."""
        with Stopwatch() as watch:
            self.loss().backward()
            self.optimizer.step(self.optimizer.gradient_norm(), 1e-4)
        return {"step": watch.seconds}


class Generation:
    """Prefill a prompt with an image, then greedy decoding.

    Args:
        folder: the checkpoint.
        dtype, batch, n_tokens, tiles, semantics: as for `Training`; n_tokens of the prompt.
        n_new: tokens decoded after the first.
        weights: as in `hold_weights`, or "packed".
        compile: as in `generate`; in the first run, which no time counts, the compiler works.
    """

    def __init__(
        self,
        folder: str,
        *,
        dtype: str = "bfloat16",
        batch: int = 1,
        n_tokens: int = 64,
        tiles: int = 4,
        semantics: str = "meta",
        n_new: int = 48,
        weights: str = "packed",
        compile: bool = False,  # noqa: A002 - as in `generate`
    ) -> None:
        model: MiniMllama = load_model(folder, dtype=getattr(torch, dtype), semantics=semantics)
        self.model = pack_weights(model) if weights == "packed" else hold_weights(model, weights)
        self.inputs, self.n_new = make_inputs(batch, n_tokens, tiles), n_new
        self.compile = compile

    def _generate(self, n_new: int) -> list[Tensor]:
        given = self.inputs
        return generate(self.model, list(given.tokens), given.images, max_new_tokens=n_new, compile=self.compile)

    @torch.no_grad()
    def check(self) -> dict[str, Tensor]:
        """The prompt's logits, and the tokens that follow it."""
        given = self.inputs
        logits = self.model(given.tokens, given.images, given.visible)
        return {"logits": logits, "tokens": torch.stack(self._generate(self.n_new))}

    def run(self) -> dict[str, float]:
        """One prefill, and one generation of 1 + n_new tokens; the difference is the decoding."""
        with Stopwatch() as first:
            self._generate(1)
        with Stopwatch() as whole:
            self._generate(1 + self.n_new)
        return {"prefill": first.seconds, "decode": whole.seconds - first.seconds}


class Scoring:
    """Log-odds of yes against no for many questions about one page.

    Args:
        folder: the checkpoint.
        dtype, tiles, semantics: as for `Training`.
        n_labels: questions.
        n_timed: of them, how many the other side runs in one timing; ours runs all.
    """

    def __init__(
        self,
        folder: str,
        *,
        dtype: str = "bfloat16",
        tiles: int = 4,
        semantics: str = "meta",
        n_labels: int = 71,
        n_timed: int = 71,
    ) -> None:
        self.model = load_model(folder, dtype=getattr(torch, dtype), semantics=semantics)
        self.prompt, self.suffixes, self.answers = make_questions(n_labels)
        self.images = make_inputs(1, 8, tiles).images

    def check(self) -> dict[str, Tensor]:
        """Log-odds of every question."""
        logits = next_token_logits(self.model, [self.prompt], self.suffixes, self.answers, self.images)
        return {"log_odds": logits[0, :, 0] - logits[0, :, 1]}

    def run(self) -> dict[str, float]:
        """All questions once."""
        with Stopwatch() as watch:
            self.check()
        return {"score": watch.seconds}


class Loading:
    """Read the sharded checkpoint."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def check(self) -> dict[str, Tensor]:
        """A few weights."""
        model = load_model(self.folder, dtype=torch.bfloat16)
        return {"norm": model.text.norm.weight, "head": model.text.lm_head.weight[:64]}

    def run(self) -> dict[str, float]:
        """Load once and drop the model."""
        fresh_memory()
        with Stopwatch() as watch:
            touch(load_model(self.folder, dtype=torch.bfloat16).parameters())
        return {"load": watch.seconds}


class Tiling:
    """A page of an ECG to normalised tiles."""

    def __init__(self, tiles: int = 4) -> None:
        from benchmarks.page import draw_one

        width, height = CANVASES[tiles]
        self.page = draw_one().resize((width + 90, height + 50))  # so that it has to be resized again
        self.transform = ImageTransform(MID.vision.tile_size, MID.vision.max_tiles)

    def check(self) -> dict[str, Tensor]:
        """The pixels."""
        return {"pixels": self.transform([[self.page]]).pixels}

    def run(self) -> dict[str, float]:
        """Four pages."""
        with Stopwatch() as watch:
            for _ in range(4):
                self.transform([[self.page]])
        return {"tiling": watch.seconds / 4}
