"""CODE-15% in its published format: HDF5 parts, padding, the phantom row, the amplitude, the order of leads."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.tools.ecg_sets import code15_row, code15_tracing, patients_of, write_code15, write_code15_part
from train.ecg import LEADS, open_source
from train.ecg.sources import SPLITS

WHO = patients_of("code15", 4_000)
PATIENT = WHO["train"][0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four exams of a patient in two parts, one of each patient of the other splits, and one whose part is missing."""
    rows = [
        code15_row(590673, PATIENT, 0),
        code15_row(1169160, PATIENT, 1, AF="True", RBBB="True", normal_ecg="False", is_male="False"),
        code15_row(2873686, PATIENT, 0, SB="True", normal_ecg="False"),
        code15_row(168405, WHO["validate"][0], 0),
        code15_row(271011, WHO["test"][0], 1),
        code15_row(384368, PATIENT, 7),
    ]
    root = write_code15(tmp_path_factory.mktemp("code15"), rows)
    (root / "exams_part7.hdf5").unlink()
    return root


def exam(folder: Path, number: int, **options: object):
    return next(r for r in open_source("code15", folder, **options) if r.record_id == str(number))


# equation


def test_rows_are_joined_by_exam_not_by_position(folder: Path) -> None:
    with h5py.File(folder / "exams_part0.hdf5") as file:
        assert file["exam_id"][:].tolist() == [168405, 2873686, 590673, 0]  # type: ignore[index]
    for number in (590673, 1169160, 2873686):
        record = exam(folder, number)
        assert np.array_equal(record.signal, code15_tracing(number)[48:4048].T)
        assert record.hz == 400
        assert record.seconds == 10


def test_zeros_are_trimmed_on_both_sides(tmp_path: Path) -> None:
    write_code15(tmp_path, [code15_row(1, PATIENT, 0)])
    short = code15_tracing(1, 2800)
    write_code15_part(tmp_path / "exams_part0.hdf5", [1], [short])
    record = open_source("code15", tmp_path)[0]
    assert record.signal.shape == (12, 2800)  # 7 s with 648 zeros before and after
    assert np.array_equal(record.signal, short[648:-648].T)


@pytest.mark.parametrize(
    ("vocabulary", "first", "second", "third"),
    [("code15", set(), {"AF", "RBBB"}, {"SB"}), ("scp", set(), {"AFIB", "CRBBB"}, {"SBRAD"})],
)
def test_labels_in_either_vocabulary(folder: Path, vocabulary: str, first: set, second: set, third: set) -> None:
    labels = [exam(folder, number, vocabulary=vocabulary).labels for number in (590673, 1169160, 2873686)]
    assert labels == [first, second, third]


def test_amplitude_is_a_factor_that_is_named(folder: Path) -> None:
    half = exam(folder, 590673, amplitude=0.5).signal
    assert np.array_equal(half, exam(folder, 590673).signal / 2)


# property


def test_patients_stay_in_one_split_and_what_is_left_out_is_counted(folder: Path) -> None:
    found = {split: {r.patient_id for r in open_source("code15", folder, split)} for split in SPLITS}
    assert found == {split: {str(WHO[split][0])} for split in SPLITS}
    assert open_source("code15", folder).index.left_out == {  # type: ignore[attr-defined]
        "in a part, but not in exams.csv": 2,  # the rows of zeros
        "in exams.csv, but in no part that is here": 1,
    }


def test_age_and_sex_come_from_the_table(folder: Path) -> None:
    assert exam(folder, 590673).meta["age"] == 38
    assert exam(folder, 590673).meta["sex"] == "male"
    assert exam(folder, 1169160).meta["sex"] == "female"


@pytest.mark.parametrize(("amplitude", "is_plausible"), [(1.0, True), (0.1, False), (10.0, False)])
def test_an_implausible_amplitude_is_a_warning_and_changes_nothing(
    folder: Path, amplitude: float, is_plausible: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = open_source("code15", folder, amplitude=amplitude)
    assert bool(caught) is not is_plausible
    assert all(f"amplitude={amplitude}: the median R wave in lead II is" in str(w.message) for w in caught)
    same = exam(folder, int(source[0].record_id)).signal * np.float32(amplitude)
    assert np.array_equal(source[0].signal, same)


# refusal


def test_the_other_published_lead_order_is_refused_until_it_is_said(tmp_path: Path) -> None:
    write_code15(tmp_path, [code15_row(1, PATIENT, 0)])
    order = "I II III aVL aVF aVR V1 V2 V3 V4 V5 V6"
    tracing = code15_tracing(1)[:, [LEADS.index(lead) for lead in order.split()]]
    write_code15_part(tmp_path / "exams_part0.hdf5", [1], [tracing])
    with pytest.raises(ValueError, match=r"record code15:1: exams_part0.hdf5: the limb leads contradict .* aVR "):
        open_source("code15", tmp_path)[0]
    record = open_source("code15", tmp_path, lead_order=order)[0]
    assert np.array_equal(record.signal, code15_tracing(1)[48:4048].T)


def test_missing_and_damaged_parts_name_exam_and_file(tmp_path: Path) -> None:
    write_code15(tmp_path, [code15_row(1, PATIENT, 0), code15_row(2, PATIENT, 0)])
    source, part = open_source("code15", tmp_path), tmp_path / "exams_part0.hdf5"
    part.write_bytes(part.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"record code15:2: .*exams_part0.hdf5, row 0: damaged"):
        source[0]
    part.unlink()
    with pytest.raises(FileNotFoundError, match=r"record code15:1: no .*exams_part0.hdf5"):
        source[1]


def test_an_exam_of_zeros_is_refused(tmp_path: Path) -> None:
    write_code15(tmp_path, [code15_row(1, PATIENT, 0)])
    write_code15_part(tmp_path / "exams_part0.hdf5", [1], [np.zeros((4096, 12), np.float32)])
    with pytest.raises(ValueError, match=r"record code15:1: .*, row 0: nothing but zeros"):
        open_source("code15", tmp_path)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amplitude": 0.0}, "amplitude=0.0 must be positive"),
        ({"vocabulary": "snomed"}, "vocabulary='snomed' is not one of code15, scp"),
        ({"lead_order": "I II"}, "lead_order='I II' must name each of I II III aVR"),
    ],
)
def test_impossible_options_are_refused(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("code15", folder, **options)
