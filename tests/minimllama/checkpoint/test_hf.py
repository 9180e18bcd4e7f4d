"""Names of the Hugging Face layout, in both families."""

import pytest
import torch

from minimllama import PRESETS, MiniMllama
from minimllama.checkpoint.hf import find_family, hf_name, hf_namer
from tests.tools.hf import hf_config
from tests.tools.tiny import TINY

CROSS = PRESETS["11b"].text.cross_layers


# equation


@pytest.mark.parametrize(
    ("ours", "files", "memory"),
    [
        (
            "text.layers.3.attention_gate",
            "language_model.model.layers.3.cross_attn_attn_gate",
            "model.language_model.layers.3.cross_attn_attn_gate",
        ),
        (
            "text.layers.4.attention.q_proj.weight",
            "language_model.model.layers.4.self_attn.q_proj.weight",
            "model.language_model.layers.4.self_attn.q_proj.weight",
        ),
        ("text.lm_head.weight", "language_model.lm_head.weight", "lm_head.weight"),
        ("text.norm.weight", "language_model.model.norm.weight", "model.language_model.norm.weight"),
        ("projector.bias", "multi_modal_projector.bias", "model.multi_modal_projector.bias"),
        ("projector", "multi_modal_projector", "model.multi_modal_projector"),
        ("vision.patches.weight", "vision_model.patch_embedding.weight", "model.vision_model.patch_embedding.weight"),
        (
            "vision.global_layers.7.mlp_gate",
            "vision_model.global_transformer.layers.7.gate_ffn",
            "model.vision_model.global_transformer.layers.7.gate_ffn",
        ),
        (
            "vision.positions.table",
            "vision_model.gated_positional_embedding.tile_embedding.weight",
            "model.vision_model.gated_positional_embedding.tile_embedding.weight",
        ),
    ],
)
def test_names_of_both_families(ours: str, files: str, memory: str) -> None:
    assert hf_name(ours, CROSS) == hf_name(ours, CROSS, "files") == files
    assert hf_namer(CROSS, "memory")(ours) == memory
    assert find_family([files]) == "files"
    assert find_family([memory]) == "memory"


def test_the_11b_has_906_tensors() -> None:
    with torch.device("meta"):
        names = [hf_name(name, CROSS) for name, _ in MiniMllama(PRESETS["11b"]).named_parameters()]
    assert len(names) == len(set(names)) == 906


# parity


def test_names_and_shapes_are_those_of_transformers() -> None:
    from transformers import MllamaForConditionalGeneration

    with torch.device("meta"):
        theirs = {n: p.shape for n, p in MllamaForConditionalGeneration(hf_config(TINY)).named_parameters()}
        namer = hf_namer(TINY.text.cross_layers, "memory")
        ours = {namer(n): p.shape for n, p in MiniMllama(TINY).named_parameters()}
    assert ours == theirs


# property


def test_module_paths_have_names_too() -> None:
    with torch.device("meta"):
        model = MiniMllama(TINY)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    named = {hf_name(name, TINY.text.cross_layers) for name in linear}
    assert len(named) == len(linear)
    assert all(f"{name}.weight" for name in named)


# refusal


@pytest.mark.parametrize("name", ["text.nothing", "vision.nothing.weight", "text.layers.3.nothing.weight"])
def test_a_name_that_the_model_does_not_have_is_an_error(name: str) -> None:
    with pytest.raises(KeyError, match="nothing"):
        hf_name(name, CROSS)
