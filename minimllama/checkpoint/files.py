"""Named tensors in files, read one at a time.

Files are mapped, and a mapping that stays open counts every page it has touched as a second copy of the
weights; so it is given up after each tensor, or after as much as the largest one. Measured: docs/quirks.md,
"peak memory while loading".
"""

import json
import pickle
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
        self._path: dict[str, Path] = {}
        for path in paths:
            for name, shape in self._scan(path).items():
                if name in self.shapes:
                    raise ValueError(f"tensor {name} stands in {self._path[name]} and in {path}")
                self.shapes[name], self._path[name] = shape, path
        if wanted is not None and wanted.keys() != self.shapes.keys():
            astray = sorted(wanted.keys() ^ self.shapes.keys())[:10]
            raise ValueError(f"{index} and its files do not agree about: {', '.join(astray)}")

    @staticmethod
    def _scan(path: Path) -> dict[str, tuple[int, ...]]:
        try:
            with safe_open(path, "pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a complete safetensors file: {error}") from error

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own."""
        with safe_open(self._path[name], "pt") as file:
            return file.get_tensor(name).clone()


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
