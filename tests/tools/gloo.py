"""Several ranks on this machine, as torchrun would start them, for tests: forked, so that torch is imported once."""

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from train.distributed import start, stop


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(rank: int, n_ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank of a single node."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "LOCAL_WORLD_SIZE": n_ranks}
    return {**{k: str(v) for k, v in numbers.items()}, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _rank(rank: int, n_ranks: int, port: int, pipe: Connection, task: Callable[..., Any], arguments: tuple) -> None:
    os.environ.update(environment(rank, n_ranks, port))
    try:
        pipe.send(("result", task(start("cpu", 60), *arguments)))
    except BaseException:
        pipe.send(("error", traceback.format_exc()))
    finally:
        stop()
        pipe.close()
        os._exit(0)


def run_ranks(n_ranks: int, task: Callable[..., Any], *arguments: Any, seconds: float = 240) -> list[Any]:
    """task(world, *arguments) on every rank; returns their results in order.

    Raises:
        AssertionError: if a rank raises, dies, or is not done in time; the others are ended.
    """
    context, port = multiprocessing.get_context("fork"), free_port()
    pipes, processes = [], []
    for rank in range(n_ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(rank, n_ranks, port, theirs, task, arguments))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        return _collect(pipes, time.monotonic() + seconds)
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _collect(pipes: list[Connection], ends: float) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(pipes):
        for rank, pipe in enumerate(pipes):
            if rank in results or not pipe.poll(0.01):
                continue
            try:
                kind, value = pipe.recv()
            except EOFError:
                raise AssertionError(f"rank {rank} died") from None
            assert kind == "result", f"rank {rank}:\n{value}"
            results[rank] = value
        assert time.monotonic() < ends, f"only ranks {sorted(results)} are done in time"
    return [results[rank] for rank in range(len(pipes))]
