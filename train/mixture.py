"""Which record with which questions comes next: a pure function of (seed, epoch, position).

Nothing is consumed, so resuming is arithmetic: start at the position where the run stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from train.ecg import LABEL_SETS, TASKS
from train.ecg.instruct import REPORTS
from train.ecg.sources import check_options, source_options
from train.ecg.wording import WORDINGS

Option = str | int | float | bool
PICTURES = "conversations"  # the source whose pages are pictures already


@dataclass(frozen=True, kw_only=True)
class ComponentConfig:
    """One data set of the mixture and what is asked about it.

    Attributes:
        source: of SOURCES.
        root: its folder; "" for a source that needs none.
        n, seed: of the simulated source.
        options: what else its source takes, by name; `open_source` says what there is (docs/data.md).
        tasks: of TASKS; each question draws one of them. Not of conversations, which have their own dialogs.
        label_set: of LABEL_SETS, for the tasks that name findings.
        weight: how often each record comes per epoch: 1 once, 0.5 every second record, 2 twice.
        wording: "fixed", one sentence per task, or "varied"; see `build_example`.
        report: "any", "given" or "statements": whose report the task `report` asks for.
        distort_pictures: of the source conversations: the recipe's distortion happens to its pictures too, other ones
            in each epoch. Otherwise they stay as they are published, some of them distorted already.
    """

    source: str
    root: str = ""
    n: int = 0
    seed: int = 0
    options: dict[str, Option] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("report",)
    label_set: str = "statements"
    weight: float = 1.0
    wording: str = "fixed"
    report: str = "any"
    distort_pictures: bool = False

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(f"component {self.source}: weight={self.weight} must be positive; leave it out instead")
        if not self.tasks:
            raise ValueError(f"component {self.source}: tasks must name at least one task")
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise ValueError(f"component {self.source}: tasks {', '.join(unknown)} are not in {', '.join(TASKS)}")
        if self.label_set not in LABEL_SETS:
            raise ValueError(
                f"component {self.source}: label_set={self.label_set!r} is not one of {', '.join(LABEL_SETS)}"
            )
        for name, choices in (("wording", WORDINGS), ("report", REPORTS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"component {self.source}: {name}={getattr(self, name)!r} is not one of {', '.join(choices)}"
                )
        if self.source == PICTURES and (self.tasks, self.wording, self.report) != (("report",), "fixed", "any"):
            raise ValueError(f"component {PICTURES}: tasks, wording and report would do nothing: it has dialogs")
        if self.distort_pictures and self.source != PICTURES:
            raise ValueError(
                f"component {self.source}: distort_pictures is of {PICTURES}; drawn pages always follow data"
            )
        accepted = source_options(self.source)
        check_options(self.source, self.options)
        if twice := sorted({"n", "seed"} & self.options.keys()):
            raise ValueError(f"component {self.source}: {', '.join(twice)} stand beside options, not in them")
        if "n" not in accepted and (self.n or self.seed):
            raise ValueError(f"component {self.source}: n and seed are of the simulated source; this one reads records")

    @property
    def source_options(self) -> dict[str, Option]:
        """Keyword arguments for `open_source`."""
        own = {"n": self.n, "seed": self.seed} if "n" in source_options(self.source) else {}
        return {**own, **self.options}


def component_names(components: Sequence[ComponentConfig]) -> list[str]:
    """The source of each; "source-1", "source-2" where several components have one source."""
    sources = [component.source for component in components]
    return [
        source if sources.count(source) == 1 else f"{source}-{sources[: i + 1].count(source)}"
        for i, source in enumerate(sources)
    ]


@dataclass(frozen=True)
class Item:
    """One record to be drawn and asked about: its component, its number there, and the seed of all that is random."""

    component: int
    index: int
    seed: tuple[int, ...]


class Mixture:
    """The order of all items of a run.

    Args:
        sizes: number of records of each component.
        weights: of each component.
        seed: of the run.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.counts = [max(round(size * weight), 1) for size, weight in zip(sizes, weights, strict=True)]
        self.sizes, self.seed = list(sizes), seed
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0))

    @property
    def epoch_length(self) -> int:
        """Items per epoch."""
        return sum(self.counts)

    def _order(self, epoch: int) -> np.ndarray:
        """Int [items, 2] of (component, index), shuffled for this epoch."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            parts = []
            for component, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
                rounds = [rng.permutation(size) for _ in range(-(-count // size))]
                index = np.concatenate(rounds)[:count]
                parts.append(np.stack([np.full(count, component), index], axis=1))
            self._epoch = (epoch, rng.permutation(np.concatenate(parts)))
        return self._epoch[1]

    def item(self, position: int) -> Item:
        """The item at a position, counted from the start of the run over all epochs."""
        epoch, place = divmod(position, self.epoch_length)
        component, index = self._order(epoch)[place]
        return Item(int(component), int(index), (self.seed, epoch, place))

    def batches(self, start: int, stop: int, size: int, rank: int = 0, n_ranks: int = 1) -> Iterator[list[Item]]:
        """A rank's batches of `size` items from position `start` on; the last one may be smaller.

        The ranks take turns, so that all of them together have the items that one alone would have, in its order.
        """
        for first in range(start + rank * size, stop, size * n_ranks):
            yield [self.item(position) for position in range(first, min(first + size, stop))]
