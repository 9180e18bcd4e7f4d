"""PTB-XL 1.0.1 to 1.0.3: 21,837 (1.0.1) or 21,799 (1.0.3) records of 10 s at 100 and 500 Hz. CC BY 4.0.

Wagner et al. 2020, doi:10.1038/s41597-020-0495-6. Folds 1-8 train, 9 validate, 10 test; folds keep patients apart.
The versions are not the same test set: 1.0.2 removed 38 duplicates and merged their labels.
"""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.ecg.labels import STATEMENTS
from train.ecg.record import EcgRecord, read_record
from train.ecg.sources.index import IndexWriter, Progress, file_stamp, naming, open_index, read_table
from train.ecg.sources.indexed import IndexedSource, choose, need_root

_CHANGELOGS = {"1.0.3": "ptbxl_v103_changelog.txt", "1.0.2": "ptbxl_v102_changelog.txt"}
_HIDDEN_AGE = "300"  # how 1.0.2 and later store an age over 89
_NEEDED = ("ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr", "filename_hr")


class PtbxlSource(IndexedSource[EcgRecord]):
    """PTB-XL as it is unpacked.

    Args:
        root: folder with ptbxl_database.csv, records100 and records500.
        split: "train" is folds 1-8, "validate" 9, "test" 10.
        hz: 100 or 500, which of the two files.
        likelihood: a diagnostic statement applies from this likelihood on (percent). 0 takes every statement that
            is there, as the benchmark does: a likelihood of 0 means "not stated", not "absent". 50 is strict.
            Form and rhythm statements, and the four that are diagnostic and form, apply when they are there: their
            likelihood is 0 for most.
        check: refuse records whose limb leads contradict each other.
        index: folder of the index; the root if empty.
        progress: told how far the index is.

    Raises:
        FileNotFoundError: if the table is not there.
        ValueError: if an option has no such value.
    """

    name = "ptbxl"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        hz: int = 500,
        likelihood: float = 0.0,
        check: bool = True,
        index: str = "",
        progress: Progress | None = None,
    ) -> None:
        folder = need_root(self.name, root)
        choose(self.name, "hz", hz, (100, 500))
        if not 0 <= likelihood <= 100:
            raise ValueError(f"source ptbxl: likelihood={likelihood} must lie in [0, 100] percent")
        self.hz, self.likelihood, self.check = hz, likelihood, check
        table = folder / "ptbxl_database.csv"

        def build(writer: IndexWriter) -> None:
            for row in writer.watch(f"index of {table}", read_table(table, _NEEDED)):
                with naming(f"{table}, ecg_id {row['ecg_id']}"):
                    _add(writer, row)

        made = open_index(Path(index) if index else folder, self.name, file_stamp(table), build, progress)
        super().__init__(made, folder, split)
        found = [version for version, changelog in _CHANGELOGS.items() if (folder / changelog).exists()]
        without = "1.0.2 or later" if made.parts(_HIDDEN_AGE) else "1.0.1"  # which had no change log yet
        self.version = found[0] if found else without

    def _open(self, note: dict[str, Any]) -> EcgRecord:
        record = read_record(self.root / note["files"][str(self.hz)], check=self.check)
        likelihoods: dict[str, float] = note["scp_codes"]
        if unknown := sorted(likelihoods.keys() - STATEMENTS.keys()):
            raise ValueError(f"not SCP statements: {', '.join(unknown)}")
        labels = frozenset(code for code in likelihoods if self._applies(code, likelihoods[code]))
        meta = {**note["meta"], "scp_codes": likelihoods, "version": self.version}
        return replace(
            record,
            patient_id=note["patient_id"],
            split=self.split,
            labels=labels,
            report=note["report"],  # as published, largely German
            meta=meta,
        )

    def _applies(self, code: str, likelihood: float) -> bool:
        return STATEMENTS[code].kinds != "d" or likelihood >= self.likelihood


def _add(writer: IndexWriter, row: dict[str, str]) -> None:
    """One line of ptbxl_database.csv."""
    number, patient = int(float(row["ecg_id"])), str(int(float(row["patient_id"])))
    fold = int(float(row["strat_fold"]))
    if not 1 <= fold <= 10:
        raise ValueError(f"strat_fold={fold} is not one of 1 to 10")
    split = "train" if fold <= 8 else {9: "validate", 10: "test"}[fold]
    used = {"ecg_id", "patient_id", "scp_codes", "report", "strat_fold", "filename_lr", "filename_hr", "age", "sex", ""}
    meta: dict[str, Any] = {key: value for key, value in row.items() if key not in used and value}
    age = float(row["age"]) if row.get("age") else None
    is_hidden = age == float(_HIDDEN_AGE)
    if is_hidden:
        writer.put(_HIDDEN_AGE, number)
    meta |= {"ecg_id": number, "fold": fold, "age": None if is_hidden else age}
    meta["age_over_89"] = age is not None and age > 89
    meta["sex"] = {"0": "male", "1": "female"}.get((row.get("sex") or "")[:1])
    note = {
        "patient_id": patient,
        "files": {"100": row["filename_lr"], "500": row["filename_hr"]},
        "scp_codes": {code: float(value) for code, value in ast.literal_eval(row["scp_codes"]).items()},
        "report": row.get("report") or None,
        "meta": meta,
    }
    writer.add(split, f"ptbxl:{number}", f"ptbxl:{patient}", note)
