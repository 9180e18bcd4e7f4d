"""Whole runs on several ranks: what they leave, and going on from it on as many ranks, more, or one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tools.gloo import run_ranks
from tests.train.conftest import differences, saved_state, tiny_recipe
from train.checkpoint import verify
from train.config import RunConfig, to_toml
from train.distributed import World
from train.log import read_log
from train.loop import run
from train.setup import load_batches, prepare
from train.shard import ShardConfig

EXACT = ("step", "epoch", "samples", "loss", "lr", "grad_norm")


def recipe(out: Path, model: Path, strategy: str, images: int, accumulate: int, dropout: float = 0.0) -> RunConfig:
    """Four steps of four pages, saved after every second."""
    config = tiny_recipe(out, model)
    return replace(
        config,
        optim=replace(config.optim, steps=4),
        tuning=replace(config.tuning, dropout=dropout),
        batch=replace(config.batch, images_per_forward=images, accumulate=accumulate),
        shard=ShardConfig(strategy=strategy, group=2),
        save=replace(config.save, every=2),
    )


def halfway(config: RunConfig, straight: Path) -> RunConfig:
    """A folder as a kill after the third step leaves it."""
    config.folder.mkdir(parents=True)
    shutil.copytree(straight / "checkpoint-2", config.folder / "checkpoint-2")
    (config.folder / "latest").write_text("checkpoint-2\n")
    (config.folder / "log.jsonl").write_text("".join((straight / "log.jsonl").read_text().splitlines(True)[:3]))
    (config.folder / "config.toml").write_text(to_toml(config))
    return config


def run_from(world: World, config: RunConfig) -> None:
    run(config)


def state_of(config: RunConfig, step: int) -> dict[str, Any]:
    """Of a checkpoint of the run."""
    return saved_state(config.folder / f"checkpoint-{step}")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[RunConfig, RunConfig]:
    """Two ranks under zero2, with dropout: straight, and resumed."""
    outs = [tmp_path_factory.mktemp(name) for name in ("straight", "again")]
    configs = [recipe(out, checkpoint, "zero2", 1, 2, dropout=0.2) for out in outs]
    run_ranks(2, run_from, configs[0])
    run_ranks(2, run_from, halfway(configs[1], configs[0].folder))
    return configs[0], configs[1]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> RunConfig:
    """One process, no dropout."""
    config = recipe(tmp_path_factory.mktemp("plain"), checkpoint, "none", 2, 2)
    run(config)
    return config


@pytest.fixture(scope="module")
def spread(plain: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The same on two ranks under hsdp: its state lies in the files of both."""
    config = recipe(tmp_path_factory.mktemp("spread"), Path(plain.model), "hsdp", 1, 2)
    run_ranks(2, run_from, config)
    return config


# property


def test_on_as_many_ranks_a_run_resumes_bit_for_bit(two: tuple[RunConfig, RunConfig]) -> None:
    straight, again = two
    assert differences(state_of(straight, 4), state_of(again, 4)) == []
    logs = [[[line[k] for k in EXACT] for line in read_log(config.folder)] for config in two]
    assert logs[0] == logs[1]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (straight.folder / "adapter" / name).read_bytes() == (again.folder / "adapter" / name).read_bytes()


def test_saving_in_the_background_leaves_the_same_checkpoints(two: tuple[RunConfig, RunConfig], tmp_path: Path) -> None:
    straight, _ = two
    config = replace(straight, out=str(tmp_path), save=replace(straight.save, background=True))
    run_ranks(2, run_from, config)
    for step in (2, 4):
        assert differences(state_of(straight, step), state_of(config, step)) == []
    assert (config.folder / "latest").read_text() == "checkpoint-4\n"


def test_every_checkpoint_holds_the_whole_adapter(two: tuple[RunConfig, RunConfig]) -> None:
    straight, _ = two
    tensors = load_file(straight.folder / "checkpoint-4" / "adapter" / "adapter_model.safetensors")
    masters = {name: value for name, value in state_of(straight, 4).items() if name.startswith("master.")}
    assert sorted(map(float, (t.double().sum() for t in tensors.values()))) == sorted(
        map(float, (t.double().sum() for t in masters.values()))
    )
    assert all(bool((t != 0).any(dim=1).all()) for name, t in tensors.items() if "lora_B" in name)


def test_a_run_on_two_ranks_has_the_losses_of_one_process(plain: RunConfig, spread: RunConfig) -> None:
    ours, theirs = read_log(spread.folder), read_log(plain.folder)
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-5)


@pytest.mark.parametrize(("before", "n_ranks", "strategy"), [(1, 2, "zero1"), (2, 4, "zero3"), (2, 1, "none")])
def test_on_another_number_of_ranks_it_goes_on_with_the_same_losses(
    plain: RunConfig, spread: RunConfig, tmp_path: Path, before: int, n_ranks: int, strategy: str
) -> None:
    """From a checkpoint of one process, or of two ranks, without dropout; within 1e-5."""
    base = recipe(tmp_path, Path(plain.model), strategy, 1, 4 // n_ranks)
    config = halfway(base, plain.folder if before == 1 else spread.folder)
    if n_ranks == 1:
        run(config)
    else:
        run_ranks(n_ranks, run_from, config)
    ours, theirs = read_log(config.folder), read_log(plain.folder)
    assert [line["step"] for line in ours] == [1, 2, 3, 4]
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in ours] == pytest.approx([line[name] for line in theirs], rel=1e-5)


def test_the_ranks_share_the_items_of_one_process_in_its_order(plain: RunConfig) -> None:
    setup = prepare(plain)
    alone = [record for batch in load_batches(setup, 4, 12) for record in batch.record_ids]
    for n_ranks, size in [(2, 2), (4, 1), (2, 1)]:
        batch = replace(plain.batch, images_per_forward=size)
        config = replace(plain, batch=batch)
        worlds = [World(device=torch.device("cpu"), rank=rank, size=n_ranks) for rank in range(n_ranks)]
        parts = [load_batches(replace(setup, config=config, world=world), 4, 12) for world in worlds]
        together = [record for turn in zip(*parts, strict=True) for batch in turn for record in batch.record_ids]
        assert together == alone


def test_a_damaged_checkpoint_is_refused_and_named(two: tuple[RunConfig, RunConfig], tmp_path: Path) -> None:
    straight, _ = two
    config = halfway(replace(straight, out=str(tmp_path)), straight.folder)
    path = config.folder / "checkpoint-2" / "state" / "__1_0.distcp"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"checkpoint-2 is damaged: state/__1_0.distcp; point `latest` at an older"):
        verify(config.folder / "checkpoint-2")


# refusal


def test_another_number_of_pages_per_step_is_refused(plain: RunConfig, tmp_path: Path) -> None:
    config = halfway(recipe(tmp_path, Path(plain.model), "none", 1, 2), plain.folder)
    message = r"made with 4 pages per step, now there are 2 on 1 ranks: .* must stay 4"
    with pytest.raises(ValueError, match=message):
        run(config)


def test_the_note_says_where_the_run_stood(two: tuple[RunConfig, RunConfig]) -> None:
    note = json.loads((two[0].folder / "checkpoint-2" / "progress.json").read_text())
    assert {k: note[k] for k in ("step", "position", "n_ranks", "pages_per_step")} == {
        "step": 2,
        "position": 8,
        "n_ranks": 2,
        "pages_per_step": 4,
    }
