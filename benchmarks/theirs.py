"""The jobs of transformers + PEFT at their defaults. The same names stand in ours.py."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from torch import Tensor
from transformers import MllamaForConditionalGeneration
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from benchmarks.mid import ALPHA, CANVASES, DROPOUT, MID, Inputs, R, as_keywords, make_inputs, make_questions
from benchmarks.pairs import Stopwatch, fresh_memory, touch
from minimllama.chat import NO_LABEL
from minimllama.visibility import image_visibility


def load(folder: str, dtype: str) -> Any:
    """The model in evaluation mode."""
    return MllamaForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


class Training:
    """One optimizer step as Trainer does it: forward, backward, clipping to norm 1, fused AdamW."""

    def __init__(
        self,
        folder: str,
        *,
        method: str = "lora",
        dtype: str = "bfloat16",
        batch: int = 1,
        n_tokens: int = 512,
        tiles: int = 4,
        semantics: str = "hf",
        dropout: float = DROPOUT,
        checkpointing: bool = False,
        adapter: bool = False,
    ) -> None:
        assert semantics == "hf", "transformers has no other"
        torch.manual_seed(0)
        model = load(folder, dtype)
        if adapter:
            self.model = PeftModel.from_pretrained(model, Path(folder) / "adapter", is_trainable=True)
            for module in self.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = dropout
        elif method == "lora":
            config = LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=dropout, target_modules="all-linear")
            self.model = get_peft_model(model, config)
        else:
            self.model = model
            layers = tuple(f"layers.{i}." for i in MID.text.cross_layers)
            for name, p in model.named_parameters():
                is_cross = "language_model" in name and any(layer in name for layer in layers)
                p.requires_grad_(method == "full" or "multi_modal_projector" in name or is_cross)
        if checkpointing:
            self.model.gradient_checkpointing_enable()
            self.model.enable_input_require_grads()
        self.model.train()
        self.inputs = make_inputs(batch, n_tokens, tiles)
        labels = torch.full_like(self.inputs.labels, NO_LABEL)
        labels[:, 1:] = self.inputs.labels[:, :-1]  # they shift by themselves
        self.keywords = {**as_keywords(self.inputs), "labels": labels}
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True, weight_decay=0.0)

    def check(self) -> dict[str, Tensor]:
        """Loss, logits, and the gradient of every adapter."""
        with torch.no_grad():
            logits = self.model.eval()(**as_keywords(self.inputs)).logits
        self.model.train()
        loss = self.model(**self.keywords).loss
        loss.backward()
        found = {"loss": loss, "logits": logits}
        for name, p in self.model.named_parameters():
            if "lora_" in name:
                assert p.grad is not None
                found[name.replace(".default.weight", "")] = p.grad
        self.optimizer.zero_grad()
        return found

    def run(self) -> dict[str, float]:
        """One step."""
        with Stopwatch() as watch:
            self.model(**self.keywords).loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return {"step": watch.seconds}


class Generation:
    """`model.generate`, greedy, without a stop token."""

    def __init__(
        self,
        folder: str,
        *,
        dtype: str = "bfloat16",
        batch: int = 1,
        n_tokens: int = 64,
        tiles: int = 4,
        semantics: str = "hf",
        n_new: int = 48,
    ) -> None:
        assert semantics == "hf", "transformers has no other"
        self.model, self.n_new = load(folder, dtype), n_new
        self.model.generation_config.eos_token_id = None
        self.keywords = as_keywords(make_inputs(batch, n_tokens, tiles))

    def _generate(self, n_new: int) -> Tensor:
        return self.model.generate(**self.keywords, max_new_tokens=n_new, do_sample=False)

    @torch.no_grad()
    def check(self) -> dict[str, Tensor]:
        """The prompt's logits, and the tokens that follow it."""
        return {"logits": self.model(**self.keywords).logits, "tokens": self._generate(self.n_new)}

    def run(self) -> dict[str, float]:
        """One prefill, and one generation of 1 + n_new tokens; the difference is the decoding."""
        with Stopwatch() as first:
            self._generate(1)
        with Stopwatch() as whole:
            self._generate(1 + self.n_new)
        return {"prefill": first.seconds, "decode": whole.seconds - first.seconds}


class Scoring:
    """One forward per question, the logits of the last token only; n_timed of them are timed and scaled up."""

    def __init__(
        self,
        folder: str,
        *,
        dtype: str = "bfloat16",
        tiles: int = 4,
        semantics: str = "hf",
        n_labels: int = 71,
        n_timed: int = 71,
    ) -> None:
        assert semantics == "hf", "transformers has no other"
        self.model, self.n_timed = load(folder, dtype), n_timed
        prompt, suffixes, self.answers = make_questions(n_labels)
        images = make_inputs(1, 8, tiles).images
        self.questions = []
        for suffix in suffixes:
            tokens = torch.cat([prompt, suffix])[None]
            visible = image_visibility(tokens, images.n_tiles, MID.image_token_id)
            self.questions.append(as_keywords(Inputs(tokens=tokens, labels=tokens, images=images, visible=visible)))

    @torch.no_grad()
    def _score(self, n: int) -> Tensor:
        yes, no = self.answers
        rows = [self.model(**q, logits_to_keep=1).logits[0, -1].float() for q in self.questions[:n]]
        return torch.stack([row[yes] - row[no] for row in rows])

    def check(self) -> dict[str, Tensor]:
        """Log-odds of every question."""
        return {"log_odds": self._score(len(self.questions))}

    def run(self) -> dict[str, float]:
        """Seconds of all questions, from n_timed of them."""
        with Stopwatch() as watch:
            self._score(self.n_timed)
        return {"score": watch.seconds * len(self.questions) / self.n_timed}


class Loading:
    """`from_pretrained` of the sharded checkpoint."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def check(self) -> dict[str, Tensor]:
        """A few weights."""
        model = load(self.folder, "bfloat16")
        return {"norm": model.model.language_model.norm.weight, "head": model.lm_head.weight[:64]}

    def run(self) -> dict[str, float]:
        """Load once and drop the model."""
        fresh_memory()
        with Stopwatch() as watch:
            touch(load(self.folder, "bfloat16").parameters())
        return {"load": watch.seconds}


class Reading(Loading):
    """Nothing but safetensors: every tensor of every shard into memory of its own."""

    def run(self) -> dict[str, float]:
        """Read once and drop the tensors."""
        fresh_memory()
        with Stopwatch() as watch:
            tensors: dict[str, Tensor] = {}
            for path in sorted(Path(self.folder).glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    tensors |= {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            touch(tensors.values())
        return {"load": watch.seconds}


class Tiling:
    """A page of an ECG to normalised tiles."""

    def __init__(self, tiles: int = 4) -> None:
        from benchmarks.page import draw_one
        from minimllama import ImageTransform

        width, height = CANVASES[tiles]
        self.page = draw_one().resize((width + 90, height + 50))
        config: dict[str, Any] = ImageTransform(MID.vision.tile_size, MID.vision.max_tiles).config()
        self.transform: Any = MllamaImageProcessorPil(
            **{k: v for k, v in config.items() if k != "image_processor_type"}
        )

    def check(self) -> dict[str, Tensor]:
        """The pixels."""
        return {"pixels": self.transform([[self.page]], return_tensors="pt").pixel_values}

    def run(self) -> dict[str, float]:
        """Four pages."""
        with Stopwatch() as watch:
            for _ in range(4):
                self.transform([[self.page]], return_tensors="pt")
        return {"tiling": watch.seconds / 4}
