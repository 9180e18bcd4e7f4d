"""The real model without weights: call order, shapes and parameters, from one forward on the meta device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minimllama.config import ModelConfig
from minimllama.image import ImageBatch
from minimllama.model import MiniMllama


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """One module of the model, in the order in which it was first called.

    Attributes:
        path: of the module; "" is the model itself.
        kind: its class.
        inputs, output: shapes.
        n_parameters: of the module and everything inside it.
    """

    path: str
    kind: str
    inputs: tuple[int, ...]
    output: tuple[int, ...]
    n_parameters: int


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, ImageBatch):
        return tuple(value.pixels.shape)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((shape for shape in map(_shape, value) if shape), ())
    return ()


@contextmanager
def _record(model: nn.Module, rows: dict[str, TraceRow]) -> Iterator[None]:
    def hook(path: str) -> Any:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            rows[path] = TraceRow(
                path=path,
                kind=type(module).__name__,
                inputs=_shape(inputs),
                output=_shape(output),
                n_parameters=sum(p.numel() for p in module.parameters()),
            )

        return record

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace_shapes(config: ModelConfig, n_tokens: int = 32, n_tiles: int | None = None) -> list[TraceRow]:
    """Run one image and one row of text through the model on the meta device.

    Args:
        config: sizes.
        n_tokens: length of the text; it starts with the image token.
        n_tiles: tiles in use; all by default.

    Returns:
        A row per module, in the order in which they finish, the model last.

    Raises:
        ValueError: if there is no token.
    """
    if n_tokens < 1:
        raise ValueError(f"tokens={n_tokens} must be at least 1")
    vision = config.vision
    with torch.device("meta"):
        model = MiniMllama(config)
        pixels = torch.empty(1, 1, vision.max_tiles, 3, vision.tile_size, vision.tile_size)
        ids = torch.empty(1, 1, dtype=torch.int64)
        tile_mask = torch.empty(1, 1, vision.max_tiles, dtype=torch.bool)
    images = ImageBatch(
        pixels=pixels, aspect_ratio_ids=ids, tile_mask=tile_mask, n_tiles=[[n_tiles or vision.max_tiles]]
    )
    tokens = torch.full((1, n_tokens), config.image_token_id, dtype=torch.int64)
    tokens[0, 1:] = 0
    sight = model.see(tokens, images)
    rows: dict[str, TraceRow] = {}
    with _record(model, rows), torch.no_grad():
        model(tokens.to("meta"), images, sight)
    return list(rows.values())


def format_rows(rows: Sequence[TraceRow], *, depth: int | None = None, under: str = "") -> str:
    """Rows as text, one line each, with counts.

    Args:
        rows: of `trace_shapes`.
        depth: leave out modules whose path has more parts, but for `under` itself.
        under: only modules at or below this path.

    Raises:
        ValueError: if no module is called `under`.
    """
    chosen = [row for row in rows if row.path == under or row.path.startswith(f"{under}." if under else "")]
    if not chosen:
        raise ValueError(f"no module is called {under!r}; modules are named like {rows[0].path}")
    if depth is not None:
        chosen = [row for row in chosen if row.path.count(".") < depth or row.path == under]
    cells = [
        (row.path or "model", row.kind, str(list(row.inputs)), str(list(row.output)), f"{row.n_parameters:,}")
        for row in chosen
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}} -> {d:<{widths[3]}}  {e:>{widths[4]}}"
        for a, b, c, d, e in cells
    )
