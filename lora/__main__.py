"""python -m lora inspect | merge | export: what an adapter holds, plain weights from it, its other family of names."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from lora.merge import merge_adapters
from lora.peft_format import NOTE, adapted_layers, load_adapter, read_note, read_settings, read_tensors, save_adapter
from minimllama import ImageBatch, MiniMllama, ModelConfig, load_model, save_model
from minimllama.checkpoint import find_dtype
from minimllama.config import aspect_ratios
from minimllama.console import say
from minimllama.nano import resolve_model
from minimllama.tokenizer import copy_tokenizer


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """What to look at.

    Attributes:
        adapter: a PEFT folder.
    """

    adapter: Path


def _inspect(arguments: Sequence[str]) -> None:
    config = tyro.cli(InspectConfig, args=arguments, prog="python -m lora inspect")
    settings = read_settings(config.adapter)
    counts: Counter[str] = Counter()
    total = 0
    for key, tensor in read_tensors(config.adapter / "adapter_model.safetensors").items():
        total += tensor.numel()
        if ".lora_A." in key:
            tower = "vision" if "vision_model" in key else "projector" if "projector" in key else "text"
            counts[f"{tower} {key.split('.')[-3]}"] += 1
    say(f"r {settings['r']}, alpha {settings['lora_alpha']}, dropout {settings['lora_dropout']}")
    say(f"{total:,} parameters in {sum(counts.values())} modules")
    for name, count in sorted(counts.items()):
        say(f"  {name:<28} {count:>4}")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """What to merge.

    Attributes:
        base: the checkpoint that the adapter was trained on, or "nano".
        adapter: a PEFT folder.
        out: a new folder for the merged checkpoint.
        dtype: of the merged weights.
        verify: also compare logits of base + adapter, merged and base on random tokens about a random picture.
    """

    base: str
    adapter: Path
    out: Path
    dtype: str = "bfloat16"
    verify: bool = False


def _semantics(adapter: Path) -> str:
    note = read_note(adapter)
    return "meta" if note is None else note["semantics"]


@torch.no_grad()
def _logits(model: MiniMllama) -> torch.Tensor:
    """Of random tokens about a random picture of all tiles, so that every layer that may have an adapter takes part."""
    generator = torch.Generator().manual_seed(0)
    vision = model.config.vision
    tokens = torch.randint(model.config.text.vocab_size, (1, 16), generator=generator)
    tokens[0, 0] = model.config.image_token_id
    tiles = (1, 1, vision.max_tiles)
    images = ImageBatch(
        pixels=torch.randn(*tiles, 3, vision.tile_size, vision.tile_size, generator=generator),
        aspect_ratio_ids=torch.tensor([[aspect_ratios(vision.max_tiles).index((1, vision.max_tiles)) + 1]]),
        tile_mask=torch.ones(tiles, dtype=torch.bool),
        n_tiles=[[vision.max_tiles]],
    )
    return model(tokens, images).float()


def _merge(arguments: Sequence[str]) -> None:
    config = tyro.cli(MergeConfig, args=arguments, prog="python -m lora merge")
    folder, semantics = resolve_model(config.base), _semantics(config.adapter)
    model = load_model(folder, find_dtype(config.dtype), semantics=semantics)
    base = _logits(model) if config.verify else None
    load_adapter(model, config.adapter)
    adapted = _logits(model) if config.verify else None
    merge_adapters(model)
    save_model(model, config.out)
    copy_tokenizer(folder, config.out)
    say(f"wrote {config.out}")
    if semantics != "meta":
        say(
            f"its adapter was trained with semantics={semantics!r}, which a checkpoint does not say: give it on loading"
        )
    if base is not None and adapted is not None:
        merged = _logits(model)
        say(f"largest difference of a logit: merged against adapter {float((merged - adapted).abs().max()):.2e}, ")
        say(f"merged against base {float((merged - base).abs().max()):.2e} (0 would mean that the merge did nothing)")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to rewrite.

    Attributes:
        base: the checkpoint that the adapter belongs to, or "nano"; only its sizes are read.
        adapter: a PEFT folder.
        out: a new folder.
        family: "memory" for transformers from 4.52 on, "files" for older ones.
    """

    base: str
    adapter: Path
    out: Path
    family: str = "files"


def _export(arguments: Sequence[str]) -> None:
    config = tyro.cli(ExportConfig, args=arguments, prog="python -m lora export")
    if config.family not in ("memory", "files"):
        raise ValueError(f"family={config.family!r} is not one of memory, files")
    with torch.device("meta"):
        model = MiniMllama(ModelConfig.from_folder(resolve_model(config.base)), _semantics(config.adapter))
    load_adapter(model, config.adapter)
    save_adapter(model, config.out, config.family)
    if read_note(config.adapter) is None:
        (config.out / NOTE).unlink()  # nobody knows under which semantics it was trained
    say(f"wrote {len(adapted_layers(model))} modules to {config.out}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "inspect": _inspect,
    "merge": _merge,
    "export": _export,
}


def main(arguments: list[str]) -> int:
    """Run one command; wrong input ends with one line on standard error and exit code 2."""
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m lora {{{','.join(COMMANDS)}}} [--help]\n")
        return 2
    try:
        COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
