"""Signals, numbers that are not finite, too little memory, a full disk, two runs in one folder."""

import errno
import json
import math
import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minimllama import save_model
from tests.tools.gloo import run_ranks
from tests.tools.tiny import tiny_model
from tests.train.conftest import MakeConfig, differences, saved_state
from tests.train.test_checkpoint import RECIPE, save, trained
from train.__main__ import main
from train.checkpoint import Progress, begin_checkpoint, latest_checkpoint, load_checkpoint
from train.config import RunConfig, to_toml
from train.distributed import World
from train.faults import NotFiniteError, OutOfMemoryError, StopSignal, only_run
from train.log import read_log
from train.loop import _find_checkpoint, run
from train.optim import MasterAdamW
from train.rehearse import rehearse, worst_batch
from train.setup import load_batches, prepare
from train.shard import ShardConfig
from train.step import train_step
from train.whole import whole_model

# signals


def run_until(config: RunConfig, n_steps: int, number: int) -> int:
    """A run in a process of its own that gets a signal after some steps; returns its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(config)
            code = 0
        finally:
            os._exit(code)
    log, ends = config.folder / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < ends and not (log.exists() and len(log.read_text().splitlines()) >= n_steps):
        time.sleep(0.005)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_with_0_and_the_same_command_goes_on(
    make_config: MakeConfig, tmp_path: Path, number: int
) -> None:
    config = make_config(optim={"steps": 12}, save={"every": 0})
    assert run_until(config, 2, number) == 0
    stopped = read_log(config.folder)[-1]["step"]
    assert 2 <= stopped < 12
    latest = latest_checkpoint(config.folder)
    assert latest is not None
    assert latest.name == f"checkpoint-{stopped}"
    assert not (config.folder / "adapter").exists()
    run(config)
    whole = run(replace(config, out=str(tmp_path / "whole")))
    assert differences(saved_state(config.folder / "checkpoint-12"), saved_state(whole / "checkpoint-12")) == []


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_a_shell_told_torchrun_to_ignore_still_reaches_the_ranks() -> None:
    """docs/training.md, Slurm: `trap "" USR1` keeps torchrun alive, and its ranks inherit that."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert stop.name == "SIGUSR1"


# numbers that are not finite


@pytest.fixture
def broken_checkpoint(tmp_path: Path, checkpoint: Path) -> Path:
    """The tiny checkpoint with one weight that is not a number."""
    model = tiny_model()
    with torch.no_grad():
        model.text.layers[3].mlp.up_proj.weight[2, 5] = torch.nan
    save_model(model, tmp_path / "broken")
    shutil.copy(checkpoint / "tokenizer.model", tmp_path / "broken")
    return tmp_path / "broken"


