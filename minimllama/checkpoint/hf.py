"""Names of the Hugging Face layout.

Two families of names are in use for the same tensors (transformers, conversion_mapping.py): "files", which
the published checkpoints have and save_pretrained writes, and "memory", the module paths of transformers from
4.52 on.
"""

from collections.abc import Callable, Iterable

_VISION = {
    "patches": "patch_embedding",
    "class_embedding": "class_embedding",
    "pre_tile.table": "pre_tile_positional_embedding.embedding.weight",
    "pre_tile.gate": "pre_tile_positional_embedding.gate",
    "post_tile.table": "post_tile_positional_embedding.embedding.weight",
    "post_tile.gate": "post_tile_positional_embedding.gate",
    "positions.embedding": "gated_positional_embedding.embedding",
    "positions.table": "gated_positional_embedding.tile_embedding.weight",
    "positions.gate": "gated_positional_embedding.gate",
    "norm_pre": "layernorm_pre",
    "norm_post": "layernorm_post",
    "local_layers": "transformer.layers",
    "global_layers": "global_transformer.layers",
}
_LAYER = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", "mlp": "mlp"}
_VISION_LAYER = {**_LAYER, "attention": "self_attn", "attention_gate": "gate_attn", "mlp_gate": "gate_ffn"}
_SELF_LAYER = {**_LAYER, "attention": "self_attn"}
_CROSS_LAYER = {
    **_LAYER,
    "attention": "cross_attn",
    "attention_gate": "cross_attn_attn_gate",
    "mlp_gate": "cross_attn_mlp_gate",
}


def _vision_name(path: str) -> str:
    for ours, theirs in _VISION.items():
        if path == ours or path.startswith(ours + "."):
            rest = path[len(ours) :]
            if ours.endswith("_layers"):
                _, index, part, *leaf = rest.split(".")
                return ".".join([theirs, index, _VISION_LAYER[part], *leaf])
            return theirs + rest
    raise KeyError(f"no Hugging Face name for vision.{path}")


def hf_name(name: str, cross_layers: Iterable[int], family: str = "files") -> str:
    """Our parameter or module path -> theirs.

    Args:
        name: "text.layers.3.attention.q_proj.weight".
        cross_layers: which text layers are cross-attention layers.
        family: "files" (language_model.model.X) or "memory" (model.language_model.X).

    Raises:
        KeyError: if the model has no such part.
    """
    part, _, path = name.partition(".")
    outer = "" if family == "files" else "model."
    if part == "projector":
        return f"{outer}multi_modal_projector.{path}".rstrip(".")
    if part == "vision":
        return f"{outer}vision_model.{_vision_name(path)}"
    if path.startswith("lm_head"):
        return f"language_model.{path}" if family == "files" else path
    model = "language_model.model" if family == "files" else "model.language_model"
    if path.startswith("layers."):
        _, index, inner, *leaf = path.split(".")
        table = _CROSS_LAYER if int(index) in set(cross_layers) else _SELF_LAYER
        return ".".join([model, "layers", index, table[inner], *leaf])
    if path.split(".")[0] in ("embed_tokens", "norm"):
        return f"{model}.{path}"
    raise KeyError(f"no Hugging Face name for {name}")


def find_family(names: Iterable[str]) -> str:
    """Which family a file's tensor names belong to."""
    memory = any(name.startswith("model.") or name == "lm_head.weight" for name in names)
    return "memory" if memory else "files"


Namer = Callable[[str], str]


def hf_namer(cross_layers: Iterable[int], family: str) -> Namer:
    """`hf_name` with everything but the name fixed."""
    layers = frozenset(cross_layers)
    return lambda name: hf_name(name, layers, family)
