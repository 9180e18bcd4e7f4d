"""One contract, run for every row of SOURCES; and what each source promises on its own."""

import csv
import itertools
import json
import math
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tools.ecg_sets import (
    MimicStudy,
    code15_row,
    patients_of,
    write_challenge,
    write_code15,
    write_mimic,
    write_ptbxl,
    write_table,
)
from tests.train.ecg.sources.test_conversations import ITEMS, write_pictures
from train.ecg import LEADS, SOURCES, EcgRecord, open_source, write_record
from train.ecg.record import read_note
from train.ecg.signal import lead_errors
from train.ecg.sources import SPLITS, EcgSource

Open = Callable[[str], EcgSource]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of WFDB records, two of each split."""
    root = tmp_path_factory.mktemp("records")
    for split in SPLITS:
        source = open_source("simulated", None, split, n=2, seed=3)
        for record in (source[0], source[1]):
            write_record(EcgRecord(**{**vars(record), "split": split}), root / split / "deeper")
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each data set in its published format, two records of each split."""
    mimic, code, challenge = (patients_of(name, 10**7) for name in ("mimic_iv_ecg", "code15", "physionet_challenge"))
    studies = [MimicStudy(subject=subject, study=subject + 3) for found in mimic.values() for subject in found]
    exams = [code15_row(patient + 5, patient, i % 2) for i, patient in enumerate(itertools.chain(*code.values()))]
    roots = {name: tmp_path_factory.mktemp(name) for name in ("ptbxl", "mimic_iv_ecg", "code15", "physionet_challenge")}
    write_ptbxl(roots["ptbxl"])
    write_mimic(roots["mimic_iv_ecg"], studies)
    write_code15(roots["code15"], exams)
    for number in itertools.chain(*challenge.values()):
        write_challenge(roots["physionet_challenge"] / str(number), number, "164889003")
    return roots


@pytest.fixture(params=[name for name in SOURCES if name != "conversations"])  # which have no signals: sources/
def opener(request: pytest.FixtureRequest, folder: Path, published: dict[str, Path]) -> Open:
    """opener(split) for one row of SOURCES."""
    openers: dict[str, Open] = {
        "simulated": lambda split: open_source("simulated", None, split, n=3, seed=5),
        "wfdb": lambda split: open_source("wfdb", folder, split),
        "ptbxl": lambda split: open_source("ptbxl", published["ptbxl"], split, hz=100),
    }
    name = request.param
    return openers.get(name, lambda split: open_source(name, published[name], split))


# the contract


def test_records_have_the_shape_unit_and_lead_order_of_all(opener: Open) -> None:
    source = opener("train")
    for index in range(len(source)):
        record = source[index]
        assert record.signal.shape[0] == len(LEADS)
        assert record.signal.dtype == np.float32
        assert 0.2 < np.nanmax(np.abs(record.signal)) < 10  # millivolts
        assert max(lead_errors(record.signal.astype(float)).values()) < 0.05


def test_opening_a_record_in_another_process_works(opener: Open) -> None:
    source = opener("train")
    source[0]  # so that files and indexes are open here
    copied: EcgSource = pickle.loads(pickle.dumps(source))
    assert copied[1].signal.tobytes() == source[1].signal.tobytes()


def test_the_same_number_is_the_same_record(opener: Open) -> None:
    first, again = opener("test")[1], opener("test")[1]
    assert first.signal.tobytes() == again.signal.tobytes()
    assert (first.record_id, first.labels, first.report, dict(first.truth)) == (
        again.record_id,
        again.labels,
        again.report,
        dict(again.truth),
    )


def test_splits_share_neither_patients_nor_records(opener: Open) -> None:
    records = {split: [source[i] for i in range(len(source))] for split in SPLITS for source in [opener(split)]}
    for a, b in itertools.combinations(SPLITS, 2):
        assert not {r.patient_id for r in records[a]} & {r.patient_id for r in records[b]}
        assert not {r.signal.tobytes() for r in records[a]} & {r.signal.tobytes() for r in records[b]}


