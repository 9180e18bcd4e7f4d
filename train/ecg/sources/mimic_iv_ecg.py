"""MIMIC-IV-ECG 1.0: 800,035 records of 161,352 patients, 10 s at 500 Hz, with the carts' reports and measurements.

https://physionet.org/content/mimic-iv-ecg/1.0/. There is no official split: 80/10/10 of the patients, by a hash of
subject_id. The lead order in its headers is I II III aVR aVF aVL V1-V6; leads are found by name.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.ecg.label_maps import map_phrases
from train.ecg.record import EcgRecord, read_record
from train.ecg.sources.index import IndexWriter, Progress, file_stamp, naming, open_index, read_table, split_of_patient
from train.ecg.sources.indexed import IndexedSource, choose, need_root

NEEDS = ("labels", "measurements", "both", "nothing")
# name: what is plausible; the carts write 29999 and other impossible numbers where they measured nothing
_PLAUSIBLE = {"rr": (200, 3500), "pr": (60, 500), "qrs": (30, 320), "qt": (150, 800), "axis": (-180, 270)}


class MimicIvEcgSource(IndexedSource[EcgRecord]):
    """MIMIC-IV-ECG as it is unpacked.

    Args:
        root: folder with record_list.csv, machine_measurements.csv and files/.
        split: by subject_id.
        need: which records: "labels" (every phrase of the report is understood, and one is a statement: "Abnormal ECG"
            alone denies none), "measurements" (QRS, QT and axis are plausible), "both", or "nothing": then a record
            that has none has `labels` None. What is left out is counted.
        check: refuse records whose limb leads contradict each other.
        index: folder of the index; the root if empty.
        progress: told how far the index is.
    """

    name = "mimic_iv_ecg"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        need: str = "labels",
        check: bool = True,
        index: str = "",
        progress: Progress | None = None,
    ) -> None:
        folder = need_root(self.name, root)
        choose(self.name, "need", need, NEEDS)
        self.check = check
        tables = folder / "record_list.csv", folder / "machine_measurements.csv"

        def build(writer: IndexWriter) -> None:
            for row in writer.watch(f"index of {tables[1]}", read_table(tables[1], ["study_id"])):
                with naming(f"{tables[1]}, study_id {row['study_id']}"):
                    writer.put(row["study_id"], {"phrases": _phrases(row), "measured": _measure(row)})
            for row in writer.watch(f"index of {tables[0]}", read_table(tables[0], ["subject_id", "study_id", "path"])):
                with naming(f"{tables[0]}, study_id {row['study_id']}"):
                    _add(writer, row, need)
            writer.forget()

        description = [need, *(file_stamp(table) for table in tables)]
        made = open_index(Path(index) if index else folder, self.name, description, build, progress)
        super().__init__(made, folder, split)

    def _open(self, note: dict[str, Any]) -> EcgRecord:
        record = read_record(self.root / note["path"], check=self.check)
        phrases: list[str] = note["phrases"]
        labels, unmapped = map_phrases(phrases)
        return replace(
            record,
            patient_id=note["patient_id"],
            split=self.split,
            labels=labels if labels and not unmapped else None,
            report=_sentences(phrases) or None,
            truth=_truth(note["measured"]),
            meta={"phrases": phrases, "unmapped": unmapped, "ecg_time": note["ecg_time"]},
        )


def _sentences(phrases: list[str]) -> str:
    return " ".join(f"{phrase.rstrip('.')}." for phrase in phrases)


def _phrases(row: Mapping[str, str]) -> list[str]:
    return [text.strip() for i in range(18) if (text := row.get(f"report_{i}") or "").strip()]


def _measure(row: Mapping[str, str]) -> dict[str, float]:
    """Intervals in ms and the axis in degrees, as far as they are plausible."""

    def number(name: str) -> float:
        try:
            return float(row.get(name) or "nan")
        except ValueError:
            return float("nan")

    values = {
        "rr": number("rr_interval"),
        "pr": number("qrs_onset") - number("p_onset"),
        "qrs": number("qrs_end") - number("qrs_onset"),
        "qt": number("t_end") - number("qrs_onset"),
        "axis": number("qrs_axis"),
    }
    return {name: value for name, value in values.items() if _PLAUSIBLE[name][0] <= value <= _PLAUSIBLE[name][1]}


def _truth(measured: Mapping[str, float]) -> dict[str, float]:
    """Measurements under the names of EcgRecord.truth; QTc by Fridericia's formula, as the simulator's."""
    truth = {name: measured[name] for name in ("pr", "qrs", "qt", "axis") if name in measured}
    if "rr" in measured:
        truth["heart_rate"] = 60_000 / measured["rr"]
        if "qt" in measured:
            truth["qtc"] = measured["qt"] / (measured["rr"] / 1000) ** (1 / 3)
    return truth


def _add(writer: IndexWriter, row: Mapping[str, str], need: str) -> None:
    """One line of record_list.csv with what the cart said about it."""
    subject, study = row["subject_id"], row["study_id"]
    said = (writer.get(study) or [{"phrases": [], "measured": {}}])[0]
    labels, unmapped = map_phrases(said["phrases"])
    writer.unmapped.update(unmapped)
    if need in ("labels", "both") and (unmapped or not labels):
        lack = "a phrase that is not mapped" if unmapped else "no statement" if said["phrases"] else "no report"
        writer.left_out[lack] += 1
        return
    if need in ("measurements", "both") and not {"qrs", "qt", "axis"} <= said["measured"].keys():
        writer.left_out["no plausible measurement of QRS, QT and axis"] += 1
        return
    patient = f"mimic_iv_ecg:{subject}"
    note = {"patient_id": subject, "path": row["path"], "ecg_time": row.get("ecg_time") or None, **said}
    writer.add(split_of_patient(patient), f"mimic_iv_ecg:{study}", patient, note)
