"""A training run: build everything from the recipe, step until done, leave the adapter."""

import os
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from lora import save_adapter
from minimllama import save_model
from minimllama.nano import resolve_model
from minimllama.tokenizer import find_tokenizer
from train.checkpoint import Progress, Saving, begin_checkpoint, latest_checkpoint, load_checkpoint
from train.config import RunConfig, to_toml
from train.curves import draw_curves
from train.dataset import Batch
from train.distributed import World, choose_device, job, restarts, start, stop
from train.faults import NotFiniteError, StopSignal, only_run, write_report
from train.flops import Work, device_peak, step_flops
from train.log import StepLog, read_log, read_validations
from train.optim import MasterAdamW, learning_rate
from train.rehearse import rehearse
from train.setup import Setup, load_batches, prepare
from train.step import train_step
from train.watch import Watch
from train.whole import whole_model

JOB = ".job"  # which job of torchrun a run began in: its restarts go on with it
__all__ = ["Setup", "choose_device", "load_batches", "prepare", "run", "train_step"]


def peak_memory(device: torch.device) -> int:
    """Bytes: of the accelerator's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


@dataclass(kw_only=True)
class Run:
    """A run that has begun.

    Attributes:
        setup: of the run.
        optimizer: of the trained parameters.
        recipe: the resolved configuration, as text.
        progress: where it stands.
        signal: whether it has been asked to stop.
        watch: validates.
        background: how checkpoints are written beside the run: a process group of their own on several ranks.
        saving: the one that is being written.
        saved: step of the last one.
    """

    setup: Setup
    optimizer: MasterAdamW
    recipe: str
    progress: Progress
    signal: StopSignal
    watch: Watch
    background: dist.ProcessGroup | bool = True
    saving: Saving | None = None
    saved: int = -1

    def save(self, *, wait: bool = True) -> None:
        """A checkpoint of where the run stands; all ranks together.

        Args:
            wait: until it is there; otherwise, if the recipe says so, it is written while the run goes on.
        """
        self.finish_saving()
        setup, config, self.saved = self.setup, self.setup.config, self.progress.step
        self.saving = begin_checkpoint(
            config.folder,
            whole_model(setup, adapter_only=True) if config.tuning.method == "lora" else None,
            self.optimizer,
            self.progress,
            self.recipe,
            config.tuning.method,
            config.save.keep,
            world=setup.world,
            pages_per_step=setup.items_per_step,
            background=False if wait or not config.save.background else self.background,
        )
        if wait or not config.save.background:
            self.finish_saving()

    def finish_saving(self, *, only_if_ready: bool = False) -> None:
        """Put the checkpoint that is being written into its place."""
        if self.saving is not None and (not only_if_ready or self.saving.is_ready()):
            saving, self.saving = self.saving, None
            saving.finish()


def _step(run: Run, batches: Sequence[Batch], lr: float) -> dict[str, Any]:
    """A step's loss and gradient norm; None, and a report, if they are not finite: the step was not applied then."""
    setup = run.setup
    try:
        return train_step(setup, batches, run.optimizer, lr)
    except NotFiniteError as error:
        if setup.world.is_main:
            name = f"nonfinite-{run.progress.step + 1}.json"
            write_report(setup.config.folder / name, {"step": run.progress.step + 1, **error.report})
        return {"loss": None, "grad_norm": None, "nonfinite": error}


def _flops(setup: Setup, batches: Sequence[Batch]) -> float:
    """Of the forward and backward passes of these micro-batches; recomputation is not counted."""
    works = [
        Work(
            pages=sum(n > 0 for n in b.n_tiles),
            rows=len(b.tokens),
            length=b.tokens.shape[1],
            answers=b.n_answer_tokens,
            tiles=max(b.n_tiles),
        )
        for b in batches
    ]
    return sum(step_flops(setup.model, work)[1] for work in works)


def _steps(run: Run, log: StepLog | None) -> Iterator[dict[str, Any]]:
    """Step after step, each logged."""
    setup = run.setup
    config, per_step = setup.config, setup.items_per_step
    batches = load_batches(setup, run.progress.position, setup.n_steps * per_step)
    setup.model.train()
    began, first = time.perf_counter(), run.progress.step
    peak = device_peak(setup.device)
    for step in range(first, setup.n_steps):
        started = time.perf_counter()
        micro = [next(batches) for _ in range(config.batch.accumulate)]
        waited = time.perf_counter() - started
        lr = learning_rate(step, setup.n_steps, config.optim)
        result = _step(run, micro, lr)
        took = time.perf_counter() - started
        n_tokens, flops = setup.world.totals([sum(batch.tokens.numel() for batch in micro), _flops(setup, micro)])
        run.progress = replace(run.progress, step=step + 1, position=(step + 1) * per_step)
        record = {
            "step": step + 1,
            "epoch": run.progress.position / setup.mixture.epoch_length,
            "samples": run.progress.position,
            "loss": result["loss"],
            "lr": lr,
            "grad_norm": result["grad_norm"],
            "tokens_per_s": n_tokens / took,
            "images_per_s": per_step / took,
            "data_wait_ms": 1000 * waited,
            "peak_memory_bytes": peak_memory(setup.device),
            "model_flops_per_s": flops / took,
        }
        if peak:
            record["model_flops_utilisation"] = flops / took / (peak * setup.world.size)
        if log is not None:
            log.write(record, (time.perf_counter() - began) / (step + 1 - first))
        yield result


