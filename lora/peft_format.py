"""Adapters on disk in PEFT's format (adapter_config.json, adapter_model.safetensors), both ways, strictly.

PEFT names a tensor "base_model.model." + the module's path in transformers + ".lora_A.weight". The paths come
in two families (minimllama/checkpoint/hf.py). PEFT itself loads the older family only in part, with a
warning; here a tensor that is not used, or missing, is an error. Source: peft 0.21, utils/save_and_load.py.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lora.layers import LoraLinear
from lora.tuning import TuneConfig, add_adapters
from minimllama import MiniMllama
from minimllama.checkpoint.hf import hf_namer
from minimllama.padding import drop_unused_tiles

PREFIX = "base_model.model."
NOTE = "minimllama.json"  # what PEFT's own file has no place for
_EXPECTED: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "lora_bias": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
}
_OTHER_FORWARD = ("alora_invocation_tokens", "arrow_config", "kasa_config", "use_bdlora", "use_qalora")  # of new PEFTs
_FIRST_VALUES = (True, False, "gaussian", "orthogonal", "eva")  # the rest, such as "pissa", change the base as well


def adapted_layers(model: MiniMllama) -> dict[str, LoraLinear]:
    """The layers that have adapters, by path."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def save_adapter(model: MiniMllama, folder: str | Path, family: str = "memory") -> None:
    """Write the adapters so that PEFT on transformers loads them.

    Args:
        model: with adapters of one configuration.
        folder: made if it is not there.
        family: "memory" for transformers from 4.52 on, "files" for older ones.

    Raises:
        FileExistsError: if the folder holds an adapter already.
        ValueError: if the model has no adapters.
        OSError: if there is no room for the file.
    """
    folder = Path(folder)
    layers = adapted_layers(model)
    if not layers:
        raise ValueError("the model has no adapters to save")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "adapter_config.json").exists():
        raise FileExistsError(f"{folder} already holds an adapter")
    namer = hf_namer(model.config.text.cross_layers, family)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for part in ("lora_A", "lora_B"):
            tensors[f"{PREFIX}{namer(name)}.{part}.weight"] = getattr(layer, part).detach().cpu().float().contiguous()
    try:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{folder / 'adapter_model.safetensors'} was not written: {error}") from error
    first = next(iter(layers.values()))
    config = {
        **_EXPECTED,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": first.r,
        "lora_alpha": first.alpha,
        "lora_dropout": first.dropout,
        "use_rslora": first.rslora,
        "init_lora_weights": True,
        "target_modules": _target_modules(model, list(layers), namer),
    }
    note: dict[str, Any] = {"semantics": model.semantics}
    if model.config.vision.drop_unused_tiles:
        note["drop_unused_tiles"] = True
    (folder / NOTE).write_text(json.dumps(note) + "\n")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _target_modules(model: MiniMllama, names: list[str], namer: Any) -> list[str]:
    """Name endings if every linear layer is adapted (as PEFT writes "all-linear"), full paths otherwise."""
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.endswith("lm_head")}
    if linear == set(names):
        return sorted({namer(name).rpartition(".")[2] for name in names})
    return sorted(namer(name) for name in names)


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of adapter_config.json, which may ask for more than `load_adapter` does.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not what PEFT writes.
    """
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no adapter_config.json in {folder}")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if lacking := [n for n in ("r", "lora_alpha", "lora_dropout") if not isinstance(config, dict) or n not in config]:
        raise ValueError(f"{path} lacks {', '.join(lacking)}")
    return config


def read_note(folder: Path) -> dict[str, Any] | None:
    """What an adapter of ours says beside PEFT's file; None for one of PEFT's own."""
    path = folder / NOTE
    return json.loads(path.read_text()) if path.is_file() else None


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_settings(folder)
    for name, value in {**_EXPECTED, **dict.fromkeys(_OTHER_FORWARD)}.items():
        given = config.get(name, value)
        if given != value and not (not given and not value):
            raise ValueError(f"{folder}/adapter_config.json: {name}={given!r} is not supported, only {value!r}")
    if (given := config.get("init_lora_weights", True)) not in _FIRST_VALUES:
        accepted = ", ".join(map(repr, _FIRST_VALUES))
        raise ValueError(
            f"{folder}/adapter_config.json: init_lora_weights={given!r} is not supported, only {accepted}: the base "
            "model was changed before it was tuned"
        )
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of adapter_model.safetensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def _match(model: MiniMllama, keys: set[str], folder: Path) -> dict[str, str]:
    """Our path of each adapted layer -> the beginning of its two keys, in whichever family the file uses."""
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.endswith("lm_head")]
    best: dict[str, str] = {}
    for family in ("memory", "files"):
        namer = hf_namer(model.config.text.cross_layers, family)
        stems = {name: f"{PREFIX}{namer(name)}" for name in linear}
        found = {name: stem for name, stem in stems.items() if f"{stem}.lora_A.weight" in keys}
        best = max(best, found, key=len)
    used = {f"{stem}.{part}.weight" for stem in best.values() for part in ("lora_A", "lora_B")}
    if not best or used != keys:
        odd = sorted(used ^ keys)
        raise ValueError(
            f"{folder}/adapter_model.safetensors does not fit the model: "
            f"{len(odd)} tensors without a place or a partner, such as {', '.join(odd[:5])}"
        )
    return best


def _must_drop_unused_tiles(model: MiniMllama, folder: Path) -> bool:
    """Whether an adapter was trained without unused tile slots; refuses other semantics."""
    note = read_note(folder)
    if note is None:
        return False
    if note["semantics"] != model.semantics:
        raise ValueError(
            f"{folder} was trained with semantics={note['semantics']!r}, the model has {model.semantics!r}"
        )
    drops = bool(note.get("drop_unused_tiles"))
    if model.config.vision.drop_unused_tiles and not drops:
        raise ValueError(f"{folder} was trained with all tile slots, the model drops those that an image does not use")
    return drops


def load_adapter(model: MiniMllama, folder: str | Path) -> MiniMllama:
    """Put the adapters of a PEFT folder on a model, in place. Either family of names; every tensor is used.

    Raises:
        FileNotFoundError: if the folder holds no adapter.
        ValueError: if the file is damaged, a tensor has no place or the wrong shape, PEFT's configuration asks
            for something that LoRA layers here do not do, or the adapter was trained under other semantics than
            the model has.
    """
    folder = Path(folder)
    config = _read_config(folder)
    drops = _must_drop_unused_tiles(model, folder)
    tensors = read_tensors(folder / "adapter_model.safetensors")
    stems = _match(model, set(tensors), folder)
    tune = TuneConfig(
        r=config["r"],
        alpha=config["lora_alpha"],
        dropout=config["lora_dropout"],
        targets=tuple(stems),
        rslora=bool(config.get("use_rslora")),
    )
    for name, stem in stems.items():
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        wanted = {"lora_A": (tune.r, base.in_features), "lora_B": (base.out_features, tune.r)}
        for part, shape in wanted.items():
            if tuple(tensors[f"{stem}.{part}.weight"].shape) != shape:
                found = tuple(tensors[f"{stem}.{part}.weight"].shape)
                raise ValueError(f"{folder}: {stem}.{part}.weight is {found}, not {shape}")
    add_adapters(model, list(stems), tune)
    if drops:
        drop_unused_tiles(model)
    for name, layer in adapted_layers(model).items():
        device = layer.weight.device if layer.weight.device.type != "meta" else "cpu"  # sizes only: see `lora export`
        for part in ("lora_A", "lora_B"):
            values = tensors[f"{stems[name]}.{part}.weight"].to(device, torch.float32)
            setattr(layer, part, nn.Parameter(values))
    return model
