"""Llama 3.2 Vision: encoder -> projector -> decoder.

Source: llama-models, models/llama3/multimodal/model.py, CrossAttentionTransformer; the paper's section III.

Shapes: B samples, I image slots, K tile slots, C of them computed, P tokens per tile, V = I * K * P vision
tokens per sample, N images that are computed, R rows of text, T positions, D text width, X vision features, A
supervised positions, W vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from minimllama.config import ModelConfig
from minimllama.image import ImageBatch
from minimllama.kv_cache import KvCache
from minimllama.padding import unfold
from minimllama.text import TextDecoder
from minimllama.visibility import Sight, see
from minimllama.vision import VisionEncoder


@dataclass(frozen=True)
class Semantics:
    """What the references disagree about; docs/quirks.md.

    Attributes:
        tap: "input": a vision tap is the state entering its layer; "output": the state leaving it.
        leak: text positions that may see no image attend to all vision tokens of the batch all the same.
    """

    tap: str
    leak: bool


SEMANTICS = {
    "meta": Semantics(tap="input", leak=False),  # llama-models, for which the weights were trained
    "hf": Semantics(tap="output", leak=True),  # transformers from 4.56 on
    "hf445": Semantics(tap="input", leak=True),  # transformers 4.45 to 4.54
}


class MiniMllama(nn.Module):
    """The whole model, built on whatever device and dtype torch is set to ("meta" included).

    Args:
        config: sizes; `PRESETS["11b"]` and so on.
        semantics: "meta" (default), "hf" or "hf445".
    """

    def __init__(self, config: ModelConfig, semantics: str = "meta") -> None:
        super().__init__()
        if semantics not in SEMANTICS:
            raise ValueError(f"semantics={semantics!r} is not one of {', '.join(SEMANTICS)}")
        self.config, self.semantics = config, semantics
        rules = SEMANTICS[semantics]
        if rules.leak and config.vision.drop_unused_tiles:
            raise ValueError(f"drop_unused_tiles needs semantics='meta', not {semantics!r}, which looks at them")
        self.vision = VisionEncoder(config.vision, tap=rules.tap)
        self.projector = nn.Linear(config.vision.n_features, config.text.width)
        self.text = TextDecoder(config.text, leak=rules.leak)

    @property
    def leak(self) -> bool:
        """Whether positions that see no image attend to everything (transformers)."""
        return SEMANTICS[self.semantics].leak

    def encode(self, images: ImageBatch) -> Tensor | None:
        """Vision tower and projector.

        Empty image slots are not computed unless their tokens leak into the text (semantics "hf", "hf445").

        Returns:
            [B, V, D]; None if no sample has an image.
        """
        b, slots = images.pixels.shape[:2]
        n_tiles = [row[i] if i < len(row) else 0 for row in images.n_tiles for i in range(slots)]
        chosen = [i for i, n in enumerate(n_tiles) if n or self.leak]
        if not any(n_tiles):
            return None
        pixels = images.pixels.flatten(0, 1).to(self.projector.weight.dtype)
        ids = images.aspect_ratio_ids.flatten()
        if len(chosen) < len(n_tiles):
            pixels, ids = pixels[chosen], ids[chosen]
        used = [max(n_tiles[i], 1) for i in chosen]
        features = self.vision(pixels, ids, used, all_slots=False)  # [N, C, P, X]
        states = unfold(self.projector(features), images.pixels.shape[2]).flatten(1, 2)  # [N, K*P, D]
        if len(chosen) < len(n_tiles):
            sparse = states
            states = sparse.new_zeros(b * slots, *sparse.shape[1:])  # [B*I, K*P, D]
            states[chosen] = sparse
        return states.view(b, -1, states.shape[-1])  # [B, V, D]

    def forward(
        self,
        tokens: Tensor,
        images: ImageBatch | None = None,
        visible: Tensor | Sight | None = None,
        *,
        sample_of_row: Sequence[int] | None = None,
        logits_at: Tensor | None = None,
        hidden: bool = False,
    ) -> Tensor:
        """Next-token logits.

        Args:
            tokens: int64 [R, T], padded on the right; R = B unless several rows ask about one sample.
            images: of B samples; None for text only, which skips the cross-attention layers.
            visible: bool [R, T, I, K], or the result of `see`; derived from the image tokens if None.
            sample_of_row: which sample's images each row sees; row r sees sample r's if None.
            logits_at: bool [R, T]; compute the vocabulary only there.
            hidden: return the normalised hidden states [R, T, D] instead of logits.

        Returns:
            [R, T, W], or [A, W] with `logits_at`.

        Raises:
            ValueError: if image tokens and images do not fit together; without images not looked at on accelerators.
        """
        self.check_tokens(tokens)
        states = sight = None
        if images is not None:
            sight = visible if isinstance(visible, Sight) else self.see(tokens, images, visible, sample_of_row)
            states = self.encode(images)
            sight = None if states is None else sight.to(tokens.device)
        elif tokens.device.type == "cpu" and bool((tokens == self.config.image_token_id).any()):
            raise ValueError("a row has an image token, but there are no images")
        x = self.text(tokens, states, sight)  # [R, T, D]
        if hidden:
            return x
        return self.text.lm_head(x if logits_at is None else x[logits_at])

    def see(
        self,
        tokens: Tensor,
        images: ImageBatch,
        visible: Tensor | None = None,
        sample_of_row: Sequence[int] | None = None,
    ) -> Sight:
        """`visibility.see` for this model: what each position of `tokens` sees of `images`."""
        return see(
            tokens,
            images.n_tiles,
            self.config,
            n_slots=images.pixels.shape[1],
            visible=visible,
            sample_of_row=sample_of_row,
            leak=self.leak,
        )

    def check_tokens(self, tokens: Tensor) -> None:
        """Refuse ids that the embedding table does not hold; skipped on accelerators, where looking would wait."""
        n_ids = self.text.embed_tokens.num_embeddings
        if tokens.dim() != 2:
            raise ValueError(f"tokens must be [rows, positions], got {list(tokens.shape)}")
        if tokens.device.type == "cpu" and not 0 <= int(tokens.min()) <= int(tokens.max()) < n_ids:
            raise ValueError(f"token ids from {int(tokens.min())} to {int(tokens.max())} must lie in [0, {n_ids})")

    def empty_cache(self, n_rows: int, n_slots: int) -> KvCache:
        """A cache for n_rows rows of at most n_slots positions, on the model's device."""
        weight = self.text.norm.weight
        return KvCache.empty(self.config.text, n_rows, n_slots, weight.dtype, weight.device)

    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters())
