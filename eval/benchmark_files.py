"""Published questions about published pictures: a folder of ECGBench, one question (or dialog) a record.

https://huggingface.co/datasets/PULSE-ECG/ECGBench: one folder of parquet files per configuration, or what its
authors' script unpacks: `<configuration>.json` beside `images/`. Every spelling is that of the source `conversations`.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from train.ecg.sources import Conversation, open_source
from train.ecg.sources.conversation_files import read_files, read_items
from train.ecg.sources.conversations import ConversationsSource, Turn, image_name

CONFIGURATIONS = {  # and their number of records, as published
    "ptb-test": 2082,
    "ptb-test-report": 500,
    "code15-test": 1400,
    "cpsc-test": 2061,
    "csn-test-no-cot": 1611,
    "g12-test-no-cot": 2026,
    "ecgqa-test": 1317,
    "mmmu-ecg": 200,
    "arena": 50,
}
_SUFFIXES = ("", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class AskedRecord:
    """A picture with what is asked about it.

    Attributes:
        record_id: the picture, and the number of the dialog about it where there are several.
        patient_id: of the picture; the picture itself where nothing tells.
        item: the published id.
        image: PIL RGB.
        turns: (role, text), as published.
    """

    record_id: str
    patient_id: str
    item: str
    image: Image.Image
    turns: tuple[Turn, ...]

    @property
    def questions(self) -> list[str]:
        """What the user says, in order."""
        return [text for role, text in self.turns if role == "user"]

    @property
    def answers(self) -> list[str]:
        """The golden answers, in order."""
        return [text for role, text in self.turns if role == "assistant"]


def find_items(root: Path, configuration: str) -> tuple[Path, Path]:
    """Where the items of a configuration lie, and where their pictures do.

    Args:
        root: a folder of ECGBench, the configuration's own folder, or one file.
        configuration: of CONFIGURATIONS.

    Raises:
        FileNotFoundError: if there is no such folder, or it holds other configurations only.
    """
    if not root.exists():
        raise FileNotFoundError(f"no {root}")
    items = root
    if root.is_dir() and root.name != configuration:
        items = next((p for s in _SUFFIXES if (p := root / f"{configuration}{s}").exists()), root)
        others = [name for name in CONFIGURATIONS if any((root / f"{name}{s}").exists() for s in _SUFFIXES)]
        if items == root and others:
            raise FileNotFoundError(f"{root} has {', '.join(others)}, but not {configuration}")
    folder = items if items.is_dir() else items.parent
    first = next((item for file in read_files(items)[:1] for _, item in read_items(file)), {})
    name = image_name(first)[0] or ""
    beside = root if root.is_dir() else root.parent
    places = (folder, folder / "images", beside, beside / "images")
    return items, next((place for place in places if name and (place / name).is_file()), folder)


class BenchmarkSource:
    """One record per question, in the order of the pictures.

    Args:
        root: see `find_items`.
        configuration: of CONFIGURATIONS.
        split: items that name no split are in "test", the only one that ECGBench has.
        index: folder of the index; that of the items if empty.
    """

    name = "ecgbench"

    def __init__(self, root: str | None, configuration: str, split: str = "test", index: str = "") -> None:
        if root is None:
            raise ValueError(f"suite {configuration} needs the folder of ECGBench: --root")
        items, images = find_items(Path(root), configuration)
        opened = open_source("conversations", items, split, split_of_all="test", images=str(images), index=index)
        assert isinstance(opened, ConversationsSource)
        self._pictures = opened
        counts = [len(opened.index.record(split, i)[1]["items"]) for i in range(len(opened))]
        self._places = [(i, k, counts[i]) for i in range(len(counts)) for k in range(counts[i])]
        self._open: tuple[int, Conversation] | None = None

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._places)

    def __getitem__(self, index: int) -> AskedRecord:
        """Question `index`.

        Raises:
            IndexError: outside of 0..len-1.
        """
        picture, number, count = self._places[index]
        if self._open is None or self._open[0] != picture:
            self._open = (picture, self._pictures[picture])
        shown = self._open[1]
        dialog = shown.dialogs[number]
        return AskedRecord(
            record_id=shown.record_id + (f"#{number}" if count > 1 else ""),
            patient_id=shown.patient_id or shown.record_id,
            item=str(shown.meta["ids"][number] or shown.record_id),
            image=shown.image,
            turns=dialog.turns,
        )
