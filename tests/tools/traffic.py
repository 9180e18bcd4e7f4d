"""Bytes that this rank receives from others in collective calls, as rings of `n` ranks send them."""

from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves

from tests.tools.live_bytes import LiveBytes

TIMES = {"_allgather_base_": 1, "_reduce_scatter_base_": 1, "allreduce_": 2}  # of (n-1)/n of the largest tensor


class LiveAndReceivedBytes(LiveBytes):
    """LiveBytes, and `received`: (n-1)/n of what is gathered or scattered, twice that of what is summed everywhere."""

    received = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            leaves = tree_leaves((args, kwargs))
            largest = max(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
            n = next(dist.ProcessGroup.unbox(leaf).size() for leaf in leaves if isinstance(leaf, torch.ScriptObject))
            self.received += TIMES[func.__name__.split(".")[0]] * (n - 1) / n * largest
        return super().__torch_dispatch__(func, types, args, kwargs)
