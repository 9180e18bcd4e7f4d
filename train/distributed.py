"""The ranks of a run: torchrun's environment, the process group, and small sums over all ranks.

The only file that reads the environment. Without torchrun there is one rank and nothing here communicates.
"""

import atexit
import itertools
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.rendezvous import rendezvous

from minimllama.console import say
from train.rounds import PAUSE, fresh_store

Made = TypeVar("Made")
_TURNS = itertools.count()  # every rank takes them in the same order
LAUNCH = "torchrun --standalone --nproc-per-node N -m train run --recipe FILE"


@dataclass(frozen=True, kw_only=True)
class World:
    """Where this process stands.

    Attributes:
        rank, size: of this process, and of all of them.
        local_rank, local_size: on this node.
        device: that this rank computes on.
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files that exist once."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """Sum over all ranks, in float64."""
        return self.totals([value])[0]

    def totals(self, values: list[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        if self.size == 1:
            return values
        table = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(table)
        return table.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            self.total(0.0)

    def main_first(self, make: Callable[[], Made]) -> Made:
        """What `make` makes, on the main rank before the others, which wait for it without a limit.

        For what is written once and found again: the index of a large data set takes longer than collectives wait.

        Raises:
            RuntimeError: on the others, if the main rank could not; see `together`.
        """
        if self.size == 1:
            return make()
        store, key, made, error = _get_default_store(), f"made-{next(_TURNS)}", None, None
        if self.is_main:
            try:
                made = make()
            except Exception as caught:
                error = caught
            store.set(key, "")
        while not store.check([key]):
            time.sleep(PAUSE)
        self.together(error)
        return make() if made is None else made

    def together(self, error: Exception | None) -> None:
        """Raise on all ranks if one of them has failed, so that none waits for it.

        Raises:
            Exception: the rank's own.
            RuntimeError: another rank's, with its number.
        """
        messages = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                raise RuntimeError(f"rank {rank}: {message}")

    def say(self, text: str) -> None:
        """One line, from the main rank only."""
        if self.is_main:
            say(text)


def refuse_other_launchers(environment: Mapping[str, str]) -> None:
    """Say in one sentence what to run instead.

    Raises:
        ValueError: if `accelerate launch` or `deepspeed` started this process.
    """
    others = {"accelerate launch": "ACCELERATE_", "deepspeed": "CROSS_SIZE"}  # what each of them sets
    for launcher, mark in others.items():
        if any(name.startswith(mark) for name in environment):
            raise ValueError(f"started by {launcher}, which this program does not use: run {LAUNCH}")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The named device; "auto" is an accelerator if there is one. Each rank of a node has its own.

    Raises:
        ValueError: if PyTorch knows no such device, or this rank has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is none of auto, cpu, cuda, cuda:0 ...") from error
    if device.type == "cuda" and device.index is None:
        n = torch.cuda.device_count()
        if local_rank >= n:
            raise ValueError(f"local rank {local_rank} has no accelerator: there are {n}; lower --nproc-per-node")
        device = torch.device("cuda", local_rank)
    return device


def check_launcher() -> None:
    """`refuse_other_launchers` for this process."""
    refuse_other_launchers(os.environ)


def start(device: str, timeout_seconds: int = 600) -> World:
    """Join the other ranks, if torchrun started this process.

    Args:
        device: as in a recipe.
        timeout_seconds: how long a rank waits for the others before it ends with an error.

    Raises:
        ValueError: if another launcher started it.
    """
    check_launcher()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device=choose_device(device))
    local_rank = int(os.environ["LOCAL_RANK"])
    chosen = choose_device(device, local_rank)
    backend = "gloo"
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl"
    if not dist.is_initialized():
        timeout = timedelta(seconds=timeout_seconds)
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store = fresh_store(store, rank, size, timeout_seconds)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return World(
        device=chosen,
        rank=dist.get_rank(),
        size=size,
        local_rank=local_rank,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", size)),
    )


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process with an exit code; the last line of a program that torchrun may have started.

    A rank ends without the interpreter's own clean-up. gloo's worker threads outlive `destroy_process_group` wherever
    PyTorch caches a device mesh, and free the tensors of the last collective a moment after it has returned. If one of
    them waits for the interpreter's lock when the clean-up begins, Python ends that thread and C++ answers with
    `terminate called without an active exception`: a run that has done all its work would count as failed (SIGABRT).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    atexit._run_exitfuncs()  # what the clean-up would call: ends the workers of data loaders, flushes logs
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def restarts() -> int:
    """How often torchrun has started this run again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def job() -> str:
    """A name that all attempts of one job of torchrun share, and no other job has; "" without torchrun.

    Several ranks find it in torchrun's store, which lives as long as torchrun: the name that torchrun itself gives is
    "none" for every job that was started without --standalone and --rdzv-id.
    """
    if not dist.is_initialized():
        return os.environ.get("TORCHELASTIC_RUN_ID", "")
    store = _get_default_store()
    while isinstance(store, PrefixStore):  # below which each attempt writes; see train.rounds
        store = store.underlying_store
    return store.compare_set("minimllama-job", "", uuid.uuid4().hex).decode()
