"""Where records come from. To add a source: a class in this folder that satisfies EcgSource, and one row in SOURCES."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from train.ecg.record import EcgRecord
from train.ecg.sources.simulated import SimulatedSource
from train.ecg.sources.wfdb_folder import WfdbFolderSource

SPLITS = ("train", "validate", "test")


class EcgSource(Protocol):
    """A data set: records by number, the same record for the same number always.

    Attributes:
        name: as in SOURCES.
    """

    name: str

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> EcgRecord:
        """Record `index`.

        Raises:
            IndexError: outside of 0..len-1.
        """
        ...


SOURCES: dict[str, Callable[..., EcgSource]] = {"simulated": SimulatedSource, "wfdb": WfdbFolderSource}


def open_source(name: str, root: str | Path | None = None, split: str = "train", **options: Any) -> EcgSource:
    """Open one split of a data set.

    Args:
        name: of SOURCES.
        root: its folder; None for a source that needs none.
        split: "train", "validate" or "test"; splits never share a patient.
        options: of the source.

    Raises:
        ValueError: if the name or the split is unknown.
        FileNotFoundError: if the folder does not hold the data set.
    """
    if name not in SOURCES:
        raise ValueError(f"source={name!r} is not one of {', '.join(SOURCES)}")
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    return SOURCES[name](root=root, split=split, **options)
