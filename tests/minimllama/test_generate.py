"""Generation: caches, ragged batches, sampling, stopping."""

import pytest
import torch
from torch import Tensor

from minimllama import MiniMllama, generate, stream
from minimllama.generate import Sampling, choose, prefill
from minimllama.model import SEMANTICS
from tests.tools.tiny import IMAGE, TINY, one_sample, pictures, prompt, tiny_model

PROMPTS = [prompt(9, 1, image_at=[3]), prompt(12, 2, image_at=[1, 6]), prompt(5, 3), prompt(7, 4, image_at=[0])]
SIZES = [[(30, 20)], [(90, 20), (20, 20)], [], [(10, 10)]]
PEAKED = torch.tensor([[2.0, 1.0, 0.0, -1.0]])


def sharp(semantics: str = "meta", seed: int = 0) -> MiniMllama:
    """Large logits, so that greedy choices are never a matter of rounding."""
    model = tiny_model(seed, semantics)
    model.text.lm_head.weight.data.mul_(20)
    return model


@torch.no_grad()
def recompute(model: MiniMllama, tokens: Tensor, images: object, n_new: int) -> Tensor:
    """Greedy without any cache: the whole row again for every token; new tokens see what the last one sees."""
    for _ in range(n_new):
        logits = model(tokens[None], images)[0, -1]
        tokens = torch.cat([tokens, logits.argmax()[None]])
    return tokens


def frequencies(logits: Tensor, sampling: Sampling, n: int = 20000) -> Tensor:
    drawn = choose(logits.expand(n, -1), sampling, torch.Generator().manual_seed(5))
    return torch.bincount(drawn, minlength=logits.shape[-1]) / n


# equation


def test_temperature_zero_takes_the_largest_logit() -> None:
    assert choose(torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 4.9]]), Sampling()).tolist() == [1, 0]


def test_at_most_max_new_tokens_follow_and_the_prompt_is_included() -> None:
    out = generate(sharp(), PROMPTS[2:3], max_new_tokens=4)
    assert len(out) == 1
    assert out[0][:5].tolist() == PROMPTS[2].tolist()
    assert len(out[0]) == 9


# parity with full recomputation


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("sample", range(4))
def test_caches_give_what_full_recomputation_gives(sample: int, semantics: str) -> None:
    model = sharp(semantics)
    images = pictures([SIZES[sample]]) if SIZES[sample] else None
    cached = generate(model, [PROMPTS[sample]], images, max_new_tokens=8)[0]
    assert cached.tolist() == recompute(model, PROMPTS[sample], images, 8).tolist()


@torch.no_grad()
def test_cached_hidden_states_equal_recomputed_ones() -> None:
    model, images = tiny_model(), pictures(SIZES)
    prefix = prefill(model, PROMPTS, images, n_new=3)
    following = torch.tensor([[11], [12], [13], [14]])
    lengths = torch.tensor(prefix.lengths)[:, None]
    step = model.text(following, None, prefix.sight(1, model), prefix.cache, lengths, max(prefix.lengths) + 1)
    for row, tokens in enumerate(PROMPTS):
        alone = one_sample(images, row)
        full = model(torch.cat([tokens, following[row]])[None], alone, hidden=True)[0]
        torch.testing.assert_close(prefix.hidden[row], full[-2], atol=1e-5, rtol=0.0)
        torch.testing.assert_close(step[row, 0], full[-1], atol=1e-5, rtol=0.0)


# property


def test_a_ragged_batch_gives_what_each_prompt_gives_alone() -> None:
    model, images = sharp(), pictures(SIZES)
    batch = generate(model, PROMPTS, images, max_new_tokens=8)
    for row, tokens in enumerate(PROMPTS):
        alone = generate(model, [tokens], one_sample(images, row), max_new_tokens=8)
        assert alone[0].tolist() == batch[row].tolist(), f"sample {row}"


def test_the_vision_tower_and_the_vocabulary_run_no_more_than_needed() -> None:
    model, towers, heads = sharp(), [], []
    model.vision.register_forward_hook(lambda m, i, output: towers.append(len(output)))
    model.text.lm_head.register_forward_pre_hook(lambda m, inputs: heads.append(tuple(inputs[0].shape[:-1])))
    generate(model, PROMPTS, pictures(SIZES), max_new_tokens=3)
    assert towers == [4]  # once, in the prefill
    assert heads == [(4,)] * 3  # the last position of every row only, in the prefill too


def test_a_stop_id_ends_its_row_and_is_included() -> None:
    model = sharp()
    free = generate(model, PROMPTS[:1], pictures(SIZES[:1]), max_new_tokens=8)[0].tolist()
    new = free[len(PROMPTS[0]) :]
    stop = new[3]
    stopped = generate(model, PROMPTS[:1], pictures(SIZES[:1]), max_new_tokens=8, stop_ids=[stop])[0].tolist()
    assert stopped == free[: len(PROMPTS[0]) + new.index(stop) + 1]


