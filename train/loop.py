"""A training run: build everything from the recipe, step until done, leave the adapter.

Shapes: R questions, T tokens, D width.
"""

import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from lora import TuneReport, apply_tuning, save_adapter
from minimllama import PRESETS, ImageTransform, MiniMllama, load_model, load_tokenizer, save_model
from minimllama.console import say
from minimllama.init import initialise
from minimllama.nano import resolve_model
from minimllama.tokenizer import Tokenizer
from train.activation import checkpoint_blocks
from train.checkpoint import Progress, latest_checkpoint, load_checkpoint, save_checkpoint
from train.config import RunConfig, to_toml
from train.dataset import Batch, EcgDataset, collate
from train.ecg import STYLES
from train.log import StepLog
from train.loss import answer_loss
from train.mixture import Mixture
from train.optim import MasterAdamW, learning_rate


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything a run needs, built from its recipe."""

    config: RunConfig
    model: MiniMllama
    report: TuneReport
    transform: ImageTransform
    tokenizer: Tokenizer
    dataset: EcgDataset
    mixture: Mixture
    device: torch.device

    @property
    def items_per_step(self) -> int:
        """Pages per optimizer step."""
        return self.config.batch.images_per_forward * self.config.batch.accumulate

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the run."""
        needed = math.ceil(self.config.optim.epochs * self.mixture.epoch_length / self.items_per_step)
        return self.config.optim.steps or needed


def choose_device(name: str) -> torch.device:
    """The named device; "auto" is an accelerator if there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _build_model(config: RunConfig, device: torch.device) -> MiniMllama:
    dtype = getattr(torch, config.compute.dtype)
    if config.model != "scratch":
        return load_model(resolve_model(config.model), dtype=dtype, device=device, semantics=config.semantics)
    if config.sizes not in PRESETS:
        raise ValueError(f"sizes={config.sizes!r} is not one of {', '.join(PRESETS)}")
    with torch.device(device):
        model = MiniMllama(PRESETS[config.sizes], config.semantics)
    return initialise(model, torch.Generator(device).manual_seed(config.seed)).to(dtype)


def prepare(config: RunConfig) -> Setup:
    """Load the model, make it trainable, open the data.

    Raises:
        FileNotFoundError: if the checkpoint, the tokenizer or a data set is not there.
        ValueError: if they do not fit together.
    """
    device = choose_device(config.compute.device)
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    tokenizer = load_tokenizer(config.tokenizer or resolve_model(config.model))
    model = _build_model(config, device)
    if tokenizer.vocabulary != model.config.text.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the model {model.config.text.vocab_size}: not a pair"
        )
    torch.manual_seed(config.seed)  # dropout
    report = apply_tuning(model, replace(config.tuning, seed=config.seed))
    if config.compute.checkpoint_activations:
        checkpoint_blocks(model)
    vision = model.config.vision
    transform = ImageTransform(vision.tile_size, vision.max_tiles)
    data = config.data
    style = STYLES[data.page]
    dataset = EcgDataset(
        data.components,
        style,
        transform,
        tokenizer,
        data.questions_per_image,
        data.max_tokens,
        cache=data.cache,
        seed=config.seed,
    )
    weights = [component.weight for component in data.components]
    mixture = Mixture([len(source) for source in dataset.sources], weights, config.seed)
    return Setup(
        config=config,
        model=model,
        report=report,
        transform=transform,
        tokenizer=tokenizer,
        dataset=dataset,
        mixture=mixture,
        device=device,
    )


def load_batches(setup: Setup, start: int, stop: int) -> Iterator[Batch]:
    """Micro-batches of the items at positions start..stop - 1, drawn by the recipe's workers."""
    loader = DataLoader(
        setup.dataset,
        batch_sampler=list(setup.mixture.batches(start, stop, setup.config.batch.images_per_forward)),  # type: ignore[arg-type]
        num_workers=setup.config.data.workers,
        collate_fn=partial(collate, config=setup.model.config, leak=setup.model.leak),
        prefetch_factor=4 if setup.config.data.workers else None,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # not the global one: a new loader after a resume would shift the dropout
    )
    return iter(loader)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def train_step(setup: Setup, batches: Sequence[Batch], optimizer: MasterAdamW, lr: float) -> dict[str, float]:
    """One optimizer step over some micro-batches.

    Args:
        setup: of the run.
        batches: micro-batches; the loss is summed over their answer tokens and divided by the number of all
            of them.
        optimizer: of the trained parameters.
        lr: learning rate of this step.

    Returns:
        loss, grad_norm.

    Raises:
        FloatingPointError: if loss or gradient is not finite; nothing has been updated then.
    """
    n_answer_tokens = sum(batch.n_answer_tokens for batch in batches)
    loss = 0.0
    for batch in batches:
        here = batch.to(setup.device)
        images = here.images(setup.transform)
        hidden = setup.model(here.tokens, images, here.sight, hidden=True)  # [R, T, D]
        part = answer_loss(setup.model.text.lm_head, hidden, here.labels, n_answer_tokens)
        part.backward()
        loss += float(part.detach())
    norm = optimizer.gradient_norm()
    if not math.isfinite(loss) or not math.isfinite(float(norm)):
        optimizer.forget()
        ids = ", ".join(record for batch in batches for record in batch.record_ids)
        raise FloatingPointError(f"loss {loss}, gradient norm {float(norm)} on records {ids}")
    optimizer.step(norm, lr)
    return {"loss": loss, "grad_norm": float(norm)}


