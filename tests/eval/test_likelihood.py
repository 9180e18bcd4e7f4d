"""Names of labels as answers: the log-likelihood is that of one whole forward per label."""

import pytest
import torch
from torch import Tensor

from eval.likelihood import ListQuestion, ask_list, letter_logits, name_likelihoods, score_page
from eval.questions import TASK_QUESTIONS
from minimllama import ImageBatch, ImageTransform, Message, MiniMllama, Tokenizer, encode_dialog
from minimllama.likelihood import row_bytes
from tests.eval.conftest import CONFIG
from tests.tools.tiny import tiny_model
from train.ecg import LABEL_SETS, STYLES, draw_page, open_source

FIVE = LABEL_SETS["superclass"]


@pytest.fixture(scope="module")
def model() -> MiniMllama:
    return tiny_model(config=CONFIG).eval()


@pytest.fixture(scope="module")
def images() -> ImageBatch:
    source = open_source("simulated", None, "test", n=2, seed=5)
    return ImageTransform(256)([[draw_page(source[i], STYLES["nano"]).image] for i in range(2)])


def one(images: ImageBatch, i: int) -> ImageBatch:
    return ImageBatch(
        pixels=images.pixels[i : i + 1],
        aspect_ratio_ids=images.aspect_ratio_ids[i : i + 1],
        tile_mask=images.tile_mask[i : i + 1],
        n_tiles=images.n_tiles[i : i + 1],
    )


@torch.no_grad()
def alone(model: MiniMllama, asked: ListQuestion, name: Tensor, image: ImageBatch) -> float:
    """Sum of the log-probabilities of a name's tokens, by one whole forward."""
    tokens = torch.cat([asked.prompt, name])
    log_p = model(tokens[None], image)[0].log_softmax(-1)
    at = torch.arange(len(asked.prompt), len(tokens))
    return float(log_p[at - 1, tokens[at]].sum())


@pytest.mark.parametrize(("protocol", "by_code"), [("superclass", True), ("cpsc", False)])
def test_a_names_likelihood_is_that_of_a_whole_forward(
    model: MiniMllama, images: ImageBatch, tokenizer: Tokenizer, protocol: str, by_code: bool
) -> None:
    label_set = LABEL_SETS[protocol]
    asked = ask_list(label_set, TASK_QUESTIONS[protocol], tokenizer, by_code=by_code)
    scores = name_likelihoods(model, asked, images)
    assert scores.shape == (2, len(label_set.labels))
    assert len({len(name) for name in asked.names}) > 1  # ragged
    for i in range(2):
        for name, score in zip(asked.names, scores[i].tolist(), strict=True):
            assert score == pytest.approx(alone(model, asked, name, one(images, i)), abs=1e-3)  # sums in float32
    assert (scores[0] - scores[1]).abs().min() > 1e-5  # pages differ
    for room in (1, 2 * 2 * row_bytes(model, len(asked.prompt) + 9, 9)):  # one name at a time, and two or so
        parts = name_likelihoods(model, asked, images, room=room)
        torch.testing.assert_close(parts, scores, atol=1e-4, rtol=0.0)


def test_the_kinds_of_scores_have_names(model: MiniMllama, images: ImageBatch, tokenizer: Tokenizer) -> None:
    kinds = ("yes_no", "label_list", "length_normalised")
    found = dict(score_page(model, tokenizer, FIVE, "superclass", images, kinds))
    assert tuple(found) == kinds
    sizes = torch.tensor([len(tokenizer.encode(code)) for code in FIVE.codes])
    assert torch.allclose(found["length_normalised"] * sizes, found["label_list"])
    (only,) = score_page(model, tokenizer, FIVE, "superclass", images, ("length_normalised",))
    assert only[0] == "length_normalised"
    assert torch.allclose(only[1], found["length_normalised"])


def test_letters_after_prompts_of_different_lengths(
    model: MiniMllama, images: ImageBatch, tokenizer: Tokenizer
) -> None:
    questions = ("Which? A. One B. Two", "Which of these two is the better one? A. One B. Two")
    prompts = [encode_dialog([Message(role="user", text=q, n_images=1)], tokenizer).tokens for q in questions]
    letters = [tokenizer.encode(letter)[0] for letter in "AB"]
    logits = letter_logits(model, prompts, letters, images)
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            whole = model(prompt[None], one(images, i))[0, -1, letters]
        assert torch.allclose(logits[i], whole, atol=1e-4)
