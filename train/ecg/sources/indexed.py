"""What all sources with an index share: numbers, names, errors that say which record."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from train.ecg.sources.index import RecordIndex, naming

T = TypeVar("T")


def need_root(name: str, root: str | Path | None) -> Path:
    """The folder of a data set.

    Raises:
        ValueError: if none was given.
        FileNotFoundError: if there is none.
    """
    if root is None:
        raise ValueError(f"source {name} needs a root folder")
    if not Path(root).exists():
        raise FileNotFoundError(f"source {name}: no folder {root}")
    return Path(root)


def choose(name: str, option: str, value: Any, accepted: tuple[Any, ...]) -> None:
    """Refuse a value that an option does not have."""
    if value not in accepted:
        listed = ", ".join(str(choice) for choice in accepted)
        raise ValueError(f"source {name}: {option}={value!r} is not one of {listed}")


class IndexedSource(ABC, Generic[T]):
    """One split of a data set that has an index. A subclass says how to open a record from its note.

    Attributes:
        index: of all splits.
        split: which one this is.
    """

    name = ""

    def __init__(self, index: RecordIndex, root: Path, split: str) -> None:
        self.index, self.root, self.split = index, root, split
        if not len(self):
            left_out = "".join(f"; {n} records left out: {why}" for why, n in index.left_out.items())
            raise FileNotFoundError(f"source {self.name}: no record of split {split!r} in {root}{left_out}")

    def __len__(self) -> int:
        """Number of records."""
        return self.index.count(self.split)

    def __getitem__(self, index: int) -> T:
        """Record `index`.

        Raises:
            IndexError: outside of 0..len-1.
            FileNotFoundError, ValueError: if its file is missing or damaged; the message names both.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.root}")
        record, note = self.index.record(self.split, index)
        with naming(f"record {record}"):
            return self._open(note)

    def names(self) -> Iterator[tuple[str, str | None]]:
        """(record, patient) of each record, both unique over all data sets; nothing is opened."""
        return self.index.names(self.split)

    @abstractmethod
    def _open(self, note: dict[str, Any]) -> T:
        """The record of a note that the index holds."""
