"""Sizes in published configuration files: config.json (both ways) and params.json.

Sources: config.json of the Hugging Face layout (transformers, models/mllama/configuration_mllama.py) and
params.json of Meta's native layout (llama-models, models/llama3/args.py).
"""

from dataclasses import replace
from typing import Any

from minimllama.sizes import RopeConfig, TextConfig, VisionConfig, aspect_ratios

Json = dict[str, Any]
Parts = tuple[VisionConfig, TextConfig, int]  # the third is the id of the image token
_HF_IDS = {"bos": 128000, "eos": 128001, "pad": 128004}  # defaults of transformers' MllamaTextConfig


def _expect(fields: Json, where: str, accepted: Json) -> None:
    """Refuse a file that asks for something this implementation does not do."""
    for name, value in accepted.items():
        if fields.get(name, value) != value:
            raise ValueError(f"{where}.{name}={fields[name]!r} is not supported, only {value!r}")


def _rope_from_hf(text: Json) -> RopeConfig:
    """Transformers 5 keeps theta inside `rope_parameters`; published files have `rope_theta` and `rope_scaling`."""
    rope = text.get("rope_parameters") or {**text["rope_scaling"], "rope_theta": text["rope_theta"]}
    _expect(rope, "text_config.rope", {"rope_type": "llama3"})
    return RopeConfig(
        theta=rope["rope_theta"],
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_positions=rope["original_max_position_embeddings"],
    )


def _vision_from_hf(vision: Json) -> VisionConfig:
    _expect(vision, "vision_config", {"hidden_act": "gelu", "num_channels": 3})
    sizes = VisionConfig(
        width=vision["hidden_size"],
        n_heads=vision["attention_heads"] if "attention_heads" in vision else vision["num_attention_heads"],
        mlp_width=vision["intermediate_size"],
        n_local_layers=vision["num_hidden_layers"],
        n_global_layers=vision["num_global_layers"],
        taps=tuple(vision["intermediate_layers_indices"]),
        tile_size=vision["image_size"],
        patch_size=vision["patch_size"],
        max_tiles=vision["max_num_tiles"],
        norm_eps=vision.get("norm_eps", 1e-5),
        drop_unused_tiles=vision.get("drop_unused_tiles", False),
    )
    derived = {
        "vision_output_dim": sizes.n_features,
        "supported_aspect_ratios": [list(grid) for grid in aspect_ratios(sizes.max_tiles)],
    }
    _expect(vision, "vision_config", derived)
    return sizes


def read_hf(fields: Json) -> Parts:
    """The content of config.json -> sizes of vision and text, image token id.

    Raises:
        KeyError: if a field is missing.
        ValueError: if the file describes a model that this code is not.
    """
    _expect(fields, "config", {"model_type": "mllama"})
    text = fields["text_config"]
    _expect(text, "text_config", {"hidden_act": "silu", "tie_word_embeddings": False})
    # the three fields that save_pretrained of transformers 4.57 leaves out if they hold the default
    bos, eos, pad = (text.get(f"{name}_token_id", default) for name, default in _HF_IDS.items())
    sizes = TextConfig(
        width=text["hidden_size"],
        mlp_width=text["intermediate_size"],
        n_layers=text["num_hidden_layers"],
        n_heads=text["num_attention_heads"],
        n_kv_heads=text["num_key_value_heads"],
        cross_layers=tuple(text["cross_attention_layers"]),
        vocab_size=text["vocab_size"],
        max_positions=text["max_position_embeddings"],
        norm_eps=text["rms_norm_eps"],
        rope=_rope_from_hf(text),
        bos_id=bos,
        eos_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        pad_id=pad,
    )
    return _vision_from_hf(fields["vision_config"]), sizes, fields["image_token_index"]


