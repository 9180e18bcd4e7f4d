"""Encoder -> projector -> decoder: what a call may ask for, and that asking for less changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minimllama import PRESETS, MiniMllama, image_visibility
from minimllama.chat import pad_rows
from minimllama.model import SEMANTICS
from tests.tools.tiny import IMAGE, TINY, one_sample, pictures, prompt, tiny_model

ROWS = [prompt(9, 1, image_at=[3]), prompt(11, 2, image_at=[1, 6]), prompt(7, 3), prompt(10, 4, image_at=[0])]
SIZES = [[(30, 20)], [(90, 20), (20, 20)], [], [(10, 10)]]
ALONE = {"atol": 1e-5, "rtol": 0.0}  # float32 sums in another order


def tokens() -> Tensor:
    return pad_rows(ROWS, TINY.text.pad_id)


# equation


@pytest.mark.parametrize(
    ("preset", "count"), [("11b", 10_642_941_475), ("11b-instruct", 10_670_220_835), ("90b", 88_593_355_323)]
)
def test_the_published_sizes_have_the_published_number_of_parameters(preset: str, count: int) -> None:
    with torch.device("meta"):
        assert MiniMllama(PRESETS[preset]).n_parameters() == count


def test_the_parts_of_the_11b_have_the_sizes_that_their_shapes_give() -> None:
    with torch.device("meta"):
        model = MiniMllama(PRESETS["11b-instruct"])
    parts = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_children()}
    assert parts["vision"] == 863_567_379
    assert parts["projector"] == 7680 * 4096 + 4096
    self_layers = sum(
        p.numel() for i, x in enumerate(model.text.layers) if i not in range(3, 39, 5) for p in x.parameters()
    )
    assert self_layers == 6_979_584_000
    assert model.text.embed_tokens.weight.numel() == 128264 * 4096


def test_the_whole_is_its_parts_in_a_row() -> None:
    model, images, row = tiny_model(), pictures([[(30, 20)]]), ROWS[0][None]
    features = model.vision(images.pixels[0], images.aspect_ratio_ids[0], images.n_tiles[0])
    states = model.projector(features).flatten(1, 2)
    hidden = model.text(row, states, model.see(row, images))
    torch.testing.assert_close(model(row, images), model.text.lm_head(hidden))


# property


@pytest.mark.parametrize("sample", range(4))
@torch.no_grad()
def test_in_meta_a_sample_of_a_ragged_batch_equals_the_sample_alone(sample: int) -> None:
    model, images = tiny_model(), pictures(SIZES)
    batch = model(tokens(), images)[sample, : len(ROWS[sample])]
    alone = model(ROWS[sample][None], one_sample(images, sample))[0]
    torch.testing.assert_close(batch, alone, **ALONE)


@torch.no_grad()
def test_a_sample_does_not_depend_on_the_padding_behind_it() -> None:
    model, images = tiny_model(), pictures(SIZES)
    longer = torch.nn.functional.pad(tokens(), (0, 5), value=TINY.text.pad_id)
    torch.testing.assert_close(model(longer, images)[:, :11], model(tokens(), images), **ALONE)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_logits_at_chosen_positions_equal_the_full_ones_and_so_do_gradients(semantics: str) -> None:
    model, images = tiny_model(semantics=semantics), pictures(SIZES)
    where = torch.rand(tokens().shape) < 0.3
    chosen, full = model(tokens(), images, logits_at=where), model(tokens(), images)[where]
    assert chosen.shape == (int(where.sum()), TINY.text.vocab_size)
    torch.testing.assert_close(chosen, full, **ALONE)
    weight = torch.randn_like(full)
    some, all_of_them = (
        torch.autograd.grad((x * weight).sum(), list(model.parameters()), allow_unused=True) for x in (chosen, full)
    )
    for one, other in zip(some, all_of_them, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_lm_head_runs_only_where_it_is_asked_to() -> None:
    model, images, rows = tiny_model(), pictures(SIZES), []
    model.text.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[:-1]))
    where = torch.zeros_like(tokens(), dtype=torch.bool)
    where[0, 4:7] = where[3, 2] = True
    model(tokens(), images, logits_at=where)
    assert rows == [torch.Size([4])]


@torch.no_grad()
def test_hidden_states_are_what_lm_head_gets() -> None:
    model, images = tiny_model(), pictures(SIZES)
    hidden = model(tokens(), images, hidden=True)
    torch.testing.assert_close(model.text.lm_head(hidden), model(tokens(), images))


@torch.no_grad()
def test_several_questions_about_one_image_share_its_vision_pass() -> None:
    model, images = tiny_model(), pictures([[(30, 20)], [(10, 10)]])
    questions = [prompt(8, seed, image_at=[2]) for seed in range(4)]
    sample_of_row = [0, 1, 0, 0]
    passes = []
    model.vision.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    shared = model(torch.stack(questions), images, sample_of_row=sample_of_row)
    assert passes == [2]
    for row, (question, sample) in enumerate(zip(questions, sample_of_row, strict=True)):
        alone = model(question[None], one_sample(images, sample))[0]
        torch.testing.assert_close(shared[row], alone, **ALONE)


@torch.no_grad()
def test_visible_may_be_given_or_left_out() -> None:
    model, images = tiny_model(), pictures(SIZES)
    visible = image_visibility(tokens(), images.n_tiles, IMAGE)
    assert torch.equal(model(tokens(), images, visible), model(tokens(), images))
    assert torch.equal(model(tokens(), images=images, visible=model.see(tokens(), images)), model(tokens(), images))


@torch.no_grad()
def test_empty_image_slots_are_computed_only_where_they_leak() -> None:
    images, counts = pictures(SIZES), {}
    for semantics in SEMANTICS:
        model = tiny_model(semantics=semantics)
        model.vision.register_forward_hook(lambda m, i, output, name=semantics: counts.update({name: len(output)}))
        model(tokens(), images)
    assert counts == {"meta": 4, "hf": 8, "hf445": 8}  # four images in eight slots


@torch.no_grad()
def test_a_batch_whose_samples_have_no_images_needs_no_tower() -> None:
    model = tiny_model()
    row = ROWS[2][None]
    empty = replace(pictures([[(30, 20)]]), n_tiles=[[]])
    assert model.encode(empty) is None
    assert torch.equal(model(row, empty), model(row))


@torch.no_grad()
def test_bfloat16_stays_close_to_float32() -> None:
    model, images = tiny_model(), pictures(SIZES)
    exact = model(tokens(), images)
    rounded = model.bfloat16()(tokens(), images)
    assert rounded.dtype == torch.bfloat16
    spread = exact.std()
    assert (rounded.float() - exact).abs().mean() < 0.05 * spread  # 8 bits through 15 layers


def test_the_model_builds_on_the_device_and_in_the_dtype_that_torch_is_set_to() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = MiniMllama(TINY)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


def test_every_parameter_learns_from_a_batch_with_and_without_images() -> None:
    model, images = tiny_model(), pictures(SIZES)
    model(tokens(), images).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


# refusal


def test_unknown_semantics_are_refused() -> None:
    with pytest.raises(ValueError, match="semantics='hf5' is not one of meta, hf, hf445"):
        MiniMllama(TINY, "hf5")


def test_ids_outside_the_table_are_refused() -> None:
    with pytest.raises(ValueError, match=r"token ids from 5 to 328 must lie in \[0, 328\)"):
        tiny_model()(torch.tensor([[5, 328]]))
    with pytest.raises(ValueError, match="token ids from -100 to 5"):
        tiny_model()(torch.tensor([[5, -100]]))
    with pytest.raises(ValueError, match=r"tokens must be \[rows, positions\], got \[3\]"):
        tiny_model()(torch.tensor([5, 6, 7]))


def test_an_image_token_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="a row has an image token, but there are no images"):
        tiny_model()(prompt(6, 1, image_at=[3])[None])


def test_an_image_without_its_token_is_refused() -> None:
    with pytest.raises(ValueError, match="row 0 has 0 image tokens but its sample has 1 images"):
        tiny_model()(ROWS[2][None], pictures([[(30, 20)]]))
