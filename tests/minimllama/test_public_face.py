"""The names and defaults that other programs rely on: arguments may be added, none renamed or removed."""

import inspect

import pytest
import torch

import minimllama
from minimllama import ImageBatch, ImageTransform, MiniMllama, generate, image_visibility, load_model, save_model
from tests.tools.tiny import TINY, picture, prompt, tiny_model

REQUIRED = inspect.Parameter.empty
FACES = [
    (MiniMllama, {"config": REQUIRED}),
    (
        load_model,
        {"folder": REQUIRED, "dtype": torch.float32, "device": "cpu", "semantics": "meta", "config": None},
    ),
    (save_model, {"model": REQUIRED, "folder": REQUIRED}),
    (ImageTransform, {"tile_size": 448, "max_tiles": 4}),
    (image_visibility, {"tokens": REQUIRED, "n_tiles": REQUIRED, "image_token_id": 128256}),
    (MiniMllama.forward, {"self": REQUIRED, "tokens": REQUIRED, "images": None, "visible": None}),
    (
        generate,
        {
            "model": REQUIRED,
            "tokens_per_sample": REQUIRED,
            "images": None,
            "max_new_tokens": 20,
            "temperature": 0.0,
        },
    ),
    (ImageBatch, {"pixels": REQUIRED, "aspect_ratio_ids": REQUIRED, "tile_mask": REQUIRED, "n_tiles": REQUIRED}),
]


@pytest.mark.parametrize(("callable_", "promised"), FACES, ids=[face[0].__qualname__ for face in FACES])
def test_arguments_keep_their_names_and_defaults(callable_, promised: dict[str, object]) -> None:
    given = {name: p.default for name, p in inspect.signature(callable_).parameters.items()}
    assert {name: given.get(name, "removed") for name in promised} == promised
    added = given.keys() - promised.keys()
    assert [name for name in added if given[name] is REQUIRED] == []


def test_every_public_name_is_there() -> None:
    for name in minimllama.__all__:
        assert hasattr(minimllama, name)
    assert {"nano", "11b", "11b-instruct", "90b"} <= minimllama.PRESETS.keys()


def test_the_example_of_the_face_runs() -> None:
    model, transform = tiny_model(), ImageTransform(tile_size=TINY.vision.tile_size, max_tiles=4)
    images = transform([[picture(9, 9)], [picture(9, 9), picture(9, 20)], []])
    assert images.pixels.shape == (3, 2, 4, 3, 12, 12)
    assert images.pixels.dtype == torch.float32
    assert images.aspect_ratio_ids.dtype == torch.int64
    assert images.tile_mask.dtype == torch.bool
    rows = [prompt(6, 1, [2]), prompt(6, 2, [1, 3]), prompt(6, 3)]
    tokens = torch.stack(rows)
    visible = image_visibility(tokens, images.n_tiles, image_token_id=TINY.image_token_id)
    logits = model(tokens, images=images, visible=visible)
    assert logits.shape == (3, 6, TINY.text.vocab_size)
    sequences = generate(model, rows, images=images, max_new_tokens=2, temperature=0.0)
    assert [len(row) for row in sequences] == [8, 8, 8]
