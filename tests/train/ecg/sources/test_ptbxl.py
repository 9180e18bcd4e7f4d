"""PTB-XL in its published format: folds, resolutions, versions, likelihoods, ages, reports."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tools.ecg_sets import heart, ptbxl_row, write_ptbxl
from train.ecg import open_source
from train.ecg.record import read_record

CODES = "{'IMI': 35.0, 'NORM': 0.0, 'CLBBB': 100.0, 'NDT': 15.0, 'ABQRS': 0.0, 'SR': 0.0}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records 1 and 2 in fold 3, 3 in 8, 4 in 9, 5 in 10; some with awkward fields."""
    rows = [
        ptbxl_row(1, 3, scp_codes=CODES),
        ptbxl_row(2, 3, age="300.0", sex="1"),
        ptbxl_row(3, 8, age="", report=""),
        ptbxl_row(4, 9),
        ptbxl_row(5, 10),
    ]
    return write_ptbxl(tmp_path_factory.mktemp("ptb-xl"), rows)


def ids(folder: Path, split: str) -> list[str]:
    source = open_source("ptbxl", folder, split, hz=100)
    return [source[i].record_id for i in range(len(source))]


# equation


def test_folds_one_to_eight_train_nine_validates_ten_tests(folder: Path) -> None:
    assert ids(folder, "train") == ["00001_lr", "00002_lr", "00003_lr"]
    assert ids(folder, "validate") == ["00004_lr"]
    assert ids(folder, "test") == ["00005_lr"]


@pytest.mark.parametrize(("hz", "n"), [(100, 1000), (500, 5000)])
def test_both_resolutions_are_the_heart_that_was_written(folder: Path, hz: int, n: int) -> None:
    record = open_source("ptbxl", folder, "train", hz=hz)[1]
    assert record.signal.shape == (12, n)
    assert record.hz == hz
    assert np.abs(record.signal - heart(2, hz)).max() <= 0.0005 + 1e-6  # half a unit of 1/1000 mV


@pytest.mark.parametrize(
    ("likelihood", "expected"),
    [
        (0, {"IMI", "NORM", "CLBBB", "NDT", "ABQRS", "SR"}),
        (15, {"IMI", "CLBBB", "NDT", "ABQRS", "SR"}),
        (50, {"CLBBB", "NDT", "ABQRS", "SR"}),
        (100, {"CLBBB", "NDT", "ABQRS", "SR"}),
    ],
)
def test_likelihood_is_asked_of_purely_diagnostic_statements_only(
    folder: Path, likelihood: float, expected: set[str]
) -> None:
    record = open_source("ptbxl", folder, "train", hz=100, likelihood=likelihood)[0]
    assert record.labels == expected
    assert record.meta["scp_codes"]["IMI"] == 35  # kept, whatever the rule


# property


def test_an_age_of_300_is_over_89_and_no_number(folder: Path) -> None:
    ages = [(r.meta["age"], r.meta["age_over_89"]) for r in open_source("ptbxl", folder, "train", hz=100)]
    assert ages == [(56.0, False), (None, True), (None, False)]


def test_reports_are_kept_as_published(folder: Path) -> None:
    source = open_source("ptbxl", folder, "train", hz=100)
    assert source[0].report == "sinusrhythmus periphere niederspannung"
    assert source[2].report is None


def test_patients_sexes_and_notes_come_from_the_table(folder: Path) -> None:
    record = open_source("ptbxl", folder, "train", hz=100)[0]
    assert record.patient_id == "1001"
    assert record.meta["sex"] == "female"
    assert record.meta["static_noise"] == " , I-V1,  "
    assert record.meta["ecg_id"] == 1
    assert record.meta["fold"] == 3


@pytest.mark.parametrize("version", ["1.0.1", "1.0.2", "1.0.3"])
def test_the_version_is_read_off_its_change_logs(tmp_path: Path, version: str) -> None:
    source = open_source("ptbxl", write_ptbxl(tmp_path, [ptbxl_row(7, 1)], version), hz=100)
    assert source[0].meta["version"] == version


