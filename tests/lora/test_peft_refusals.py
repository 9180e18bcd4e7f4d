"""Adapters on disk that are refused, with the model left as it was; what is accepted is in test_peft_format.py."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora import load_adapter, save_adapter
from lora.peft_format import PREFIX, adapted_layers
from minimllama import MiniMllama
from minimllama.padding import drop_unused_tiles
from tests.lora.conftest import adapted_model
from tests.tools.tiny import tiny_model

WEIGHTS = "adapter_model.safetensors"
STEM = f"{PREFIX}model.language_model.layers.0.mlp.up_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter of ours under semantics "hf"."""
    save_adapter(adapted_model("hf"), tmp_path / "adapter")
    return tmp_path / "adapter"


def change(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS)


def set_config(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="already holds an adapter"):
        save_adapter(adapted_model(), folder)


def test_a_full_disk_is_an_error_of_the_system_and_leaves_no_adapter(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("lora.peft_format.save_file", fail)
    with pytest.raises(OSError, match=r"adapter_model\.safetensors was not written: No space left"):
        save_adapter(adapted_model(), tmp_path)
    with pytest.raises(FileNotFoundError):
        load_adapter(tiny_model(), tmp_path)


def test_a_model_without_adapters_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapter(tiny_model(), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no adapter_config.json"):
        load_adapter(tiny_model(), tmp_path)


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
