"""Meta's native layout: other names, interleaved rotary pairs, 4 x 4 position grids, tensor-parallel shards.

Source: llama-models, multimodal/model.py (names and shapes) and the conversion script of transformers
(convert_mllama_weights_to_hf.py). architecture: every tensor is described by where it stands, how its shards
join, and how it becomes ours.

Shapes: H heads, F rotary pairs per head, D width, O columns of a weight, N tokens per table cell, K tile
    slots.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minimllama.checkpoint.files import PthFiles
from minimllama.config import ModelConfig, aspect_ratios

_ENCODER = "vision_model.vision_encoder."
_IGNORED = {"text_model.rope.freqs"}  # derived from the configuration


def join_pairs(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of a rotary projection, from neighbouring pairs to halves: row 2r + p of a head becomes row r + F p."""
    rows = weight.unflatten(0, (n_heads, -1, 2))  # [H, F, 2, O]
    return rows.transpose(1, 2).reshape(weight.shape)


def table_of_grid(grid: Tensor, max_tiles: int) -> Tensor:
    """Meta's position grid [4, 4, N, D] -> one row per aspect ratio id: the cells of that grid, then zeros.

    Row 0 (no image) is zero. Cells that no grid of at most `max_tiles` tiles reaches are dropped.
    """
    ratios = aspect_ratios(max_tiles)
    table = grid.new_zeros(len(ratios) + 1, max_tiles, *grid.shape[2:])
    for i, (rows, columns) in enumerate(ratios, start=1):
        table[i, : rows * columns] = grid[:rows, :columns].flatten(0, 1)
    return table.flatten(1)


@dataclass(frozen=True)
class Origin:
    """How one of our parameters is made from Meta's tensors.

    Attributes:
        names: Meta's tensors; more than one are stacked by rows, as their shards are.
        shard_dim: dimension along which tensor-parallel shards are joined; None: every shard holds all of it.
        convert: what is done to the joined tensor.
    """

    names: tuple[str, ...]
    shard_dim: int | None = None
    convert: Callable[[Tensor], Tensor] = lambda tensor: tensor


_ATTENTION = {"q_proj": ("wq", 0), "k_proj": ("wk", 0), "v_proj": ("wv", 0), "o_proj": ("wo", 1)}
_SWIGLU = {"gate_proj": ("w1", 0), "down_proj": ("w2", 1), "up_proj": ("w3", 0)}


def _vision_layer_origin(prefix: str, path: list[str]) -> Origin:
    if path[0] == "attention":
        leaf, dim = _ATTENTION[path[1]]
        return Origin((f"{prefix}attn.{leaf}.weight",), dim)
    if path[0] == "mlp":
        leaf = {"fc1": "c_fc", "fc2": "c_proj"}[path[1]]
        dim = {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1, "fc2.bias": None}[".".join(path[1:])]
        return Origin((f"{prefix}mlp.{leaf}.{path[2]}",), dim)
    leaf = {
        "attention_norm": "ln_1",
        "mlp_norm": "ln_2",
        "attention_gate": "gate_attn",
        "mlp_gate": "gate_ffn",
    }[path[0]]
    return Origin((".".join([prefix + leaf, *path[1:]]),))


def _vision_origin(path: list[str], config: ModelConfig) -> Origin:
    tiles = config.vision.max_tiles
    if path[0] in ("local_layers", "global_layers"):
        stack = {"local_layers": "transformer", "global_layers": "global_transformer"}[path[0]]
        return _vision_layer_origin(f"{_ENCODER}{stack}.resblocks.{path[1]}.", path[2:])
    simple = {
        "class_embedding": "class_embedding",
        "positions.embedding": "positional_embedding",
        "positions.gate": "gated_positional_embedding_gate",
        "pre_tile.gate": "pre_tile_pos_embed.gate",
        "post_tile.gate": "post_tile_pos_embed.gate",
        "norm_pre.weight": "ln_pre.weight",
        "norm_pre.bias": "ln_pre.bias",
        "norm_post.weight": "ln_post.weight",
        "norm_post.bias": "ln_post.bias",
    }
    tables = {
        "positions.table": "gated_positional_embedding",
        "pre_tile.table": "pre_tile_pos_embed.embedding",
        "post_tile.table": "post_tile_pos_embed.embedding",
    }
    name = ".".join(path)
    if name in simple:
        return Origin((_ENCODER + simple[name],))
    if name in tables:
        return Origin((_ENCODER + tables[name],), None, lambda grid: table_of_grid(grid, tiles))
    patch = config.vision.patch_size
    assert name == "patches.weight", name
    return Origin((f"{_ENCODER}conv1._linear.weight",), 0, lambda weight: weight.unflatten(1, (3, patch, patch)))