@pytest.mark.parametrize(("age", "version"), [("95.0", "1.0.1"), ("300.0", "1.0.2 or later")])
def test_without_change_logs_a_hidden_age_tells_the_later_versions(tmp_path: Path, age: str, version: str) -> None:
    record = open_source("ptbxl", write_ptbxl(tmp_path, [ptbxl_row(7, 1, age=age)], "1.0.1"), hz=100)[0]
    assert record.meta["version"] == version
    assert record.meta["age_over_89"] is True
    assert record.meta["age"] == (95.0 if age == "95.0" else None)


def test_a_changed_table_is_indexed_anew(tmp_path: Path) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1, 1)])
    assert ids(tmp_path, "train") == ["00001_lr"]
    write_ptbxl(tmp_path, [ptbxl_row(1, 1), ptbxl_row(2, 2)])
    assert ids(tmp_path, "train") == ["00001_lr", "00002_lr"]


def test_the_real_table_gives_the_real_counts(shared: Path, tmp_path: Path) -> None:
    packed = shared / "data" / "ptbxl_database_form_subset_8988.csv.gz"
    if not packed.exists():
        pytest.skip("no real table beside the reference files")
    import gzip

    (tmp_path / "ptbxl_database.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    sizes = [len(open_source("ptbxl", tmp_path, split)) for split in ("train", "validate", "test")]
    assert sum(sizes) == 8988
    assert all(size > 800 for size in sizes)
    record = shared / "data" / "ptbxl_00001_lr" / "00001_lr"
    for suffix in (".hea", ".dat"):
        target = tmp_path / "records100" / "00000" / f"00001_lr{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record.with_suffix(suffix), target)
    first = open_source("ptbxl", tmp_path, "train", hz=100)[0]
    assert first.signal.tobytes() == read_record(record).signal.tobytes()
    assert first.labels == {"NORM", "LVOLT", "SR"}
    assert first.report == "sinusrhythmus periphere niederspannung"


# refusal


def test_a_missing_file_names_record_and_path(tmp_path: Path) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1, 1)])
    (tmp_path / "records100" / "00000" / "00001_lr.hea").unlink()
    with pytest.raises(FileNotFoundError, match=r"record ptbxl:1: no WFDB header .*records100/00000/00001_lr.hea"):
        open_source("ptbxl", tmp_path, hz=100)[0]


@pytest.mark.parametrize("n_bytes", [None, 0, 1001])
def test_a_missing_or_damaged_signal_names_record_and_path(tmp_path: Path, n_bytes: int | None) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1, 1)])
    signal = tmp_path / "records100" / "00000" / "00001_lr.dat"
    if n_bytes is None:
        signal.unlink()
    else:
        signal.write_bytes(signal.read_bytes()[:n_bytes])
    with pytest.raises((FileNotFoundError, ValueError), match=r"record ptbxl:1: .*00001_lr"):
        open_source("ptbxl", tmp_path, hz=100)[0]


def test_an_unknown_statement_names_the_record(tmp_path: Path) -> None:
    write_ptbxl(tmp_path, [ptbxl_row(1, 1, scp_codes="{'LVHH': 100.0}")])
    with pytest.raises(ValueError, match=r"record ptbxl:1: not SCP statements: LVHH"):
        open_source("ptbxl", tmp_path, hz=100)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"strat_fold": "11"}, "strat_fold=11 is not one of 1 to 10"), ({"scp_codes": "{'NORM': 100.0"}, "never closed")],
)
def test_a_damaged_line_of_the_table_is_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"ptbxl_database.csv, ecg_id 1: .*{message}"):
        open_source("ptbxl", write_ptbxl(tmp_path, [ptbxl_row(1, 1, **change)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hz": 250}, r"ptbxl: hz=250 is not one of 100, 500"),
        ({"likelihood": 101.0}, r"ptbxl: likelihood=101.0 must lie in \[0, 100\] percent"),
        ({"resolution": 100}, r"source ptbxl has no option 'resolution'; it has hz, likelihood, check, index"),
        ({"hz": "100"}, r"ptbxl: hz='100' must be of type int"),
    ],
)
def test_options_that_it_does_not_have_are_refused(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source("ptbxl", folder, **options)


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no .*ptbxl_database.csv"):
        open_source("ptbxl", tmp_path)
