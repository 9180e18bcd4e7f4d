"""The largest number of bytes that tensors hold at once, as an accelerator's allocator would count them, on the CPU."""

import weakref
from types import TracebackType
from typing import Any, Self

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts storages from their first operation until they are freed; `peak` is the largest sum.

    A storage that is emptied or filled again in place counts with its new size: `fully_shard` does so with gathered
    weights. Of a tensor that is spread over ranks this rank's part counts.

    Args:
        present: tensors that exist already.
    """

    def __init__(self, present: list[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}
        for tensor in present:
            self._note(tensor)

    def _note(self, tensor: torch.Tensor) -> None:
        whole = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if whole.device.type != "meta":
            self._resized(whole.untyped_storage())

    def _resized(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            weakref.finalize(storage, self._forget, key)
        self.now += size - self._sizes.get(key, 0)
        self.peak = max(self.peak, self.now)
        self._sizes[key] = size

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return result

    def __enter__(self) -> Self:
        resize = torch.UntypedStorage.resize_

        def resize_and_note(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            self._resized(storage)
            return result

        self._resize = resize
        torch.UntypedStorage.resize_ = resize_and_note  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(kind, error, trace)