def _train(run: Run, log: StepLog | None) -> bool:
    """Until done, or asked to stop; returns whether it is done.

    Raises:
        NotFiniteError: after too many steps in a row that were not finite.
    """
    setup, config, in_a_row = run.setup, run.setup.config, 0
    if run.watch.is_over(run.progress):
        return True
    for result in _steps(run, log):
        error = result.get("nonfinite")
        in_a_row = in_a_row + 1 if error else 0
        if error and in_a_row >= config.optim.nonfinite:
            raise error
        is_last = run.progress.step == setup.n_steps
        is_due = config.save.every and run.progress.step % config.save.every == 0
        run.progress, is_best = run.watch.look(run.progress)
        must_stop = setup.world.total(float(bool(run.signal.name))) > 0
        run.finish_saving(only_if_ready=True)
        if (is_due or is_best or must_stop) and not is_last:
            run.save(wait=must_stop)
        if run.watch.is_over(run.progress):
            return True
        if must_stop and not is_last:
            return False
    return True


def _find_checkpoint(config: RunConfig) -> Path | None:
    """The checkpoint to go on from.

    Raises:
        FileExistsError: if the folder holds a run and the recipe does not say resume = "auto".
    """
    folder = config.folder
    found = latest_checkpoint(folder)
    is_ours = restarts() > 0 and (folder / JOB).is_file() and (folder / JOB).read_text() == job()
    if (found or (folder / "config.toml").exists()) and config.resume == "none" and not is_ours:
        raise FileExistsError(f'{folder} holds a run already; choose another name, or resume = "auto"')
    return found


def _begin(config: RunConfig, world: World, found: Path | None, signal: StopSignal) -> Run:
    setup = prepare(config, world)
    recipe, optimizer, progress = to_toml(config), MasterAdamW(setup.model, config.optim), Progress()
    if found:
        progress = load_checkpoint(found, optimizer, recipe, world=world, pages_per_step=setup.items_per_step)
    if world.is_main:
        (config.folder / "config.toml").write_text(recipe, encoding="utf-8")
        (config.folder / JOB).write_text(job())
    ranks = f" on each of {world.size} ranks, {config.shard.strategy}" if world.size > 1 else ""
    world.say(f"{setup.report}; {setup.n_steps} steps of {setup.items_per_step} pages on {world.device.type}{ranks}")
    if found:
        world.say(f"going on from {found.name}")
    if config.compute.worst_first and progress.step < setup.n_steps:
        rehearse(setup, optimizer)
    watch = Watch(setup, progress.step)
    run = Run(setup=setup, optimizer=optimizer, recipe=recipe, progress=progress, signal=signal, watch=watch)
    if config.save.background and world.size > 1:
        group = dist.new_group(backend="gloo")
        assert isinstance(group, dist.ProcessGroup), "every rank is a member"
        run.background = group
    return run


def _locked_run(config: RunConfig, world: World, lock: ExitStack) -> Path:
    error, found = None, None
    if world.is_main:
        try:
            lock.enter_context(only_run(config.folder))
            found = _find_checkpoint(config)
        except OSError as caught:
            error = caught
    world.together(error)
    found = world.gather(found)[0]
    with StopSignal() as signal:
        run = _begin(config, world, found, signal)
        log = None
        if world.is_main:
            log = StepLog(config.folder, run.progress.step, run.setup.n_steps, tensorboard=config.save.tensorboard)
        before = run.progress.step
        is_done = _train(run, log)
        if log is not None:
            log.close()
        if not is_done:
            world.say(f"stopped after step {run.progress.step}, which is saved; the same command goes on")
            return config.folder
        run.finish_saving()
        is_new = run.progress.step > before or not found  # a finished run has its last checkpoint already
        if is_new and run.saved != run.progress.step:
            run.save()
    return _finish(run.setup)


def run(config: RunConfig) -> Path:
    """Train as the recipe says, on as many ranks as torchrun started.

    Returns:
        The run folder: config.toml, log.jsonl, checkpoint-<step>/, latest, and `adapter/` (PEFT) or `model/`. The
        last is missing if SIGTERM or SIGUSR1 asked the run to stop; it has saved then.

    Raises:
        FileExistsError: if another process trains in the folder, or it holds a run and may not go on.
        NotFiniteError: after `optim.nonfinite` steps in a row whose loss or gradient was not finite.
        OutOfMemoryError: if a batch does not fit.
        OSError: if a checkpoint could not be saved.
    """
    world = start(config.compute.device, config.shard.timeout_seconds)
    try:
        with ExitStack() as lock:
            return _locked_run(config, world, lock)
    finally:
        stop()


def _finish(setup: Setup) -> Path:
    """Leave what others load: adapter/ under "lora", otherwise model/."""
    folder = setup.config.folder
    if setup.world.is_main:
        draw_curves(read_log(folder), read_validations(folder), folder / "curves.png")
    is_lora = setup.config.tuning.method == "lora"
    target = folder / ("adapter" if is_lora else "model")
    model = whole_model(setup, adapter_only=is_lora)
    if model is None:
        return folder
    if target.exists():  # of an earlier end of the same run
        os.rename(target, target.with_name(f"{target.name}-{int(time.time())}"))
    if is_lora:
        save_adapter(model, target)
    else:
        save_model(model, target)
        tokenizer = Path(setup.config.tokenizer or resolve_model(setup.config.model))
        shutil.copy(find_tokenizer(tokenizer) if tokenizer.is_dir() else tokenizer, target / "tokenizer.model")
    setup.world.say(f"wrote {target}")
    return folder
