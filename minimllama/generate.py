"""Generation: one prefill of the prompts, then one token per row and step, with fixed-size caches.

Prompts of different lengths share a batch: each row writes and reads at its own positions, so it gets the
numbers that it would get alone. Generated tokens see the images that the prompt's last token sees;
docs/quirks.md, "new tokens".

Shapes: R rows (one per sample), T longest prompt, W vocabulary, I image slots, K tile slots, D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minimllama.chat import pad_rows
from minimllama.compiled import compiled_step, round_slots
from minimllama.image import ImageBatch
from minimllama.kv_cache import KvCache
from minimllama.model import MiniMllama
from minimllama.visibility import RowGroups, Sight, image_visibility, look


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token; otherwise logits are divided by it.
        top_p: sample among the most likely tokens that together reach this probability. arXiv:1904.09751,
            sec. 3.1.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} must not be negative")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie in (0, 1]")


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """Next tokens: logits [R, W] -> int64 [R]. The generator lives on the logits' device."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / sampling.temperature).softmax(-1)  # [R, W]
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # [R, W]
        kept = torch.where(before < sampling.top_p, ordered, 0.0)  # [R, W]
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)  # [R, W]
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)  # [R]


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Prompts that have been run: what continuing them needs.

    Attributes:
        cache: keys and values.
        lengths: of each prompt.
        hidden: [R, D], after the final norm, at the last token of each prompt.
        visible: bool [R, 1, I, K], what that token sees; None without images.
        groups: rows of each sample with images.
    """

    cache: KvCache
    lengths: list[int]
    hidden: Tensor
    visible: Tensor | None
    groups: RowGroups

    def sight(self, n_tokens: int, model: MiniMllama) -> Sight | None:
        """What the next n_tokens tokens of every row see."""
        if self.visible is None:
            return None
        visible = self.visible.expand(-1, n_tokens, -1, -1)
        return look(visible, self.groups, model.config.vision.tokens_per_tile, leak=model.leak).to(self.hidden.device)


@torch.no_grad()
def prefill(
    model: MiniMllama,
    prompts: Sequence[Tensor],
    images: ImageBatch | None = None,
    n_new: int = 0,
    *,
    states: Tensor | None = None,
) -> Prefix:
    """Run prompts of different lengths, with room for n_new more tokens each.

    Args:
        model: on any device.
        prompts: int64 [length] each, image tokens included.
        images: of the samples, in the same order.
        n_new: tokens that will follow each prompt at most.
        states: what `model.encode(images)` gave, if they have been encoded already.

    Raises:
        ValueError: if a prompt is empty, n_new negative, or image tokens and images do not fit together.
    """
    if not prompts or min(map(len, prompts)) == 0:
        raise ValueError("every prompt needs at least one token")
    if n_new < 0:
        raise ValueError(f"max_new_tokens={n_new} must not be negative")
    if images is not None and len(images) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, but images of {len(images)} samples")
    lengths = [len(prompt) for prompt in prompts]
    device = model.text.norm.weight.device
    tokens = pad_rows([prompt.cpu() for prompt in prompts], model.config.text.pad_id)  # [R, T]
    model.check_tokens(tokens)
    visible = sight = None
    groups = RowGroups(n_rows=len(prompts), n_samples=len(prompts))
    if images is not None and any(images.n_tiles):
        slots, tiles = images.pixels.shape[1:3]
        visible = image_visibility(tokens, images.n_tiles, model.config.image_token_id, tiles, slots)
        sight = model.see(tokens, images, visible).to(device)
        states = model.encode(images.to(device)) if states is None else states
    elif bool((tokens == model.config.image_token_id).any()):
        raise ValueError("a prompt has an image token, but there are no images")
    cache = model.empty_cache(len(prompts), max(lengths) + n_new)
    x = model.text(tokens.to(device), states, sight, cache)  # [R, T, D]
    rows, last = torch.arange(len(prompts)), torch.tensor(lengths) - 1
    if visible is not None:
        visible = visible[rows, last].unsqueeze(1)  # [R, 1, I, K]
    hidden = x[rows.to(device), last.to(device)]  # [R, D]
    return Prefix(cache=cache, lengths=lengths, hidden=hidden, visible=visible, groups=groups)


@torch.no_grad()
def stream(
    model: MiniMllama,
    prompts: Sequence[Tensor],
    images: ImageBatch | None = None,
    *,
    max_new_tokens: int = 20,
    sampling: Sampling | None = None,
    stop_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
    states: Tensor | None = None,
    compile: bool = False,  # noqa: A002 - the name that users look for
) -> Iterator[list[int | None]]:
    """Yield each step's token of every row, None for rows that have ended.

    Arguments as in `generate`.
    """
    sampling = sampling or Sampling()
    room = max_new_tokens
    if compile and prompts:
        longest = max(map(len, prompts))
        room = round_slots(longest + max_new_tokens) - longest
    prefix = prefill(model, prompts, images, room, states=states)
    device = prefix.hidden.device
    if sampling.temperature and generator is None:
        generator = torch.Generator(device).manual_seed(0)
    lengths, cache, sight = torch.tensor(prefix.lengths, device=device), prefix.cache, prefix.sight(1, model)
    longest, ragged = max(prefix.lengths), len(set(prefix.lengths)) > 1
    ended = [False] * len(prompts)
    next_logits = compiled_step(model, cache, sight) if compile else None
    logits = model.text.lm_head(prefix.hidden)  # [R, W]
    for step in range(max_new_tokens):
        chosen = choose(logits, sampling, generator)  # [R]
        tokens: list[int | None] = [None if done else token for done, token in zip(ended, chosen.tolist(), strict=True)]
        yield tokens
        ended = [done or token in stop_ids for done, token in zip(ended, tokens, strict=True)]
        if all(ended) or step == max_new_tokens - 1:
            return
        if next_logits is not None:
            logits = next_logits(chosen, lengths + step)  # [R, W]
            continue
        positions = (lengths + step).unsqueeze(1)  # [R, 1]
        n_cached = longest + step + 1
        hidden = model.text(chosen.unsqueeze(1), None, sight, cache, positions, n_cached, ragged=ragged)[:, 0]  # [R, D]
        logits = model.text.lm_head(hidden)  # [R, W]


def generate(
    model: MiniMllama,
    tokens_per_sample: Sequence[Tensor],
    images: ImageBatch | None = None,
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
    states: Tensor | None = None,
    compile: bool = False,  # noqa: A002 - the name that users look for
) -> list[Tensor]:
    """Continue prompts.

    Args:
        model: in evaluation mode.
        tokens_per_sample: int64 [length] each, of any lengths.
        images: of the samples, in the same order; None for text only.
        max_new_tokens: a row ends after this many at the latest.
        temperature, top_p: see `Sampling`; temperature 0 is greedy.
        stop_ids: a row ends with the first of these; without any, every row gets max_new_tokens.
        generator: randomness of sampling, on the model's device; seeded with 0 if None.
        states: what `model.encode(images)` gave, if they have been encoded already.
        compile: decode with compiled layers, and on a GPU with the step recorded as a CUDA graph; hooks of layers
            then run for the prompt only. compiled.py.

    Returns:
        Per sample the prompt and what follows, int64, a stop id included.
    """
    sampling = Sampling(temperature=temperature, top_p=top_p)
    rows = [prompt.tolist() for prompt in tokens_per_sample]
    for tokens in stream(
        model,
        tokens_per_sample,
        images,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop_ids=stop_ids,
        generator=generator,
        states=states,
        compile=compile,
    ):
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                row.append(token)
    return [torch.tensor(row) for row in rows]
