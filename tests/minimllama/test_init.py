"""Random weights: their sizes by the formula, blank paper, and where randomness comes from."""

import math

import pytest
import torch

from minimllama import MiniMllama
from minimllama.init import GATE, initialise, sine_positions
from tests.tools.tiny import TINY, with_text, with_vision


def made(seed: int = 0) -> MiniMllama:
    """Wider than the tiny model, so that a standard deviation can be estimated."""
    config = with_text(with_vision(TINY, width=80, mlp_width=112), width=96, mlp_width=160)
    return initialise(MiniMllama(config), torch.Generator().manual_seed(seed))


def test_positions_are_sines_and_cosines_of_row_and_column() -> None:
    table = sine_positions(grid=3, width=8)  # rates 1 and 0.1
    assert table.shape == (1 + 9, 8)
    assert not table[0].any()  # the class token
    row, column = 2, 1
    wanted = [f(rate * at) for at in (row, column) for f in (math.sin, math.cos) for rate in (1, 0.1)]
    torch.testing.assert_close(table[1 + 3 * row + column], torch.tensor(wanted))


def test_positions_keep_their_size_behind_the_gate() -> None:
    positions = made().vision.positions
    grid = TINY.vision.tile_size // TINY.vision.patch_size
    seen = (1 - positions.gate.tanh()) * positions.embedding
    torch.testing.assert_close(seen, sine_positions(grid, 80))


@pytest.mark.parametrize(
    ("name", "inputs", "branches"),
    [
        ("vision.local_layers.0.attention.q_proj", 80, None),
        ("vision.local_layers.4.mlp.fc2", 112, 2 * (5 + 3)),
        ("text.layers.0.mlp.gate_proj", 96, None),
        ("text.layers.1.attention.o_proj", 96, 2 * 7),
        ("text.layers.6.mlp.down_proj", 160, 2 * 7),
        ("projector", 80 * 4, None),
    ],
)
def test_a_matrix_has_deviation_one_over_the_root_of_its_inputs(name: str, inputs: int, branches: int | None) -> None:
    """Projections into the residual stream are smaller by the root of their number: two per layer of the tower."""
    weight = made().get_submodule(name).weight
    wanted = 1 / math.sqrt(inputs * (branches or 1))
    # at least 6,400 numbers: the estimate is within 4 % in all but one case of a million
    assert weight.std().item() == pytest.approx(wanted, rel=0.04)
    assert abs(weight.mean().item()) < 0.06 * wanted


def test_blank_paper_gives_nothing() -> None:
    model = made()
    blank = torch.full((1, 1, 3, 12, 12), 1.7)
    torch.testing.assert_close(model.vision.patches(blank), torch.zeros(1, 1, 16, 80), atol=1e-5, rtol=0)


def test_norms_begin_as_the_identity_and_gates_open() -> None:
    for name, p in made().named_parameters():
        leaf = name.split(".")[-1]
        if "gate" in leaf:
            assert p.item() == GATE, name
        elif "norm" in name:
            assert bool((p == (0.0 if leaf == "bias" else 1.0)).all()), name
        elif leaf == "bias":
            assert not p.any(), name


def test_weights_depend_on_the_generator_only() -> None:
    model = made()
    torch.manual_seed(17)
    again, other = made(), made(seed=1)
    for (name, p), q, r in zip(model.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        if p.dim() > 1 and name != "vision.positions.embedding":  # sines, the same for every seed
            assert not torch.equal(p, r), name
