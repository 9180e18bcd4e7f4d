"""A LoRA step on one device: ours and transformers + PEFT, timed, planned and profiled.

Shapes: B samples, T text tokens.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.mid import ALPHA, DROPOUT, R
from benchmarks.on_device import (
    DTYPE,
    Row,
    Task,
    Watch,
    attempt,
    build_ours,
    build_theirs,
    forget_peak,
    held_bytes,
    inputs_on,
    keywords_on,
    peak_bytes,
    repeat,
)
from lora import TuneConfig, apply_tuning
from minimllama import MiniMllama
from minimllama.visibility import see
from train.activation import prepare_blocks
from train.flops import Work, step_flops
from train.loss import answer_loss
from train.optim import MasterAdamW, OptimConfig
from train.plan import PlanConfig, activation_bytes, measure, plan_memory

TUNING = TuneConfig(r=R, alpha=ALPHA, dropout=DROPOUT)
N_PROFILED = 15


def _our_step(task: Task, batch: int, *, checkpointing: bool, compiled: bool) -> tuple[MiniMllama, Callable[[], float]]:
    model = build_ours(task.size, task.device)
    apply_tuning(model, TUNING)
    options = {"checkpoint_activations": checkpointing, "recompute": "blocks", "offload_activations": False}
    prepare_blocks(model, SimpleNamespace(**options, compile=compiled))
    model.train()
    given = inputs_on(task, batch, task.length, task.answers)
    sight = see(given.tokens.cpu(), given.images.n_tiles, model.config).to(task.device)
    n_answers = int((given.labels >= 0).sum())
    optimizer = MasterAdamW(model, OptimConfig(peak_lr=1e-4))

    def step() -> float:
        hidden = model(given.tokens, given.images, sight, hidden=True)
        loss = answer_loss(model.text.lm_head, hidden, given.labels, n_answers)
        loss.backward()
        optimizer.step(optimizer.gradient_norm(), 1e-4)
        return float(loss.detach())

    return model, step


def _their_step(task: Task, batch: int, *, checkpointing: bool, compiled: bool) -> tuple[None, Callable[[], float]]:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules="all-linear")
    model: Any = get_peft_model(build_theirs(task.size, task.device), config)
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    if compiled:  # block by block as ours; compiled whole, the real size takes longer than all of this script
        for module in model.modules():
            if type(module).__name__.endswith("Layer") and "Norm" not in type(module).__name__:
                module.compile()
    model.train()
    given = inputs_on(task, batch, task.length, task.answers)
    labels = torch.full_like(given.labels, -100)
    labels[:, 1:] = given.labels[:, :-1]  # they shift by themselves
    keywords = keywords_on(task.device, given) | {"labels": labels}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True, weight_decay=0.0)

    def step() -> float:
        loss = model(**keywords).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return None, step


def planned_bytes(task: Task, model: MiniMllama, batch: int, *, checkpointing: bool) -> float:
    """What `train plan` says for one rank."""
    recipe: Any = SimpleNamespace(
        tuning=TUNING,
        batch=SimpleNamespace(images_per_forward=batch, accumulate=1),
        data=SimpleNamespace(questions_per_image=1),
        compute=SimpleNamespace(  # train.settings wants packages that a GPU's machine may lack
            dtype="bfloat16", checkpoint_activations=checkpointing, recompute="blocks", offload_activations=False
        ),
    )
    plan = PlanConfig(ranks=1, length=task.length, answers=task.answers)
    kept = activation_bytes(model.config, recipe, plan, on_cpu=task.device.type == "cpu")
    return plan_memory("none", measure(model, DTYPE), kept, recipe, plan).total


def step(task: Task, side: str, *, compiled: bool) -> Iterator[Row]:
    """A LoRA step: forward, backward, clipping, AdamW; every batch, with and without activation checkpointing."""
    prepare = _our_step if side == "ours" else _their_step
    for batch in task.batches:
        for checkpointing in (False, True):

            def case(batch: int = batch, checkpointing: bool = checkpointing) -> Row:
                before = held_bytes(task.device)
                model, run = prepare(task, batch, checkpointing=checkpointing, compiled=compiled)
                forget_peak(task.device)
                with Watch(task.device) as first:
                    loss = run()
                seconds = repeat(run, task.device, task.case_seconds, warm_up=False)
                found: Row = {"seconds": seconds, "first_seconds": first.seconds, "loss": loss}
                found["peak_bytes"] = peak_bytes(task.device) - before
                if model is not None:
                    work = Work(pages=batch, rows=batch, length=task.length, answers=batch * task.answers)
                    found["flops"] = step_flops(model, work)[1]
                    found["planned_bytes"] = planned_bytes(task, model, batch, checkpointing=checkpointing)
                return found

            row = {"side": side, "batch": batch, "checkpointing": checkpointing, "compiled": compiled}
            yield attempt(row, case)


def profile(task: Task) -> Iterator[Row]:
    """Where the time of our step goes: operations by the time they take themselves."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    is_cuda = task.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    _, run = _our_step(task, task.batches[0], checkpointing=False, compiled=False)
    run()
    with record(activities=activities) as seen:
        run()
    own = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    # on a GPU kernels alone: the calls that started them carry the same time again
    events = [e for e in seen.key_averages() if not is_cuda or "CUDA" in str(e.device_type)]
    events.sort(key=lambda event: -getattr(event, own))
    whole = sum(getattr(event, own) for event in events)
    for event in events[:N_PROFILED]:
        ms = getattr(event, own) / 1000
        yield {"case": event.key[:90], "calls": event.count, "ms": ms, "share": 1000 * ms / max(whole, 1)}
