"""The compiled step of decoding: the same tokens, compiled once."""

import shutil

import pytest
import torch

from minimllama import generate
from tests.tools.tiny import TINY, one_sample, pictures, prompt, tiny_model, with_text

SMALL = with_text(TINY, n_layers=2, cross_layers=(1,))
PROMPTS = [prompt(9, 1, image_at=[3]), prompt(6, 2, image_at=[1])]

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler on CPUs"
)


@needs_compiler
def test_the_compiled_step_gives_the_same_tokens_and_is_compiled_once() -> None:
    model, images = tiny_model(config=SMALL), pictures([[(30, 20)], [(20, 20)]])
    model.text.lm_head.weight.data.mul_(20)  # choices that are not a matter of rounding
    plain = generate(model, PROMPTS, images, max_new_tokens=9)
    generate(model, PROMPTS, images, max_new_tokens=9, compile=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        again = generate(model, PROMPTS, images, max_new_tokens=9, compile=True)
    assert [row.tolist() for row in again] == [row.tolist() for row in plain]
    with pytest.raises(RuntimeError, match="recompile"), torch.compiler.set_stance("fail_on_recompile"):
        generate(model, PROMPTS[:1], one_sample(images, 0), max_new_tokens=9, compile=True)
