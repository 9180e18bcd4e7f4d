"""MIMIC-IV-ECG in its published format: lead order, gaps, sentinels, split by subject, reports and measurements."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.tools.ecg_sets import MimicStudy, heart, patients_of, write_mimic
from train.ecg import LEADS, open_source
from train.ecg.label_maps import map_phrases
from train.ecg.sources import SPLITS

WHO = patients_of("mimic_iv_ecg", 10_000_032)
SUBJECT = WHO["train"][0]
AFIB = ("Atrial fibrillation with rapid ventricular response", "Left axis deviation", "Abnormal ECG")
UNSURE = ("Sinus rhythm", "Possible anterior infarct - age undetermined", "Abnormal ECG")
SENTINELS = (600, 29999, 29999, 200, 294, 560, 29999, -30, 29999)  # no P wave in atrial fibrillation
NOTHING = (29999,) * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four studies of one patient, and one of each patient of the other splits."""
    studies = [
        MimicStudy(subject=SUBJECT, study=40689238),
        MimicStudy(subject=SUBJECT, study=44458630, phrases=AFIB, measured=SENTINELS),
        MimicStudy(subject=SUBJECT, study=49036311, phrases=UNSURE),
        MimicStudy(subject=SUBJECT, study=45090959, phrases=(), measured=NOTHING),
        MimicStudy(subject=WHO["validate"][0], study=48446569),
        MimicStudy(subject=WHO["test"][0], study=47065655),
    ]
    return write_mimic(tmp_path_factory.mktemp("mimic"), studies)


# equation


def test_leads_are_found_by_name_not_by_position(folder: Path) -> None:
    header = next(folder.rglob("40689238.hea")).read_text()
    assert header.index("aVF") < header.index("aVL")  # as published
    record = open_source("mimic_iv_ecg", folder)[0]
    assert np.abs(record.signal - heart(40689238)).max() <= 0.0025 + 1e-6  # half a unit of 1/200 mV


def test_measurements_are_differences_of_the_carts_marks(folder: Path) -> None:
    truth = open_source("mimic_iv_ecg", folder)[0].truth
    assert truth["heart_rate"] == 75
    assert (truth["pr"], truth["qrs"], truth["qt"], truth["axis"]) == (156, 94, 384, 45)
    assert truth["qtc"] == pytest.approx(384 / 0.8 ** (1 / 3))


def test_what_is_no_measurement_is_left_out(folder: Path) -> None:
    source = open_source("mimic_iv_ecg", folder, need="nothing")
    by_id = {record.record_id: record for record in source}
    assert set(by_id["44458630"].truth) == {"heart_rate", "qrs", "qt", "qtc", "axis"}
    assert dict(by_id["45090959"].truth) == {}


def test_phrases_become_labels_where_all_are_understood(folder: Path) -> None:
    by_id = {record.record_id: record for record in open_source("mimic_iv_ecg", folder, need="nothing")}
    assert by_id["40689238"].labels == {"SR", "NORM"}
    assert by_id["44458630"].labels == {"AFIB"}
    assert by_id["49036311"].labels is None
    assert by_id["49036311"].meta["unmapped"] == ("Possible anterior infarct - age undetermined",)
    assert by_id["45090959"].labels is None


@pytest.mark.parametrize(
    ("need", "kept"),
    [
        ("labels", ["40689238", "44458630"]),
        ("measurements", ["40689238", "44458630", "49036311"]),
        ("both", ["40689238", "44458630"]),
        ("nothing", ["40689238", "44458630", "49036311", "45090959"]),
    ],
)
def test_records_without_what_is_needed_are_left_out_and_counted(folder: Path, need: str, kept: list[str]) -> None:
    source = open_source("mimic_iv_ecg", folder, need=need)
    assert [record.record_id for record in source] == kept
    assert sum(source.index.left_out.values()) == 4 - len(kept)  # type: ignore[attr-defined]
    assert source.index.unmapped == {"Possible anterior infarct - age undetermined": 1}  # type: ignore[attr-defined]


