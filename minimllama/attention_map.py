"""Where the cross-attention of chosen tokens looks, layer by layer, in pixels of the page as it was before the tiles.

`watch` keeps what the cross-attention layers compute anyway, their queries and keys, through hooks that are gone
afterwards: the model's own forward knows nothing of it. The softmax is computed later, and only for the tokens that
are asked about. What attention is no evidence for: docs/evaluating.md, "Where it looks".

Shapes: L cross-attention layers, C chosen tokens, B samples with images, N rows per sample, R rows, T positions of a
call, H query heads, G key heads, E features per head, Z keys that are seen, V = I*K*P vision tokens, I image slots, K
tile slots, P tokens per tile; the page has Y rows and X columns of pixels, the canvas of its tiles M rows and O
columns of patches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minimllama.config import VisionConfig
from minimllama.image import ImageBatch, choose_grid, fit_size
from minimllama.model import MiniMllama
from minimllama.text import CrossAttention, CrossLayer
from minimllama.visibility import Sight


@dataclass(frozen=True, kw_only=True)
class Glance:
    """One call of one cross-attention layer.

    Attributes:
        q: normalised queries [B, H, N*T, E].
        k: normalised keys [B, G, Z, E].
        sight: who sees what.
    """

    q: Tensor
    k: Tensor
    sight: Sight

    def weights(self, row: int, positions: Sequence[int], *, leak: bool) -> Tensor:
        """softmax(q k^T / sqrt(E)) of some tokens of a row: float32 [H, C, Z]. Vaswani et al. 2017, Eq. 1.

        A token that sees nothing gets zeros, as its attention is multiplied by 0; with `leak` (transformers) it
        attends to everything.

        Raises:
            ValueError: if the call has no such row or position.
        """
        n_rows, length = self.sight.sees.shape[:2]
        if not 0 <= row < n_rows or not all(0 <= i < length for i in positions):
            raise ValueError(f"row {row}, positions {list(positions)}: the call has {n_rows} rows of {length} tokens")
        flat = self.sight.groups.flat
        place = row if flat is None else int(flat[row])
        sample, own = divmod(place, self.q.shape[2] // length)
        at = torch.tensor(positions, device=self.q.device) + own * length
        q = self.q[sample, :, at].float()  # [H, C, E]
        k = self.k[sample].float().repeat_interleave(q.shape[0] // self.k.shape[1], dim=0)  # [H, Z, E]
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5  # [H, C, Z]
        if self.sight.mask is not None:
            seen = self.sight.mask.expand(self.q.shape[0], 1, self.q.shape[2], -1)[sample, 0, at]  # [C, Z]
            scores = scores.masked_fill(~seen, -torch.inf)  # [H, C, Z]
        weights = scores.softmax(-1)  # [H, C, Z]
        return weights if leak else weights * self.sight.sees[row, list(positions)]  # [H, C, Z]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a model's cross-attention layers did while they were watched.

    Attributes:
        model: that is watched.
        calls: for each cross-attention layer its calls, in order: one per forward pass of the decoder. `generate`
            makes one for the prompts and one per token, `next_token_logits` one for the prompts and one for as many
            suffixes as its `room` holds.
    """

    model: MiniMllama
    calls: dict[int, list[Glance]] = field(default_factory=dict)

    @property
    def gates(self) -> Tensor:
        """Tanh of each layer's attention gate, float32 [L]: how much of what it saw it adds to the text."""
        layers = [self.model.text.layers[i] for i in self.calls]
        return torch.cat([layer.attention_gate.detach().float().tanh() for layer in layers])  # type: ignore[union-attr]

    def weights(self, row: int, positions: Sequence[int], call: int = -1) -> Tensor:
        """Attention of tokens of a row to all vision tokens of its sample, as `to_page` takes it.

        The weights of a token are those with which the NEXT token was chosen: a generated token at position t of
        its row is explained by position t - 1.

        Args:
            row: of the call.
            positions: of the call's tokens in it; a call that goes on from a cache counts from its own first token.
            call: which one; the last by default.

        Returns:
            float32 [L, C, H, V]; the sum over V is 1, or 0 for a token that sees nothing.

        Raises:
            ValueError: if no image has been looked at, or there is no such call, row or position.
        """
        n_calls = min(map(len, self.calls.values()), default=0)
        if not -n_calls <= call < n_calls:
            raise ValueError(f"call {call} of {n_calls}: the cross-attention layers run only for dialogs with images")
        vision = self.model.config.vision
        found = [calls[call].weights(row, positions, leak=self.model.leak) for calls in self.calls.values()]
        least = vision.max_tiles * vision.tokens_per_tile  # keys of unused tiles are left out if nobody sees them
        weights = torch.stack(found).transpose(1, 2)  # [L, C, H, Z]
        return F.pad(weights, (0, max(least - weights.shape[-1], 0)))  # [L, C, H, V]


@contextmanager
def watch(model: MiniMllama) -> Iterator[Watched]:
    """Keep the queries and keys of every cross-attention layer while the block runs.

    with watch(model) as seen:
        model(tokens, images)
    seen.weights(row=0, positions=[12])
    """
    watched = Watched(model=model)
    with ExitStack() as hooks:
        for i, layer in enumerate(model.text.layers):
            if isinstance(layer, CrossLayer):
                watched.calls[i] = []
                _listen(layer.attention, watched.calls[i], hooks)
        yield watched


