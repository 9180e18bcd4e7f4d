"""Checkpoints are whole or absent, whatever moment a run is killed at; `latest` always names a good one."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora import TuneConfig, apply_tuning, load_adapter
from minimllama import MiniMllama
from tests.tools.tiny import pictures, prompt, tiny_model
from tests.train.conftest import differences
from train.checkpoint import (
    LATEST,
    Progress,
    begin_checkpoint,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from train.checkpoint.random import random_state, set_random_state
from train.optim import MasterAdamW, OptimConfig

RECIPE = 'name = "x"\nout = "a"\n[optim]\nsteps = 9\n[[data.components]]\nn = 4\n'


def trained(steps: int = 2, tune: TuneConfig | None = None) -> tuple[MiniMllama, MasterAdamW]:
    """A tiny model with adapters after some real steps."""
    model = tiny_model()
    apply_tuning(model, tune or TuneConfig(r=3, alpha=6, dropout=0.0))
    optimizer = MasterAdamW(model, OptimConfig())
    for _ in range(steps):
        model(prompt(9, 1, image_at=[2])[None], pictures([[(12, 9)]])).square().mean().backward()
        optimizer.step(optimizer.gradient_norm(), lr=0.01)
    return model, optimizer


def save(
    folder: Path, model: MiniMllama, optimizer: MasterAdamW, step: int, keep: int = 2, method: str = "lora"
) -> Path:
    return save_checkpoint(folder, model, optimizer, Progress(step=step, position=4 * step), RECIPE, method, keep)


# property


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    torch.manual_seed(77)
    path = save(tmp_path, model, optimizer, 2)
    expected = torch.rand(5)
    other, fresh = trained(steps=0)
    assert load_checkpoint(path, fresh, RECIPE) == Progress(step=2, position=8)
    assert torch.equal(torch.rand(5), expected)  # the random state is the saved one
    assert differences(optimizer.tensors(), fresh.tensors()) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_it_holds_an_adapter_that_others_can_load(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = save(tmp_path, model, optimizer, 1)
    loaded = load_adapter(tiny_model(), path / "adapter")
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in loaded.named_parameters())


def test_under_full_tuning_the_weights_are_in_the_state(tmp_path: Path) -> None:
    model, optimizer = trained(tune=TuneConfig(method="full"))
    path = save(tmp_path, model, optimizer, 1, method="full")
    assert not (path / "adapter").exists()
    other, fresh = trained(0, TuneConfig(method="full"))
    load_checkpoint(path, fresh, RECIPE)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_only_the_newest_are_kept_and_latest_names_the_last(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    for step in (9, 10, 11, 100):
        save(tmp_path, model, optimizer, step, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-11",
        "checkpoint-100",
    ]  # by number, not by name
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-11", LATEST]


def test_in_the_background_it_is_the_state_of_when_it_began(tmp_path: Path) -> None:
    model, optimizer = trained()
    expected = {name: value.clone() for name, value in optimizer.tensors().items()}
    progress = Progress(step=2, position=8)
    saving = begin_checkpoint(tmp_path, model, optimizer, progress, RECIPE, "lora", 2, background=True)
    model(prompt(9, 1, image_at=[2])[None], pictures([[(12, 9)]])).square().mean().backward()
    optimizer.step(optimizer.gradient_norm(), lr=0.5)
    assert latest_checkpoint(tmp_path) is None
    path = saving.finish()
    assert latest_checkpoint(tmp_path) == path
    fresh = trained(0)[1]
    load_checkpoint(path, fresh, RECIPE)
    assert differences(fresh.tensors(), expected) == []


def test_the_random_state_of_an_accelerator_is_a_ranks_own_whatever_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {2: torch.tensor([7], dtype=torch.uint8)}  # the third of a node; later the first of another
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device.index: state}))
    set_random_state(random_state(torch.device("cuda", 2)), torch.device("cuda", 0))
    assert states[0] is states[2]


def test_a_new_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    assert checkpoints(tmp_path) == []


def test_what_a_kill_leaves_half_written_is_ignored_and_replaced(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    half = tmp_path / ".checkpoint-2.partial"
    half.mkdir()
    (half / "random-0.pt").write_bytes(b"half")
    (tmp_path / f".{LATEST}.partial").write_text("checkp")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    save(tmp_path, model, optimizer, 2)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not half.exists()


def test_a_complete_one_that_latest_does_not_name_yet_is_made_again(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "checkpoint-2")  # killed before `latest` was renamed
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    save(tmp_path, model, optimizer, 2)
    assert load_checkpoint(tmp_path / "checkpoint-2", optimizer, RECIPE).step == 2


def test_one_left_from_a_later_step_never_costs_the_one_just_saved(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    save(tmp_path, model, optimizer, 1, keep=1)
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "checkpoint-20")
    save(tmp_path, model, optimizer, 2, keep=1)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def _save_until_killed(
    folder: Path, first: int, model: MiniMllama, optimizer: MasterAdamW, *, background: bool
) -> None:
    """In a child process: save step after step, as fast as it goes."""
    for step in range(first, first + 10_000):
        progress = Progress(step=step, position=4 * step)
        begin_checkpoint(folder, model, optimizer, progress, RECIPE, "lora", 2, background=background).finish()


def test_a_kill_at_any_moment_leaves_the_last_good_one(tmp_path: Path) -> None:
    """Real processes, killed at 20 random moments of their first two saves; every other saves in the background."""
    seed, reached, half_written = 4, 1, 0
    rng, (model, optimizer), (_, fresh) = random.Random(seed), trained(0), trained(0)
    began = time.monotonic()
    save(tmp_path, model, optimizer, reached)
    took = time.monotonic() - began
    for number in range(20):
        share, background = rng.uniform(0, 2), bool(number % 2)
        what = f"kill {number} of seed {seed}, after {share:.3f} of {took:.3f} s, {background=}"
        child = os.fork()
        if child == 0:
            try:
                _save_until_killed(tmp_path, reached + 1, model, optimizer, background=background)
            finally:
                os._exit(1)
        time.sleep(share * took)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"it failed before it was killed: {what}"
        half_written += any(path.name.endswith(".partial") for path in tmp_path.iterdir())
        latest = latest_checkpoint(tmp_path)
        assert latest is not None, what
        progress = load_checkpoint(latest, fresh, RECIPE)
        assert progress.position == 4 * progress.step, what
        assert latest.name == f"checkpoint-{progress.step}", what
        assert progress.step >= reached, what
        assert differences(fresh.tensors(), optimizer.tensors()) == [], what
        assert len(load_file(latest / "adapter" / "adapter_model.safetensors")) == len(optimizer.masters), what
        reached = progress.step
    assert reached > 1, f"no save of seed {seed} was finished"
    assert half_written > 0, f"no kill of seed {seed} was in the middle of a save"


# refusal


def test_another_recipe_is_refused_and_the_difference_is_said(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    path = save(tmp_path, model, optimizer, 1)
    changed = RECIPE.replace("steps = 9", "steps = 12").replace("n = 4", "n = 5")
    with pytest.raises(ValueError, match=r"optim.steps \(9 then, 12 now\), data.components.0.n \(4 then, 5 now\)"):
        load_checkpoint(path, optimizer, changed)


@pytest.mark.parametrize("line", ['out = "b"', 'resume = "none"', "[compute]\nthreads = 7", "[save]\nevery = 3"])
def test_where_and_how_it_computes_may_differ(tmp_path: Path, line: str) -> None:
    model, optimizer = trained(0)
    path = save(tmp_path, model, optimizer, 1)
    recipe = RECIPE.replace('out = "a"', line) if line.startswith(("out", "resume")) else RECIPE + line
    assert load_checkpoint(path, optimizer, recipe).step == 1


@pytest.mark.parametrize("name", ["state/__0_0.distcp", "adapter/adapter_model.safetensors", "progress.json"])
def test_one_changed_byte_is_found_when_it_is_loaded(tmp_path: Path, name: str) -> None:
    model, optimizer = trained(0)
    path = save(tmp_path, model, optimizer, 1)
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"checkpoint-1 is damaged: {name}"):
        load_checkpoint(path, optimizer, RECIPE)


def test_a_latest_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    shutil.rmtree(save(tmp_path, model, optimizer, 1))
    with pytest.raises(FileNotFoundError, match="latest names checkpoint-1, which is not there"):
        latest_checkpoint(tmp_path)


def test_the_state_of_other_adapters_is_refused(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    path = save(tmp_path, model, optimizer, 1)
    with pytest.raises(ValueError, match="the checkpoint trains other parameters"):
        load_checkpoint(path, trained(0, TuneConfig(r=3, targets="projector"))[1], RECIPE)
