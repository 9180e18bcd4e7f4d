"""Rotary positions with Llama 3.1's frequency scaling."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minimllama.config import PRESETS, RopeConfig
from minimllama.rope import apply_rope, rope_cos_sin, rope_frequencies

PUBLISHED = RopeConfig()


# equation


def test_one_pair_turns_by_its_angle() -> None:
    quarter = math.pi / 2
    x = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    cos, sin = (torch.full((1, 1, 1, 1), f(quarter)) for f in (math.cos, math.sin))
    torch.testing.assert_close(apply_rope(x, cos, sin).flatten(), torch.tensor([-2.0, 1.0]))


def test_pairs_are_halves_not_neighbours() -> None:
    x = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4)
    cos, sin = rope_cos_sin(torch.tensor([[3]]), rope_frequencies(RopeConfig(theta=100.0, factor=1.0), 4))
    turned = apply_rope(x, cos, sin).flatten()  # element 0 turns with element 2, by 3 radians
    torch.testing.assert_close(turned, torch.tensor([math.cos(3), 0, math.sin(3), 0]))


def test_long_wavelengths_are_divided_by_eight_and_those_between_by_less() -> None:
    plain = 500000.0 ** -(torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    divisors = plain / rope_frequencies(PUBLISHED, 128).double()
    torch.testing.assert_close(divisors[:29], torch.ones(29).double(), atol=1e-5, rtol=0.0)
    between = torch.tensor([1.2075, 1.5534, 2.0263, 2.6945, 3.6843, 5.2573]).double()  # worked out by hand
    torch.testing.assert_close(divisors[29:35], between, atol=1e-3, rtol=0.0)
    torch.testing.assert_close(divisors[35:], torch.full((29,), 8.0).double(), atol=1e-4, rtol=0.0)


# parity


def test_frequencies_equal_those_of_transformers_bit_for_bit() -> None:
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig
    from transformers.models.mllama.modeling_mllama import MllamaRotaryEmbedding

    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    parameters = {**scaling, "rope_theta": 500000.0, "original_max_position_embeddings": 8192}
    theirs = MllamaRotaryEmbedding(MllamaTextConfig(rope_parameters=parameters))
    assert torch.equal(rope_frequencies(PUBLISHED, 128), theirs.inv_freq)
    positions = torch.tensor([[0, 1, 63, 1024, 8191, 60000, 131071]])
    cos, sin = theirs(torch.zeros(1), positions)
    ours = rope_cos_sin(positions, rope_frequencies(PUBLISHED, 128))
    assert torch.equal(ours[0][:, 0], cos[..., :64])
    assert torch.equal(ours[1][:, 0], sin[..., :64])


def test_frequencies_equal_the_stored_ones(shared: Path) -> None:
    stored = load_file(shared / "parity" / "oracle_seed0" / "rope.safetensors")
    assert torch.equal(rope_frequencies(PUBLISHED, 128), stored["b11.inv_freq"])
    assert torch.equal(rope_frequencies(PUBLISHED, 16), stored["tiny.inv_freq"])
    cos, sin = rope_cos_sin(stored["b11.pos"][None], rope_frequencies(PUBLISHED, 128))
    for ours, theirs in ((cos, stored["b11.cos"]), (sin, stored["b11.sin"])):
        torch.testing.assert_close(ours[0, 0].repeat(1, 2), theirs, atol=1e-6, rtol=0.0)


# property


def test_position_zero_changes_nothing() -> None:
    x = torch.randn(2, 3, 1, 8)
    assert torch.equal(
        apply_rope(x, *rope_cos_sin(torch.zeros(2, 1, dtype=torch.int64), rope_frequencies(PUBLISHED, 8))), x
    )


def test_rotation_keeps_lengths() -> None:
    x = torch.randn(1, 2, 50, 8)
    turned = apply_rope(x, *rope_cos_sin(torch.arange(50)[None], rope_frequencies(PUBLISHED, 8)))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("shift", [1, 100, 4000])
def test_products_depend_on_distances_only(shift: int) -> None:
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(at_q: int, at_k: int) -> torch.Tensor:
        turned = [
            apply_rope(x, *rope_cos_sin(torch.tensor([[at]]), rope_frequencies(PUBLISHED, 16)))
            for x, at in ((q, at_q), (k, at_k))
        ]
        return (turned[0] * turned[1]).sum()

    # float32 angles of a few thousand radians are good to about 2e-4
    torch.testing.assert_close(product(7 + shift, 3 + shift), product(7, 3), atol=2e-3, rtol=0.0)


def test_bfloat16_inputs_are_rotated_in_float32() -> None:
    x = torch.randn(1, 2, 9, 8)
    angles = rope_cos_sin(torch.arange(9)[None] + 100, rope_frequencies(PUBLISHED, 8))
    assert angles[0].dtype == torch.float32
    low = x.bfloat16()
    assert torch.equal(apply_rope(low, *angles), apply_rope(low.float(), *angles).bfloat16())


def test_a_model_built_on_meta_gets_real_frequencies() -> None:
    with torch.device("meta"):
        assert rope_frequencies(PRESETS["11b"].text.rope, 128).device.type == "cpu"
