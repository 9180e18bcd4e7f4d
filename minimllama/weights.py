"""How the text model keeps its weights for generation: as loaded, as its products like them, or in eight bits."""

from collections.abc import Callable

from minimllama.fused import fuse_weights
from minimllama.int8 import quantise_weights
from minimllama.model import MiniMllama
from minimllama.packed import pack_weights

WEIGHTS: dict[str, Callable[[MiniMllama], MiniMllama]] = {
    "plain": lambda model: model,
    "fast": lambda model: pack_weights(fuse_weights(model)),  # packing is for CPUs in bfloat16, and nothing elsewhere
    "int8": lambda model: quantise_weights(fuse_weights(model)),
}


def check_weights(how: str) -> None:
    """Refuse what is not in WEIGHTS."""
    if how not in WEIGHTS:
        raise ValueError(f"weights={how!r} is not one of {', '.join(WEIGHTS)}")


def hold_weights(model: MiniMllama, how: str) -> MiniMllama:
    """Keep the text model's weights as WEIGHTS[how] says, in place and for good; merge adapters first.

    Raises:
        ValueError: for another word.
    """
    check_weights(how)
    return WEIGHTS[how](model)