def test_ids_differ_within_a_split(opener: Open) -> None:
    source = opener("train")
    assert len({source[i].record_id for i in range(len(source))}) == len(source)


@pytest.mark.parametrize("index", [-1, 10_000])
def test_a_number_outside_is_an_index_error(opener: Open, index: int) -> None:
    with pytest.raises(IndexError):
        opener("train")[index]


def test_the_name_is_that_of_its_row(opener: Open) -> None:
    assert SOURCES[opener("train").name] is type(opener("train"))


# the contract of files: indexed with progress, once; damage names record and path

FILES: dict[str, Callable[[dict], str]] = {  # where the signal or picture of a record lies, from its note
    "wfdb": lambda note: note["header"].replace(".hea", ".dat"),
    "ptbxl": lambda note: note["files"]["500"] + ".dat",
    "mimic_iv_ecg": lambda note: note["path"] + ".dat",
    "code15": lambda note: note["file"],
    "physionet_challenge": lambda note: note["header"].replace(".hea", ".mat"),
    "conversations": lambda note: note["image"],
}


@pytest.fixture(params=FILES)
def copied(
    request: pytest.FixtureRequest, folder: Path, published: dict[str, Path], tmp_path: Path
) -> tuple[str, Path]:
    """The name of a source, and a folder of its own."""
    name = request.param
    if name == "conversations":
        write_pictures(tmp_path)
        (tmp_path / "train.json").write_text(json.dumps(ITEMS))
        return name, tmp_path
    ignored = shutil.ignore_patterns("*.sqlite", "*.lock")
    return name, shutil.copytree(folder if name == "wfdb" else published[name], tmp_path / name, ignore=ignored)


def test_every_source_with_files_is_covered_above() -> None:
    assert FILES.keys() == SOURCES.keys() - {"simulated"}


def test_an_index_is_made_once_and_says_how_far_it_is(copied: tuple[str, Path]) -> None:
    told: list[tuple[str, int, int | None]] = []
    for _ in range(2):
        for split in ("train",) if copied[0] == "conversations" else SPLITS:
            open_source(*copied, split, progress=lambda *now: told.append(now))
    said = [what for what, _, _ in told]
    assert len(said) == len(set(said)) >= 1  # each table and file once, for all splits and openings
    assert all(str(copied[1]) in what for what in said)
    assert all(done == total > 0 for _, done, total in told)  # so few records are told at their end only


@pytest.mark.parametrize("n_bytes", [None, 10])
def test_missing_and_damaged_files_name_record_and_path(copied: tuple[str, Path], n_bytes: int | None) -> None:
    source = open_source(*copied, "train")
    record, note = source.index.record("train", 0)  # type: ignore[attr-defined]
    path = copied[1] / FILES[copied[0]](note)
    content = path.read_bytes()
    path.unlink()
    if n_bytes:
        path.write_bytes(content[:n_bytes])
    kind = ValueError if n_bytes else FileNotFoundError
    with pytest.raises(kind, match=f"^record {re.escape(record)}: .*{re.escape(path.stem)}"):
        source[0]
    path.write_bytes(content)
    source[0]


@pytest.mark.parametrize(
    ("name", "table", "column", "message"),
    [
        ("ptbxl", "ptbxl_database.csv", "scp_codes", r"ptbxl_database.csv, ecg_id \d+: "),
        ("ptbxl", "ptbxl_database.csv", "strat_fold", r"ptbxl_database.csv, ecg_id \d+: "),
        ("code15", "exams.csv", "exam_id", r"exams.csv, exam_id broken: "),
    ],
)
def test_a_damaged_line_of_a_table_names_table_and_record(
    published: dict[str, Path], tmp_path: Path, name: str, table: str, column: str, message: str
) -> None:
    root = shutil.copytree(published[name], tmp_path / name, ignore=shutil.ignore_patterns("*.sqlite"))
    with (root / table).open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[1][column] = "broken"
    write_table(root / table, list(rows[0]), rows)
    with pytest.raises(ValueError, match=message):
        open_source(name, root)


# each source


