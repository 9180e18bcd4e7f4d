"""What a run needs, built from its recipe: model, trainable parts, data, and their order over the ranks."""

import atexit
import math
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.utils.data import DataLoader

from lora import TuneReport, apply_tuning
from minimllama import PRESETS, ImageTransform, MiniMllama, load_model, load_tokenizer
from minimllama.init import initialise
from minimllama.nano import resolve_model
from minimllama.padding import drop_unused_tiles
from minimllama.tokenizer import Tokenizer
from train.activation import prepare_blocks
from train.config import RunConfig
from train.dataset import Batch, EcgDataset, collate
from train.distributed import World, choose_device
from train.ecg import STYLES
from train.mixture import Mixture
from train.shard import STRATEGIES, shard

RANK_SEEDS = 1_000_003  # between the seeds of two ranks' dropout


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything a run needs, built from its recipe."""

    config: RunConfig
    model: MiniMllama
    report: TuneReport
    transform: ImageTransform
    tokenizer: Tokenizer
    dataset: EcgDataset
    mixture: Mixture
    world: World

    @property
    def device(self) -> torch.device:
        """That this rank computes on."""
        return self.world.device

    @property
    def items_per_step(self) -> int:
        """Pages per optimizer step, over all ranks."""
        return self.config.batch.images_per_forward * self.config.batch.accumulate * self.world.size

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the run."""
        needed = math.ceil(self.config.optim.epochs * self.mixture.epoch_length / self.items_per_step)
        return self.config.optim.steps or needed


def _build_model(config: RunConfig, world: World) -> MiniMllama:
    dtype = getattr(torch, config.compute.dtype)
    is_spread = world.size > 1 and not STRATEGIES[config.shard.strategy].holds_frozen
    device = torch.device("cpu") if is_spread else world.device  # no device has to hold all of it
    if config.model != "scratch":
        return load_model(resolve_model(config.model), dtype=dtype, device=device, semantics=config.semantics)
    if config.sizes not in PRESETS:
        raise ValueError(f"sizes={config.sizes!r} is not one of {', '.join(PRESETS)}")
    with torch.device(device):
        model = MiniMllama(PRESETS[config.sizes], config.semantics)
    return initialise(model, torch.Generator(device).manual_seed(config.seed)).to(dtype)


def build_dataset(config: RunConfig, model: MiniMllama, tokenizer: Tokenizer, split: str = "train") -> EcgDataset:
    """The recipe's records of a split, for this model's tiles."""
    vision, data = model.config.vision, config.data
    return EcgDataset(
        data.components,
        STYLES[data.page],
        ImageTransform(vision.tile_size, vision.max_tiles),
        tokenizer,
        data.questions_per_image,
        data.max_tokens,
        split=split,
        cache=data.cache,
        seed=config.seed,
        distort=data.distort,
    )


def prepare(config: RunConfig, world: World | None = None) -> Setup:
    """Load the model, make it trainable, spread it over the ranks, open the data.

    Raises:
        FileNotFoundError: if the checkpoint, the tokenizer or a data set is not there.
        ValueError: if they do not fit together.
    """
    world = world or World(device=choose_device(config.compute.device))
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    tokenizer = load_tokenizer(config.tokenizer or resolve_model(config.model))
    model = _build_model(config, world)
    if tokenizer.vocabulary != model.config.text.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, the model {model.config.text.vocab_size}: not a pair"
        )
    if config.compute.drop_unused_tiles:
        drop_unused_tiles(model)
    torch.manual_seed(config.seed + RANK_SEEDS * world.rank)  # dropout
    report = apply_tuning(model, replace(config.tuning, seed=config.seed))
    prepare_blocks(model, config.compute)
    shard(model, world, config.shard)
    dataset = world.main_first(lambda: build_dataset(config, model, tokenizer))  # indices and caches
    weights = [component.weight for component in config.data.components]
    return Setup(
        config=config,
        model=model,
        report=report,
        transform=dataset.transform,
        tokenizer=tokenizer,
        dataset=dataset,
        mixture=Mixture([len(source) for source in dataset.sources], weights, config.seed),
        world=world,
    )


def load_batches(setup: Setup, start: int, stop: int) -> Iterator[Batch]:
    """This rank's micro-batches of the items at positions start..stop - 1, drawn by the recipe's workers."""
    world, size = setup.world, setup.config.batch.images_per_forward
    atexit.register(_end_workers)
    loader = DataLoader(
        setup.dataset,
        batch_sampler=list(setup.mixture.batches(start, stop, size, world.rank, world.size)),  # type: ignore[arg-type]
        num_workers=setup.config.data.workers,
        collate_fn=partial(collate, config=setup.model.config, leak=setup.model.leak),
        prefetch_factor=4 if setup.config.data.workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # not the global one: a new loader after a resume would shift the dropout
    )
    return iter(loader)


def _start_worker(worker: int) -> None:
    """One thread; and signals that ask the run to stop are for the process that trains, see `_end_workers`."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the workers that a run has left when its process ends: after an error, its traceback still holds the loader.

    Python itself would send them SIGTERM, to which they do not listen, and wait for them without an end.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch would complain of each
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()
