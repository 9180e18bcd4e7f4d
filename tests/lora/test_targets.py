"""Which layers a target means."""

import pytest

from lora.targets import GROUPS, find_targets
from tests.tools.tiny import TINY, tiny_model

VISION = 6 * (TINY.vision.n_local_layers + TINY.vision.n_global_layers)  # four projections, fc1, fc2
TEXT = 7 * TINY.text.n_layers  # four projections, gate, up, down
CROSS = 7 * len(TINY.text.cross_layers)


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("all-linear", VISION + 1 + TEXT),
        ("vision", VISION),
        ("text", TEXT),
        ("cross", 1 + CROSS),
        ("attention", 4 * (8 + TINY.text.n_layers)),
    ],
)
def test_a_group_has_its_layers(target: str, count: int) -> None:
    assert len(find_targets(tiny_model(), target)) == count


def test_all_groups_are_covered_above() -> None:
    assert set(GROUPS) == {"all-linear", "vision", "text", "cross", "attention"}


def test_a_pattern_is_compared_with_whole_paths() -> None:
    found = find_targets(tiny_model(), "text.layers.*.attention.q_proj")
    assert found == [f"text.layers.{i}.attention.q_proj" for i in range(TINY.text.n_layers)]


def test_several_targets_are_joined_in_the_models_order() -> None:
    found = find_targets(tiny_model(), ("text.layers.2.mlp.up_proj", "projector", "vision.local_layers.1.mlp.*"))
    assert found == [
        "vision.local_layers.1.mlp.fc1",
        "vision.local_layers.1.mlp.fc2",
        "projector",
        "text.layers.2.mlp.up_proj",
    ]


def test_the_cross_group_is_the_projector_and_the_cross_attention_layers() -> None:
    found = find_targets(tiny_model(), "cross")
    layers = {name.split(".")[2] for name in found if name != "projector"}
    assert layers == {str(i) for i in TINY.text.cross_layers}
    assert "projector" in found


@pytest.mark.parametrize("target", ["all-linear", "text", "*"])
def test_the_head_is_never_a_target(target: str) -> None:
    assert not [name for name in find_targets(tiny_model(), target) if "lm_head" in name]


def test_no_target_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"targets is empty: name a group \(all-linear"):
        find_targets(tiny_model(), ())


@pytest.mark.parametrize("target", ["q_proj", "text.layers.99.*", "*.lm_head", "text.norm"])
def test_a_pattern_that_matches_nothing_is_an_error_that_shows_a_path(target: str) -> None:
    with pytest.raises(
        ValueError, match=r"neither a group .*all-linear.* nor does it match .*vision.local_layers"
    ) as error:
        find_targets(tiny_model(), ("text", target))
    assert repr(target) in str(error.value)
