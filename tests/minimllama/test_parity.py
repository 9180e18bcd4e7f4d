"""The whole model against tensors that transformers 5.23 computed (tests/reference/make_golden.py).

Modes: "hf" is transformers as installed, "hf445" with taps as in 4.45, "meta" also with rows that see nothing
zeroed, as in Meta's code. Tolerances are those of float32 sums in another order: states are about 0.3 and
agree to 1e-5, logits reach 8.5 and agree to 1e-4. A wrong norm epsilon, a tanh GELU or a missing RoPE scaling
would move logits by 7e-4 or more.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minimllama import ImageBatch, MiniMllama, generate, image_visibility
from minimllama.chat import pad_rows
from minimllama.checkpoint import hf_name
from tests.tools.golden import MODES, N_SAMPLES, Reference

STATES, LOGITS = {"atol": 1e-5, "rtol": 0.0}, {"atol": 1e-4, "rtol": 0.0}


def available(reference: Reference, file: str, name: str) -> Tensor:
    """One reference tensor; the committed set does not hold all of them."""
    tensors = reference.file(file)
    if name not in tensors:
        pytest.skip(f"{name} is not in this set of reference tensors")
    return tensors[name]


def real(x: Tensor, reference: Reference) -> Tensor:
    """[B, T, ...] -> the positions that are not padding. There transformers hides padding keys, and nobody looks."""
    return x[reference.file("text")["attention_mask"].bool()]


def outputs_of(modules: dict[str, torch.nn.Module], run) -> dict[str, Tensor]:
    """What these modules return while `run()` runs."""
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    run()
    for handle in handles:
        handle.remove()
    return seen


def tile_by_tile(x: Tensor, tokens: int, padding: int) -> Tensor:
    """Our order (all real tokens, then all padding) -> transformers' (each tile followed by its padding)."""
    n, slots = len(x), x.shape[1] // (tokens + padding)
    real, rest = x[:, : slots * tokens], x[:, slots * tokens :]
    parts = [real.unflatten(1, (slots, tokens)), rest.unflatten(1, (slots, padding))]
    return torch.cat(parts, dim=2).view(n, -1, x.shape[-1])


@torch.no_grad()
def test_every_stage_of_the_vision_tower_agrees(full_reference: Reference) -> None:
    model, stages = full_reference.model("hf"), full_reference.file("vision")
    vision, images = model.vision, full_reference.images
    n_images = images.aspect_ratio_ids.numel()
    modules = {"patch_embed": vision.patches, "ln_pre": vision.norm_pre, "ln_post": vision.norm_post}
    modules |= {f"local.{i}": layer for i, layer in enumerate(vision.local_layers)}
    modules |= {f"global.{i}": layer for i, layer in enumerate(vision.global_layers)}
    seen = outputs_of(modules, lambda: model.encode(images))
    counts = vision.config.tokens_per_tile, vision.config.padding_per_tile
    for name, ours in seen.items():
        theirs = stages[f"stage.{name}"]
        if name == "patch_embed":
            theirs = theirs.flatten(2).transpose(1, 2).view_as(ours)
        elif name != "ln_pre":
            ours = tile_by_tile(ours, *counts)
        torch.testing.assert_close(ours, theirs, **STATES, msg=lambda m, name=name: f"{name}: {m}")
    assert len(seen) == 3 + vision.config.n_local_layers + vision.config.n_global_layers
    assert len(seen["patch_embed"]) == n_images


@pytest.mark.parametrize("mode", ["meta", "hf"])
@torch.no_grad()
def test_vision_features_agree(reference: Reference, mode: str) -> None:
    theirs = available(reference, "vision", f"last_hidden_state.{mode}")
    images = reference.images
    slots = images.aspect_ratio_ids.shape[1]
    used = [n for row in images.n_tiles for n in row + [1] * (slots - len(row))]
    ours = reference.model(mode).vision(images.pixels.flatten(0, 1), images.aspect_ratio_ids.flatten(), used)
    torch.testing.assert_close(ours.view_as(theirs), theirs, **STATES)


@pytest.mark.parametrize("mode", ["meta", "hf"])
@torch.no_grad()
def test_projected_vision_tokens_agree(full_reference: Reference, mode: str) -> None:
    theirs = full_reference.file("vision")[f"projected.{mode}"]
    ours = full_reference.model(mode).encode(full_reference.images)
    slots = full_reference.images.aspect_ratio_ids.flatten().ne(0)  # empty ones are not computed where nobody sees them
    per_slot = [x.reshape(len(slots), -1, x.shape[-1]) for x in (ours, theirs)]
    if mode == "meta":
        per_slot = [x[slots] for x in per_slot]
    torch.testing.assert_close(*per_slot, **STATES)


@pytest.mark.parametrize("mode", ["meta", "hf"])
@torch.no_grad()
def test_every_decoder_layer_agrees(full_reference: Reference, mode: str) -> None:
    model = full_reference.model(mode)
    layers = {str(i): layer for i, layer in enumerate(model.text.layers)}
    seen = outputs_of(layers, lambda: model(full_reference.tokens, full_reference.images))
    for i, ours in seen.items():
        theirs = full_reference.file("text")[f"dec.{i}.{mode}"]
        pair = real(ours, full_reference), real(theirs, full_reference)
        torch.testing.assert_close(*pair, **STATES, msg=lambda m, i=i: f"layer {i}: {m}")
    assert len(seen) == model.config.text.n_layers


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_logits_of_a_ragged_batch_agree(reference: Reference, mode: str) -> None:
    theirs = available(reference, "text", f"logits.{mode}")
    ours = reference.model(mode)(reference.tokens, reference.images)
    torch.testing.assert_close(real(ours, reference), real(theirs, reference), **LOGITS)


