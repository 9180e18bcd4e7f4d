"""A model that is spread over ranks, put together again on the main rank."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lora import apply_tuning
from minimllama import MiniMllama
from train.setup import Setup


def let_go(model: nn.Module) -> None:
    """Free gathered weights, so that every parameter is the part that this rank holds."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole_model(setup: Setup, *, adapter_only: bool) -> MiniMllama | None:
    """The run's model with whole parameters, in the recipe's dtype; all ranks call this together.

    Args:
        setup: of the run.
        adapter_only: leave frozen parameters on the meta device.

    Returns:
        The model on the main rank (the run's own, if there is one rank), None on the others.
    """
    if setup.world.size == 1:
        return setup.model
    let_go(setup.model)
    values: dict[str, Tensor] = {}
    dtype = getattr(torch, setup.config.compute.dtype)
    for name, p in setup.model.named_parameters():
        if adapter_only and not p.requires_grad:
            continue
        value = p.full_tensor().detach() if isinstance(p, DTensor) else p.detach()
        if setup.world.is_main:  # one tensor at a time on the accelerators, all of them on this host only
            values[name] = value.cpu() if adapter_only else value.to("cpu", dtype)
    if not setup.world.is_main:
        return None
    with torch.device("meta"):
        model = MiniMllama(setup.model.config, setup.model.semantics)
        apply_tuning(model, replace(setup.config.tuning, seed=setup.config.seed))
    model.load_state_dict(values, strict=not adapter_only, assign=True)
    return model.eval()
