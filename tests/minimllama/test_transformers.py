"""A model that transformers makes and saves during the test, of several sizes, against ours: no stored tensors.

Every size is different from the others; 17, 10 and 26 tokens per tile leave other paddings than the real
1601; cross-attention layers stand where the published pattern would not put them.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from minimllama import ModelConfig, load_model
from minimllama.chat import pad_rows
from minimllama.checkpoint import hf_name
from tests.tools.golden import MODES
from tests.tools.hf import hf_inputs, hf_model, hf_semantics
from tests.tools.tiny import TINY, pictures, prompt, with_text, with_vision

CONFIGS: dict[str, ModelConfig] = {
    "tiny": TINY,
    "other layers": with_text(
        with_vision(TINY, n_local_layers=4, n_global_layers=1, taps=(3,), patch_size=4, width=30, n_heads=3),
        n_layers=8,
        cross_layers=(0, 3, 4, 7),
        n_heads=4,
        n_kv_heads=1,
        norm_eps=1e-6,
    ),
    "three tiles": with_text(
        with_vision(TINY, max_tiles=3, tile_size=10, patch_size=2, taps=(1, 4), norm_eps=1e-6),
        n_heads=3,
        n_kv_heads=3,
        width=42,
    ),
}
SIZES = [[(30, 20)], [(90, 20), (20, 20)], [(20, 75), (50, 30)], [], [(12, 12)]]
TOKENS = [
    prompt(13, 1, image_at=[5]),
    prompt(11, 2, image_at=[1, 6]),
    prompt(15, 3, image_at=[3, 4]),
    prompt(9, 4),
    prompt(16, 5, image_at=[0]),
]


@pytest.fixture(scope="module", params=CONFIGS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(configuration, transformers' model, the folder that it saved itself to)."""
    config = CONFIGS[request.param]
    theirs = hf_model(config, seed=len(request.param))
    folder = tmp_path_factory.mktemp("transformers")
    theirs.save_pretrained(folder, max_shard_size="100KB")
    return config, theirs, folder


def test_the_configuration_that_transformers_writes_is_read_back(saved: tuple[ModelConfig, object, Path]) -> None:
    config, _, folder = saved
    assert ModelConfig.from_folder(folder) == config


@pytest.mark.parametrize("mode", MODES)
def test_logits_and_every_gradient_agree_in_a_ragged_batch(saved, mode: str) -> None:
    config, theirs, folder = saved
    ours = load_model(folder, semantics=mode)
    tokens, images = pad_rows(TOKENS, config.text.pad_id), pictures(SIZES, config)
    real = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in TOKENS])[:, None]
    labels = torch.where(real & (tokens < config.text.vocab_size), tokens, -100).roll(-1, 1).flatten()
    labels[tokens.shape[1] - 1 :: tokens.shape[1]] = -100
    with hf_semantics(mode):
        wanted = theirs(**hf_inputs(tokens, images, config)).logits
        theirs.zero_grad()
        F.cross_entropy(wanted.flatten(0, 1), labels).backward()
    logits = ours(tokens, images)
    torch.testing.assert_close(logits[real], wanted[real], atol=1e-4, rtol=0.0)
    F.cross_entropy(logits.flatten(0, 1), labels).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        wanted_gradient = gradients.pop(hf_name(name, config.text.cross_layers, "memory"))
        tolerance = 1e-4 * wanted_gradient.abs().max().item() + 1e-6
        torch.testing.assert_close(p.grad, wanted_gradient, atol=tolerance, rtol=0.0, msg=lambda m, n=name: f"{n}: {m}")
    assert not gradients, "transformers has parameters that we do not"


@torch.no_grad()
def test_the_modes_are_not_the_same(saved) -> None:
    config, _, folder = saved
    tokens, images = pad_rows(TOKENS, config.text.pad_id), pictures(SIZES, config)
    meta, hf, hf445 = (load_model(folder, semantics=mode)(tokens, images) for mode in MODES)
    assert (hf - hf445).abs().max() > 0.01
    assert (hf445 - meta).abs().max() > 0.01


@torch.no_grad()
def test_text_without_images_agrees(saved) -> None:
    _, theirs, folder = saved
    tokens = prompt(9, 4)[None]
    ours = load_model(folder, semantics="hf")(tokens)
    torch.testing.assert_close(ours, theirs(tokens, use_cache=False).logits, atol=1e-4, rtol=0.0)