@torch.no_grad()
def test_forgetting_the_rope_scaling_would_be_noticed(full_reference: Reference) -> None:
    text = full_reference.file("text")
    assert (text["logits.no_rope_scaling.meta"] - text["logits.meta"]).abs().max() > 100 * LOGITS["atol"]


def test_our_visibility_is_their_cross_attention_mask(reference: Reference) -> None:
    image_id = reference.model("meta").config.image_token_id
    visible = image_visibility(reference.tokens, reference.images.n_tiles, image_id)
    assert torch.equal(visible, reference.file("text")["cross_attention_mask"].bool())


@pytest.mark.parametrize("sample", range(N_SAMPLES))
@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_logits_of_a_sample_alone_agree(reference: Reference, mode: str, sample: int) -> None:
    theirs = available(reference, "text", f"solo.{sample}.logits.{mode}")
    ours = reference.model(mode)(reference.solo_tokens(sample), reference.solo_images(sample))
    torch.testing.assert_close(ours, theirs, **LOGITS)


@pytest.mark.parametrize("sample", range(N_SAMPLES))
@torch.no_grad()
def test_in_meta_a_sample_gets_the_same_logits_alone_and_in_a_batch(reference: Reference, sample: int) -> None:
    model = reference.model("meta")
    batch = model(reference.tokens, reference.images)[sample, : reference.lengths[sample]]
    torch.testing.assert_close(
        model(reference.solo_tokens(sample), reference.solo_images(sample))[0], batch, atol=2e-5, rtol=0.0
    )


@torch.no_grad()
def test_in_hf_a_text_only_sample_is_changed_by_its_batch(reference: Reference) -> None:
    model = reference.model("hf")
    batch = model(reference.tokens, reference.images)[3, : reference.lengths[3]]
    assert (batch - model(reference.solo_tokens(3))[0]).abs().max() > 0.5


def run_loss(model: MiniMllama, reference: Reference) -> Tensor:
    logits = model(reference.tokens, reference.images)
    return F.cross_entropy(logits.flatten(0, 1), reference.labels.flatten(), ignore_index=-100)


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_the_loss_agrees(reference: Reference, mode: str) -> None:
    theirs = available(reference, "text", f"loss.{mode}")
    torch.testing.assert_close(run_loss(reference.model(mode), reference), theirs, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("mode", ["meta", "hf"])
def test_every_gradient_agrees(full_reference: Reference, mode: str) -> None:
    model = full_reference.model(mode)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(run_loss(model, full_reference), parameters)
    theirs = full_reference.file("grads")
    cross = model.config.text.cross_layers
    assert len(names) == sum(name.startswith(f"{mode}/") for name in theirs)
    for name, ours in zip(names, gradients, strict=True):
        wanted = theirs[f"{mode}/{hf_name(name, cross)}"]
        tolerance = 1e-4 * wanted.abs().max().item() + 1e-6
        torch.testing.assert_close(ours, wanted, atol=tolerance, rtol=0.0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("sample", range(N_SAMPLES))
@pytest.mark.parametrize("mode", MODES)
def test_greedy_tokens_agree(reference: Reference, mode: str, sample: int) -> None:
    theirs = available(reference, "generate", f"greedy.{sample}.{mode}")[0]
    margin = reference.file("generate")[f"greedy.{sample}.{mode}.margin"]
    prompt = reference.file("generate")[f"prompt.{sample}"][0]
    images = reference.solo_images(sample)
    ours = generate(reference.model(mode), [prompt], images, max_new_tokens=len(margin))[0]
    unsure = (margin < 1e-3).nonzero().flatten().tolist()  # from there on a rounding error may choose another path
    sure = len(prompt) + (unsure[0] if unsure else len(margin))
    assert sure > len(prompt) + 3, "this reference is too unsure to test anything"
    assert ours[:sure].tolist() == theirs[:sure].tolist()


@torch.no_grad()
def margins(model: MiniMllama, rows: list[Tensor], images: ImageBatch, n_new: int) -> Tensor:
    """[B, n_new]: by how much the best logit leads at each of the last n_new tokens of these rows."""
    logits = model(pad_rows(rows, model.config.text.pad_id), images)
    steps = torch.stack([x[len(row) - n_new - 1 : len(row) - 1] for x, row in zip(logits, rows, strict=True)])
    best = steps.topk(2, -1).values
    return best[..., 0] - best[..., 1]


@pytest.mark.parametrize("mode", MODES)
def test_greedy_tokens_of_a_ragged_batch_agree(full_reference: Reference, mode: str) -> None:
    model, images = full_reference.model(mode), full_reference.images
    prompts = [full_reference.solo_tokens(sample)[0] for sample in range(N_SAMPLES)]
    theirs = full_reference.file("generate")[f"left.greedy.{mode}"][:, full_reference.tokens.shape[1] :]
    rows = [torch.cat(pair) for pair in zip(prompts, theirs, strict=True)]
    is_sure = (margins(model, rows, images, theirs.shape[1]) >= 1e-3).cumprod(-1).bool()
    assert is_sure.float().mean() > 0.7, "this reference is too unsure to test anything"
    ours = torch.stack([row[-theirs.shape[1] :] for row in generate(model, prompts, images, max_new_tokens=20)])
    assert torch.equal(ours[is_sure], theirs[is_sure])
