"""Any folder of WFDB records: every .hea below it, in the order of their paths."""

from pathlib import Path

from train.ecg.record import EcgRecord, read_note, read_record


class WfdbFolderSource:
    """All records of a folder and its subfolders.

    A record belongs to the split that its header names (as `write_record` stores it). A folder whose headers
    name no split is one split of its own: give it `split_of_all`.

    Args:
        root: the folder.
        split: which records to keep.
        split_of_all: the split that records without one belong to.
        check: refuse records whose limb leads contradict each other.

    Raises:
        FileNotFoundError: if there is no record of that split.
        ValueError: if a record names no split and split_of_all is None.
    """

    name = "wfdb"

    def __init__(
        self,
        root: str | Path | None,
        split: str = "train",
        split_of_all: str | None = None,
        check: bool = True,
    ) -> None:
        if root is None:
            raise ValueError("source wfdb needs a root folder")
        self.root, self.check = Path(root), check
        self.paths: list[Path] = []
        for header in sorted(self.root.rglob("*.hea")):
            stated = read_note(header).get("split") or split_of_all
            if stated is None:
                raise ValueError(f"{header} names no split; say split_of_all=... for the whole folder")
            if stated == split:
                self.paths.append(header)
        if not self.paths:
            raise FileNotFoundError(f"no WFDB record of split {split!r} below {self.root}")

    def __len__(self) -> int:
        """Number of records."""
        return len(self.paths)

    def __getitem__(self, index: int) -> EcgRecord:
        """Record `index`, in the order of paths."""
        if not 0 <= index < len(self.paths):
            raise IndexError(f"record {index} of {len(self.paths)} in {self.root}")
        return read_record(self.paths[index], check=self.check)
