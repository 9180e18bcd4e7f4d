"""Data sets in the format of the PhysioNet challenges 2020 and 2021: CPSC 2018, Georgia, Chapman-Shaoxing-Ningbo.

A WFDB header with `#Age`, `#Sex` and `#Dx` (SNOMED CT codes) and a MATLAB file. https://physionet.org/content/
challenge-2021/1.0.3/. The sets name no patients; each record is taken as a patient of its own. No official split:
80/10/10 by a hash of the record's name.
"""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.ecg.label_maps import CPSC_OF_SNOMED, SNOMED, map_codes
from train.ecg.record import EcgRecord, read_record
from train.ecg.sources.index import IndexWriter, Progress, file_stamp, find_files, open_index, split_of_patient
from train.ecg.sources.indexed import IndexedSource, choose, need_root

_TABLES = {"scp": SNOMED, "cpsc": CPSC_OF_SNOMED}


class PhysioNetChallengeSource(IndexedSource[EcgRecord]):
    """A folder of challenge records, subfolders included.

    Args:
        root: the folder.
        split: by record, or see split_of_all.
        vocabulary: "scp" labels with SCP statements, "cpsc" with the nine labels of CPSC 2018 (label set cpsc).
        need: "labels" leaves out (and counts) records with a code that is not mapped; with "nothing" they are there
            and have `labels` None.
        split_of_all: put every record into this split.
        check: refuse records whose limb leads contradict each other.
        index: folder of the index; the root if empty.
        progress: told how far the index is.
    """

    name = "physionet_challenge"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        vocabulary: str = "scp",
        need: str = "labels",
        split_of_all: str = "",
        check: bool = True,
        index: str = "",
        progress: Progress | None = None,
    ) -> None:
        folder = need_root(self.name, root)
        choose(self.name, "vocabulary", vocabulary, tuple(_TABLES))
        choose(self.name, "need", need, ("labels", "nothing"))
        choose(self.name, "split_of_all", split_of_all, ("", "train", "validate", "test"))
        self.vocabulary, self.check = vocabulary, check
        headers = sorted(str(path.relative_to(folder)) for path in find_files(folder, (".hea",)))

        def build(writer: IndexWriter) -> None:
            for header in writer.watch(f"index of {folder}", headers, len(headers)):
                self._add(writer, folder, header, need, split_of_all)

        # with sizes and times: a header that was rewritten may have other codes
        listed = "\n".join(f"{header} {file_stamp(folder / header)}" for header in headers)
        description = [hashlib.sha256(listed.encode()).hexdigest(), vocabulary, need, split_of_all]
        made = open_index(Path(index) if index else folder, self.name, description, build, progress)
        super().__init__(made, folder, split)

    def _add(self, writer: IndexWriter, folder: Path, header: str, need: str, split_of_all: str) -> None:
        comments = read_comments(folder / header)
        codes = [code.strip() for code in comments.get("dx", "").split(",") if code.strip()]
        _, unmapped = map_codes(codes, _TABLES[self.vocabulary])
        writer.unmapped.update(unmapped)
        if need == "labels" and (unmapped or not codes):
            writer.left_out["a code that is not mapped" if unmapped else "no #Dx"] += 1
            return
        patient = f"{self.name}:{Path(header).stem}"  # records of one name in two folders stay together
        split = split_of_all or split_of_patient(patient)
        note = {"header": header, "codes": codes, "comments": comments}
        writer.add(split, f"{self.name}:{header.removesuffix('.hea')}", patient, note)

    def _open(self, note: dict[str, Any]) -> EcgRecord:
        record = read_record(self.root / note["header"], check=self.check)
        labels, unmapped = map_codes(note["codes"], _TABLES[self.vocabulary])
        comments: dict[str, str] = note["comments"]
        age = comments.get("age", "")
        meta: dict[str, Any] = {
            "age": float(age) if re.fullmatch(r"\d+(\.\d+)?", age) else None,
            "sex": {"m": "male", "f": "female"}.get(comments.get("sex", "")[:1].lower()),
            "snomed": note["codes"],
            "unmapped": unmapped,
        }
        known = labels if note["codes"] and not unmapped else None
        return replace(record, patient_id=record.record_id, split=self.split, labels=known, meta=meta)


def read_comments(header: Path) -> dict[str, str]:
    """`#Name: value` lines of a header, names in lower case."""
    found = (re.match(r"#\s*(\w+)\s*:\s*(.*)", line) for line in header.read_text(errors="replace").splitlines())
    return {match.group(1).lower(): match.group(2).strip() for match in found if match}
