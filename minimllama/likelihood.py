"""Many short continuations of a few prompts in one pass: the way to score all labels of an image.

The image and the prompt are run once; every suffix becomes a row that starts from a copy of the prompt's
(short) text cache and shares the image's keys and values. As many suffixes run at once as ROOM holds.

Shapes: B prompts, L suffixes, R = B * L rows, T longest suffix, C candidate tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minimllama.chat import pad_rows
from minimllama.generate import Prefix, prefill
from minimllama.image import ImageBatch
from minimllama.model import MiniMllama
from minimllama.packed import rows_of
from minimllama.visibility import RowGroups, look


@torch.no_grad()
def suffix_states(model: MiniMllama, prefix: Prefix, suffixes: Sequence[Tensor]) -> Tensor:
    """Hidden states [B, L, T, D] at every token of every suffix after every prompt; padding's are meaningless."""
    n_prompts, n_suffixes, device = len(prefix.lengths), len(suffixes), prefix.hidden.device
    tokens = pad_rows([suffix.cpu() for suffix in suffixes], model.config.text.pad_id).repeat(n_prompts, 1)  # [R, T]
    model.check_tokens(tokens)
    n_tokens, longest = tokens.shape[1], max(prefix.lengths)
    cache = prefix.cache.branch(n_suffixes, longest, longest + n_tokens)
    starts = torch.tensor(prefix.lengths, device=device).repeat_interleave(n_suffixes)
    positions = starts[:, None] + torch.arange(n_tokens, device=device)  # [R, T]
    sight = None
    if prefix.visible is not None:
        visible = prefix.visible.repeat_interleave(n_suffixes, dim=0).expand(-1, n_tokens, -1, -1)
        groups = RowGroups(n_rows=n_prompts * n_suffixes, n_samples=n_prompts)
        sight = look(visible, groups, model.config.vision.tokens_per_tile, leak=model.leak).to(device)
    x = model.text(tokens.to(device), None, sight, cache, positions, longest + n_tokens)  # [R, T, D]
    return x.unflatten(0, (n_prompts, n_suffixes))  # [B, L, T, D]


ROOM = 2**31  # bytes that the rows of one pass may take: caches, and what a layer computes


def row_bytes(model: MiniMllama, n_slots: int, n_tokens: int) -> int:
    """What one more row costs: its slots in every text cache, and one layer's activations of its tokens."""
    sizes, weight = model.config.text, model.text.norm.weight
    n_self = sizes.n_layers - len(sizes.cross_layers)
    cached = 2 * n_self * n_slots * sizes.n_kv_heads * sizes.head_width
    return (cached + n_tokens * (6 * sizes.width + 3 * sizes.mlp_width)) * weight.element_size()


def parts_that_fit(model: MiniMllama, prefix: Prefix, suffixes: Sequence[Tensor], room: int = ROOM) -> list[slice]:
    """Suffixes of one pass each: as many as `room` bytes hold for all prompts, at least one."""
    n_tokens = max(map(len, suffixes))
    per_suffix = len(prefix.lengths) * row_bytes(model, max(prefix.lengths) + n_tokens, n_tokens)
    n_at_once = max(1, room // per_suffix)
    return [slice(i, i + n_at_once) for i in range(0, len(suffixes), n_at_once)]


@torch.no_grad()
def run_suffixes(model: MiniMllama, prefix: Prefix, suffixes: Sequence[Tensor]) -> Tensor:
    """Hidden state [B, L, D] at the last token of every suffix after every prompt."""
    states = suffix_states(model, prefix, suffixes)  # [B, L, T, D]
    last = torch.tensor([len(suffix) - 1 for suffix in suffixes], device=states.device)
    return states[:, torch.arange(len(suffixes), device=states.device), last]  # [B, L, D]


@torch.no_grad()
def next_token_logits(
    model: MiniMllama,
    prompts: Sequence[Tensor],
    suffixes: Sequence[Tensor],
    candidates: Sequence[int],
    images: ImageBatch | None = None,
    *,
    states: Tensor | None = None,
    room: int = ROOM,
) -> Tensor:
    """Logits of candidate tokens after every prompt + suffix; the difference of two is their log-odds.

    Only the candidates' rows of lm_head are computed, in float32: in bfloat16 log-odds would come in steps of
    1/16.

    Args:
        model: in evaluation mode.
        prompts: int64 [length] each; the common beginning of all questions, image token included.
        suffixes: int64 [length] each; the same for every prompt, without image tokens.
        candidates: token ids.
        images: of the prompts.
        states: what `model.encode(images)` gave, if they have been encoded already.
        room: bytes that the suffixes may take; those that do not fit run one pass later.

    Returns:
        float32 [B, L, C].

    Raises:
        ValueError: if a suffix is empty or has an image token.
    """
    if not suffixes or min(map(len, suffixes)) == 0:
        raise ValueError("every suffix needs at least one token")
    if any(bool((suffix == model.config.image_token_id).any()) for suffix in suffixes):
        raise ValueError("a suffix has an image token; images belong into the prompt")
    prefix = prefill(model, prompts, images, states=states)
    parts = parts_that_fit(model, prefix, suffixes, room)
    hidden = torch.cat([run_suffixes(model, prefix, suffixes[part]) for part in parts], dim=1)  # [B, L, D]
    rows = rows_of(model.text.lm_head, candidates).float()  # [C, D]
    return hidden.float() @ rows.T  # [B, L, C]
