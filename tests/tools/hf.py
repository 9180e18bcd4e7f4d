"""A tiny Llama 3.2 Vision in transformers, in three modes, for comparisons that need no stored tensors.

transformers as installed is mode "hf". The other two replace one method each: "hf445" reads the taps where
transformers up to 4.54 and Meta read them; "meta" also zeroes the attention of rows that see nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers.models.mllama.modeling_mllama as mllama
from torch import Tensor
from transformers import MllamaConfig, MllamaForConditionalGeneration
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from minimllama import ImageBatch, ModelConfig


def hf_config(config: ModelConfig) -> MllamaConfig:
    """Our sizes in their words, written out here so that it does not lean on our own converter."""
    vision, text, rope = config.vision, config.text, config.text.rope
    return MllamaConfig(
        vision_config=MllamaVisionConfig(
            hidden_size=vision.width,
            attention_heads=vision.n_heads,
            intermediate_size=vision.mlp_width,
            num_hidden_layers=vision.n_local_layers,
            num_global_layers=vision.n_global_layers,
            intermediate_layers_indices=list(vision.taps),
            image_size=vision.tile_size,
            patch_size=vision.patch_size,
            max_num_tiles=vision.max_tiles,
            vision_output_dim=vision.n_features,
            norm_eps=vision.norm_eps,
            supported_aspect_ratios=[[r, c] for r in range(1, 5) for c in range(1, 5) if r * c <= vision.max_tiles],
        ),
        text_config=MllamaTextConfig(
            hidden_size=text.width,
            intermediate_size=text.mlp_width,
            num_hidden_layers=text.n_layers,
            num_attention_heads=text.n_heads,
            num_key_value_heads=text.n_kv_heads,
            cross_attention_layers=list(text.cross_layers),
            vocab_size=text.vocab_size,
            max_position_embeddings=text.max_positions,
            rms_norm_eps=text.norm_eps,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": rope.theta,
                "factor": rope.factor,
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                "original_max_position_embeddings": rope.original_positions,
            },
            bos_token_id=text.bos_id,
            eos_token_id=list(text.eos_ids),
            pad_token_id=text.pad_id,
        ),
        image_token_index=config.image_token_id,
    )


@torch.no_grad()
def hf_model(config: ModelConfig, seed: int = 0) -> MllamaForConditionalGeneration:
    """A random model whose every parameter is away from its neutral value, in evaluation mode."""
    model = MllamaForConditionalGeneration(hf_config(config)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if "gate" in name.split(".")[-1]:
            p.copy_(0.6 + 0.2 * noise)
        elif "norm" in name and name.endswith("weight"):
            p.copy_(1 + 0.2 * noise)
        elif name.endswith("bias") or "embed" in name:
            p.copy_(0.3 * noise)
        else:
            p.copy_(noise / max(p[0].numel(), 1) ** 0.5)
    return model


def _taps_are_inputs(self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Any:
    """MllamaVisionEncoder.forward whose i-th state is what enters layer i."""
    states = ()
    for layer in self.layers:
        states = (*states, hidden_states)
        hidden_states = layer(hidden_states=hidden_states, attention_mask=attention_mask)
    return mllama.BaseModelOutput(last_hidden_state=hidden_states, hidden_states=states)


def _blind_rows_are_zeroed(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
    """MllamaCrossAttentionDecoderLayer.forward that is the identity for rows which see nothing."""
    sees = given["full_text_row_masked_out_mask"][:, 0]
    attended, _ = self.cross_attn(
        hidden_states=self.input_layernorm(hidden_states),
        attention_mask=given["cross_attention_mask"],
        cross_attention_states=given["cross_attention_states"],
        past_key_values=given.get("past_key_values"),
    )
    hidden_states = hidden_states + self.cross_attn_attn_gate.tanh() * sees * attended
    update = self.mlp(self.post_attention_layernorm(hidden_states))
    return hidden_states + self.cross_attn_mlp_gate.tanh() * sees * update


@contextmanager
def hf_semantics(mode: str) -> Iterator[None]:
    """Run transformers in one of the modes "hf", "hf445" and "meta"."""
    encoder, layer = mllama.MllamaVisionEncoder, mllama.MllamaCrossAttentionDecoderLayer
    kept = encoder.forward, layer.forward
    try:
        if mode in ("hf445", "meta"):
            encoder.forward = _taps_are_inputs
        if mode == "meta":
            layer.forward = _blind_rows_are_zeroed
        yield
    finally:
        encoder.forward, layer.forward = kept


def hf_visibility(tokens: Tensor, n_tiles: Sequence[Sequence[int]], config: ModelConfig) -> Tensor:
    """Their cross attention mask, int64 [B, T, I, K], from their own two functions."""
    intervals = [get_cross_attention_token_mask(row, config.image_token_id) for row in tokens.tolist()]
    dense = convert_sparse_cross_attention_mask_to_dense(
        intervals, [list(row) for row in n_tiles], config.vision.max_tiles, tokens.shape[1]
    )
    return torch.from_numpy(np.asarray(dense))


def hf_inputs(tokens: Tensor, images: ImageBatch, config: ModelConfig) -> dict[str, Any]:
    """Arguments of their forward, the cross attention mask always among them."""
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),  # right padding changes nothing for the tokens before it
        "pixel_values": images.pixels,
        "aspect_ratio_ids": images.aspect_ratio_ids,
        "aspect_ratio_mask": images.tile_mask.long(),
        "cross_attention_mask": hf_visibility(tokens, images.n_tiles, config),
        "use_cache": False,
    }
