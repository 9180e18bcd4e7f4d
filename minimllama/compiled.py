"""Decoding with compiled layers, and on a GPU with the whole step recorded as one CUDA graph.

One token of one row leaves a GPU idle while Python starts some thousand small kernels. torch.compile fuses those of
a layer, once for all layers of a kind, so that compiling takes as long for 40 layers as for four; a CUDA graph
(torch.cuda.CUDAGraph) starts what is left at once. Compiled again for another number of rows or slots, and then for
any but one row; recorded again for every call of `generate`. Hooks of layers do not run.

Shapes: R rows, W vocabulary.
"""

import functools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minimllama.kv_cache import KvCache
from minimllama.model import MiniMllama
from minimllama.visibility import Sight

SLOTS = 64  # slots of a cache are rounded up to a multiple
Step = Callable[[Tensor, Tensor], Tensor]  # tokens [R], positions [R], where they stand -> logits [R, W]


@functools.cache
def _compiled(kind: type[nn.Module], device: str) -> Callable[..., Tensor]:
    """A kind's forward. After eight variants of one function torch.compile warns, and runs further ones as they are."""
    # on GPUs only tuned code has products with a single row written by the compiler, int8 weights widened in them
    return torch.compile(kind.forward, options={"coordinate_descent_tuning": True} if device == "cuda" else None)


def call_compiled(layer: nn.Module, x: Tensor, *arguments: object) -> Tensor:
    """layer(x, *arguments), compiled when a layer of its kind first comes with new shapes."""
    return _compiled(type(layer), x.device.type)(layer, x, *arguments)


def _step(model: MiniMllama, cache: KvCache, sight: Sight | None, tokens: Tensor, positions: Tensor) -> Tensor:
    """One whose shapes never change: every slot is a key, and a mask tells which are in use."""
    x = model.text(tokens[:, None], None, sight, cache, positions[:, None], cache.n_slots, run=call_compiled)
    return call_compiled(model.text.lm_head, x[:, 0])


@functools.cache
def _streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """For warming up and for recording: always the same ones, because cuBLAS keeps memory for every stream."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


class RecordedStep:
    """A step as a CUDA graph, recorded when it is first called; its result is overwritten by the next call.

    Args:
        step: without a copy from or to the host, and the same when it is run twice.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.graph: torch.cuda.CUDAGraph | None = None

    def _record(self, tokens: Tensor, positions: Tensor) -> None:
        self.tokens, self.positions = tokens.clone(), positions.clone()
        side, recording = _streams(tokens.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles, and lets the libraries set themselves up, which cannot be recorded
            for _ in range(2):
                self.step(self.tokens, self.positions)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # other threads may be loading pages meanwhile
        with torch.cuda.graph(graph, stream=recording, capture_error_mode="thread_local"):
            self.logits = self.step(self.tokens, self.positions)
        self.graph = graph

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: [R], positions: [R] -> [R, W]."""
        if self.graph is None:
            with torch.cuda.device(tokens.device):
                self._record(tokens, positions)
        else:
            self.tokens.copy_(tokens)
            self.positions.copy_(positions)
        assert self.graph is not None
        self.graph.replay()
        return self.logits


def round_slots(n_slots: int) -> int:
    """Slots for compiled steps: fewer sizes to compile for, and aligned ones."""
    return -(-n_slots // SLOTS) * SLOTS


def compiled_step(model: MiniMllama, cache: KvCache, sight: Sight | None) -> Step:
    """The next step of every row of a cache that has been filled: tokens, and where they stand -> logits."""
    step = partial(_step, model, cache, sight)
    return RecordedStep(step) if cache.frequencies.device.type == "cuda" else step
