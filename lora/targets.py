"""Which linear layers get adapters: named groups, or patterns over module paths."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from minimllama import MiniMllama

Rule = Callable[[str, MiniMllama], bool]


def is_in_cross_layer(name: str, model: MiniMllama) -> bool:
    """Whether a path lies in a cross-attention layer of the text model."""
    parts = name.split(".")
    return parts[:2] == ["text", "layers"] and int(parts[2]) in model.config.text.cross_layers


GROUPS: dict[str, Rule] = {
    "all-linear": lambda name, model: True,
    "text": lambda name, model: name.startswith("text."),
    "vision": lambda name, model: name.startswith("vision."),
    "cross": lambda name, model: name == "projector" or is_in_cross_layer(name, model),
    "attention": lambda name, model: ".attention." in name,
}


def find_targets(model: MiniMllama, targets: str | Sequence[str]) -> list[str]:
    """Paths of the linear layers to adapt, in the order of the model. lm_head is never among them.

    Args:
        model: any MiniMllama.
        targets: a name of GROUPS, or shell patterns over paths ("text.layers.*.q_proj").

    Raises:
        ValueError: if there is no pattern, or one matches no linear layer, which names the pattern and shows what
            paths look like.
    """
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and not name.endswith("lm_head")]
    wanted = [targets] if isinstance(targets, str) else list(targets)
    if not wanted:
        raise ValueError(f"targets is empty: name a group ({', '.join(GROUPS)}), or layers like {linear[0]}")
    chosen: set[str] = set()
    for target in wanted:
        rule = GROUPS.get(target)
        found = {name for name in linear if (rule(name, model) if rule else fnmatchcase(name, target))}
        if not found:
            raise ValueError(
                f"targets: {target!r} is neither a group ({', '.join(GROUPS)}) nor does it match a linear layer; "
                f"layers are named like {linear[0]}"
            )
        chosen |= found
    return [name for name in linear if name in chosen]