def test_a_run_ends_after_some_such_steps_in_a_row_and_says_where_it_began(
    make_config: MakeConfig, broken_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(model=str(broken_checkpoint), optim={"nonfinite": 2})
    (tmp_path / "recipe.toml").write_text(to_toml(config))
    assert main(["run", "--recipe", str(tmp_path / "recipe.toml")]) == 1
    assert "error: loss nan, gradient norm nan on records sim-3-train-" in capsys.readouterr().err
    logged = [(line["step"], line["loss"], line["grad_norm"]) for line in read_log(config.folder)]
    assert logged == [(1, None, None), (2, None, None)]
    reports = sorted(config.folder.glob("nonfinite-*.json"))
    assert [path.name for path in reports] == ["nonfinite-1.json", "nonfinite-2.json"]
    rank = json.loads(reports[0].read_text())["ranks"][0]
    assert [len(batch) for batch in rank["records"]] == [2, 2]
    bad = [name for name, value in rank["activation_maxima"].items() if value == "nan"]
    assert bad[0] == "text.layers.3"  # the first block whose output is not finite
    assert len(rank["gradient_maxima"]) == 196


def test_such_a_step_is_not_applied(make_config: MakeConfig) -> None:
    setup = prepare(make_config())
    optimizer = MasterAdamW(setup.model, setup.config.optim)
    before = {name: p.clone() for name, p in optimizer.masters.items()}
    with torch.no_grad():
        setup.model.text.lm_head.weight[3, 5] = torch.inf
    with pytest.raises(NotFiniteError):
        train_step(setup, [next(load_batches(setup, 0, 2))], optimizer, lr=0.1)
    assert all(torch.equal(p, before[name]) for name, p in optimizer.masters.items())
    assert not optimizer.adamw.state
    assert all(p.grad is None for p in setup.model.parameters())


# one rank of two


def trouble_on_rank_1(world: World, config: RunConfig) -> dict[str, Any]:
    """A block that gives numbers that are not finite, then a disk that refuses; the other rank has neither."""
    setup = prepare(config, world)
    optimizer = MasterAdamW(setup.model, config.optim)
    before = {name: p.clone() for name, p in optimizer.masters.items()}
    batches, here = list(load_batches(setup, 0, 4)), world.rank == 1

    def spoil(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * torch.nan if here else output

    hook = setup.model.text.layers[2].register_forward_hook(spoil)
    with pytest.raises(NotFiniteError) as caught:
        train_step(setup, batches, optimizer, lr=0.01)
    hook.remove()
    assert all(torch.equal(p, before[name]) for name, p in optimizer.masters.items())
    found: dict[str, Any] = {"ranks": caught.value.report["ranks"], **train_step(setup, batches, optimizer, lr=0.01)}

    def save_here(step: int) -> None:
        adapter = whole_model(setup, adapter_only=True)
        progress = Progress(step=step, position=4 * step)
        begin_checkpoint(config.folder, adapter, optimizer, progress, RECIPE, "lora", 2, world=world).finish()

    save_here(1)
    with (
        files_of_at_most(20_000) if here else nullcontext(),
        pytest.raises(OSError, match="checkpoint-2 could not") as disk,
    ):
        save_here(2)
    return {**found, "disk": str(disk.value), "latest": latest_checkpoint(config.folder)}


def test_what_goes_wrong_on_one_rank_stops_both_and_is_found_there(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        batch={"images_per_forward": 1, "accumulate": 2}, tuning={"dropout": 0.0}, shard=ShardConfig(strategy="zero3")
    )
    for rank in run_ranks(2, trouble_on_rank_1, config):
        bad = [[name for name, value in one["activation_maxima"].items() if math.isnan(value)] for one in rank["ranks"]]
        assert bad[0] == []
        assert bad[1][0] == "text.layers.2"
        assert [len(one["records"]) for one in rank["ranks"]] == [2, 2]
        assert math.isfinite(rank["loss"])  # the step after is applied as usual
        assert math.isfinite(rank["grad_norm"])
        assert "checkpoint-1 is untouched" in rank["disk"]
        assert rank["latest"] == config.folder / "checkpoint-1"
    assert sorted(path.name for path in config.folder.iterdir()) == ["checkpoint-1", "latest"]


# memory


def test_a_batch_that_does_not_fit_names_its_records_and_what_to_change(make_config: MakeConfig) -> None:
    setup = prepare(make_config())
    setup.model.text.layers[2].register_forward_hook(lambda *_: torch.empty(1 << 50))  # a petabyte
    batch = next(load_batches(setup, 0, 2))
    names = ", ".join(batch.record_ids)
    with pytest.raises(OutOfMemoryError, match=rf"out of memory on records {names} .*lower batch.images_per_forward"):
        train_step(setup, [batch], MasterAdamW(setup.model, setup.config.optim), lr=0.1)


def test_what_an_accelerators_allocator_raises_is_reported_alike(make_config: MakeConfig) -> None:
    """Raised in the forward pass and in the backward pass, as the allocator of CUDA raises it."""
    for backward in (False, True):
        setup = prepare(make_config())

        def refuse(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        layer = setup.model.text.layers[2]
        layer.register_full_backward_hook(refuse) if backward else layer.register_forward_hook(refuse)
        batch = next(load_batches(setup, 0, 2))
        names = ", ".join(batch.record_ids)
        with pytest.raises(
            OutOfMemoryError, match=rf"out of memory on records {names} .*compute.checkpoint_activations"
        ):
            train_step(setup, [batch], MasterAdamW(setup.model, setup.config.optim), lr=0.1)


def test_the_largest_batch_of_the_recipe_can_run_first_and_leaves_no_trace(make_config: MakeConfig) -> None:
    plain, first = (run(make_config(name=name, optim={"steps": 2}, data={"max_tokens": 200},
                                    compute={"worst_first": name == "b"})) for name in "ab")  # fmt: skip
    assert differences(saved_state(plain / "checkpoint-2"), saved_state(first / "checkpoint-2")) == []
    setup = prepare(make_config(data={"max_tokens": 197}))
    largest = worst_batch(setup)
    assert largest.tokens.shape == (6, 200)  # as a dialog of 197 is padded
    assert all(
        batch.tokens.shape[1] <= 200 and sum(batch.n_tiles) <= sum(largest.n_tiles)
        for batch in load_batches(setup, 0, 8)
    )
    setup.model.text.layers[2].register_forward_hook(lambda *_: torch.empty(1 << 50))
    with pytest.raises(OutOfMemoryError, match="the largest batch that the recipe allows"):
        rehearse(setup, MasterAdamW(setup.model, setup.config.optim))


def test_the_optimizer_and_libraries_beside_the_allocator_are_reported_too(make_config: MakeConfig) -> None:
    setup = prepare(make_config())
    optimizer = MasterAdamW(setup.model, setup.config.optim)

    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    optimizer.adamw.step = refuse  # type: ignore[method-assign]
    with pytest.raises(OutOfMemoryError, match=r"out of memory in the optimizer, .*shard.strategy = zero3"):
        train_step(setup, [next(load_batches(setup, 0, 2))], optimizer, lr=0.1)


# disk and folder


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """This process may write no larger ones: a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_refuses_is_said_loudly_and_the_checkpoint_before_stays(tmp_path: Path, background: bool) -> None:
    """A checkpoint has files of more than 20 kB."""
    model, optimizer = trained()
    good = save(tmp_path, model, optimizer, 1)
    options = (tmp_path, model, optimizer, Progress(step=2, position=8), RECIPE, "lora", 2)
    with (
        files_of_at_most(20_000),
        pytest.raises(OSError, match=r"checkpoint-2 could not be saved .*; checkpoint-1 is untouched"),
    ):
        begin_checkpoint(*options, background=background).finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "latest"]
    assert load_checkpoint(good, trained(0)[1], RECIPE).step == 1
    save(tmp_path, model, optimizer, 2)  # once there is room again


def test_two_runs_in_one_folder_are_refused(make_config: MakeConfig) -> None:
    config = make_config()
    with only_run(config.folder), pytest.raises(FileExistsError, match=r"another process is training in .*tiny"):
        run(config)


def test_a_file_system_without_locks_is_not_another_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # of Lustre, unless it is mounted with flock

    monkeypatch.setattr("train.faults.fcntl.flock", flock)
    with pytest.raises(OSError, match=r"cannot be locked .*Function not implemented"), only_run(tmp_path):
        pass


def refused(world: World, config: RunConfig) -> str:
    with pytest.raises((FileExistsError, RuntimeError)) as caught:
        run(config)
    return str(caught.value)


def test_all_ranks_of_a_second_run_say_why_it_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    with only_run(config.folder):
        said = run_ranks(2, refused, config)
    assert said[0].startswith("another process is training in ")
    assert said[1] == f"rank 0: FileExistsError: {said[0]}"


def test_a_restart_goes_on_with_the_run_that_its_own_job_began_and_with_no_other(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun --max-restarts, a folder that was refused at first is refused at every restart."""
    config = make_config(resume="none")
    config.folder.mkdir(parents=True)
    for name, text in (("config.toml", ""), (".job", "an earlier job")):
        (config.folder / name).write_text(text)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "this job")
    with pytest.raises(FileExistsError, match="holds a run already"):
        _find_checkpoint(config)
    (config.folder / ".job").write_text("this job")
    assert _find_checkpoint(config) is None  # it began, and was ended before it saved


def test_a_folder_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with only_run(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)
    while not (tmp_path / "held").exists():
        time.sleep(0.001)
    with pytest.raises(FileExistsError), only_run(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with only_run(tmp_path):
        pass
