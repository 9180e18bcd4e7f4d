"""Batches are drawn before they are asked for."""

import multiprocessing
import signal
import time
from dataclasses import replace

import torch

from tests.train.conftest import MakeConfig
from train.dataset import EcgDataset, Sample
from train.mixture import Item
from train.setup import _end_workers, load_batches, prepare


class Counting(torch.utils.data.Dataset[Sample]):
    """A data set that counts what its workers have drawn."""

    def __init__(self, inner: EcgDataset) -> None:
        self.inner, self.drawn = inner, multiprocessing.Value("i", 0)

    def __getitem__(self, item: Item) -> Sample:  # type: ignore[override]
        sample = self.inner[item]
        with self.drawn.get_lock():
            self.drawn.value += 1
        return sample


def test_workers_draw_ahead_of_a_slow_step_so_that_it_need_not_wait(make_config: MakeConfig) -> None:
    setup = prepare(make_config(data={"workers": 2}))
    counting = Counting(setup.dataset)
    batches = load_batches(replace(setup, dataset=counting), 0, 40)  # twenty batches of two pages
    first = next(batches)
    ahead = 2 * (1 + 2 * 4)  # pages of the first batch, and of four for each worker
    deadline = time.monotonic() + 60
    while counting.drawn.value < ahead and time.monotonic() < deadline:  # this is the slow step
        time.sleep(0.01)
    assert counting.drawn.value == ahead  # all of them, without being asked, and no more
    names = [first.record_ids, *(batch.record_ids for batch in batches)]
    assert names == [batch.record_ids for batch in load_batches(prepare(make_config()), 0, 40)]
    assert counting.drawn.value == 40


def test_workers_outlive_a_scheduler_but_never_the_run(make_config: MakeConfig) -> None:
    """A run that ended by an error with its loader still held once waited for its workers without an end."""
    before = signal.getsignal(signal.SIGCHLD)
    batches = load_batches(prepare(make_config(data={"workers": 1})), 0, 40)
    assert len(next(batches).n_tiles) == 2
    (worker,) = multiprocessing.active_children()
    worker.terminate()
    worker.join(0.05)
    assert worker.is_alive()
    try:
        _end_workers()  # as the interpreter calls it at the end
        worker.join(10)
        assert worker.exitcode == -signal.SIGKILL
        del batches  # PyTorch forgets the worker, of which its own handler would complain
    finally:
        signal.signal(signal.SIGCHLD, before)
