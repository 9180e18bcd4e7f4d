"""Random weights for training from scratch."""

import math

import pytest
import torch

from minimllama import MiniMllama
from minimllama.init import initialise, sine_positions
from tests.tools.tiny import TINY, with_vision


def fresh(seed: int = 0) -> MiniMllama:
    return initialise(MiniMllama(TINY), torch.Generator().manual_seed(seed))


# equation


def test_positions_are_sines_and_cosines_of_rows_and_columns() -> None:
    table = sine_positions(grid=3, width=8)
    assert table.shape == (10, 8)
    assert not table[0].any(), "the class token stands nowhere"
    row, column = 2, 1
    rates = (1.0, 0.1)
    expected = [f(x * rate) for x in (row, column) for f in (math.sin, math.cos) for rate in rates]
    torch.testing.assert_close(table[1 + row * 3 + column], torch.tensor(expected))


def test_matrices_have_the_deviation_of_one_over_the_root_of_their_inputs() -> None:
    model = fresh()
    text, wide = TINY.text, model.text.lm_head.weight
    assert wide.std().item() == pytest.approx(text.width**-0.5, rel=0.05)
    residual = torch.stack([layer.mlp.down_proj.weight for layer in model.text.layers])
    assert residual.std().item() == pytest.approx((text.mlp_width * 2 * text.n_layers) ** -0.5, rel=0.05)


# property


def test_blank_paper_gives_nothing() -> None:
    filters = fresh().vision.patches.weight
    assert filters.sum(dim=(1, 2, 3)).abs().max() < 1e-5


def test_positions_reach_the_tokens_as_they_are() -> None:
    positions = fresh().vision.positions
    seen = (1 - positions.gate.tanh()) * positions.embedding
    grid = TINY.vision.tile_size // TINY.vision.patch_size
    torch.testing.assert_close(seen, sine_positions(grid, TINY.vision.width))


def test_the_same_generator_gives_the_same_weights_and_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    models = [fresh(3), fresh(3), fresh(4)]
    one, same, other = ([p for _, p in sorted(m.named_parameters())] for m in models)
    assert all(torch.equal(p, q) for p, q in zip(one, same, strict=True))
    assert any(not torch.equal(p, q) for p, q in zip(one, other, strict=True))
    del state  # building a model draws from the global state; initialising does not:
    model = MiniMllama(TINY)
    state = torch.get_rng_state()
    initialise(model, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_parameter_is_filled() -> None:
    model = MiniMllama(TINY)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(math.nan)
    initialise(model, torch.Generator().manual_seed(0))
    assert [name for name, p in model.named_parameters() if not p.isfinite().all()] == []


def test_gates_start_open_and_norms_as_the_identity() -> None:
    model = fresh()
    assert {p.item() for name, p in model.named_parameters() if "gate" in name.split(".")[-1]} == {1.0}
    assert torch.equal(model.text.norm.weight, torch.ones(TINY.text.width))
    assert torch.equal(model.vision.norm_pre.bias, torch.zeros(TINY.vision.width))


# refusal: a width that does not divide by four keeps its last features free of position


def test_a_width_that_is_no_multiple_of_four_is_not_overrun() -> None:
    table = sine_positions(grid=2, width=10)
    assert table.shape == (5, 10)
    assert not table[:, 8:].any()
    assert initialise(MiniMllama(with_vision(TINY, width=22)), torch.Generator().manual_seed(0)) is not None
