"""CODE-15%: 345,779 exams of 233,770 patients, 7 or 10 s at 400 Hz, six labels. Zenodo 4916206.

Ribeiro et al. 2020, doi:10.1038/s41467-020-15432-4. exams.csv, and HDF5 parts with `exam_id` (N) and `tracings`
(N, 4096, 12); rows are not in the order of the table, and a part may end with a row of zeros that no exam has.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from train.ecg.label_maps import SCP_OF_CODE15
from train.ecg.labels import LABEL_SETS
from train.ecg.record import EcgRecord, need_package
from train.ecg.signal import LEADS, check_lead_equations
from train.ecg.sources.index import IndexWriter, Progress, file_stamp, naming, open_index, read_table, split_of_patient
from train.ecg.sources.indexed import IndexedSource, choose, need_root

HZ = 400.0
PLAUSIBLE_R_MV = (0.35, 1.6)  # median over records of the R wave in lead II; about 0.8 in adults
_SAMPLED = 25
LABELS = LABEL_SETS["code15"].codes


class Code15Source(IndexedSource[EcgRecord]):
    """CODE-15% as it is downloaded and unzipped; parts that are not there are left out, and counted.

    Args:
        root: folder with exams.csv and exams_part*.hdf5.
        split: by patient_id.
        vocabulary: "code15" labels with 1dAVb, RBBB, LBBB, SB, ST, AF (label set code15), "scp" with the statements
            that they are. The other 65 statements were not looked for, so their absence says nothing.
        amplitude: millivolts per unit of the file. The documentation contradicts itself; 1.0 is the author's word,
            others found 0.5 to fit. A warning says when the amplitudes are implausible; nothing is scaled silently.
        lead_order: of the twelve columns. The two published orders differ; a record that contradicts the lead
            equations is refused.
        check: refuse records whose limb leads contradict each other.
        index: folder of the index; the root if empty.
        progress: told how far the index is.
    """

    name = "code15"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        vocabulary: str = "code15",
        amplitude: float = 1.0,
        lead_order: str = " ".join(LEADS),
        check: bool = True,
        index: str = "",
        progress: Progress | None = None,
    ) -> None:
        folder = need_root(self.name, root)
        choose(self.name, "vocabulary", vocabulary, ("code15", "scp"))
        if not amplitude > 0:
            raise ValueError(f"source code15: amplitude={amplitude} must be positive")
        order = lead_order.split()
        if sorted(order) != sorted(LEADS):
            raise ValueError(f"source code15: lead_order={lead_order!r} must name each of {' '.join(LEADS)} once")
        self.columns = [order.index(lead) for lead in LEADS]
        self.vocabulary, self.amplitude, self.check = vocabulary, amplitude, check
        table = folder / "exams.csv"
        parts = sorted([*folder.glob("exams_part*.hdf5"), *folder.glob("exams_part*.h5")])

        def build(writer: IndexWriter) -> None:
            for row in writer.watch(f"index of {table}", read_table(table, ("exam_id", "patient_id", *LABELS))):
                with naming(f"{table}, exam_id {row['exam_id']}"):
                    writer.put(str(int(row["exam_id"])), row)
            for part in parts:
                _add_part(writer, part)
            for owner in writer.owners():
                if writer.get(owner)[-1] != "seen":
                    writer.left_out["in exams.csv, but in no part that is here"] += 1
            writer.forget()

        description = [file_stamp(table), *(file_stamp(part) for part in parts)]
        made = open_index(Path(index) if index else folder, self.name, description, build, progress)
        super().__init__(made, folder, split)
        self._warn_of_amplitude()

    def _open(self, note: dict[str, Any]) -> EcgRecord:
        signal = self._tracing(note) * np.float32(self.amplitude)
        if self.check:
            check_lead_equations(signal, note["file"])
        row: dict[str, str] = note["row"]
        codes = {label for label in LABELS if row[label].strip().lower() in ("true", "1", "1.0")}
        labels = codes if self.vocabulary == "code15" else {SCP_OF_CODE15[code] for code in codes}
        kept = ("nn_predicted_age", "normal_ecg", "death", "timey", "trace_file")
        meta: dict[str, Any] = {key: row[key] for key in kept if row.get(key)}
        meta["age"] = float(row["age"]) if row.get("age") else None
        meta["sex"] = {"true": "male", "false": "female"}.get((row.get("is_male") or "").strip().lower())
        return EcgRecord(
            signal=signal,
            hz=HZ,
            record_id=row["exam_id"],
            patient_id=row["patient_id"],
            split=self.split,
            labels=frozenset(labels),
            meta=meta,
        )

    def _tracing(self, note: dict[str, Any]) -> np.ndarray:
        """float32 [12, n], without the zeros that fill the row up on both sides."""
        h5py = _need_h5py()
        path = self.root / note["file"]
        if not path.is_file():
            raise FileNotFoundError(f"no {path}")
        try:
            with h5py.File(path, "r") as file:
                row = np.asarray(file["tracings"][note["at"]], np.float32)  # type: ignore[index]
        except (OSError, KeyError) as error:
            raise ValueError(f"{path}, row {note['at']}: damaged ({error})") from error
        recorded = np.flatnonzero((row != 0).any(axis=1))
        if not len(recorded):
            raise ValueError(f"{path}, row {note['at']}: nothing but zeros")
        return np.ascontiguousarray(row[recorded[0] : recorded[-1] + 1, self.columns].T)

    def _warn_of_amplitude(self) -> None:
        """Look at some records; an implausible median R wave is worth a warning, not a correction."""
        chosen = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int))
        peaks = []
        for number in chosen.tolist():
            _, note = self.index.record(self.split, number)
            try:
                lead = self._tracing(note)[LEADS.index("II")]
            except (FileNotFoundError, ValueError):
                continue  # whoever opens it gets the error
            peaks.append(float(np.quantile(np.abs(lead - np.median(lead)), 0.995)) * self.amplitude)
        median = float(np.median(peaks)) if peaks else 0.8
        if not PLAUSIBLE_R_MV[0] <= median <= PLAUSIBLE_R_MV[1]:
            warnings.warn(
                f"code15 with amplitude={self.amplitude}: the median R wave in lead II is {median:.2f} mV over "
                f"{len(peaks)} records; plausible is {PLAUSIBLE_R_MV[0]} to {PLAUSIBLE_R_MV[1]}",
                stacklevel=3,
            )


def _need_h5py() -> Any:
    return need_package("h5py", "ecg", "CODE-15's HDF5 format")


def _add_part(writer: IndexWriter, part: Path) -> None:
    """All rows of one HDF5 file that the table knows."""
    h5py = _need_h5py()
    try:
        with h5py.File(part, "r") as file:
            exams = np.asarray(file["exam_id"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{part}: damaged ({error})") from error
    for at, exam in enumerate(writer.watch(f"index of {part}", exams.tolist(), len(exams))):
        found = writer.get(str(exam))
        if not found:
            writer.left_out["in a part, but not in exams.csv"] += 1
            continue
        row = found[0]
        patient = f"code15:{row['patient_id']}"
        writer.put(str(exam), "seen")
        writer.add(split_of_patient(patient), f"code15:{exam}", patient, {"file": part.name, "at": at, "row": row})
