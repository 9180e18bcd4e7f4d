"""Write a model in Meta's native layout: the way back from minimllama/checkpoint/meta.py, written independently of it.

Names and shapes: llama-models, models/llama3/multimodal/model.py. Position tables become 4 x 4 grids whose
unreachable cells hold noise, as in the published files.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from minimllama import MiniMllama, ModelConfig

ENCODER = "vision_model.vision_encoder."
GRIDS = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]  # by aspect ratio id - 1
TEXT_LAYER = {
    "attention_norm.weight": "attention_norm.weight",
    "mlp_norm.weight": "ffn_norm.weight",
    "attention_gate": "gate_attn",
    "mlp_gate": "gate_ffwd",
    "attention.q_norm.weight": "attention.q_norm.weight",
    "attention.k_norm.weight": "attention.k_norm.weight",
    "attention.q_proj.weight": "attention.wq.weight",
    "attention.k_proj.weight": "attention.wk.weight",
    "attention.v_proj.weight": "attention.wv.weight",
    "attention.o_proj.weight": "attention.wo.weight",
    "mlp.gate_proj.weight": "feed_forward.w1.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
    "mlp.up_proj.weight": "feed_forward.w3.weight",
}
VISION = [
    ("class_embedding", "class_embedding"),
    ("positions.embedding", "positional_embedding"),
    ("positions.gate", "gated_positional_embedding_gate"),
    ("positions.table", "gated_positional_embedding"),
    ("pre_tile.gate", "pre_tile_pos_embed.gate"),
    ("pre_tile.table", "pre_tile_pos_embed.embedding"),
    ("post_tile.gate", "post_tile_pos_embed.gate"),
    ("post_tile.table", "post_tile_pos_embed.embedding"),
    ("patches.weight", "conv1._linear.weight"),
    ("norm_pre.", "ln_pre."),
    ("norm_post.", "ln_post."),
    ("global_layers.", "global_transformer.resblocks."),
    ("local_layers.", "transformer.resblocks."),
]
VISION_LAYER = [
    ("attention_norm", "ln_1"),
    ("mlp_norm", "ln_2"),
    ("attention_gate", "gate_attn"),
    ("mlp_gate", "gate_ffn"),
    ("attention.q_proj", "attn.wq"),
    ("attention.k_proj", "attn.wk"),
    ("attention.v_proj", "attn.wv"),
    ("attention.o_proj", "attn.wo"),
    ("fc1", "c_fc"),
    ("fc2", "c_proj"),
]
BY_ROWS = ("wq.weight", "wk.weight", "wv.weight", "w1.weight", "w3.weight", "c_fc.weight", "c_fc.bias")
BY_ROWS += ("conv1._linear.weight", "vision_projection.weight", "vision_projection.bias")
BY_ROWS += ("tok_embeddings.weight", "learnable_embedding.weight", "text_model.output.weight")
BY_COLUMNS = ("wo.weight", "w2.weight", "c_proj.weight")


def halves_to_neighbours(weight: Tensor, n_heads: int) -> Tensor:
    """Row r + F p of each head becomes row 2 r + p: Meta's order of rotary pairs."""
    rows = weight.view(n_heads, 2, -1, weight.shape[1])
    return torch.stack([rows[:, 0], rows[:, 1]], dim=2).reshape(weight.shape)


def to_grid(table: Tensor, n_tokens: int) -> Tensor:
    """[9, 4 * N * D] -> [4, 4, N, D]; rows of the table overlap, so this needs a table that came from a grid."""
    rows = table.view(9, 4, n_tokens, -1)
    grid = torch.randn(4, 4, *rows.shape[2:])
    for (height, width), row in zip(GRIDS, rows[1:], strict=True):
        grid[:height, :width] = row[: height * width].unflatten(0, (height, width))
    return grid


