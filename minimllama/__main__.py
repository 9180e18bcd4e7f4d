"""python -m minimllama trace | chat | convert: look at the model, talk to it about an image, rewrite a checkpoint."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from minimllama import (
    PRESETS,
    ImageTransform,
    Message,
    ModelConfig,
    encode_dialog,
    load_model,
    load_tokenizer,
    save_model,
)
from minimllama.checkpoint import find_dtype
from minimllama.config import differences
from minimllama.console import say
from minimllama.generate import Sampling, stream
from minimllama.image import open_picture
from minimllama.nano import resolve_model
from minimllama.tokenizer import copy_tokenizer, stop_ids
from minimllama.trace import format_rows, trace_shapes
from minimllama.weights import check_weights, hold_weights


@dataclass(frozen=True, kw_only=True)
class TraceConfig:
    """What to show.

    Attributes:
        preset: of PRESETS.
        model: a checkpoint's folder instead of a preset.
        layer: only this module and what is inside it, such as text.layers.3.
        depth: leave out modules nested deeper than this; 0 shows all.
        tokens: length of the text.
        diff: another preset; shows the sizes in which it differs instead.
    """

    preset: str = "11b"
    model: str = ""
    layer: str = ""
    depth: int = 0
    tokens: int = 32
    diff: str = ""


def _preset(name: str) -> ModelConfig:
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is not one of {', '.join(PRESETS)}")
    return PRESETS[name]


def _trace(arguments: Sequence[str]) -> None:
    config = tyro.cli(TraceConfig, args=arguments, prog="python -m minimllama trace")
    sizes = ModelConfig.from_folder(resolve_model(config.model)) if config.model else _preset(config.preset)
    if config.diff:
        say("\n".join(differences(sizes, _preset(config.diff))) or "no difference")
        return
    say(format_rows(trace_shapes(sizes, config.tokens), depth=config.depth or None, under=config.layer))


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """What to ask. For an adapter, merge it first: python -m lora merge.

    Attributes:
        question: the text; read from standard input, one question per line, if it is empty.
        image: picture files, shown before the question.
        model: a checkpoint's folder, or "nano".
        max_new_tokens, temperature, top_p, seed: of the answer.
        dtype, device, semantics: of the model.
        weights: "plain", "fast" or "int8": how they are kept; docs/performance.md.
        compile: decode with compiled layers, on a GPU as one CUDA graph; the first answer waits for the compiler.
    """

    question: str = ""
    image: tuple[Path, ...] = ()
    model: str = "nano"
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    semantics: str = "meta"
    weights: str = "plain"
    compile: bool = False


def _device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r}: {str(error).splitlines()[0]}") from error
    return name


def _chat(arguments: Sequence[str]) -> None:
    config = tyro.cli(ChatConfig, args=arguments, prog="python -m minimllama chat")
    check_weights(config.weights)
    folder = resolve_model(config.model)
    model = load_model(folder, find_dtype(config.dtype), _device(config.device), config.semantics)
    hold_weights(model, config.weights)
    tokenizer = load_tokenizer(folder)
    vision = model.config.vision
    transform = ImageTransform(vision.tile_size, vision.max_tiles)
    images = transform([[open_picture(path) for path in config.image]]).to(config.device) if config.image else None
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p)
    generator = torch.Generator(config.device).manual_seed(config.seed)
    for question in [config.question] if config.question else map(str.strip, sys.stdin):
        message = Message(role="user", text=question, n_images=len(config.image))
        prompt = encode_dialog([message], tokenizer).tokens
        ids: list[int] = []
        shown = ""
        for tokens in stream(
            model,
            [prompt],
            images,
            max_new_tokens=config.max_new_tokens,
            sampling=sampling,
            stop_ids=stop_ids(tokenizer),
            generator=generator,
            compile=config.compile,
        ):
            ids += [token for token in tokens if token is not None]
            text = tokenizer.decode(ids)
            if not text.endswith("\ufffd"):  # half of a character: wait for the rest
                sys.stdout.write(text[len(shown) :])
                sys.stdout.flush()
                shown = text
        say()


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What to rewrite.

    Attributes:
        source: a checkpoint in any layout that load_model reads.
        out: a new folder, in the Hugging Face layout.
        dtype: of the written weights.
        max_shard_bytes: size of a file.
    """

    source: Path
    out: Path
    dtype: str = "bfloat16"
    max_shard_bytes: int = 5 * 10**9


def _convert(arguments: Sequence[str]) -> None:
    config = tyro.cli(ConvertConfig, args=arguments, prog="python -m minimllama convert")
    model = load_model(config.source, find_dtype(config.dtype))
    save_model(model, config.out, config.max_shard_bytes)
    copy_tokenizer(config.source, config.out)
    say(f"wrote {model.n_parameters():,} parameters to {config.out}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"trace": _trace, "chat": _chat, "convert": _convert}


def main(arguments: list[str]) -> int:
    """Run one command; wrong input ends with one line on standard error and exit code 2."""
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m minimllama {{{','.join(COMMANDS)}}} [--help]\n")
        return 2
    try:
        COMMANDS[arguments[0]](arguments[1:])
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
