"""Who holds which part of a model that several ranks train: one function per strategy over a list of units.

ZeRO: Rajbhandari et al. 2020 (arXiv:1910.02054). All of it is FSDP2 (Zhao et al. 2023, arXiv:2304.11277;
`torch.distributed.fsdp.fully_shard`): a unit's weights are gathered before its forward pass, and its gradients are
summed over the ranks after its backward pass. What differs is what is spread out and when it is gathered and summed:

    none    one process
    ddp     nothing is spread; gradients are summed once per step
    zero1   trained weights' float32 copies and moments; gradients are summed once per step
    zero2   and their gradients, which are summed, and cut down to the rank's part, in every backward pass
    zero3   and all weights, the frozen ones too; a unit's weights are gathered when it runs
    hsdp    zero3 inside each node, ddp between the nodes

Frozen weights are whole on every rank but under zero3 and hsdp: spreading them would send them every time they run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from minimllama import MiniMllama
from train.activation import blocks
from train.distributed import World


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How a run is spread over its ranks; without effect on one.

    Attributes:
        strategy: of STRATEGIES.
        group: ranks that share one copy of the weights under hsdp; 0: those of a node.
        timeout_seconds: how long a rank waits for the others before the job ends.
    """

    strategy: str = "zero2"
    group: int = 0
    timeout_seconds: int = 600

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"shard.strategy={self.strategy!r} is not one of {', '.join(STRATEGIES)}")
        if self.group < 0 or self.timeout_seconds < 1:
            raise ValueError("shard: group must not be negative, timeout_seconds must be positive")


def shard_units(model: MiniMllama) -> list[nn.Module]:
    """Modules that are gathered as a whole, in the order they run; what is left over belongs to the model itself."""
    return [model.text.embed_tokens, *blocks(model), model.text.lm_head]


def _spread(model: MiniMllama, mesh: DeviceMesh, dtype: torch.dtype, *, frozen: bool, reshard: bool) -> None:
    """FSDP2 over all units. `frozen`: frozen weights too. `reshard`: free a unit's weights between its two passes."""
    ignored = set() if frozen else {p for p in model.parameters() if not p.requires_grad}
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for unit in shard_units(model):
        if any(p not in ignored for p in unit.parameters()):
            fully_shard(unit, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy, ignored_params=ignored)
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy, ignored_params=ignored)


def _mesh(world: World, config: ShardConfig, *shape: int) -> DeviceMesh:
    """Ranks as "shard", or as "replicate" x "shard"; groups of their own have the run's time limit, not PyTorch's."""
    names = ("replicate", "shard")[-len(shape) :]
    mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=names)
    for name in names:
        _set_pg_timeout(timedelta(seconds=config.timeout_seconds), mesh.get_group(name))
    return mesh


def _none(model: MiniMllama, world: World, config: ShardConfig, dtype: torch.dtype) -> None:
    raise ValueError(f'shard.strategy="none" is for one process; there are {world.size}')


def _ddp(model: MiniMllama, world: World, config: ShardConfig, dtype: torch.dtype) -> None:
    _spread(model, _mesh(world, config, world.size, 1), dtype, frozen=False, reshard=False)


def _zero12(model: MiniMllama, world: World, config: ShardConfig, dtype: torch.dtype) -> None:
    _spread(model, _mesh(world, config, world.size), dtype, frozen=False, reshard=False)


def _zero3(model: MiniMllama, world: World, config: ShardConfig, dtype: torch.dtype) -> None:
    _spread(model, _mesh(world, config, world.size), dtype, frozen=True, reshard=True)


def _hsdp(model: MiniMllama, world: World, config: ShardConfig, dtype: torch.dtype) -> None:
    group = config.group or world.local_size
    if world.size % group:
        raise ValueError(f"shard.group={group} does not divide the {world.size} ranks")
    _spread(model, _mesh(world, config, world.size // group, group), dtype, frozen=True, reshard=True)


@dataclass(frozen=True)
class Strategy:
    """One row of the table.

    Attributes:
        apply: spreads a model over the ranks.
        sums_every_pass: gradients are summed in every backward pass, not only in a step's last.
        holds_frozen: every rank holds all frozen weights.
    """

    apply: Callable[[MiniMllama, World, ShardConfig, torch.dtype], None]
    sums_every_pass: bool = False
    holds_frozen: bool = True


STRATEGIES: dict[str, Strategy] = {
    "none": Strategy(_none),
    "ddp": Strategy(_ddp),
    "zero1": Strategy(_zero12),
    "zero2": Strategy(_zero12, sums_every_pass=True),
    "zero3": Strategy(_zero3, sums_every_pass=True, holds_frozen=False),
    "hsdp": Strategy(_hsdp, sums_every_pass=True, holds_frozen=False),
}


def shard(model: MiniMllama, world: World, config: ShardConfig) -> None:
    """Spread a tuned model over the ranks, in place; on one rank nothing happens.

    What is trained becomes float32; it is gathered, and its gradient computed, in the model's dtype, and summed in
    float32.

    Args:
        model: with `requires_grad` set on what is trained, the same on every rank.
        world: of this process.
        config: which strategy.
    """
    if world.size == 1:
        return
    dtype = model.projector.weight.dtype
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    STRATEGIES[config.strategy].apply(model, world, config, dtype)
    model.to(world.device)
    if isinstance(model, FSDPModule):  # sums, not means: the loss is divided by the tokens of all ranks
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo has no other


def before_backward(model: nn.Module, config: ShardConfig, *, is_last: bool) -> None:
    """Say whether the next backward pass is the last of its step: gradients may wait until then."""
    if not isinstance(model, FSDPModule):
        return
    strategy = STRATEGIES[config.strategy]
    model.set_is_last_backward(is_last)
    model.set_requires_gradient_sync(is_last or strategy.sums_every_pass)
    model.set_requires_all_reduce(is_last)
    model.set_reshard_after_backward(is_last or not strategy.holds_frozen)