def _listen(attention: CrossAttention, calls: list[Glance], hooks: ExitStack) -> None:
    """Append to `calls` whenever the layer has run."""
    latest: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, result: latest.__setitem__(name, result.detach())

    def note(_module: CrossAttention, inputs: tuple[Any, ...], _result: Tensor) -> None:
        _, sight, _, *rest = inputs
        cache = rest[0] if rest else None
        k = latest["k"] if cache is None else cache.pair[0].detach()
        calls.append(Glance(q=latest["q"], k=k, sight=sight))

    for handle in (
        attention.q_norm.register_forward_hook(keep("q")),
        attention.k_norm.register_forward_hook(keep("k")),
        attention.register_forward_hook(note),  # type: ignore[arg-type]
    ):
        hooks.callback(handle.remove)


@torch.no_grad()
def attention_of(model: MiniMllama, tokens: Tensor, images: ImageBatch, positions: Sequence[int]) -> Tensor:
    """`Watched.weights` of tokens of one dialog, from one forward pass over all of it.

    For what `generate` returned that gives the weights with which it chose its tokens: a row of n + m tokens whose
    prompt has n chose them at positions n - 1 to n + m - 2.

    Args:
        model: in evaluation mode.
        tokens: int64 [T].
        images: of this one sample.
        positions: of the tokens.

    Returns:
        float32 [L, C, H, V].
    """
    with watch(model) as seen:
        model(tokens[None], images, hidden=True)
    return seen.weights(0, positions)  # [L, C, H, V]


@dataclass(frozen=True, kw_only=True)
class PageMap:
    """Attention over a page and what fell beside it; together 1.

    Attributes:
        page: float32 [..., Y, X], weight of each pixel of the page.
        class_tokens: float32 [...], of the class tokens of the page's tiles, which stand for no place.
        padding: float32 [...], of patches without a pixel of the page, and of unused tiles.
        other_images: float32 [...], of the dialog's other images.
    """

    page: Tensor
    class_tokens: Tensor
    padding: Tensor
    other_images: Tensor


def _spread(n_pixels: int, n_resized: int, n_patches: int, patch: int) -> Tensor:
    """How a line of patches covers a line of page pixels that was resized to n_resized canvas pixels.

    Returns:
        float32 [n_pixels, n_patches]: the share of each patch that each pixel gets; a column sums to 1, or to 0 if
        the patch lies in the padding.
    """
    edges = torch.arange(n_pixels + 1, dtype=torch.float64) * n_resized / n_pixels
    starts = torch.arange(n_patches, dtype=torch.float64) * patch
    common = edges[1:, None].minimum(starts + patch) - edges[:-1, None].maximum(starts)
    common = common.clamp(min=0)
    total = common.sum(0)
    return (common / total.where(total > 0, 1.0)).float()


def to_page(weights: Tensor, size: tuple[int, int], vision: VisionConfig, image: int = 0) -> PageMap:
    """Undo `ImageTransform`: weights of vision tokens to weights of the original page's pixels.

    A patch's weight is spread evenly over the part of the page that it shows. Between the tiles' canvas and the page
    lies a change of scale and padding at the right and bottom.

    Args:
        weights: float32 [..., V]; mean them over heads or layers first if that is wanted.
        size: (width, height) of the page before the transform.
        vision: of the model.
        image: slot of the page in its dialog.

    Raises:
        ValueError: if the weights are not those of whole images.
    """
    n_tokens, side = vision.max_tiles * vision.tokens_per_tile, vision.tile_size // vision.patch_size
    n_images, rest = divmod(weights.shape[-1], n_tokens)
    if rest or not 0 <= image < n_images:
        raise ValueError(f"image {image} of {weights.shape[-1]} vision tokens, {n_tokens} per image")
    rows, columns = grid = choose_grid(*size, vision.tile_size, vision.max_tiles)
    width, height = fit_size(*size, grid, vision.tile_size)
    own = weights.float().unflatten(-1, (n_images, vision.max_tiles, -1))[..., image, :, :]  # [..., K, P]
    used = own[..., : rows * columns, :]
    patches = used[..., 1:].unflatten(-1, (side, side)).unflatten(-3, (rows, columns))
    patches = patches.transpose(-3, -2).flatten(-4, -3).flatten(-2)  # [..., M, O]
    down = _spread(size[1], height, rows * side, vision.patch_size).to(weights.device)  # [Y, M]
    across = _spread(size[0], width, columns * side, vision.patch_size).to(weights.device)  # [X, O]
    shown = patches * down.sum(0)[:, None].round() * across.sum(0).round()  # [..., M, O]
    page = down @ patches @ across.T  # [..., Y, X]
    return PageMap(
        page=page,
        class_tokens=used[..., 0].sum(-1),
        padding=(patches - shown).sum((-2, -1)) + own[..., rows * columns :, :].sum((-2, -1)),
        other_images=weights.sum(-1) - own.sum((-2, -1)),
    )