def make_tables_reachable(model: MiniMllama) -> None:
    """Give the position tables values that a grid can hold, in place: one cell of a grid, one value everywhere."""
    with torch.no_grad():
        for table, n in (
            (model.vision.positions.table, model.config.vision.tokens_per_tile),
            (model.vision.pre_tile.table, 1),
            (model.vision.post_tile.table, 1),
        ):
            grid = torch.randn(4, 4, n, table.shape[1] // 4 // n)
            table.zero_()
            for i, (height, width) in enumerate(GRIDS, start=1):
                cells = grid[:height, :width].reshape(-1)
                table[i, : len(cells)] = cells


def native_tensors(model: MiniMllama) -> dict[str, Tensor]:
    """All weights under Meta's names."""
    text, out = model.config.text, {}
    numbers = {True: 0, False: 0}  # how many cross and self layers have been met
    places: dict[int, str] = {}
    for i in range(text.n_layers):
        is_cross = i in text.cross_layers
        places[i] = f"text_model.{'cross_attention_layers' if is_cross else 'layers'}.{numbers[is_cross]}."
        numbers[is_cross] += 1
    for name, parameter in model.named_parameters():
        p, path = parameter.detach(), name.split(".", 1)[1]
        if name.startswith("projector."):
            out[f"vision_model.vision_projection.{path}"] = p
        elif name.startswith("vision."):
            theirs = next(new + path[len(old) :] for old, new in VISION if path.startswith(old))
            if "resblocks" in theirs:
                theirs = next(theirs.replace(old, new) for old, new in VISION_LAYER if f".{old}" in theirs)
            if path.endswith("table"):
                p = to_grid(p, model.config.vision.tokens_per_tile if path.startswith("positions") else 1)
            out[ENCODER + theirs] = p.flatten(1) if path == "patches.weight" else p
        elif path == "embed_tokens.weight":
            out["text_model.tok_embeddings.weight"] = p[: text.vocab_size]
            out["text_model.learnable_embedding.weight"] = p[text.vocab_size :]
        elif path.startswith("layers."):
            _, index, leaf = path.split(".", 2)
            if int(index) not in text.cross_layers and leaf in ("attention.q_proj.weight", "attention.k_proj.weight"):
                p = halves_to_neighbours(p, text.n_heads if "q_proj" in leaf else text.n_kv_heads)
            out[places[int(index)] + TEXT_LAYER[leaf]] = p
        else:
            out[{"norm.weight": "text_model.norm.weight", "lm_head.weight": "text_model.output.weight"}[path]] = p
    out["text_model.rope.freqs"] = torch.zeros(3)  # some files have it; it is derived
    return out


def native_params(config: ModelConfig) -> dict[str, object]:
    """params.json; only for sizes that it can express."""
    text = config.text
    return {
        "dim": text.width,
        "n_layers": text.n_layers - len(text.cross_layers),
        "n_heads": text.n_heads,
        "n_kv_heads": text.n_kv_heads,
        "vocab_size": text.vocab_size,
        "ffn_dim_multiplier": 1.0,
        "multiple_of": text.mlp_width,
        "norm_eps": text.norm_eps,
        "rope_theta": text.rope.theta,
        "use_scaled_rope": True,
        "vision_chunk_size": config.vision.tile_size,
        "vision_max_num_chunks": config.vision.max_tiles,
        "vision_num_cross_attention_layers": len(text.cross_layers),
    }


def write_native(model: MiniMllama, folder: Path, n_shards: int = 1) -> Path:
    """params.json and consolidated.*.pth, cut over this many tensor-parallel ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(native_params(model.config)))
    tensors = native_tensors(model)
    for rank in range(n_shards):
        shard = {}
        for name, whole in tensors.items():
            dim = 0 if name.endswith(BY_ROWS) else 1 if name.endswith(BY_COLUMNS) else None
            part = whole if dim is None else whole.chunk(n_shards, dim)[rank]
            shard[name] = part.clone().contiguous()
        torch.save(shard, folder / f"consolidated.{rank:02d}.pth")
    return folder
