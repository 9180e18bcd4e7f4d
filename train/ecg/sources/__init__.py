"""Where records come from. To add a source: a class in this folder that satisfies EcgSource, and one row in SOURCES."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from train.ecg.sources.code15 import Code15Source
from train.ecg.sources.conversations import Conversation, ConversationsSource, Dialog
from train.ecg.sources.index import SPLITS, Progress
from train.ecg.sources.mimic_iv_ecg import MimicIvEcgSource
from train.ecg.sources.physionet_challenge import PhysioNetChallengeSource
from train.ecg.sources.ptbxl import PtbxlSource
from train.ecg.sources.simulated import SimulatedSource
from train.ecg.sources.wfdb_folder import WfdbFolderSource

__all__ = [
    "SOURCES",
    "SPLITS",
    "Conversation",
    "ConversationsSource",
    "Dialog",
    "EcgSource",
    "Progress",
    "check_options",
    "open_source",
    "source_options",
]

Record = TypeVar("Record", covariant=True)


class EcgSource(Protocol[Record]):
    """A data set: records by number, the same record for the same number always.

    Records are `EcgRecord`, or `Conversation` where the page is a picture already. A source that has an index also
    has `names()`: (record, patient) of all its records, which `python -m train doctor` compares between splits.

    Attributes:
        name: as in SOURCES.
    """

    name: str

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> Record:
        """Record `index`.

        Raises:
            IndexError: outside of 0..len-1.
        """
        ...


SOURCES: dict[str, Callable[..., EcgSource[Any]]] = {
    "simulated": SimulatedSource,
    "wfdb": WfdbFolderSource,
    "ptbxl": PtbxlSource,
    "mimic_iv_ecg": MimicIvEcgSource,
    "code15": Code15Source,
    "physionet_challenge": PhysioNetChallengeSource,
    "conversations": ConversationsSource,
}


def source_options(name: str) -> dict[str, Any]:
    """Options of a source, with their defaults.

    Raises:
        ValueError: if there is no such source.
    """
    if name not in SOURCES:
        raise ValueError(f"source={name!r} is not one of {', '.join(SOURCES)}")
    parameters = inspect.signature(SOURCES[name]).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("root", "split", "progress")}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a source does not have, and values of another type.

    Raises:
        ValueError: which names the option and what the source has.
    """
    accepted = source_options(name)
    for key, value in options.items():
        if key not in accepted:
            raise ValueError(f"source {name} has no option {key!r}; it has {', '.join(accepted)}")
        default = accepted[key]
        kinds = (int, float) if isinstance(default, float) else (str,) if default is None else (type(default),)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"source {name}: {key}={value!r} must be of type {kinds[-1].__name__}")


def open_source(name: str, root: str | Path | None = None, split: str = "train", **options: Any) -> EcgSource[Any]:
    """Open one split of a data set.

    Args:
        name: of SOURCES.
        root: its folder; None for a source that needs none.
        split: "train", "validate" or "test"; splits never share a patient.
        options: of the source, see `source_options`; `progress` for those that make an index.

    Raises:
        ValueError: if the name, the split or an option is unknown.
        FileNotFoundError: if the folder does not hold the data set.
    """
    source_options(name)
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    check_options(name, {key: value for key, value in options.items() if key != "progress"})
    if "progress" in options and "progress" not in inspect.signature(SOURCES[name]).parameters:
        options = {key: value for key, value in options.items() if key != "progress"}
    return SOURCES[name](root=root, split=split, **options)
