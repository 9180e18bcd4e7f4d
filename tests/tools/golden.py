"""Reference tensors of transformers in files, as make_oracle.py lays them out, in the words of this project."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from minimllama import ImageBatch, MiniMllama, load_model
from minimllama.config import aspect_ratios
from tests.tools.tiny import one_sample

N_SAMPLES = 5  # one image; two separate ones; two in a row; none; one before bos
MODES = ("meta", "hf", "hf445")


@dataclass
class Reference:
    """One folder of reference tensors, with the model they were computed with.

    Shapes: B = 5 samples, I = 2 image slots, K = 4 tile slots, T tokens.
    """

    folder: Path
    _files: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _models: dict[str, MiniMllama] = field(default_factory=dict)

    def file(self, name: str) -> dict[str, Tensor]:
        """All tensors of one file, read once; empty if the file is not part of this reference."""
        if name not in self._files:
            path = self.folder / f"{name}.safetensors"
            self._files[name] = load_file(path) if path.is_file() else {}
        return self._files[name]

    def model(self, mode: str) -> MiniMllama:
        """Ours, with the reference's weights, read once per mode; do not change it."""
        if mode not in self._models:
            self._models[mode] = load_model(self.folder / "hf_model", semantics=mode)
        return self._models[mode]

    @cached_property
    def tokens(self) -> Tensor:
        """int64 [B, T], padded on the right."""
        return self.file("text")["input_ids"]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return self.file("text")["attention_mask"].sum(-1).tolist()

    @cached_property
    def images(self) -> ImageBatch:
        """The images of all samples."""
        text = self.file("text")
        ids = text["aspect_ratio_ids"]
        ratios = aspect_ratios(text["aspect_ratio_mask"].shape[-1])
        n_tiles = [[ratios[i - 1][0] * ratios[i - 1][1] for i in row if i] for row in ids.tolist()]
        mask = text["aspect_ratio_mask"].bool()
        return ImageBatch(pixels=text["pixel_values"], aspect_ratio_ids=ids, tile_mask=mask, n_tiles=n_tiles)

    def solo_tokens(self, sample: int) -> Tensor:
        """int64 [1, length], one sample without padding."""
        return self.tokens[sample : sample + 1, : self.lengths[sample]]

    def solo_images(self, sample: int) -> ImageBatch | None:
        """One sample's own images, without empty slots; None if it has none."""
        return one_sample(self.images, sample)

    @cached_property
    def labels(self) -> Tensor:
        """int64 [B, T]: the NEXT token, or -100; transformers shifts inside its loss, we outside."""
        labels = self.file("text")["labels"]
        return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