def test_remarks_alone_say_nothing_of_71_statements(tmp_path: Path) -> None:
    remarks = ("Abnormal ECG", "Left axis deviation")
    folder = write_mimic(
        tmp_path, [MimicStudy(subject=SUBJECT, study=n, phrases=p) for n, p in ((1, remarks), (2, AFIB))]
    )
    assert [record.labels for record in open_source("mimic_iv_ecg", folder, need="nothing")] == [None, {"AFIB"}]
    source = open_source("mimic_iv_ecg", folder)
    assert [record.record_id for record in source] == ["2"]
    assert source.index.left_out == {"no statement": 1}  # type: ignore[attr-defined]


# property


def test_all_studies_of_a_subject_are_in_one_split(folder: Path) -> None:
    found = {split: {r.patient_id for r in open_source("mimic_iv_ecg", folder, split)} for split in SPLITS}
    assert found == {split: {str(WHO[split][0])} for split in SPLITS}


def test_a_report_is_the_phrases_as_sentences(folder: Path) -> None:
    assert [r.report for r in open_source("mimic_iv_ecg", folder, need="nothing")][::3] == [
        "Sinus rhythm. Normal ECG.",
        None,
    ]


def test_missing_samples_are_gaps_not_zeros(tmp_path: Path) -> None:
    signal = heart(1)
    signal[LEADS.index("V3"), 100:900] = np.nan
    source = open_source("mimic_iv_ecg", write_mimic(tmp_path, [MimicStudy(subject=SUBJECT, study=1)], {1: signal}))
    assert np.array_equal(np.isnan(source[0].signal), np.isnan(signal))


@pytest.mark.parametrize(
    ("phrases", "codes", "unmapped"),
    [
        (["SINUS RHYTHM"], {"SR"}, []),
        (["--- Warning: Data quality may affect interpretation ---"], set(), []),
        (["Summary: Normal ECG"], {"NORM"}, []),
        (["Sinus bradycardia with 1st degree A-V block."], {"SBRAD", "1AVB"}, []),
        (["RBBB with left anterior fascicular block"], {"CRBBB", "LAFB"}, []),
        (["Sinus rhythm with PVC(s)"], {"SR", "PVC"}, []),
        (["Inferior infarct - age undetermined"], {"IMI"}, []),
        (["Probable atrial fibrillation"], set(), ["Probable atrial fibrillation"]),
        (["Sinus rhythm with borderline 1st degree A-V block"], set(), None),
        (["Atrial flutter/fibrillation"], set(), None),
        (["*** CONSIDER ACUTE ST ELEVATION MI ***"], set(), None),
        (["IVCD, consider atypical RBBB"], set(), None),
        (["Not normal ECG"], set(), None),
    ],
)
def test_only_what_is_sure_becomes_a_statement(phrases: list[str], codes: set[str], unmapped: list[str] | None) -> None:
    assert map_phrases(phrases) == (codes, tuple(phrases if unmapped is None else unmapped))


# refusal


def test_swapped_leads_are_named(tmp_path: Path) -> None:
    signal, swapped = heart(2), heart(2)
    swapped[[4, 5]] = signal[[5, 4]]  # aVL and aVF
    folder = write_mimic(tmp_path, [MimicStudy(subject=SUBJECT, study=2)], {2: swapped})
    with pytest.raises(ValueError, match=r"record mimic_iv_ecg:2: .*contradict I and II in aVL .* aVF .*when swapped"):
        open_source("mimic_iv_ecg", folder)[0]
    assert open_source("mimic_iv_ecg", folder, check=False)[0].record_id == "2"


def test_a_folder_without_measurements_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "record_list.csv").write_text((folder / "record_list.csv").read_text())
    with pytest.raises(FileNotFoundError, match=r"no .*machine_measurements.csv"):
        open_source("mimic_iv_ecg", tmp_path)


def test_a_split_without_records_says_what_was_left_out(tmp_path: Path) -> None:
    folder = write_mimic(tmp_path, [MimicStudy(subject=SUBJECT, study=3, phrases=UNSURE)])
    with pytest.raises(FileNotFoundError, match=r"no record of split 'train' .*; 1 records left out: a phrase that is"):
        open_source("mimic_iv_ecg", folder)


def test_the_published_table_has_the_columns_that_are_read(folder: Path) -> None:
    with (folder / "machine_measurements.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    assert [c for c in columns if c.startswith("report_")] == [f"report_{i}" for i in range(18)]
