"""Adapters on disk: ours in PEFT, PEFT's here, both families of names, and nothing half-loaded."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora import TuneConfig, load_adapter, save_adapter
from lora.peft_format import PREFIX, adapted_layers
from minimllama import ImageBatch, MiniMllama, load_model
from minimllama.checkpoint.hf import hf_namer
from minimllama.padding import drop_unused_tiles
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


def change(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def set_config(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


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


# refusal


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="already holds an adapter"):
        save_adapter(adapted_model(), folder)


def test_a_model_without_adapters_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapter(tiny_model(), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no adapter_config.json"):
        load_adapter(tiny_model(), tmp_path)


STEM = f"{PREFIX}model.language_model.layers.0.mlp.up_proj"


def _lose_b(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{STEM}.lora_B.weight"]


def _lose_a(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{STEM}.lora_A.weight"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors[f"{PREFIX}model.language_model.layers.99.mlp.up_proj.lora_A.weight"] = torch.zeros(3, 4)


def _mix_families(tensors: dict[str, Tensor]) -> None:
    for part in ("lora_A", "lora_B"):
        value = tensors.pop(f"{STEM}.{part}.weight")
        tensors[f"{PREFIX}language_model.model.layers.0.mlp.up_proj.{part}.weight"] = value


def _rename_all(tensors: dict[str, Tensor]) -> None:
    for name in list(tensors):
        tensors["other." + name] = tensors.pop(name)


@pytest.mark.parametrize("edit", [_lose_a, _lose_b, _add, _mix_families, _rename_all])
def test_a_tensor_without_place_or_partner_is_an_error_and_the_model_stays_plain(
    folder: Path, edit: Callable[[dict[str, Tensor]], None]
) -> None:
    change(folder, edit)
    model = tiny_model(0, "hf")
    with pytest.raises(ValueError, match=r"does not fit the model: \d+ tensors without a place or a partner, such as"):
        load_adapter(model, folder)
    assert adapted_layers(model) == {}


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_a_tensor_of_another_shape_is_an_error_and_the_model_stays_plain(folder: Path, part: str) -> None:
    def cut(tensors: dict[str, Tensor]) -> None:
        tensors[f"{STEM}.{part}.weight"] = tensors[f"{STEM}.{part}.weight"][:, :-1].contiguous()

    change(folder, cut)
    model = tiny_model(0, "hf")
    with pytest.raises(ValueError, match=rf"up_proj.{part}.weight is \(.*\), not \(.*\)"):
        load_adapter(model, folder)
    assert adapted_layers(model) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("bias", "all"),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("modules_to_save", ["lm_head"]),
        ("fan_in_fan_out", True),
        ("init_lora_weights", "pissa"),  # PEFT takes what A and B held at first out of the base
        ("init_lora_weights", "olora"),
        ("use_qalora", True),
        ("alora_invocation_tokens", [5]),
    ],
)
def test_a_configuration_that_asks_for_something_else_is_refused(folder: Path, field: str, value: object) -> None:
    set_config(folder, **{field: value})
    with pytest.raises(ValueError, match=f"{field}=.* is not supported"):
        load_adapter(tiny_model(0, "hf"), folder)


@pytest.mark.parametrize("first", [True, False, "gaussian", "orthogonal", "eva"])
def test_first_values_that_leave_the_base_alone_are_all_the_same(folder: Path, first: object) -> None:
    set_config(folder, init_lora_weights=first)
    assert len(adapted_layers(load_adapter(tiny_model(0, "hf"), folder))) == 98


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ('{"lora_alpha": 6}', "lacks r, lora_dropout"), ("[]", "lacks r, lora_alpha, lora_dropout")],
)
def test_a_configuration_that_peft_did_not_write_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"adapter_config\.json {message}"):
        load_adapter(tiny_model(0, "hf"), folder)


def test_a_refused_adapter_does_not_change_which_tiles_count(tmp_path: Path) -> None:
    trained = adapted_model()
    drop_unused_tiles(trained)
    save_adapter(trained, tmp_path)
    change(tmp_path, _add)
    model = tiny_model()
    with pytest.raises(ValueError, match="does not fit the model"):
        load_adapter(model, tmp_path)
    assert not model.config.vision.drop_unused_tiles


def test_an_adapter_of_other_semantics_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="trained with semantics='hf', the model has 'meta'"):
        load_adapter(tiny_model(), folder)


def test_a_second_adapter_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="has adapters already"):
        load_adapter(adapted_model("hf"), folder)


def test_a_damaged_file_is_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    model: MiniMllama = tiny_model(0, "hf")
    with pytest.raises(ValueError, match=WEIGHTS):
        load_adapter(model, folder)
    assert adapted_layers(model) == {}


def test_a_missing_file_is_refused(folder: Path) -> None:
    shutil.move(folder / WEIGHTS, folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        load_adapter(tiny_model(0, "hf"), folder)
