"""The ranks of a run."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from tests.tools.gloo import run_ranks
from train.distributed import World, choose_device, job, leave, refuse_other_launchers, start
from train.rounds import fresh_store


def everything(world: World) -> dict:
    errors = []
    for failing in (None, 1):
        error = KeyError("lost") if world.rank == failing else None
        try:
            world.together(error)
            errors.append("")
        except (KeyError, RuntimeError) as caught:
            errors.append(f"{type(caught).__name__}: {caught}")

    def turn() -> int:
        time.sleep(0.1 * world.is_main)
        return _get_default_store().add("turns", 1)

    def refuse() -> None:
        raise ValueError("no such folder")

    try:
        world.main_first(refuse)
    except (ValueError, RuntimeError) as caught:
        errors.append(f"{type(caught).__name__}: {caught}")

    return {
        "main": world.is_main,
        "turn": world.main_first(turn),
        "jobs": [job(), job()],
        "totals": world.totals([world.rank + 0.5, 1e9 + world.rank]),
        "gathered": world.gather({"rank": world.rank}),
        "errors": errors,
    }


def test_ranks_add_gather_wait_for_the_main_one_and_fail_together() -> None:
    ranks = run_ranks(3, everything)
    assert [rank["main"] for rank in ranks] == [True, False, False]
    assert ranks[0]["turn"] == 1  # however long it takes
    assert len({name for rank in ranks for name in rank["jobs"]} | {""}) == 2  # one name, of every rank
    assert all(rank["totals"] == [4.5, 3e9 + 3] for rank in ranks)  # float64: exact
    assert all(rank["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}] for rank in ranks)
    assert [rank["errors"][1] for rank in ranks] == [
        "RuntimeError: rank 1: KeyError: 'lost'",
        "KeyError: 'lost'",
        "RuntimeError: rank 1: KeyError: 'lost'",
    ]
    assert all(rank["errors"][0] == "" for rank in ranks)
    told = "RuntimeError: rank 0: ValueError: no such folder"  # not left to wait for what will not be made
    assert [rank["errors"][2] for rank in ranks] == ["ValueError: no such folder", told, told]


def test_an_attempt_never_reads_what_an_earlier_one_wrote() -> None:
    """Two attempts of three ranks over one store; of the first, rank 2 dies before anyone has heard of it."""
    store = dist.HashStore()
    store.set("asks-2", "a dead rank's question")
    for attempt in (1, 2):
        with ThreadPoolExecutor(3) as pool:
            stores = list(pool.map(lambda rank: fresh_store(store, rank, 3, 30.0), range(3)))
        assert all(not one.check(["address"]) for one in stores)
        stores[0].set("address", f"of attempt {attempt}")
        assert all(one.get("address") == f"of attempt {attempt}".encode() for one in stores)


def test_a_rank_that_does_not_come_is_named() -> None:
    with pytest.raises(TimeoutError, match=r"ranks \[1\] did not begin"):
        fresh_store(dist.HashStore(), 0, 2, 0.1)


def test_without_torchrun_there_is_one_rank() -> None:
    world = start("cpu")
    assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, torch.device("cpu"))
    assert world.total(2.5) == 2.5
    assert world.gather("x") == ["x"]


@pytest.mark.parametrize(
    ("launcher", "name"), [("accelerate launch", "ACCELERATE_MIXED_PRECISION"), ("deepspeed", "CROSS_SIZE")]
)
def test_other_launchers_are_refused_in_one_sentence(launcher: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"started by {launcher}, which this .*: run torchrun --standalone"):
        refuse_other_launchers({name: "1", "RANK": "0"})
    refuse_other_launchers({"RANK": "0", "WORLD_SIZE": "4"})


def test_a_rank_without_an_accelerator_of_its_own_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there are accelerators")
    with pytest.raises(ValueError, match="local rank 2 has no accelerator: there are 0"):
        choose_device("cuda", 2)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device='gpu' is none of auto, cpu, cuda"):
        choose_device("gpu")


ENDING = """
import atexit, os, sys
from train.distributed import leave

class Last:
    def __del__(self, write=os.write):
        write(2, b"cleaned up")

last = Last()  # freed by the interpreter's clean-up
atexit.register(print, "exit function")
print("said before")
leave(3)
"""


def test_a_rank_ends_without_the_clean_up_in_which_gloo_aborts() -> None:
    """See `leave`. What was said is still written, what registered itself is still called, the exit code arrives."""
    environment = {**os.environ, "WORLD_SIZE": "2"}
    ended = subprocess.run([sys.executable, "-c", ENDING], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "said before\nexit function\n", "")


def test_one_process_ends_as_any_other() -> None:
    with pytest.raises(SystemExit) as caught:
        leave(3)
    assert caught.value.code == 3
