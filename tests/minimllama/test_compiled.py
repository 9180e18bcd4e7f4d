"""Decoding with compiled layers: the same tokens, compiled once per kind of layer, and fit to be recorded."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.utils import run_and_get_code
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minimllama import MiniMllama, compiled, generate
from minimllama.generate import prefill
from minimllama.packed import can_pack
from minimllama.weights import hold_weights
from tests.tools.tiny import TINY, one_sample, pictures, prompt, tiny_model, with_text

SMALL = with_text(TINY, n_layers=4, cross_layers=(1,))
PROMPTS = [prompt(9, 1, image_at=[3]), prompt(6, 2, image_at=[1])]

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler on CPUs"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def sure_model(device: str = "cpu") -> MiniMllama:
    """Whose choices are not a matter of rounding."""
    model = tiny_model(config=SMALL)
    model.text.lm_head.weight.data.mul_(20)
    return model.to(device)


def rows(model: MiniMllama, n_new: int = 9, n_rows: int = 2, **options: Any) -> list[list[int]]:
    """Greedy answers to the first prompts."""
    device = model.text.norm.weight.device
    images = pictures([[(30, 20)], [(20, 20)]]).to(device)
    images = images if n_rows == 2 else one_sample(images, 0)
    given = [row.to(device) for row in PROMPTS[:n_rows]]
    return [row.tolist() for row in generate(model, given, images, max_new_tokens=n_new, **options)]


@needs_compiler
def test_the_compiled_step_gives_the_same_tokens_and_is_compiled_once_for_each_kind_of_layer() -> None:
    torch.compiler.reset()
    counters.clear()
    model = sure_model()
    plain = rows(model)
    assert rows(model, compile=True) == plain
    assert counters["stats"]["unique_graphs"] == 3  # three self-attention layers, a cross-attention layer, lm_head
    assert not counters["graph_break"]
    with torch.compiler.set_stance("fail_on_recompile"):
        assert rows(model, compile=True) == plain
    rows(model, compiled.SLOTS, compile=True)  # another number of slots: now for any
    with torch.compiler.set_stance("fail_on_recompile"):
        assert rows(model, 2 * compiled.SLOTS, compile=True) == rows(model, 2 * compiled.SLOTS)
    with pytest.raises(RuntimeError, match="recompile"), torch.compiler.set_stance("fail_on_recompile"):
        rows(model, n_rows=1, compile=True)


@needs_compiler
@torch.no_grad()
def test_no_compiled_layer_copies_its_cache() -> None:
    """What the compiler makes of writing one token: room for the whole cache would be made by name."""
    torch.compiler.reset()
    found = prefill(sure_model(), [PROMPTS[0][:3]], None, 10)
    model, (tokens, positions) = sure_model(), torch.full((2, 1), 3)
    step = compiled.compiled_step(model, found.cache, None)
    _, code = run_and_get_code(step, tokens, positions)
    shape = tuple(found.cache.text[0].k.shape)
    assert any(str(shape) in text for text in code)  # the cache is an argument
    assert not [line for text in code for line in text.splitlines() if f"empty_strided_cpu({shape}" in line]


@needs_compiler
@pytest.mark.skipif(not can_pack(nn.Linear(2, 2).bfloat16()), reason="this CPU has no bfloat16 products of oneDNN")
def test_packed_weights_compile() -> None:
    torch.compiler.reset()
    model = hold_weights(sure_model().bfloat16(), "fast")
    assert rows(model, compile=True) == rows(model)


class Devices(TorchDispatchMode):
    """Notes the devices of all tensors that operations take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {x.device.type for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)}
        return out


@torch.no_grad()
def test_a_step_takes_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph cannot record a copy from the host; "meta" stands for the GPU here."""
    monkeypatch.setattr(compiled, "call_compiled", nn.Module.__call__)
    model = tiny_model(config=SMALL)
    found = prefill(model, PROMPTS, pictures([[(30, 20)], [(12, 12)]]), 4)
    sight = found.sight(1, model)
    assert sight is not None
    assert sight.mask is not None
    cache = model.to("meta").empty_cache(2, found.cache.n_slots)
    for i, layer in found.cache.image.items():
        assert layer.pair is not None
        cache.image[i].pair = (layer.pair[0].to("meta"), layer.pair[1].to("meta"))
    step = compiled.compiled_step(model, cache, sight.to("meta"))
    tokens, positions = torch.zeros(2, 2, dtype=torch.int64, device="meta")
    with Devices() as devices:
        assert step(tokens, positions).shape == (2, SMALL.text.vocab_size)
    assert devices.seen == {"meta"}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("weights", ["plain", "fast", "int8"])
def test_a_recorded_step_gives_the_same_tokens(weights: str, n_rows: int) -> None:
    """Several calls, because each records its own graph over its own cache; on every device."""
    torch.compiler.reset()
    counters.clear()
    for number in range(torch.cuda.device_count()):
        model = hold_weights(sure_model(f"cuda:{number}"), weights)
        for n_new in (9, 9, 12):
            assert rows(model, n_new, n_rows, compile=True) == rows(model, n_new, n_rows)
        assert counters["stats"]["unique_graphs"] == 3 * (number + 1)