def peak_memory(device: torch.device) -> int:
    """Bytes: of the accelerator's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _steps(setup: Setup, optimizer: MasterAdamW, progress: Progress, log: StepLog) -> Iterator[Progress]:
    """Run step after step, log each, and yield where the run stands."""
    config, per_step = setup.config, setup.items_per_step
    batches = load_batches(setup, progress.position, setup.n_steps * per_step)
    setup.model.train()
    began, first = time.perf_counter(), progress.step
    for step in range(progress.step, setup.n_steps):
        started = time.perf_counter()
        micro = [next(batches) for _ in range(config.batch.accumulate)]
        waited = time.perf_counter() - started
        lr = learning_rate(step, setup.n_steps, config.optim)
        result = train_step(setup, micro, optimizer, lr)
        took = time.perf_counter() - started
        position = (step + 1) * per_step
        record = {
            "step": step + 1,
            "epoch": position / setup.mixture.epoch_length,
            "samples": position,
            "loss": result["loss"],
            "lr": lr,
            "grad_norm": result["grad_norm"],
            "tokens_per_s": sum(batch.tokens.numel() for batch in micro) / took,
            "images_per_s": per_step / took,
            "data_wait_ms": 1000 * waited,
            "peak_memory_bytes": peak_memory(setup.device),
        }
        log.write(record, (time.perf_counter() - began) / (step + 1 - first))
        yield Progress(step=step + 1, position=position)


def _open_folder(config: RunConfig) -> Path | None:
    """Make the run folder; returns the checkpoint to go on from.

    Raises:
        FileExistsError: if the folder holds a run and the recipe does not say resume = "auto".
    """
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    found = latest_checkpoint(folder)
    if (found or (folder / "config.toml").exists()) and config.resume == "none":
        raise FileExistsError(f'{folder} holds a run already; choose another name, or resume = "auto"')
    return found


def run(config: RunConfig) -> Path:
    """Train as the recipe says.

    Returns:
        The run folder: config.toml, log.jsonl, checkpoint-<step>/, latest, and `adapter/` (PEFT) or `model/`.

    Raises:
        FileExistsError: see `_open_folder`.
        FloatingPointError: if the loss or a gradient is not finite.
    """
    found, folder = _open_folder(config), config.folder
    setup = prepare(config)
    recipe = to_toml(config)
    optimizer = MasterAdamW(setup.model, config.optim)
    progress = load_checkpoint(found, optimizer, recipe) if found else Progress()
    (folder / "config.toml").write_text(recipe)
    say(f"{setup.report}; {setup.n_steps} steps of {setup.items_per_step} pages on {setup.device}")
    if found:
        say(f"going on from {found.name}")
    log = StepLog(folder, progress.step, setup.n_steps)
    for reached in _steps(setup, optimizer, progress, log):
        progress = reached
        if config.save.every and progress.step % config.save.every == 0 and progress.step < setup.n_steps:
            _save(setup, optimizer, progress, recipe)
    log.close()
    if progress.step > log.first or not found:  # a finished run has its last checkpoint already
        _save(setup, optimizer, progress, recipe)
    return _finish(setup)


def _save(setup: Setup, optimizer: MasterAdamW, progress: Progress, recipe: str) -> None:
    config = setup.config
    save_checkpoint(config.folder, setup.model, optimizer, progress, recipe, config.tuning.method, config.save.keep)


def _finish(setup: Setup) -> Path:
    """Leave what others load: adapter/ under "lora", otherwise model/."""
    folder = setup.config.folder
    is_lora = setup.config.tuning.method == "lora"
    target = folder / ("adapter" if is_lora else "model")
    if target.exists():  # of an earlier end of the same run
        os.rename(target, target.with_name(f"{target.name}-{int(time.time())}"))
    if is_lora:
        save_adapter(setup.model, target)
    else:
        save_model(setup.model, target)
    say(f"wrote {target}")
    return folder
