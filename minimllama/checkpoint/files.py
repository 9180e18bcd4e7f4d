"""Named tensors in files, read one at a time.

A mapped file counts every page that it has touched as a second copy of the weights. So safetensors are read, not
mapped, each straight into its place; and the mapping of Meta's files is given up after as much as their largest
tensor. Measured: docs/quirks.md, "peak memory while loading"; docs/performance.md.
"""

import ctypes
import json
import mmap
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


def _read_index(path: Path) -> dict[str, str]:
    """Which file holds each tensor, by the tensor's name."""
    try:
        weight_map = json.loads(path.read_text())["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an index of tensors: {error}") from error


HUGE = 2**21  # bytes of a huge page: tensors from here on ask for them; None for never


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for one tensor, in pages of 2 MiB where Linux has them to give.

    The first touch of each page costs two fifths of a load (docs/performance.md), and there are 512 times fewer. It
    is a wish: a kernel that does not know it, or has no such page free, gives small ones.
    """
    out = torch.empty(shape, dtype=dtype)
    if HUGE is not None and out.nbytes >= HUGE and sys.platform == "linux":
        page = mmap.PAGESIZE
        first, end = -(-out.data_ptr() // page) * page, (out.data_ptr() + out.nbytes) // page * page
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_HUGEPAGE)
    return out


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a tensor's bytes stand: from byte `start` of a file on."""

    path: Path
    start: int
    dtype: torch.dtype


class SafetensorFiles:
    """All safetensors of a folder: the files that the index names, or a single model.safetensors.

    Raises:
        FileNotFoundError: if there is neither an index nor a single file, or a file of the index is missing.
        ValueError: if a file is damaged or does not hold what the index says.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        wanted: dict[str, str] | None = None
        if index.is_file():
            wanted = _read_index(index)
            paths = [folder / name for name in sorted(set(wanted.values()))]
            if missing := [path.name for path in paths if not path.is_file()]:
                raise FileNotFoundError(f"{index} names files that are not there: {', '.join(missing)}")
        elif single.is_file():
            paths = [single]
        else:
            raise FileNotFoundError(f"no model.safetensors and no model.safetensors.index.json in {folder}")
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, _Place] = {}
        for path in paths:
            for name, (shape, place) in self._scan(path).items():
                if name in self.shapes:
                    raise ValueError(f"tensor {name} stands in {self._places[name].path} and in {path}")
                self.shapes[name], self._places[name] = shape, place
        if wanted is not None and wanted.keys() != self.shapes.keys():
            astray = sorted(wanted.keys() ^ self.shapes.keys())[:10]
            raise ValueError(f"{index} and its files do not agree about: {', '.join(astray)}")

    @staticmethod
    def _scan(path: Path) -> dict[str, tuple[tuple[int, ...], _Place]]:
        try:
            with safe_open(path, "pt"):  # checks that header and file fit together
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(n_header))
        header.pop("__metadata__", None)
        if odd := {entry["dtype"] for entry in header.values()} - _DTYPES.keys():
            raise ValueError(f"{path} holds tensors of type {', '.join(sorted(odd))}, not one of {', '.join(_DTYPES)}")
        return {
            name: (
                tuple(entry["shape"]),
                _Place(path=path, start=8 + n_header + entry["data_offsets"][0], dtype=_DTYPES[entry["dtype"]]),
            )
            for name, entry in header.items()
        }

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own.

        Raises:
            ValueError: if the file has become shorter since it was opened.
        """
        place = self._places[name]
        out = _empty(self.shapes[name], place.dtype)
        room = out.flatten().view(torch.uint8).numpy().data
        with place.path.open("rb", buffering=0) as file:
            file.seek(place.start)
            while room:  # one call reads 2 GiB at most
                if not (n := file.readinto(room)):
                    raise ValueError(f"{place.path} ends inside {name}")
                room = room[n:]
        return out


class PthFiles:
    """Meta's consolidated.*.pth: every shard holds every name, cut along one dimension or repeated.

    Raises:
        FileNotFoundError: if the folder has no such file.
        ValueError: if a file is damaged or holds something that is not a tensor, or shards hold different
            names.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("consolidated*.pth"))
        if not self.paths:
            raise FileNotFoundError(f"no consolidated*.pth in {folder}")
        self.shard_shapes: list[dict[str, tuple[int, ...]]] = []
        self._sizes: list[dict[str, int]] = []
        for path in self.paths:
            shard = self._open(path)
            self.shard_shapes.append({name: tuple(tensor.shape) for name, tensor in shard.items()})
            self._sizes.append({name: tensor.nbytes for name, tensor in shard.items()})
            if odd := sorted(self.shard_shapes[0].keys() ^ shard.keys()):
                raise ValueError(f"{self.paths[0]} and {path} do not hold the same tensors: {', '.join(odd[:10])}")
        self._mapped: dict[Path, dict[str, Tensor]] = {}
        self._touched: dict[Path, int] = {}

    @staticmethod
    def _open(path: Path) -> dict[str, Tensor]:
        try:
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
            raise ValueError(f"{path} is not a complete file of tensors: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds a {type(content).__name__}, not named tensors")
        if odd := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
            raise ValueError(f"{path} holds entries that are not tensors: {', '.join(odd[:10])}")
        return content

    def read(self, name: str, shard: int) -> Tensor:
        """One shard of a tensor, as a view of the mapped file: copy it.

        A mapping is renewed before the pages that were read from it outgrow the file's largest tensor.
        """
        path = self.paths[shard]
        size = self._sizes[shard][name]
        if path not in self._mapped or self._touched[path] + size > max(self._sizes[shard].values()):
            self._mapped[path] = self._open(path)
            self._touched[path] = 0
        self._touched[path] += size
        return self._mapped[path][name]
