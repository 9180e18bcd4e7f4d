"""Many continuations of a few prompts in one pass."""

import pytest
import torch

from minimllama import PRESETS, MiniMllama, generate, next_token_logits
from minimllama.likelihood import row_bytes
from minimllama.model import SEMANTICS
from tests.tools.tiny import IMAGE, one_sample, pictures, prompt, tiny_model

PROMPTS = [prompt(9, 1, image_at=[3]), prompt(6, 2, image_at=[1]), prompt(7, 3)]
SIZES = [[(30, 20)], [(10, 10)], []]
SUFFIXES = [torch.tensor(ids) for ids in ([20, 21], [30], [40, 41, 42, 43], [50, 51])]
CANDIDATES = [60, 7, 61]


# parity with one forward per prompt and suffix


@pytest.mark.parametrize("semantics", SEMANTICS)
@torch.no_grad()
def test_every_pair_equals_its_own_forward(semantics: str) -> None:
    model, images = tiny_model(semantics=semantics), pictures(SIZES)
    ours = next_token_logits(model, PROMPTS, SUFFIXES, CANDIDATES, images)
    assert ours.shape == (3, 4, 3)
    rows = range(3) if semantics == "meta" else range(2)  # elsewhere a text-only row sees its batch's images
    for row in rows:
        for s, suffix in enumerate(SUFFIXES):
            full = model(torch.cat([PROMPTS[row], suffix])[None], one_sample(images, row))[0, -1, CANDIDATES]
            torch.testing.assert_close(ours[row, s], full, atol=2e-5, rtol=0.0)


# property


@torch.no_grad()
def test_the_tower_and_the_prompts_run_once() -> None:
    model, images, towers, rows = tiny_model(), pictures(SIZES), [], []
    model.vision.register_forward_hook(lambda m, i, output: towers.append(len(output)))
    model.text.embed_tokens.register_forward_hook(lambda m, inputs, output: rows.append(tuple(inputs[0].shape)))
    next_token_logits(model, PROMPTS, SUFFIXES, CANDIDATES, images)
    assert towers == [2]
    assert rows == [(3, 9), (12, 4)]


@torch.no_grad()
def test_logits_are_float32_even_in_bfloat16() -> None:
    model = tiny_model().bfloat16()
    out = next_token_logits(model, PROMPTS[2:], SUFFIXES, CANDIDATES)
    assert out.dtype == torch.float32
    assert (out != out.bfloat16().float()).any(), "they would come in coarse steps"


@torch.no_grad()
def test_little_room_means_more_passes_with_the_same_logits() -> None:
    model, images, rows = tiny_model(), pictures(SIZES), []
    whole = next_token_logits(model, PROMPTS, SUFFIXES, CANDIDATES, images)
    model.text.embed_tokens.register_forward_hook(lambda m, inputs, output: rows.append(tuple(inputs[0].shape)))
    one = 3 * row_bytes(model, n_slots=9 + 4, n_tokens=4)  # a suffix after each of the three prompts
    for room, n_passes in ((0, 4), (one, 4), (2 * one, 2), (3 * one, 2), (4 * one, 1)):
        rows.clear()
        parts = next_token_logits(model, PROMPTS, SUFFIXES, CANDIDATES, images, room=room)
        assert len(rows) == 1 + n_passes  # the prompts, once
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0.0)


def test_a_row_costs_its_caches_and_its_activations() -> None:
    with torch.device("meta"):
        model = MiniMllama(PRESETS["11b"]).bfloat16()
    cached = 131_072  # bytes per slot, as the cache's own test has it
    assert row_bytes(model, 52, 0) == 52 * cached
    assert row_bytes(model, 52, 12) == 52 * cached + 12 * 2 * (6 * 4096 + 3 * 14336)


@torch.no_grad()
def test_encoded_images_are_not_encoded_again() -> None:
    model, images, towers = tiny_model(), pictures(SIZES), []
    expected = next_token_logits(model, PROMPTS, SUFFIXES, CANDIDATES, images)
    states = model.encode(images)
    model.vision.register_forward_hook(lambda m, i, output: towers.append(len(output)))
    ours = next_token_logits(model, PROMPTS, SUFFIXES, CANDIDATES, images, states=states)
    answers = generate(model, PROMPTS, images, max_new_tokens=3, states=states)
    assert towers == []
    assert torch.equal(ours, expected)
    assert [a.tolist() for a in answers] == [a.tolist() for a in generate(model, PROMPTS, images, max_new_tokens=3)]


# refusal


def test_suffixes_need_tokens_and_no_images() -> None:
    with pytest.raises(ValueError, match="every suffix needs at least one token"):
        next_token_logits(tiny_model(), PROMPTS[2:], [torch.tensor([], dtype=torch.int64)], [1])
    with pytest.raises(ValueError, match="a suffix has an image token; images belong into the prompt"):
        next_token_logits(tiny_model(), PROMPTS[2:], [torch.tensor([5, IMAGE])], [1])
