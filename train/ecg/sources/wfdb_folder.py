"""Any folder of WFDB records: every .hea below it, in the order of their paths."""

import hashlib
from pathlib import Path
from typing import Any

from train.ecg.record import EcgRecord, read_note, read_record
from train.ecg.sources.index import SPLITS, IndexWriter, Progress, file_stamp, find_files, open_index
from train.ecg.sources.indexed import IndexedSource, choose, need_root


class WfdbFolderSource(IndexedSource[EcgRecord]):
    """All records of a folder and its subfolders.

    A record belongs to the split that its header names (as `write_record` stores it). A folder whose headers
    name no split is one split of its own: give it `split_of_all`.

    Args:
        root: the folder.
        split: which records to keep.
        split_of_all: the split that records without one belong to.
        check: refuse records whose limb leads contradict each other.
        index: folder of the index; the root if empty.
        progress: told how far the index is.

    Raises:
        FileNotFoundError: if there is no record of that split.
        ValueError: if a record names no split and split_of_all is None, or names one that there is not.
    """

    name = "wfdb"

    def __init__(
        self,
        root: str | Path | None,
        split: str = "train",
        split_of_all: str | None = None,
        check: bool = True,
        index: str = "",
        progress: Progress | None = None,
    ) -> None:
        folder = need_root(self.name, root)
        self.check = check
        choose(self.name, "split_of_all", split_of_all, (None, *SPLITS))
        headers = find_files(folder, (".hea",))
        if not headers:
            raise FileNotFoundError(f"source wfdb: no WFDB record of split {split!r} below {folder}")

        def build(writer: IndexWriter) -> None:
            for header in writer.watch(f"index of {folder}", headers, len(headers)):
                note = read_note(header)
                stated = note.get("split") or split_of_all
                if stated is None:
                    raise ValueError(f"{header} names no split; say split_of_all=... for the whole folder")
                if stated not in SPLITS:
                    raise ValueError(f"{header} names split {stated!r}, which is not one of {', '.join(SPLITS)}")
                path = str(header.relative_to(folder))
                patient = note.get("patient_id")
                named = f"{self.name}:{patient}" if patient else None
                writer.add(stated, f"{self.name}:{path.removesuffix('.hea')}", named, {"header": path})

        # with sizes and times: a header that was rewritten may name another split
        listed = "\n".join(f"{header.relative_to(folder)} {file_stamp(header)}" for header in headers)
        description = [hashlib.sha256(listed.encode()).hexdigest(), split_of_all]
        made = open_index(Path(index) if index else folder, self.name, description, build, progress)
        super().__init__(made, folder, split)

    def _open(self, note: dict[str, Any]) -> EcgRecord:
        return read_record(self.root / note["header"], check=self.check)