def _text_layer_origin(index: int, path: list[str], config: ModelConfig) -> Origin:
    text = config.text
    is_cross = index in text.cross_layers
    number = sum((i in text.cross_layers) == is_cross for i in range(index))
    prefix = f"text_model.{'cross_attention_layers' if is_cross else 'layers'}.{number}."
    if path[0] == "attention" and path[1] in _ATTENTION:
        leaf, dim = _ATTENTION[path[1]]
        heads = {"q_proj": text.n_heads, "k_proj": text.n_kv_heads}.get(path[1])
        convert = (lambda weight: join_pairs(weight, heads)) if heads and not is_cross else (lambda weight: weight)
        return Origin((f"{prefix}attention.{leaf}.weight",), dim, convert)
    if path[0] == "mlp":
        leaf, dim = _SWIGLU[path[1]]
        return Origin((f"{prefix}feed_forward.{leaf}.weight",), dim)
    if path[0] == "attention":
        return Origin((f"{prefix}{'.'.join(path)}",))
    if path[0].endswith("_gate"):
        leaf = {"attention_gate": "gate_attn", "mlp_gate": "gate_ffwd"}[path[0]]
        return Origin((prefix + leaf,), None, lambda gate: gate.flatten()[:1])
    leaf = {"attention_norm": "attention_norm", "mlp_norm": "ffn_norm"}[path[0]]
    return Origin((f"{prefix}{leaf}.weight",))


def origin(name: str, config: ModelConfig) -> Origin:
    """Where our parameter `name` comes from."""
    part, *path = name.split(".")
    if part == "projector":
        return Origin((f"vision_model.vision_projection.{path[0]}",), 0)
    if part == "vision":
        return _vision_origin(path, config)
    if path[0] == "layers":
        return _text_layer_origin(int(path[1]), path[2:], config)
    if path[0] == "embed_tokens":
        return Origin(("text_model.tok_embeddings.weight", "text_model.learnable_embedding.weight"), 0)
    return {
        "norm.weight": Origin(("text_model.norm.weight",)),
        "lm_head.weight": Origin(("text_model.output.weight",), 0),
    }[".".join(path)]


class MetaTensors:
    """Our parameters, read from Meta's files; the same two members as the Hugging Face reader."""

    def __init__(self, files: PthFiles, config: ModelConfig, names: Mapping[str, tuple[int, ...]]) -> None:
        self.files = files
        self.origins = {name: origin(name, config) for name in names}

    def names(self) -> set[str]:
        """Meta's names of all tensors in the files that a model could want."""
        return set(self.files.shard_shapes[0]) - _IGNORED

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that our parameter will have, from the shapes in the files."""
        source = self.origins[name]
        parts = []
        for part in source.names:
            shapes = [torch.empty(shard[part], device="meta") for shard in self.files.shard_shapes]
            parts.append(shapes[0] if source.shard_dim is None else torch.cat(shapes, source.shard_dim))
        return tuple(source.convert(torch.cat(parts) if len(parts) > 1 else parts[0]).shape)

    def read(self, name: str) -> Tensor:
        """Our parameter, joined and converted; the pieces are copied straight into one tensor."""
        source = self.origins[name]
        n_shards = 1 if source.shard_dim is None else len(self.files.paths)
        pieces = [self.files.read(part, shard) for part in source.names for shard in range(n_shards)]
        return source.convert(torch.cat(pieces, source.shard_dim or 0))
