"""The doctor finds, in data that was broken on purpose, what was broken, and says whether training may start."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minimllama import Tokenizer
from minimllama.chat import EncodedDialog
from tests.tools.ecg_sets import (
    PTBXL_COLUMNS,
    MimicStudy,
    heart,
    patients_of,
    ptbxl_row,
    write_mimic,
    write_ptbxl,
    write_table,
)
from tests.tools.tiny import BOS, TINY
from tests.train.conftest import MakeConfig
from train.__main__ import main
from train.config import DataConfig, RunConfig, to_toml
from train.doctor import DoctorConfig, Finding, _Budget, _Findings, examine, report
from train.ecg import LABEL_SETS, LEADS, Example
from train.mixture import ComponentConfig
from train.record_checks import implausible, misread, signal_hash, tile_cover

FEW = DoctorConfig(records=5)


def component(source: str, root: Path, *tasks: str, **more: object) -> ComponentConfig:
    asked = tasks or (("report",) if source == "conversations" else ("superclass",))
    return ComponentConfig(source=source, root=str(root), tasks=asked, **more)  # type: ignore[arg-type]


def recipe(make_config: MakeConfig, *components: ComponentConfig, **changes: object) -> RunConfig:
    config = make_config()
    data = DataConfig(components=components, page="nano", questions_per_image=2, workers=0, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(config, data=data)


def texts(findings: list[Finding], level: str) -> list[str]:
    return [finding.text for finding in findings if finding.level == level]


def ptbxl(folder: Path, *rows: dict) -> Path:
    return write_ptbxl(folder, rows)


def whole(folder: Path, first: dict | None = None) -> Path:
    """A set without a fault: two records in training, one in each other split."""
    rows = [first or ptbxl_row(1, 1), ptbxl_row(2, 2), ptbxl_row(3, 9), ptbxl_row(4, 10)]
    return ptbxl(folder, *rows)


# what is right


def test_a_sound_set_has_no_error_and_training_may_start(make_config: MakeConfig, tmp_path: Path) -> None:
    findings = examine(recipe(make_config, component("ptbxl", whole(tmp_path), options={"hz": 100})), FEW)
    assert texts(findings, "error") == []
    notes = "\n".join(texts(findings, "note"))
    assert "ptbxl, train: 2 records, 2 opened" in notes
    assert "ptbxl, train: labels of statements: NORM 2, LVOLT 2, SR 2" in notes
    assert "longest dialog: " in notes
    assert report(findings).endswith("warnings: training may start")


# what is wrong


def test_a_patient_in_two_splits_is_found_without_opening_anything(make_config: MakeConfig, tmp_path: Path) -> None:
    rows, last = [ptbxl_row(number, 1) for number in range(1, 40)], ptbxl_row(90, 10, patient_id="1020.0")
    write_ptbxl(tmp_path, [rows[0], last])
    write_table(tmp_path / "ptbxl_database.csv", PTBXL_COLUMNS, [*rows, last])
    findings = examine(recipe(make_config, component("ptbxl", tmp_path, options={"hz": 100})), DoctorConfig(records=1))
    assert "1 patients stand in ptbxl, train and in ptbxl, test: ptbxl:1020" in texts(findings, "error")


def test_one_signal_in_two_splits_or_twice_in_one_is_found(make_config: MakeConfig, tmp_path: Path) -> None:
    rows = [ptbxl_row(1, 1), ptbxl_row(2, 2), ptbxl_row(3, 9), ptbxl_row(4, 10)]
    ptbxl(tmp_path, *rows)
    signal = (tmp_path / "records100/00000/00001_lr.dat").read_bytes()
    for other in ("00002", "00004"):
        (tmp_path / f"records100/00000/{other}_lr.dat").write_bytes(signal)
        header = (tmp_path / "records100/00000/00001_lr.hea").read_text().replace("00001", other)
        (tmp_path / f"records100/00000/{other}_lr.hea").write_text(header)
    findings = examine(recipe(make_config, component("ptbxl", tmp_path, options={"hz": 100})), FEW)
    (error,) = texts(findings, "error")
    assert error == "1 opened signals or pictures stand in ptbxl, train and in ptbxl, test: 00001_lr"
    warnings = "\n".join(texts(findings, "warning"))
    assert "the same signal twice: 00002_lr and 00001_lr" in warnings


def test_swapped_leads_missing_files_and_wrong_units_are_errors(make_config: MakeConfig, tmp_path: Path) -> None:
    subjects = patients_of("mimic_iv_ecg", 10**7, 3)["train"]
    swapped = heart(1)
    swapped[[4, 5]] = swapped[[5, 4]]
    studies = [MimicStudy(subject=subject, study=i) for i, subject in enumerate(subjects, 1)]
    write_mimic(tmp_path, studies, {1: swapped, 2: heart(2) * 12})
    (tmp_path / f"{studies[2].path}.hea").unlink()
    findings = examine(recipe(make_config, component("mimic_iv_ecg", tmp_path)), FEW)
    errors = "\n".join(texts(findings, "error"))
    assert "2 of 3 records opened: cannot be opened: 0: record mimic_iv_ecg:1: " in errors
    assert "aVL" in errors
    assert "no WFDB header" in errors
    assert "the median R wave in lead II is" in errors
    assert "implausible amplitude" in "\n".join(texts(findings, "warning"))


def test_tasks_that_records_cannot_answer_are_errors(make_config: MakeConfig, tmp_path: Path) -> None:
    made = component("ptbxl", whole(tmp_path), "superclass", "intervals", options={"hz": 100})
    (error,) = texts(examine(recipe(make_config, made), FEW), "error")
    assert error.startswith("ptbxl, train: 2 of 2 records opened: task intervals cannot be asked: record 00001_lr has")


def test_an_answer_longer_than_the_budget_is_an_error(make_config: MakeConfig, tmp_path: Path) -> None:
    made = component("ptbxl", whole(tmp_path), options={"hz": 100})
    (error,) = texts(examine(recipe(make_config, made, max_tokens=12), FEW), "error")
    assert "task superclass: longer than data.max_tokens=12: 00001_lr (" in error


def test_labels_of_no_label_set_and_label_sets_without_labels_are_errors(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    made = component("ptbxl", whole(tmp_path), "statements", label_set="cpsc", options={"hz": 100})
    (error,) = texts(examine(recipe(make_config, made), FEW), "error")
    assert "another vocabulary than label set cpsc, which this task asks for: LVOLT, SR" in error  # NORM is one of both
    made = component("ptbxl", tmp_path, "statements", label_set="code15", options={"hz": 100})
    errors = texts(examine(recipe(make_config, made), FEW), "error")
    assert errors[1:] == ["ptbxl, train: no record has a label of code15"]
    assert "another vocabulary than label set code15" in errors[0]


def test_unmapped_labels_and_records_left_out_are_counted(make_config: MakeConfig, tmp_path: Path) -> None:
    subject = patients_of("mimic_iv_ecg", 10**7)["train"][0]
    phrases = ("Sinus rhythm", "Possible anterior infarct"), ("Sinus rhythm",)
    write_mimic(tmp_path, [MimicStudy(subject=subject, study=i, phrases=p) for i, p in enumerate(phrases, 1)])
    notes = texts(examine(recipe(make_config, component("mimic_iv_ecg", tmp_path)), FEW), "note")
    assert "mimic_iv_ecg: 1 records left out: a phrase that is not mapped" in notes
    assert "mimic_iv_ecg: 1 labels are not mapped, 1 times: 'Possible anterior infarct' 1" in notes


def conversations(folder: Path, answer: str = "Sinus rhythm.") -> Path:
    """Two pictures as in ECGInstruct, of PTB-XL's records 4 and 7."""
    folder.mkdir()
    items = []
    for number in (4, 7):
        name = f"ptb-xl/{number:05d}_hr-0.png"
        (folder / name).parent.mkdir(exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(np.full((170, 220, 3), number, np.uint8)).save(file, "PNG")
        (folder / name).write_bytes(file.getvalue())
        turns = [{"from": "human", "value": "<image>\nReport?"}, {"from": "gpt", "value": answer}]
        items.append({"id": str(number), "image": name, "conversations": turns})
    (folder / "ECGInstruct.json").write_text(json.dumps(items))
    return folder


def test_pictures_of_test_records_are_found_by_their_names(make_config: MakeConfig, tmp_path: Path) -> None:
    pictures, signals = conversations(tmp_path / "instruct"), whole(tmp_path / "ptb-xl")
    made = recipe(make_config, component("conversations", pictures, options={"split_of_all": "train"}))
    assert texts(examine(made, FEW), "error") == []
    against = DoctorConfig(records=5, against=(f"ptbxl={signals}",))
    errors = texts(examine(made, against), "error")
    assert f"1 records stand in conversations, train and in ptbxl={signals}, test: ptbxl:4" in errors
    assert any(error.startswith("1 patients stand in conversations, train and in ptbxl=") for error in errors)


def test_refusals_and_wasted_tiles_of_pictures_are_warnings(make_config: MakeConfig, tmp_path: Path) -> None:
    asked = "Sure, please provide the ECG report that you would like translated."
    pictures = conversations(tmp_path / "instruct", asked)
    made = recipe(make_config, component("conversations", pictures, options={"split_of_all": "train"}))
    warnings = "\n".join(texts(examine(made, FEW), "warning"))
    assert "2 of 2 records opened: an answer is a chatbot's refusal" in warnings
    assert "pictures cover 75% of their tiles" in warnings  # 220 x 170, as ecg-image-kit's pages, on tiles of 12 px


def test_a_report_that_names_no_statement_is_a_warning(make_config: MakeConfig, tmp_path: Path) -> None:
    german = ptbxl_row(1, 1) | {"report": "siehe voraufnahme"}
    made = component("ptbxl", whole(tmp_path, german), "report", report="given", options={"hz": 100})
    warnings = "\n".join(texts(examine(recipe(make_config, made), FEW), "warning"))
    assert "2 of 2 records opened: its report names no statement that can be read" in warnings
    assert "00001_lr; 00002_lr" in warnings  # both are German, which is not read


@pytest.mark.parametrize(
    ("task", "answer", "key", "complaint"),
    [
        ("yes_no", "No.", {"code": "AFIB", "present": True}, "task yes_no: False is read"),
        ("statements", "Atrial flutter.", {"labels": ["AFIB"]}, "the labels are AFIB, but AFLT is read"),
        ("statements", "See above.", {"labels": ["AFIB"]}, "the labels are AFIB, but nothing is read"),
        ("statements", "Atrial fibrillation.", {"labels": ["AFIB"]}, None),
        ("superclass", "ABNORMAL.", {"labels": ["NORM"]}, "the labels are NORM, but nothing is read"),
        ("rate", "60 beats per minute.", {"heart_rate": 60}, None),
    ],
)
def test_an_answer_that_the_evaluation_would_read_otherwise_is_an_error(
    task: str, answer: str, key: dict, complaint: str | None
) -> None:
    found = misread(Example(record_id="r", task=task, question="?", answer=answer, key=key), LABEL_SETS["statements"])
    assert (found is None) == (complaint is None)
    if found is not None and complaint is not None:
        assert found[0] == "error"
        assert complaint in found[1]


@pytest.mark.parametrize(
    ("tokens", "answers", "complaint"),
    [
        ([BOS, 7, 8, 9], [0, 0, 1, 1], None),
        ([BOS, BOS, 7, 8], [0, 0, 0, 1], "task x: 2 tokens that begin a text instead of one"),
        ([7, 8, 9], [0, 1, 1], "task x: 0 tokens that begin a text instead of one"),
        ([BOS, 7, 8], [0, 0, 0], "task x: no token carries loss"),
        ([BOS, 7, TINY.text.vocab_size], [0, 0, 1], "task x: a label is outside of the vocabulary of 320"),
    ],
)
def test_dialogs_that_cannot_be_trained_on_are_errors(
    make_config: MakeConfig, tokenizer: Tokenizer, tokens: list[int], answers: list[int], complaint: str | None
) -> None:
    assert tokenizer.special["<|begin_of_text|>"] == BOS
    findings = _Findings()
    dialog = EncodedDialog(tokens=torch.tensor(tokens), answers=torch.tensor(answers, dtype=torch.bool))
    _Budget(make_config(), tokenizer, TINY)._measure(dialog, "task x", "r", findings)
    findings.close_group("part", 1)
    expected = [] if complaint is None else [f"part: 1 of 1 records opened: {complaint}: r"]
    assert texts(findings, "error") == expected


# the parts


def test_a_hash_does_not_depend_on_the_gain_but_on_every_sample() -> None:
    signal = heart(1).astype(np.float32)
    assert signal_hash(np.rint(signal * 1000) / 1000) == signal_hash(np.rint(np.rint(signal * 1000)) / 1000)
    other = signal.copy()
    other[3, 77] += 0.02
    assert signal_hash(other) != signal_hash(signal)


def test_flat_and_missing_leads_are_named() -> None:
    signal = heart(1)
    signal[LEADS.index("V2")] = 0.3
    signal[LEADS.index("V5")] = np.nan
    assert implausible(signal) == ["no sample in V5", "a flat line in V2"]
    assert implausible(heart(1)) == []


@pytest.mark.parametrize(("factor", "is_plausible"), [(1, True), (0.01, False), (1000, False)])
def test_an_amplitude_that_no_heart_has_is_a_complaint(factor: float, is_plausible: bool) -> None:
    assert bool(implausible(heart(1) * factor)) is not is_plausible


def test_cover_is_the_share_of_the_tiles() -> None:
    assert tile_cover(1120, 560, 560, 4) == ((1, 2), 1.0, 1.0)
    grid, covered, scale = tile_cover(2200, 1700, 560, 4)
    assert (grid, round(covered, 2), round(scale, 2)) == ((2, 2), 0.77, 0.51)


# the command


@pytest.mark.parametrize(("tasks", "code"), [(("superclass",), None), (("intervals",), 1)])
def test_the_exit_code_says_whether_training_may_start(
    make_config: MakeConfig, tmp_path: Path, capsys, tasks: tuple[str, ...], code: int | None
) -> None:
    made = recipe(make_config, component("ptbxl", whole(tmp_path / "ptb-xl"), *tasks, options={"hz": 100}))
    (tmp_path / "recipe.toml").write_text(to_toml(made))
    arguments = ["doctor", "--recipe", str(tmp_path / "recipe.toml"), "--records", "2"]
    if code is None:
        assert main(arguments) == 0
    else:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    assert capsys.readouterr().out.rstrip().endswith("do not start" if code else "training may start")
