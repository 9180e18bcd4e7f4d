"""Adapters on disk: ours in PEFT, PEFT's here, both families of names; what is refused: test_peft_refusals.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lora import TuneConfig, load_adapter, save_adapter
from lora.peft_format import PREFIX, adapted_layers
from minimllama import ImageBatch, load_model
from minimllama.checkpoint.hf import hf_namer
from tests.lora.conftest import TUNE, adapted_model, images_of, transformers_inputs
from tests.tools.tiny import TINY, tiny_model

Open = Callable[[], Any]
WEIGHTS = "adapter_model.safetensors"
# float32 sums in another order, on logits of size 10
CLOSE = {"rtol": 0.0, "atol": 1e-4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of ours, semantics "hf" so that transformers' forward can be compared."""
    save_adapter(adapted_model("hf"), tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def peft_model(open_in_transformers: Open) -> Any:
    """PEFT's own adapters on transformers' model, with random values."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(open_in_transformers(), config).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "lora_" in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5)
    return model


# equation


def test_the_file_holds_two_float32_tensors_per_layer_under_pefts_names(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    assert len(tensors) == 2 * 98
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    stem = "base_model.model.model.language_model.layers.1.cross_attn.q_proj"
    assert tensors[f"{stem}.lora_A.weight"].shape == (3, TINY.text.width)
    assert tensors[f"{stem}.lora_B.weight"].shape == (TINY.text.width, 3)


def test_the_configuration_says_what_peft_asks_for(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == ("LORA", 3, 6, 0.0)
    assert "multi_modal_projector" in config["target_modules"]
    assert "lm_head" not in config["target_modules"]


# parity


def test_peft_loads_our_adapter_and_gives_our_logits(
    folder: Path, open_in_transformers: Open, tokens: Tensor, images: ImageBatch
) -> None:
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(open_in_transformers(), folder).eval()
    with torch.no_grad():
        logits = theirs(**transformers_inputs(tokens, images)).logits
        torch.testing.assert_close(adapted_model("hf")(tokens, images), logits, **CLOSE)
        assert (tiny_model(0, "hf")(tokens, images) - logits).abs().max() > 0.1  # the adapters did something


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": ("text.layers.*.attention.q_proj", "projector", "vision.global_layers.*")},
        {"targets": "cross", "rslora": True},
    ],
)
def test_peft_loads_adapters_on_some_layers_too(
    tmp_path: Path, open_in_transformers: Open, tokens: Tensor, images: ImageBatch, changes: dict
) -> None:
    from peft import PeftModel

    ours = adapted_model("hf", replace(TUNE, **changes))
    save_adapter(ours, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(open_in_transformers(), tmp_path / "adapter").eval()
    with torch.no_grad():
        logits = theirs(**transformers_inputs(tokens, images)).logits
    torch.testing.assert_close(ours(tokens, images), logits, **CLOSE)


def test_pefts_adapter_loads_here_with_its_logits_and_gradients(
    tmp_path: Path, peft_model: Any, checkpoint: Path, tokens: Tensor, images: ImageBatch
) -> None:
    peft_model.save_pretrained(tmp_path / "adapter")
    ours = load_adapter(load_model(checkpoint, semantics="hf"), tmp_path / "adapter")
    theirs_logits = peft_model(**transformers_inputs(tokens, images)).logits
    logits = ours(tokens, images)
    torch.testing.assert_close(logits, theirs_logits, **CLOSE)
    for values in (logits, theirs_logits):
        values.log_softmax(-1)[..., 11].sum().backward()
    reference = {n.replace(".default", ""): p.grad for n, p in peft_model.named_parameters() if "lora_" in n}
    namer = hf_namer(TINY.text.cross_layers, "memory")
    for name, layer in adapted_layers(ours).items():
        for part in ("lora_A", "lora_B"):
            wanted = reference.pop(f"{PREFIX}{namer(name)}.{part}.weight")
            atol = 1e-4 * float(wanted.abs().max()) + 1e-6
            torch.testing.assert_close(getattr(layer, part).grad, wanted, rtol=0, atol=atol)
    assert reference == {}


@pytest.mark.parametrize("family", ["lora_adapter", "lora_adapter_legacy_keys"])
@pytest.mark.parametrize("semantics", ["meta", "hf", "hf445"])
def test_the_oracles_adapter_gives_its_logits_from_both_families_of_names(
    shared: Path, family: str, semantics: str
) -> None:
    oracle = shared / "parity" / "oracle_seed0"
    if not oracle.is_dir():
        pytest.skip(f"no reference tensors at {oracle}")
    model = load_adapter(load_model(oracle / "hf_model", semantics=semantics), oracle / family)
    inputs, wanted = load_file(oracle / "text.safetensors"), load_file(oracle / "lora.safetensors")
    logits = model(inputs["input_ids"], images_of(inputs), inputs["cross_attention_mask"].bool())
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[real], wanted[f"logits.{semantics}"][real], **CLOSE)
    if f"grad.{semantics}/{PREFIX}model.multi_modal_projector.lora_A.weight" not in wanted:
        return
    targets = inputs["labels"][:, 1:].flatten()
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets).backward()
    namer = hf_namer(model.config.text.cross_layers, "memory")
    for name, layer in adapted_layers(model).items():
        for part in ("lora_A", "lora_B"):
            reference = wanted[f"grad.{semantics}/{PREFIX}{namer(name)}.{part}.weight"]
            atol = 1e-4 * float(reference.abs().max()) + 1e-6
            torch.testing.assert_close(getattr(layer, part).grad, reference, rtol=0, atol=atol)


# property


@pytest.mark.parametrize("family", ["memory", "files"])
@pytest.mark.parametrize("targets", ["all-linear", ("vision.*.fc1", "text.layers.4.*")])
def test_an_adapter_survives_saving_and_loading_in_either_family(
    tmp_path: Path, family: str, targets: str | tuple[str, ...]
) -> None:
    tune = TuneConfig(r=3, alpha=7, dropout=0.25, targets=targets, rslora=True)
    saved = adapted_model(tune=tune)
    save_adapter(saved, tmp_path / "adapter", family)
    loaded = load_adapter(tiny_model(), tmp_path / "adapter")
    before, after = adapted_layers(saved), adapted_layers(loaded)
    assert before.keys() == after.keys()
    for name, layer in after.items():
        assert torch.equal(layer.lora_A, before[name].lora_A)
        assert torch.equal(layer.lora_B, before[name].lora_B)
        assert (layer.scale, layer.dropout) == (7 / 3**0.5, 0.25)
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        f"{name}.{part}" for name in after for part in ("lora_A", "lora_B")
    }


def test_the_two_families_differ_in_names_only(tmp_path: Path) -> None:
    model = adapted_model()
    save_adapter(model, tmp_path / "memory", "memory")
    save_adapter(model, tmp_path / "files", "files")
    memory, files = load_file(tmp_path / "memory" / WEIGHTS), load_file(tmp_path / "files" / WEIGHTS)
    assert not memory.keys() & files.keys()
    assert "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight" in files
    assert sorted(t.sum().item() for t in memory.values()) == sorted(t.sum().item() for t in files.values())