def test_rows_end_one_by_one() -> None:
    model, prompts = sharp(seed=1), [prompt(4, seed) for seed in (1, 2, 3)]
    free = [row[4:].tolist() for row in generate(model, prompts, max_new_tokens=6)]
    stop = free[1][2]
    ended = generate(model, prompts, max_new_tokens=6, stop_ids=[stop])
    for row, tokens in zip(free, ended, strict=True):
        expected = row[: row.index(stop) + 1] if stop in row else row
        assert tokens[4:].tolist() == expected


def test_streaming_yields_the_tokens_that_generate_returns() -> None:
    model, prompts = sharp(), PROMPTS[2:3]
    steps = list(stream(model, prompts, max_new_tokens=5))
    assert [step[0] for step in steps] == generate(model, prompts, max_new_tokens=5)[0][5:].tolist()


def test_streaming_yields_none_for_rows_that_have_ended() -> None:
    model, prompts = sharp(), [prompt(4, seed) for seed in (1, 2)]
    free = [row[4:].tolist() for row in generate(model, prompts, max_new_tokens=6)]
    stop = free[0][0]
    steps = list(stream(model, prompts, max_new_tokens=6, stop_ids=[stop]))
    assert stop not in free[1], "choose other prompts"
    assert [step[0] for step in steps] == [stop, None, None, None, None, None]
    assert [step[1] for step in steps] == free[1]


def test_sampling_draws_from_the_softmax_of_logits_over_temperature() -> None:
    for temperature in (0.5, 1.0, 2.0):
        drawn = frequencies(PEAKED, Sampling(temperature=temperature))
        expected = (PEAKED[0] / temperature).softmax(-1)
        torch.testing.assert_close(drawn, expected, atol=0.015, rtol=0.0)  # 4 deviations of 20,000 draws


def test_top_p_keeps_the_fewest_tokens_that_reach_p_and_renormalises() -> None:
    # probabilities 0.644, 0.237, 0.087, 0.032
    for top_p, kept in ((0.6, 1), (0.7, 2), (0.9, 3), (1.0, 4)):
        drawn = frequencies(PEAKED, Sampling(temperature=1.0, top_p=top_p))
        probabilities = PEAKED[0].softmax(-1)
        probabilities[kept:] = 0
        torch.testing.assert_close(drawn, probabilities / probabilities.sum(), atol=0.015, rtol=0.0)


def test_top_p_does_not_depend_on_the_order_of_the_vocabulary() -> None:
    shuffled = frequencies(PEAKED[:, [2, 0, 3, 1]], Sampling(temperature=1.0, top_p=0.7))
    assert (shuffled > 0).tolist() == [False, True, False, True]


def test_the_same_generator_state_gives_the_same_tokens() -> None:
    model, prompts = tiny_model(), [prompt(4, seed) for seed in (1, 2)]

    def sampled(seed: int | None) -> list[list[int]]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        rows = generate(model, prompts, max_new_tokens=12, temperature=1.0, top_p=0.95, generator=generator)
        return [row.tolist() for row in rows]

    assert sampled(3) == sampled(3)
    assert sampled(3) != sampled(4)
    assert sampled(None) == sampled(0)  # the default is documented: seed 0
    torch.manual_seed(1)
    state = torch.get_rng_state()
    sampled(3)
    assert torch.equal(torch.get_rng_state(), state), "sampling must leave torch's global state alone"


def test_the_image_token_is_never_generated() -> None:
    rows = generate(tiny_model(), [prompt(4, 1)] * 30, max_new_tokens=20, temperature=5.0)
    assert max(int(row.max()) for row in rows) < TINY.text.vocab_size == IMAGE


# refusal


def test_empty_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="every prompt needs at least one token"):
        generate(tiny_model(), [torch.tensor([], dtype=torch.int64)])
    with pytest.raises(ValueError, match="every prompt needs at least one token"):
        generate(tiny_model(), [])


def test_images_and_prompts_must_fit() -> None:
    with pytest.raises(ValueError, match="1 prompts, but images of 2 samples"):
        generate(tiny_model(), PROMPTS[:1], pictures([[(9, 9)], [(9, 9)]]))
    with pytest.raises(ValueError, match="a prompt has an image token, but there are no images"):
        generate(tiny_model(), PROMPTS[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"temperature": -1.0}, "temperature=-1.0 must not be negative"), ({"top_p": 0.0}, r"top_p=0.0 must lie in \(0")],
)
def test_impossible_sampling_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(tiny_model(), PROMPTS[2:3], **arguments)