def test_simulated_patients_depend_on_seed_split_and_number_only() -> None:
    few, many = open_source("simulated", n=2, seed=1), open_source("simulated", n=50, seed=1)
    assert few[1].signal.tobytes() == many[1].signal.tobytes()
    assert few[1].signal.tobytes() != open_source("simulated", n=2, seed=2)[1].signal.tobytes()


@pytest.mark.parametrize("option", [{"hz": 0.0}, {"hz": math.nan}, {"normal": 1.5}, {"seed": -1}])
def test_simulated_options_that_make_no_sense_are_refused(option: dict) -> None:
    with pytest.raises(ValueError, match=f"simulated: .*{next(iter(option))}="):
        open_source("simulated", **option)


def test_a_package_that_is_not_installed_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("wfdb", folder, "validate")
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(ValueError, match=r"the WFDB format needs the extra: pip install 'minimllama\[ecg\]'"):
        source[0]


def test_wfdb_records_come_in_the_order_of_their_paths(folder: Path) -> None:
    source = open_source("wfdb", folder, "validate")
    headers = sorted((folder / "validate").rglob("*.hea"))
    assert [source[i].record_id for i in range(2)] == [read_note(path)["record_id"] for path in headers]


def test_a_folder_without_splits_is_one_split_if_that_is_said(tmp_path: Path) -> None:
    write_record(open_source("simulated", n=1)[0], tmp_path)
    with pytest.raises(ValueError, match=r"names no split; say split_of_all="):
        open_source("wfdb", tmp_path, "test")
    assert len(open_source("wfdb", tmp_path, "test", split_of_all="test")) == 1
    with pytest.raises(ValueError, match="wfdb: split_of_all='tests' is not one of None, train, validate, test"):
        open_source("wfdb", tmp_path, "test", split_of_all="tests")
    write_record(replace(open_source("simulated", n=2)[1], split="val"), tmp_path)
    with pytest.raises(ValueError, match=r"000001.hea names split 'val', which is not one of train, validate, test"):
        open_source("wfdb", tmp_path, "test", split_of_all="test")


def test_a_folder_is_indexed_once_and_again_when_a_header_changes(tmp_path: Path) -> None:
    record = open_source("simulated", n=1)[0]
    header = write_record(EcgRecord(**{**vars(record), "split": "train"}), tmp_path).with_suffix(".hea")
    told: list[tuple] = []
    for _ in range(2):
        assert len(open_source("wfdb", tmp_path, "train", progress=lambda *now: told.append(now))) == 1
    assert len(told) == 1  # the second time it was there
    header.write_text(header.read_text().replace('"split": "train"', '"split": "test"'))
    with pytest.raises(FileNotFoundError, match="no record of split 'train'"):
        open_source("wfdb", tmp_path, "train")
    moved = open_source("wfdb", tmp_path, "test", index=str(tmp_path / "elsewhere"))
    assert list(moved.names()) == [(f"wfdb:{header.stem}", f"wfdb:{record.patient_id}")]  # type: ignore[attr-defined]
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_real_records_are_a_folder_too(shared: Path, tmp_path: Path) -> None:
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    source = open_source("wfdb", shared / "data", "test", split_of_all="test", index=str(tmp_path))
    assert {source[i].record_id for i in range(len(source))} == {"00001_lr", "s0010_re", "s0010_500"}


# refusal


def test_unknown_sources_and_splits_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="source='ptb' is not one of simulated, wfdb, ptbxl, mimic_iv_ecg, code15"):
        open_source("ptb")
    with pytest.raises(ValueError, match="split='dev' is not one of train, validate, test"):
        open_source("wfdb", folder, "dev")
    with pytest.raises(ValueError, match="reads no folder, but root="):
        open_source("simulated", folder)
    with pytest.raises(ValueError, match="n=0 must be positive"):
        open_source("simulated", n=0)
    with pytest.raises(ValueError, match="needs a root folder"):
        open_source("wfdb")


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no WFDB record of split 'train' below"):
        open_source("wfdb", tmp_path, "train")
