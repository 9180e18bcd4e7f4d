"""Sizes, presets, and the published configuration files that state them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minimllama import PRESETS, ModelConfig
from minimllama.config import RopeConfig, TextConfig, VisionConfig, aspect_ratios, differences
from minimllama.config_files import cross_layer_indices
from tests.tools.tiny import TINY, with_text, with_vision

# The published params.json of the 11B base model; the 90B differs in a few numbers.
PARAMS = {
    "dim": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 8,
    "vocab_size": 128256,
    "ffn_dim_multiplier": 1.3,
    "multiple_of": 1024,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "use_scaled_rope": True,
    "vision_chunk_size": 448,
    "vision_max_num_chunks": 4,
    "vision_num_cross_attention_layers": 8,
}
PARAMS_90B = {
    **PARAMS,
    "dim": 8192,
    "n_layers": 80,
    "n_heads": 64,
    "multiple_of": 4096,
    "vision_chunk_size": 560,
    "vision_num_cross_attention_layers": 20,
}


def written(folder: Path, fields: object, name: str = "config.json") -> Path:
    (folder / name).write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return folder


# equation


def test_tokens_of_the_published_tiles() -> None:
    small, large = PRESETS["11b"].vision, PRESETS["11b-instruct"].vision
    assert (small.n_patches, small.tokens_per_tile, small.padding_per_tile) == (1024, 1025, 7)
    assert (large.n_patches, large.tokens_per_tile, large.padding_per_tile) == (1600, 1601, 7)
    assert small.n_features == 7680


def test_aspect_ratio_ids_count_grids_row_by_row() -> None:
    assert aspect_ratios(4) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
    assert aspect_ratios(2) == [(1, 1), (1, 2), (2, 1)]


def test_cross_layers_stand_at_3_8_and_so_on() -> None:
    assert cross_layer_indices(32, 8) == (3, 8, 13, 18, 23, 28, 33, 38)
    assert cross_layer_indices(80, 20) == tuple(range(3, 99, 5))
    assert cross_layer_indices(4, 2) == (1, 4)


# parity


def test_params_json_of_the_published_models_gives_the_presets(tmp_path: Path) -> None:
    base = ModelConfig.from_folder(written(tmp_path, PARAMS, "params.json"))
    assert differences(base, PRESETS["11b"]) == ["text.eos_ids: (128001, 128008, 128009) against (128001,)"]
    big = ModelConfig.from_folder(written(tmp_path, PARAMS_90B, "params.json"))
    assert big == PRESETS["90b"]


@pytest.mark.parametrize("name", PRESETS)
def test_what_we_write_means_the_same_to_transformers(name: str, tmp_path: Path) -> None:
    from transformers import MllamaConfig

    from tests.tools.hf import hf_config

    written(tmp_path, PRESETS[name].to_hf("bfloat16"))
    read, expected = MllamaConfig.from_pretrained(tmp_path), hf_config(PRESETS[name])
    ignored = {"transformers_version", "dtype", "architectures", "eos_token_id", "_name_or_path"}
    for part in ("vision_config", "text_config"):
        ours, theirs = (getattr(config, part).to_dict() for config in (read, expected))
        assert {k: v for k, v in ours.items() if k not in ignored} == {
            k: v for k, v in theirs.items() if k not in ignored
        }
    assert read.image_token_index == PRESETS[name].image_token_id


def test_old_files_with_rope_scaling_and_new_files_with_rope_parameters_are_read(tmp_path: Path) -> None:
    old = TINY.to_hf("float32")
    new = json.loads(json.dumps(old))
    text = new["text_config"]
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    new["vision_config"]["num_attention_heads"] = new["vision_config"].pop("attention_heads")
    for fields in (old, new):
        assert ModelConfig.from_folder(written(tmp_path, fields)) == TINY


# property


@pytest.mark.parametrize("config", [TINY, *PRESETS.values()])
def test_writing_and_reading_give_the_same_sizes(config: ModelConfig, tmp_path: Path) -> None:
    assert ModelConfig.from_folder(written(tmp_path, config.to_hf("float32"))) == config


def test_ids_that_transformers_4_57_leaves_out_are_its_defaults(tmp_path: Path) -> None:
    fields = PRESETS["11b"].to_hf("bfloat16")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        del fields["text_config"][name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert ModelConfig.from_folder(tmp_path) == PRESETS["11b"]


def test_config_json_is_preferred_to_params_json(tmp_path: Path) -> None:
    written(tmp_path, PARAMS, "params.json")
    assert ModelConfig.from_folder(written(tmp_path, TINY.to_hf("float32"))) == TINY


def test_differences_are_listed_by_field() -> None:
    other = with_text(with_vision(TINY, mlp_width=29), rope=RopeConfig(theta=1.0))
    assert differences(TINY, TINY) == []
    assert differences(TINY, other) == [
        "vision.mlp_width: 28 against 29",
        "text.rope.theta: 10000.0 against 1.0",
    ]


# refusal


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VisionConfig(tile_size=450), "vision.tile_size=450 is not a multiple of patch_size=14"),
        (lambda: VisionConfig(width=1281), "vision.width=1281 is not a multiple of n_heads=16"),
        (lambda: VisionConfig(taps=(3, 32)), r"vision.taps=\(3, 32\) must be one or more rising numbers in \[0, 32\)"),
        (lambda: VisionConfig(taps=(7, 3)), r"vision.taps=\(7, 3\) must be one or more rising numbers"),
        (lambda: VisionConfig(taps=()), r"vision.taps=\(\) must be one or more rising numbers"),
        (lambda: TextConfig(n_heads=33), "text.n_heads=33 must divide width=4096"),
        (lambda: TextConfig(n_kv_heads=5), "text.n_heads=32 must divide width=4096 and be a multiple of 5"),
        (lambda: TextConfig(cross_layers=(3, 40)), r"text.cross_layers=\(3, 40\) must lie in \[0, 40\)"),
        (
            lambda: ModelConfig(image_token_id=5),
            r"image_token_id=5 must be one of the extra embeddings \[128256, 128264\)",
        ),
    ],
)
def test_contradictory_sizes_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("", "model_type", "llava", "config.model_type='llava' is not supported, only 'mllama'"),
        ("vision_config", "hidden_act", "gelu_tanh", "vision_config.hidden_act='gelu_tanh' is not supported"),
        ("vision_config", "vision_output_dim", 7, "vision_config.vision_output_dim=7 is not supported, only 80"),
        ("vision_config", "supported_aspect_ratios", [[1, 1]], "vision_config.supported_aspect_ratios"),
        ("text_config", "tie_word_embeddings", True, "text_config.tie_word_embeddings=True is not supported"),
        ("text_config", "hidden_act", "gelu", "text_config.hidden_act='gelu' is not supported, only 'silu'"),
    ],
)
def test_files_that_describe_another_model_are_refused(part, field, value, message, tmp_path: Path) -> None:
    fields = TINY.to_hf("float32")
    (fields[part] if part else fields)[field] = value
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_folder(written(tmp_path, fields))


def test_another_rope_is_refused(tmp_path: Path) -> None:
    fields = TINY.to_hf("float32")
    fields["text_config"]["rope_scaling"]["rope_type"] = "yarn"
    with pytest.raises(ValueError, match="rope_type='yarn' is not supported, only 'llama3'"):
        ModelConfig.from_folder(written(tmp_path, fields))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="use_scaled_rope=False is not supported"):
        ModelConfig.from_folder(written(tmp_path, {**PARAMS, "use_scaled_rope": False}, "params.json"))


def test_incomplete_and_damaged_files_say_what_is_wrong(tmp_path: Path) -> None:
    fields = TINY.to_hf("float32")
    del fields["text_config"]["hidden_size"]
    with pytest.raises(ValueError, match=r"config\.json lacks the field 'hidden_size'"):
        ModelConfig.from_folder(written(tmp_path, fields))
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        ModelConfig.from_folder(written(tmp_path, "{"))
    for odd in (
        [],
        {**TINY.to_hf("float32"), "text_config": None},
        {**TINY.to_hf("float32"), "image_token_index": "7"},
    ):
        with pytest.raises(ValueError, match=r"config\.json has a field of another kind than expected"):
            ModelConfig.from_folder(written(tmp_path, json.dumps(odd)))
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json and no params\.json in"):
        ModelConfig.from_folder(tmp_path)


def test_configurations_cannot_be_changed_after_their_check() -> None:
    with pytest.raises(AttributeError):
        TINY.vision.width = 21  # type: ignore[misc]
    assert replace(TINY, image_token_id=321).image_token_id == 321
