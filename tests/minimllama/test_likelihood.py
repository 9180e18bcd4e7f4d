"""Many continuations of a few prompts in one pass."""

import pytest
import torch

from minimllama import next_token_logits
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


# refusal


def test_suffixes_need_tokens_and_no_images() -> None:
    with pytest.raises(ValueError, match="every suffix needs at least one token"):
        next_token_logits(tiny_model(), PROMPTS[2:], [torch.tensor([], dtype=torch.int64)], [1])
    with pytest.raises(ValueError, match="a suffix has an image token; images belong into the prompt"):
        next_token_logits(tiny_model(), PROMPTS[2:], [torch.tensor([5, IMAGE])], [1])
