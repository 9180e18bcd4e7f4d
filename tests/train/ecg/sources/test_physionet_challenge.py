"""CPSC 2018, Georgia and Chapman-Shaoxing-Ningbo as the PhysioNet challenges publish them."""

from pathlib import Path

import numpy as np
import pytest

from tests.tools.ecg_sets import heart, write_challenge
from train.ecg import LABEL_SETS, open_source
from train.ecg.label_maps import CPSC_OF_SNOMED, MIMIC_PHRASES, SCP_OF_CODE15, SNOMED, map_codes
from train.ecg.labels import STATEMENTS

AF_RBBB, AXIS, UNCLEAR = "164889003,59118001", "426177001,39732003", "426783006,6374002"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CPSC, Georgia and Ningbo in the folders and spellings of each."""
    root = tmp_path_factory.mktemp("challenge")
    write_challenge(root / "cpsc_2018" / "g1" / "A0001", 1, AF_RBBB, n=3600)  # their length varies
    write_challenge(root / "georgia" / "g1" / "E00001", 2, AXIS)
    write_challenge(root / "ningbo" / "01" / "010" / "JS10647", 3, UNCLEAR)
    spaced = "# Age: NaN\n# Sex: Female\n# Dx: 270492004,164934002,426783006"
    write_challenge(root / "ningbo" / "01" / "010" / "JS10648", 4, "", comments=spaced)
    return root


def records(folder: Path, **options: object) -> dict:
    return {r.record_id: r for r in open_source("physionet_challenge", folder, split_of_all="train", **options)}


# equation


def test_signals_are_those_of_the_matlab_files(folder: Path) -> None:
    found = records(folder)
    for name, number, n in (("A0001", 1, 3600), ("E00001", 2, 5000), ("JS10648", 4, 5000)):
        assert found[name].signal.shape == (12, n)
        assert np.abs(found[name].signal - heart(number)[:, :n]).max() <= 0.0005 + 1e-6
        assert found[name].hz == 500


def test_snomed_codes_become_statements(folder: Path) -> None:
    found = records(folder)
    assert found["A0001"].labels == {"AFIB", "CRBBB"}
    assert found["E00001"].labels == {"SBRAD"}  # an axis is clear, and none of the 71
    assert found["JS10648"].labels == {"1AVB", "TAB_", "SR"}


def test_the_nine_labels_of_cpsc(folder: Path) -> None:
    found = records(folder, vocabulary="cpsc")
    assert set(found) == {"A0001"}  # the others have codes that are not among the nine
    assert found["A0001"].labels == {"AF", "RBBB"}
    assert {code for codes in CPSC_OF_SNOMED.values() for code in codes} == set(LABEL_SETS["cpsc"].codes)


# property


def test_unclear_codes_leave_a_record_out_or_without_labels(folder: Path) -> None:
    source = open_source("physionet_challenge", folder, split_of_all="train")
    assert source.index.left_out == {"a code that is not mapped": 1}  # type: ignore[attr-defined]
    assert source.index.unmapped == {"6374002": 1}  # type: ignore[attr-defined]
    record = records(folder, need="nothing")["JS10647"]
    assert record.labels is None
    assert record.meta["unmapped"] == ("6374002",)


def test_age_and_sex_in_either_spelling(folder: Path) -> None:
    found = records(folder)
    assert (found["A0001"].meta["age"], found["A0001"].meta["sex"]) == (74, "male")
    assert (found["JS10648"].meta["age"], found["JS10648"].meta["sex"]) == (None, "female")


def test_records_of_one_name_in_two_folders_share_a_split(tmp_path: Path) -> None:
    for k in range(8):
        write_challenge(tmp_path / "training" / f"A{k:04d}", k, AF_RBBB)
        write_challenge(tmp_path / "validation" / f"A{k:04d}", k, AF_RBBB)
    source = open_source("physionet_challenge", tmp_path)
    names = [record for record, _ in source.names()]  # type: ignore[attr-defined]
    assert len(names) == len(set(names)) >= 8
    assert sorted(n.split("/")[1] for n in names if "training" in n) == sorted(
        n.split("/")[1] for n in names if "validation" in n
    )


@pytest.mark.parametrize("table", [SNOMED, MIMIC_PHRASES])
def test_every_target_of_a_map_is_a_statement(table: dict[str, tuple[str, ...]]) -> None:
    assert {code for codes in table.values() for code in codes} <= STATEMENTS.keys()
    assert set(SCP_OF_CODE15.values()) <= STATEMENTS.keys()
    assert tuple(SCP_OF_CODE15) == LABEL_SETS["code15"].codes


def test_a_header_that_changed_is_indexed_anew(tmp_path: Path) -> None:
    for dx in ("164889003", "426177001"):
        write_challenge(tmp_path / "A0001", 1, dx)
        assert records(tmp_path)["A0001"].labels == map_codes([dx], SNOMED)[0]


# refusal


def test_a_malformed_header_names_its_record(tmp_path: Path) -> None:
    write_challenge(tmp_path / "JS01052", 1, AF_RBBB)
    header = tmp_path / "JS01052.hea"
    lines = header.read_text().splitlines()
    merged = ["JS01052 12 500 500000/mV 16 0 15 31255 0 I", *lines[2:]]  # as the published JS01052 is
    header.write_text("\n".join(merged) + "\n")
    with pytest.raises(ValueError, match="record physionet_challenge:JS01052: "):
        open_source("physionet_challenge", tmp_path, split_of_all="train")[0]


def test_a_missing_matlab_file_names_record_and_path(tmp_path: Path) -> None:
    write_challenge(tmp_path / "g1" / "E00002", 1, AF_RBBB)
    (tmp_path / "g1" / "E00002.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"record physionet_challenge:g1/E00002: .*E00002.mat"):
        open_source("physionet_challenge", tmp_path, split_of_all="train")[0]
