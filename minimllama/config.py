"""Sizes of the model, its presets, and how they are read from and written to published configuration files.

Sources: config.json of the Hugging Face layout (transformers, models/mllama/configuration_mllama.py) and
params.json of Meta's native layout (llama-models, models/llama3/args.py).
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def aspect_ratios(max_tiles: int) -> list[tuple[int, int]]:
    """All (rows, columns) grids of at most `max_tiles` tiles; the grid at index i has aspect ratio id i + 1.

    Id 0 means "no image in this slot". llama-models, multimodal/image_transform.py,
    find_supported_resolutions.
    """
    sides = range(1, max_tiles + 1)
    return [(rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles]


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision tower: a ViT over all tiles of an image, taps, and a gated global encoder."""

    width: int = 1280
    n_heads: int = 16
    mlp_width: int = 5120
    n_local_layers: int = 32
    n_global_layers: int = 8
    taps: tuple[int, ...] = (3, 7, 15, 23, 30)  # local layers whose state joins the features
    tile_size: int = 448  # pixels
    patch_size: int = 14  # pixels
    max_tiles: int = 4
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.tile_size % self.patch_size:
            raise ValueError(f"vision.tile_size={self.tile_size} is not a multiple of patch_size={self.patch_size}")
        if self.width % self.n_heads:
            raise ValueError(f"vision.width={self.width} is not a multiple of n_heads={self.n_heads}")
        inside = all(0 <= i < self.n_local_layers for i in self.taps)
        if not self.taps or not inside or list(self.taps) != sorted(set(self.taps)):
            raise ValueError(
                f"vision.taps={self.taps} must be one or more rising numbers in [0, {self.n_local_layers})"
            )

    @property
    def n_patches(self) -> int:
        """Patches per tile."""
        return (self.tile_size // self.patch_size) ** 2

    @property
    def tokens_per_tile(self) -> int:
        """Patches and one class token."""
        return self.n_patches + 1

    @property
    def padding_per_tile(self) -> int:
        """Zero tokens that round a tile's tokens up to a multiple of 8."""
        return -self.tokens_per_tile % 8

    @property
    def n_features(self) -> int:
        """Features per vision token: the last state and every tap."""
        return self.width * (1 + len(self.taps))


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary angles with Llama 3.1's stretching of long wavelengths."""

    theta: float = 500000.0
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text model: Llama 3.1 layers with cross-attention layers in between."""

    width: int = 4096
    mlp_width: int = 14336
    n_layers: int = 40  # self- and cross-attention layers together
    n_heads: int = 32
    n_kv_heads: int = 8
    cross_layers: tuple[int, ...] = (3, 8, 13, 18, 23, 28, 33, 38)
    vocab_size: int = 128256
    n_extra_embeddings: int = 8  # embedded, never predicted; the first one is the image token
    max_positions: int = 131072
    norm_eps: float = 1e-5
    rope: RopeConfig = RopeConfig()
    bos_id: int = 128000
    eos_ids: tuple[int, ...] = (128001,)
    pad_id: int = 128004

    def __post_init__(self) -> None:
        if self.width % self.n_heads or self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"text.n_heads={self.n_heads} must divide width={self.width} and be a multiple of {self.n_kv_heads}"
            )
        if any(not 0 <= i < self.n_layers for i in self.cross_layers):
            raise ValueError(f"text.cross_layers={self.cross_layers} must lie in [0, {self.n_layers})")

    @property
    def head_width(self) -> int:
        """Features per attention head."""
        return self.width // self.n_heads


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Both towers and the id that stands for an image in the token stream."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    image_token_id: int = 128256

    def __post_init__(self) -> None:
        first, last = self.text.vocab_size, self.text.vocab_size + self.text.n_extra_embeddings
        if not first <= self.image_token_id < last:
            raise ValueError(
                f"image_token_id={self.image_token_id} must be one of the extra embeddings [{first}, {last})"
            )

    @classmethod
    def from_folder(cls, folder: str | Path) -> "ModelConfig":
        """Read config.json (Hugging Face layout) or params.json (Meta's layout) in `folder`.

        params.json does not hold the vision sizes; the published ones are assumed.

        Raises:
            FileNotFoundError: if neither file is there.
            ValueError: if the file describes another model.
        """
        folder = Path(folder)
        for name, read in (("config.json", config_from_hf), ("params.json", config_from_meta)):
            if (folder / name).is_file():
                try:
                    return read(json.loads((folder / name).read_text()))
                except KeyError as error:
                    raise ValueError(f"{folder / name} lacks the field {error}") from error
                except json.JSONDecodeError as error:
                    raise ValueError(f"{folder / name} is not JSON: {error}") from error
        raise FileNotFoundError(f"no config.json and no params.json in {folder}")


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


def config_from_hf(fields: Json) -> ModelConfig:
    """The content of config.json -> ModelConfig."""
    _expect(fields, "config", {"model_type": "mllama"})
    vision, text = fields["vision_config"], fields["text_config"]
    _expect(vision, "vision_config", {"hidden_act": "gelu", "num_channels": 3})
    _expect(text, "text_config", {"hidden_act": "silu", "tie_word_embeddings": False})
    eos = text["eos_token_id"]
    config = ModelConfig(
        vision=VisionConfig(
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
        ),
        text=TextConfig(
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
            bos_id=text["bos_token_id"],
            eos_ids=tuple(eos) if isinstance(eos, list) else (eos,),
            pad_id=text["pad_token_id"],
        ),
        image_token_id=fields["image_token_index"],
    )
    derived = {
        "vision_output_dim": config.vision.n_features,
        "supported_aspect_ratios": [list(grid) for grid in aspect_ratios(config.vision.max_tiles)],
    }
    _expect(vision, "vision_config", derived)
    return config


def config_to_hf(config: ModelConfig, dtype: str) -> Json:
    """ModelConfig -> the content of config.json, with the field names of the published files."""
    vision, text = config.vision, config.text
    eos = list(text.eos_ids)
    return {
        "architectures": ["MllamaForConditionalGeneration"],
        "model_type": "mllama",
        "image_token_index": config.image_token_id,
        "torch_dtype": dtype,
        "vision_config": {
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
        },
        "text_config": {
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
        },
    }


def cross_layer_indices(n_self: int, n_cross: int) -> tuple[int, ...]:
    """Where Meta's separate list of cross-attention layers stands among all layers.

    Cross layer c runs just before self layer f - 1 + c * f, f = ceil(n_self / n_cross): llama-models,
    multimodal/model.py, CrossAttentionTextModel.
    """
    every = -(-n_self // n_cross)
    return tuple(every - 1 + c * (every + 1) for c in range(n_cross))


def config_from_meta(params: Json) -> ModelConfig:
    """The content of params.json -> ModelConfig, with the published sizes of the vision tower."""
    _expect(params, "params", {"use_scaled_rope": True})
    n_cross = params["vision_num_cross_attention_layers"]
    width = int(params.get("ffn_dim_multiplier", 1.0) * int(8 * params["dim"] / 3))
    multiple = params["multiple_of"]
    return ModelConfig(
        vision=VisionConfig(tile_size=params["vision_chunk_size"], max_tiles=params["vision_max_num_chunks"]),
        text=TextConfig(
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
        ),
        image_token_id=params["vocab_size"],
    )


_BASE = ModelConfig()
_INSTRUCT = ModelConfig(vision=VisionConfig(tile_size=560), text=TextConfig(eos_ids=(128001, 128008, 128009)))
_90B = replace(
    _INSTRUCT,
    text=replace(
        _INSTRUCT.text,
        width=8192,
        mlp_width=28672,
        n_layers=100,
        n_heads=64,
        cross_layers=tuple(range(3, 99, 5)),
    ),
)
PRESETS: dict[str, ModelConfig] = {"11b": _BASE, "11b-instruct": _INSTRUCT, "90b": _90B}


def differences(a: ModelConfig, b: ModelConfig) -> list[str]:
    """Human-readable list of the fields in which two configurations differ."""

    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {
            key: leaf for name, part in value.items() for key, leaf in flat(f"{prefix}.{name}".strip("."), part).items()
        }

    left, right = flat("", asdict(a)), flat("", asdict(b))
    return [f"{name}: {left[name]!r} against {right[name]!r}" for name in left if left[name] != right[name]]
