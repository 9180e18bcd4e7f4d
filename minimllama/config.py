"""The sizes of a model, the published presets, and the files they are read from."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minimllama.config_files import Json, read_hf, read_meta, write_hf
from minimllama.sizes import RopeConfig, TextConfig, VisionConfig, aspect_ratios

__all__ = ["PRESETS", "ModelConfig", "RopeConfig", "TextConfig", "VisionConfig", "aspect_ratios", "differences"]


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
    def from_folder(cls, folder: str | Path, *, unstated: VisionConfig | None = None) -> "ModelConfig":
        """Read config.json (Hugging Face layout) or params.json (Meta's layout) in `folder`.

        Args:
            folder: of a checkpoint.
            unstated: the vision sizes that params.json does not hold; the published ones if None.

        Raises:
            FileNotFoundError: if neither file is there.
            ValueError: if the file describes another model.
        """
        folder = Path(folder)
        for name in ("config.json", "params.json"):
            path = folder / name
            if not path.is_file():
                continue
            try:
                fields = json.loads(path.read_text())
                parts = read_hf(fields) if name == "config.json" else read_meta(fields, unstated)
                config = cls(vision=parts[0], text=parts[1], image_token_id=parts[2])
            except KeyError as error:
                raise ValueError(f"{path} lacks the field {error}") from error
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} is not JSON: {error}") from error
            except (TypeError, AttributeError, ZeroDivisionError) as error:
                raise ValueError(f"{path} has a field of another kind than expected: {error}") from error
            return config
        raise FileNotFoundError(f"no config.json and no params.json in {folder}")

    def to_hf(self, dtype: str) -> Json:
        """The content of config.json for weights of this dtype, such as "bfloat16"."""
        return write_hf(self.vision, self.text, self.image_token_id, dtype)


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
# The packaged demo checkpoint: every part of the real model, small enough to learn on two CPU cores.
_NANO = ModelConfig(
    vision=VisionConfig(
        width=128,
        n_heads=4,
        mlp_width=512,
        n_local_layers=4,
        n_global_layers=2,
        taps=(1, 3),
        tile_size=256,
        patch_size=32,
        max_tiles=2,
    ),
    text=TextConfig(
        width=128,
        mlp_width=256,
        n_layers=4,
        n_heads=4,
        n_kv_heads=2,
        cross_layers=(1, 3),
        vocab_size=768,
        max_positions=8192,
        bos_id=1,
        eos_ids=(2, 6, 7),
        pad_id=3,
    ),
    image_token_id=768,
)
PRESETS: dict[str, ModelConfig] = {"nano": _NANO, "11b": _BASE, "11b-instruct": _INSTRUCT, "90b": _90B}


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
