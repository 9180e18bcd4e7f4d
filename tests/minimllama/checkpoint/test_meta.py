"""Meta's native layout: other names, interleaved rotary pairs, position grids, tensor-parallel shards."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minimllama import MiniMllama, load_model
from minimllama.checkpoint.meta import join_pairs, origin, table_of_grid
from tests.tools.golden import Reference
from tests.tools.native import GRIDS, halves_to_neighbours, make_tables_reachable, native_tensors, write_native
from tests.tools.tiny import TINY, tiny_model, with_text, with_vision

# params.json can express an inner width of at least 8/3 widths, and cross layers at regular places
SPLIT = with_text(TINY, mlp_width=132, cross_layers=(2, 6))


@pytest.fixture(scope="module")
def model() -> MiniMllama:
    made = tiny_model(config=SPLIT)
    make_tables_reachable(made)
    return made


# equation


def test_neighbouring_rotary_pairs_become_halves() -> None:
    rows = torch.arange(8.0)[:, None]  # two heads of two pairs: (0 1) (2 3) | (4 5) (6 7)
    assert join_pairs(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(halves_to_neighbours(join_pairs(rows, 2), 2), rows)


def test_a_row_of_the_table_is_the_top_left_corner_of_the_grid() -> None:
    grid = torch.arange(16.0).view(4, 4, 1, 1)
    table = table_of_grid(grid, 4)
    assert table.shape == (9, 4)
    assert table[0].tolist() == [0, 0, 0, 0]  # no image
    assert table[1 + GRIDS.index((2, 2))].tolist() == [0, 1, 4, 5]
    assert table[1 + GRIDS.index((1, 3))].tolist() == [0, 1, 2, 0]
    assert table[1 + GRIDS.index((4, 1))].tolist() == [0, 4, 8, 12]


# parity


@pytest.mark.parametrize("n_shards", [1, 2])
def test_the_stored_native_checkpoint_holds_the_same_weights_bit_for_bit(
    full_reference: Reference, n_shards: int
) -> None:
    folder = full_reference.folder / ("meta_native" if n_shards == 1 else "meta_native_mp2")
    theirs = full_reference.model("meta")
    ours = load_model(folder, config=theirs.config)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), name


# property


@pytest.mark.parametrize("n_shards", [1, 2, 3])
def test_any_number_of_shards_gives_the_same_weights(model: MiniMllama, n_shards: int, tmp_path: Path) -> None:
    loaded = load_model(write_native(model, tmp_path, n_shards), config=SPLIT)
    for (name, p), q in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(p, q[1]), name


def test_a_single_file_may_be_called_consolidated_pth(model: MiniMllama, tmp_path: Path) -> None:
    write_native(model, tmp_path)
    (tmp_path / "consolidated.00.pth").rename(tmp_path / "consolidated.pth")
    assert torch.equal(load_model(tmp_path, config=SPLIT).projector.weight, model.projector.weight)


def test_weights_go_to_the_wanted_dtype(model: MiniMllama, tmp_path: Path) -> None:
    loaded = load_model(write_native(model, tmp_path, 2), dtype=torch.bfloat16, config=SPLIT)
    assert torch.equal(loaded.projector.weight, model.projector.weight.bfloat16())
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert not loaded.training


def test_every_native_tensor_is_the_origin_of_exactly_one_parameter(model: MiniMllama) -> None:
    used = [part for name, _ in model.named_parameters() for part in origin(name, SPLIT).names]
    assert len(used) == len(set(used))
    assert set(used) == set(native_tensors(model)) - {"text_model.rope.freqs"}


# refusal


def change_shard(folder: Path, rank: int, change) -> None:
    path = folder / f"consolidated.{rank:02d}.pth"
    shard = torch.load(path)
    change(shard)
    torch.save(shard, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("text_model.norm.weight"), "missing: text_model.norm.weight"),
        (lambda s: s.update(spare=torch.zeros(1)), "not part of the model: spare"),
        (
            lambda s: s.update({"text_model.norm.weight": torch.zeros(5)}),
            r"wrong shape: text_model.norm.weight is \(5,\), not \(48,\)",
        ),
        (lambda s: s.update(step="3"), "holds entries that are not tensors: step"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(model: MiniMllama, change, message: str, tmp_path: Path) -> None:
    change_shard(write_native(model, tmp_path), 0, change)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, config=SPLIT)


def test_shards_of_different_models_are_refused(model: MiniMllama, tmp_path: Path) -> None:
    write_native(model, tmp_path, 2)
    change_shard(tmp_path, 1, lambda shard: shard.pop("text_model.norm.weight"))
    with pytest.raises(ValueError, match=r"do not hold the same tensors: text_model\.norm\.weight"):
        load_model(tmp_path, config=SPLIT)


def test_a_missing_shard_is_refused(model: MiniMllama, tmp_path: Path) -> None:
    write_native(model, tmp_path, 2)
    (tmp_path / "consolidated.01.pth").unlink()
    with pytest.raises(ValueError, match="wrong shape"):
        load_model(tmp_path, config=SPLIT)


def test_a_damaged_file_is_refused(model: MiniMllama, tmp_path: Path) -> None:
    path = write_native(model, tmp_path) / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"consolidated\.00\.pth is not a complete file of tensors"):
        load_model(tmp_path, config=SPLIT)


class Trap:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("/tmp/minimllama-was-tricked"),))


@pytest.mark.parametrize("content", [[1, 2], Trap(), torch.zeros(2)], ids=["list", "code", "tensor"])
def test_a_file_that_is_not_named_tensors_is_refused_and_not_run(model: MiniMllama, content, tmp_path: Path) -> None:
    torch.save(content, write_native(model, tmp_path) / "consolidated.00.pth")
    with pytest.raises(ValueError, match=r"is not a complete file of tensors|not named tensors"):
        load_model(tmp_path, config=SPLIT)
    assert not Path("/tmp/minimllama-was-tricked").exists()


def test_a_configuration_that_contradicts_params_json_is_refused(model: MiniMllama, tmp_path: Path) -> None:
    write_native(model, tmp_path)
    with pytest.raises(ValueError, match=r"differ \(given against file\): text.n_heads: 3 against 6"):
        load_model(tmp_path, config=with_text(SPLIT, n_heads=3, n_kv_heads=3))


def test_a_configuration_may_say_what_params_json_does_not(model: MiniMllama, tmp_path: Path) -> None:
    write_native(model, tmp_path)
    longer = with_text(SPLIT, max_positions=99, eos_ids=(5,), rope=replace(SPLIT.text.rope, factor=2.0))
    assert load_model(tmp_path, config=longer).config == longer
    with pytest.raises(ValueError, match=r"text\.rope\.theta: 7\.0 against 10000\.0"):
        load_model(tmp_path, config=with_text(SPLIT, rope=replace(SPLIT.text.rope, theta=7.0)))
    with pytest.raises(ValueError, match=r"vision\.tile_size: 15 against 12"):
        load_model(tmp_path, config=with_vision(SPLIT, tile_size=15))


def test_without_a_configuration_the_published_vision_sizes_are_expected(model: MiniMllama, tmp_path: Path) -> None:
    write_native(model, tmp_path)
    with pytest.raises(ValueError, match=r"vision\.tile_size=12 is not a multiple of patch_size=14"):
        load_model(tmp_path)
    params = json.loads((tmp_path / "params.json").read_text())
    (tmp_path / "params.json").write_text(json.dumps({**params, "vision_chunk_size": 14}))
    with pytest.raises(ValueError, match=r"missing: vision_model\.vision_encoder\.global_transformer.* and \d+ more"):
        load_model(tmp_path)