def _vision_to_hf(vision: VisionConfig) -> Json:
    ours = {"drop_unused_tiles": True} if vision.drop_unused_tiles else {}  # no other code knows it
    return {
        **ours,
        "model_type": "mllama_vision_model",
        "hidden_size": vision.width,
        "attention_heads": vision.n_heads,
        "intermediate_size": vision.mlp_width,
        "num_hidden_layers": vision.n_local_layers,
        "num_global_layers": vision.n_global_layers,
        "intermediate_layers_indices": list(vision.taps),
        "image_size": vision.tile_size,
        "patch_size": vision.patch_size,
        "max_num_tiles": vision.max_tiles,
        "num_channels": 3,
        "vision_output_dim": vision.n_features,
        "norm_eps": vision.norm_eps,
        "hidden_act": "gelu",
        "supported_aspect_ratios": [list(grid) for grid in aspect_ratios(vision.max_tiles)],
    }


def _text_to_hf(text: TextConfig) -> Json:
    eos = list(text.eos_ids)
    return {
        "model_type": "mllama_text_model",
        "hidden_size": text.width,
        "intermediate_size": text.mlp_width,
        "num_hidden_layers": text.n_layers,
        "num_attention_heads": text.n_heads,
        "num_key_value_heads": text.n_kv_heads,
        "cross_attention_layers": list(text.cross_layers),
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_positions,
        "rms_norm_eps": text.norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "rope_theta": text.rope.theta,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": text.rope.factor,
            "low_freq_factor": text.rope.low_freq_factor,
            "high_freq_factor": text.rope.high_freq_factor,
            "original_max_position_embeddings": text.rope.original_positions,
        },
        "bos_token_id": text.bos_id,
        "eos_token_id": eos[0] if len(eos) == 1 else eos,
        "pad_token_id": text.pad_id,
    }


def write_hf(vision: VisionConfig, text: TextConfig, image_token_id: int, dtype: str) -> Json:
    """Sizes -> the content of config.json, with the field names of the published files."""
    return {
        "architectures": ["MllamaForConditionalGeneration"],
        "model_type": "mllama",
        "image_token_index": image_token_id,
        "torch_dtype": dtype,
        "vision_config": _vision_to_hf(vision),
        "text_config": _text_to_hf(text),
    }


def cross_layer_indices(n_self: int, n_cross: int) -> tuple[int, ...]:
    """Where Meta's separate list of cross-attention layers stands among all layers.

    Cross layer c runs just before self layer f - 1 + c * f, f = ceil(n_self / n_cross): llama-models,
    multimodal/model.py, CrossAttentionTextModel.
    """
    every = -(-n_self // n_cross)
    return tuple(every - 1 + c * (every + 1) for c in range(n_cross))


def read_meta(params: Json, unstated: VisionConfig | None = None) -> Parts:
    """The content of params.json -> sizes of vision and text, image token id.

    Args:
        params: what the file says.
        unstated: the sizes of the vision tower, of which the file holds two; the published ones if None.

    Raises:
        KeyError: if a field is missing.
        ValueError: if the file describes a model that this code is not.
    """
    _expect(params, "params", {"use_scaled_rope": True})
    n_cross = params["vision_num_cross_attention_layers"]
    width = int(params.get("ffn_dim_multiplier", 1.0) * int(8 * params["dim"] / 3))
    multiple = params["multiple_of"]
    stated = {"tile_size": params["vision_chunk_size"], "max_tiles": params["vision_max_num_chunks"]}
    vision = replace(VisionConfig() if unstated is None else unstated, **stated)
    text = TextConfig(
        width=params["dim"],
        mlp_width=-(-width // multiple) * multiple,
        n_layers=params["n_layers"] + n_cross,
        n_heads=params["n_heads"],
        n_kv_heads=params["n_kv_heads"],
        cross_layers=cross_layer_indices(params["n_layers"], n_cross),
        vocab_size=params["vocab_size"],
        norm_eps=params["norm_eps"],
        rope=RopeConfig(theta=params["rope_theta"]),
        eos_ids=(128001, 128008, 128009),
    )
    return vision, text, params["vocab_size"]
