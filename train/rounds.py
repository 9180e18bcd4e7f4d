"""Which attempt of a job this is, agreed on by all of its ranks.

torchrun keeps one store of keys over all restarts, and the keys of ranks that have died are still in it: a new rank
would read a dead one's address (torch 2.13, elastic/rendezvous/dynamic_rendezvous.py: the store is made once). So every
attempt writes below a prefix of its own. Counting restarts does not give one: agents count only their own.
"""

import time
import uuid
from datetime import timedelta

from torch._C._distributed_c10d import PrefixStore, Store

PAUSE = 0.02  # seconds between two looks


def _wait_for(store: Store, key: str, ends: float) -> bytes:
    while not store.check([key]):
        if time.monotonic() > ends:
            raise TimeoutError(f"the other ranks did not begin: nobody has written {key}")
        time.sleep(PAUSE)
    return store.get(key)


def _welcome(store: Store, size: int, ends: float) -> int:
    """Rank 0: a new number, told to whoever asks, until every rank has confirmed it."""
    number = store.add("rounds", 1)
    missing = set(range(1, size))
    while missing:
        for rank in sorted(missing):
            if store.check([f"confirmed-{number}-{rank}"]):
                missing.remove(rank)
            elif store.check([f"asks-{rank}"]):  # perhaps a dead rank's question: its answer is never read
                store.set(f"answer-{store.get(f'asks-{rank}').decode()}", str(number))
        if time.monotonic() > ends:
            raise TimeoutError(f"ranks {sorted(missing)} did not begin")
        time.sleep(PAUSE)
    return number


def fresh_store(store: Store, rank: int, size: int, timeout_seconds: float) -> Store:
    """The part of the store that belongs to this attempt alone.

    Raises:
        TimeoutError: if a rank does not come.
    """
    ends = time.monotonic() + timeout_seconds
    store.set_timeout(timedelta(seconds=timeout_seconds))
    if rank == 0:
        number = _welcome(store, size, ends)
    else:
        question = uuid.uuid4().hex  # nobody has asked this before
        store.set(f"asks-{rank}", question)
        number = int(_wait_for(store, f"answer-{question}", ends))
        store.set(f"confirmed-{number}-{rank}", "")
    return PrefixStore(f"round-{number}", store)
