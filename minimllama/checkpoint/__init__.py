"""Reading and writing whole models. The model asks the files: each of OUR names is looked up, nothing may be left over.

Layouts: Hugging Face (config.json, safetensors, either family of names) and Meta's (params.json,
    consolidated*.pth).
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from minimllama.checkpoint.files import PthFiles, SafetensorFiles
from minimllama.checkpoint.hf import find_family, hf_name, hf_namer
from minimllama.checkpoint.meta import MetaTensors
from minimllama.config import ModelConfig, differences
from minimllama.image import ImageTransform
from minimllama.model import MiniMllama

__all__ = ["DTYPES", "find_dtype", "hf_name", "load_model", "save_model"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_NOT_IN_PARAMS = ("text.pad_id", "text.eos_ids", "text.bos_id", "text.max_positions", "text.n_extra_embeddings")
_NOT_IN_PARAMS += ("text.rope.factor", "text.rope.low_freq_factor", "text.rope.high_freq_factor")
_NOT_IN_PARAMS += ("text.rope.original_positions",)


def find_dtype(name: str) -> torch.dtype:
    """The dtype of weights that a command line names.

    Raises:
        ValueError: if it is none of DTYPES.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype={name!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _some(names: Iterable[str], most: int = 10) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def check_tensors(
    folder: Path,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    surplus: Iterable[str],
) -> None:
    """Raise one error that lists everything that does not fit.

    Args:
        folder: for the message.
        wanted: shape of each tensor that the model has, by the file's name for it.
        found: shape of each of those in the files.
        surplus: names in the files that the model has no use for.
    """
    problems = []
    if missing := wanted.keys() - found.keys():
        problems.append(f"missing: {_some(missing)}")
    if extra := list(surplus):
        problems.append(f"not part of the model: {_some(extra)}")
    if wrong := [f"{n} is {found[n]}, not {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]:
        problems.append(f"wrong shape: {_some(wrong)}")
    if problems:
        raise ValueError(f"the tensors in {folder} do not fit the model: " + "; ".join(problems))


def _set_parameter(model: nn.Module, name: str, value: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    model.get_submodule(path).register_parameter(leaf, nn.Parameter(value))


def _open_hf(folder: Path, model: MiniMllama) -> Callable[[str], Tensor]:
    files = SafetensorFiles(folder)
    namer = hf_namer(model.config.text.cross_layers, find_family(files.shapes))
    wanted = {namer(name): tuple(p.shape) for name, p in model.named_parameters()}
    check_tensors(folder, wanted, files.shapes, files.shapes.keys() - wanted.keys())
    return lambda name: files.read(namer(name))


def _open_meta(folder: Path, model: MiniMllama) -> Callable[[str], Tensor]:
    ours = {name: tuple(p.shape) for name, p in model.named_parameters()}
    tensors = MetaTensors(PthFiles(folder), model.config, ours)
    theirs = {name: tensors.origins[name].names for name in ours}
    present = tensors.names()
    wanted_parts = {part: () for parts in theirs.values() for part in parts}
    check_tensors(folder, wanted_parts, dict.fromkeys(present & wanted_parts.keys(), ()), present - wanted_parts.keys())
    shapes = {" + ".join(theirs[name]): tensors.shape(name) for name in ours}
    check_tensors(folder, {" + ".join(theirs[name]): shape for name, shape in ours.items()}, shapes, ())
    return tensors.read


def _resolve_config(folder: Path, config: ModelConfig | None) -> ModelConfig:
    """The given configuration, after comparing it with params.json; config.json is not looked at then."""
    if config is None:
        return ModelConfig.from_folder(folder)
    if (folder / "params.json").is_file() and not (folder / "config.json").is_file():
        stated = ModelConfig.from_folder(folder, unstated=config.vision)
        if wrong := [d for d in differences(config, stated) if not d.startswith(_NOT_IN_PARAMS)]:
            raise ValueError(
                f"the given config and {folder / 'params.json'} differ (given against file): {'; '.join(wrong)}"
            )
    return config


def load_model(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    semantics: str = "meta",
    config: ModelConfig | None = None,
) -> MiniMllama:
    """Load a checkpoint, holding one copy of the weights and one tensor at most.

    Args:
        folder: Hugging Face layout (one or many safetensors files, either family of names) or Meta's native
            layout (params.json and consolidated*.pth, one or many tensor-parallel shards).
        dtype: of all parameters.
        device: where they go.
        semantics: "meta", "hf" or "hf445"; see `MiniMllama`.
        config: sizes; read from the folder if None. params.json does not hold the vision sizes: without
            `config` the published ones are taken.

    Returns:
        The model in evaluation mode.

    Raises:
        FileNotFoundError: if the folder holds no checkpoint.
        ValueError: if tensors are missing, left over, mis-shaped or damaged; nothing has been loaded then.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    config = _resolve_config(folder, config)
    with torch.device("meta"):
        model = MiniMllama(config, semantics)
    is_hf = any((folder / f"model.safetensors{end}").is_file() for end in ("", ".index.json"))
    if not is_hf and not list(folder.glob("consolidated*.pth")):
        raise FileNotFoundError(f"{folder} holds neither model.safetensors[.index.json] nor consolidated*.pth")
    read = (_open_hf if is_hf else _open_meta)(folder, model)
    for name in [name for name, _ in model.named_parameters()]:
        _set_parameter(model, name, read(name).to(device=device, dtype=dtype))
    return model.eval()


def _cut_into_shards(sizes: Mapping[str, int], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def save_model(model: MiniMllama, folder: str | Path, max_shard_bytes: int = 5 * 10**9) -> None:
    """Write the Hugging Face layout with the published names: shards, index, config.json, preprocessor_config.json.

    The index is written last and by renaming, so a folder with an index is complete.

    Raises:
        FileExistsError: if the folder already holds a model; nothing is overwritten.
        ValueError: if the model has adapters, or weights of another form; nothing is written then.
        OSError: if there is no room for a file.
    """
    with torch.device("meta"):
        plain = {name for name, _ in MiniMllama(model.config, model.semantics).named_parameters()}
    if odd := plain ^ {name for name, p in model.named_parameters() if p.device.type != "meta"}:
        raise ValueError(f"only plain weights are saved, without adapters and as loaded; see {_some(odd, 3)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if present := sorted(path.name for path in folder.glob("model*.safetensors*")):
        raise FileExistsError(f"{folder} already holds {', '.join(present[:3])}; choose another folder")
    layers = model.config.text.cross_layers
    tensors = {hf_name(name, layers): p.detach() for name, p in model.named_parameters()}
    shards = _cut_into_shards({name: t.nbytes for name, t in tensors.items()}, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards, start=1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        try:
            save_file({n: tensors[n].cpu().contiguous() for n in names}, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            for written in {*weight_map.values()}:  # so that the folder can be tried again
                (folder / written).unlink()
            raise OSError(f"{folder / file} was not written: {error}") from error
        weight_map |= dict.fromkeys(names, file)
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    vision = model.config.vision
    preprocessor = ImageTransform(vision.tile_size, vision.max_tiles).config()
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(dtype), indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    partial = folder / ".model.safetensors.index.json"
    partial.write_text(json.dumps(index, indent=2) + "\n")
    os.replace(partial, folder / "model.safetensors.index.json")
