"""How much a block keeps for its backward pass: counted on the real blocks, without memory, by fake tensors.

Autograd tells what it saves. A block's bytes grow linearly with its tokens (attention keeps no scores), so one block
of each kind, with the model's widths, is enough.

Shapes: N images, S vision tokens, R questions, T tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora import TuneConfig, apply_tuning
from minimllama import MiniMllama, ModelConfig
from minimllama.visibility import see
from train.activation import is_attention

ENOUGH = 1024  # text tokens to count with: shorter rows take another road through attention on CPUs


@dataclass(frozen=True, kw_only=True)
class BlockBytes:
    """Of one block.

    Attributes:
        kept: all that its backward pass needs, for the tokens it was counted with.
        entering: its input alone: what recomputing keeps.
        attention: the results of its attention, which selective recomputing keeps, too.
    """

    kept: float
    entering: float
    attention: float

    def __mul__(self, factor: float) -> "BlockBytes":
        return BlockBytes(**{name: value * factor for name, value in vars(self).items()})


class _AttentionBytes(TorchDispatchMode):
    """Adds up what attention returns while it is entered."""

    total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if is_attention(func):
            self.total += sum(part.nbytes for part in tree_leaves(returned) if isinstance(part, Tensor))
        return returned


def _saved(run: Callable[[], Tensor], owner: nn.Module, drop: float, mask_bytes: float) -> float:
    """Bytes that autograd saves while `run` runs, each storage once, without parameters."""
    seen: dict[int, Tensor] = {}
    parameters = {p.untyped_storage()._cdata for p in owner.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in parameters:
            seen[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    total = 0.0
    for tensor in seen.values():
        if tensor.dtype == torch.int32 and tensor.dim() == 1 and drop:  # positions that dropout drops
            total += tensor.numel() / drop * mask_bytes
        else:
            total += tensor.untyped_storage().nbytes()
    return total


def _one_of_each(config: ModelConfig) -> ModelConfig:
    """A local, a global, a cross- and a self-attention layer of the same widths; nothing else matters here."""
    vision = replace(config.vision, n_local_layers=1, n_global_layers=1, taps=(0,))
    text = replace(config.text, n_layers=2, cross_layers=(0,), vocab_size=8, n_extra_embeddings=1)
    return replace(config, vision=vision, text=text, image_token_id=8)


def _build(config: ModelConfig, tuning: TuneConfig, dtype: torch.dtype) -> MiniMllama:
    """In place: fake parameters cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = MiniMllama(config)
    finally:
        torch.set_default_dtype(before)
    apply_tuning(model, tuning)
    return model.train()


def block_bytes(
    config: ModelConfig, tuning: TuneConfig, dtype: torch.dtype, pages: int, rows: int, length: int, *, on_cpu: bool
) -> dict[str, BlockBytes]:
    """What one block of each kind keeps.

    Args:
        config: of the whole model.
        tuning: what is trained.
        dtype: of weights and activations.
        pages, rows, length: of a forward pass.
        on_cpu: whether dropout keeps positions (four bytes per dropped element) or a mask (one byte per element).

    Returns:
        "local", "global", "cross", "self".
    """
    vision, text = config.vision, config.text
    small = _one_of_each(config)
    tokens = torch.full((1, ENOUGH), 1)
    tokens[:, 0] = small.image_token_id
    sight = see(tokens, [[vision.max_tiles]], small)
    mask_bytes = 4 * tuning.dropout if on_cpu else 1.0
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = _build(small, tuning, dtype)
        n_vision = vision.max_tiles * (vision.tokens_per_tile + vision.padding_per_tile)
        learns = any(p.requires_grad for p in model.vision.parameters())  # a frozen tower has no backward pass
        x = torch.empty(1, n_vision, vision.width, dtype=dtype, requires_grad=learns)  # [N, S, D]
        h = torch.empty(1, ENOUGH, text.width, dtype=dtype, requires_grad=True)  # [R, T, D]
        states = torch.empty(1, vision.max_tiles * vision.tokens_per_tile, text.width, dtype=dtype, requires_grad=True)
        span = model.text.span(torch.arange(ENOUGH)[None], 0, ragged=True)
        n_real = [vision.max_tiles * vision.tokens_per_tile]

        def count(block: nn.Module, inputs: tuple[Any, ...]) -> BlockBytes:
            with _AttentionBytes() as attention:
                kept = _saved(lambda: block(*inputs), block, tuning.dropout, mask_bytes)
            learns_from = inputs[0].requires_grad  # otherwise nothing is kept
            entering = inputs[0].nbytes if learns_from else 0
            return BlockBytes(kept=kept, entering=entering, attention=attention.total * learns_from)

        of_text = rows * length / ENOUGH
        cross = count(model.text.layers[0], (h, sight, states))
        return {
            "local": count(model.vision.local_layers[0], (x, n_real)) * pages,
            "global": count(model.vision.global_layers[0], (x, n_real)) * pages,
            "cross": _cross(cross, states.nbytes, pages, of_text, text.n_kv_heads / text.n_heads),
            "self": count(model.text.layers[1], (h, span)) * of_text,
        }


def _cross(counted: BlockBytes, states: float, pages: int, of_text: float, share: float) -> BlockBytes:
    """A cross-attention block grows with its text, but for keys, values and what they come from, with the pages.

    Per page it keeps the keys before and after their norm (and the norm's float32 copies) and the values; the
    states themselves are kept once for all such blocks.
    """
    per_page = min(states * share * 5, counted.kept)
    per_text = max(counted.kept - per_page - states, counted.entering)
    entering, attention = counted.entering * of_text, counted.attention * of_text
    return BlockBytes(kept=per_text * of_text + per_page * pages, entering=entering, attention=attention)
