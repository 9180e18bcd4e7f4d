"""An accelerator that is only imagined: tensors there have a device, a dtype and a shape, but no values.

Whatever mixes it with the host's memory in a way that CUDA refuses raises, on a machine without one. Tensors on the
host are real. What comes back from the device is ones, and a mask there has FOUND true elements.
"""

import os
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_iter
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = "imagined:0"
FOUND = 5
ATEN = torch.ops.aten


class Imagined(FakeTensorMode):
    """Inside `with`, tensors on DEVICE can be made and used.

    Attributes:
        waits: how often the host has waited for the device: values read back, and copies to it that block.
    """

    avoid_device_init = True
    waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
        target = torch.device(kwargs.get("device") or "cpu")
        if not any(isinstance(x, FakeTensor) for x in tensors) and target.type == "cpu":
            return func(*args, **kwargs)
        is_copy, is_there = func is ATEN._to_copy.default, any(x.device.type == "imagined" for x in tensors)
        is_back = is_copy and is_there and "device" in kwargs and target.type == "cpu"
        is_read = func is ATEN._local_scalar_dense.default
        is_search = func is ATEN.nonzero.default
        blocks = is_copy and not is_there and not kwargs.get("non_blocking")
        self.waits += is_back or is_read or is_search or blocks
        if is_back or is_read:
            ones = torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            return ones if is_back else ones.item()
        if is_search:
            return args[0].new_empty((FOUND, args[0].dim()), dtype=torch.long)
        return super().__torch_dispatch__(func, types, args, kwargs)


def _run(action: Callable[[Imagined], None]) -> None:
    _setup_privateuseone_for_python_backend("imagined")
    with torch.autograd.set_multithreading_enabled(False), Imagined(allow_non_fake_inputs=True) as mode:
        action(mode)


def on_accelerator(action: Callable[[Imagined], None]) -> None:
    """Run in a process of its own, a fork of this one: PyTorch can be told of a new device, but not forget it.

    Raises:
        AssertionError: with the traceback of whatever has been raised.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        message = ""
        try:
            _run(action)
        except BaseException:
            message = traceback.format_exc()
        os.write(write, message.encode()[-60_000:])
        os._exit(0 if not message else 1)
    os.close(write)
    with os.fdopen(read) as pipe:
        message = pipe.read()
    _, status = os.waitpid(child, 0)
    assert not message, message
    assert status == 0
