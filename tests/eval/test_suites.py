"""Which records a suite opens, which page fits a model, and every suite from its published files to a table."""

import json
import shutil
from pathlib import Path

import pytest

from eval.__main__ import main
from eval.predict import PredictConfig, read_predictions
from eval.questions import TASK_QUESTIONS
from eval.references import reference
from eval.score import eligible, score_matrix
from eval.suites import SUITES, deciding_options, page_for, read_options
from eval.tables import NAMES
from minimllama import PRESETS
from minimllama.config import VisionConfig
from minimllama.image import choose_grid
from tests.tools.ecg_sets import (
    code15_row,
    patients_of,
    ptbxl_row,
    write_challenge,
    write_code15,
    write_ptbxl,
)
from tests.tools.ecgbench import write_unpacked
from train.ecg import LABEL_SETS, SOURCES, STYLES, open_source, write_record
from train.ecg.sources.index import split_of_patient


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_names_a_source_label_sets_and_tasks_that_exist(name: str) -> None:
    suite = SUITES[name]
    assert suite.name == name
    assert suite.source in (*SOURCES, "ecgbench")
    assert bool(suite.configuration) == (suite.source == "ecgbench") == bool(suite.own)
    assert set(suite.scored_sets.values()) <= set(LABEL_SETS.values())
    assert set(suite.texts) | set(suite.label_sets) <= TASK_QUESTIONS.keys()
    assert suite.synthetic == (suite.source == "simulated")


def test_simulated_patients_are_numbered_by_seed_and_split() -> None:
    suite = SUITES["simulated"]
    assert len(suite.open(None, "test", None, None)) == suite.n
    ours = suite.open(None, "validate", 3, 9)
    assert ours[2].signal.tobytes() == open_source("simulated", None, "validate", n=3, seed=9)[2].signal.tobytes()
    assert suite.open(None, "test", 3, 0)[1].record_id == "sim-0-test-000001"  # 0 is a seed like any other


def test_a_folder_of_records_is_a_suite(tmp_path: Path) -> None:
    record = open_source("simulated", n=1)[0]
    object.__setattr__(record, "split", "test")
    write_record(record, tmp_path)
    assert SUITES["wfdb"].open(str(tmp_path), "test", None, None)[0].record_id == record.record_id


@pytest.mark.parametrize(("side", "style"), [(560, "square"), (448, "square448"), (256, "nano")])
def test_the_page_fills_whole_tiles_without_being_rescaled(side: int, style: str) -> None:
    assert page_for(VisionConfig(tile_size=side, patch_size=side // 4)) == style
    page = STYLES[style]
    rows, columns = choose_grid(page.width, page.height, side, 4)
    assert (page.width, page.height) == (columns * side, rows * side)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_page(name: str) -> None:
    assert page_for(PRESETS[name].vision) in STYLES


def test_other_tiles_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="no page style for tiles of 100 px; name one of square"):
        page_for(VisionConfig(tile_size=100, patch_size=50))


def test_a_folders_records_cannot_be_counted_or_seeded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n and seed do not apply"):
        SUITES["wfdb"].open(str(tmp_path), "test", 5, None)


# every suite, from published files to a table


def write_root(name: str, root: Path) -> str | None:
    """The suite's data set, as it is published, with a few records in its test split."""
    suite = SUITES[name]
    if suite.source == "simulated":
        return None
    if suite.source == "ecgbench":
        return str(write_unpacked(root, suite.configuration))
    if suite.source == "ptbxl":
        codes = ("{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 50.0, 'ABQRS': 0.0, 'SR': 0.0}", "{'AFIB': 0.0}")
        return str(write_ptbxl(root, [ptbxl_row(n, 10, scp_codes=c) for n, c in enumerate(codes, 1)]))
    if suite.source == "code15":
        patients = patients_of("code15", 700, 2)["test"]
        more = ({"RBBB": "True"}, {"AF": "True", "normal_ecg": "False"})
        rows = [code15_row(30 + i, p, 0, **m) for i, (p, m) in enumerate(zip(patients, more, strict=True))]
        return str(write_code15(root, rows))
    if suite.source == "physionet_challenge":
        numbers = [n for n in range(1, 99) if split_of_patient(f"physionet_challenge:A{n}") == "test"][:2]
        for number, dx in zip(numbers, ("164889003,59118001", "426783006"), strict=True):
            write_challenge(root / f"A{number}", number, dx)
        return str(root)
    for i in range(2):
        record = open_source("simulated", n=2)[i]
        object.__setattr__(record, "split", "test")
        write_record(record, root)
    return str(root)


N = {"simulated": 2, "code15": 2, "cpsc": 2, "wfdb": 2, "cpsc-test": 2, "g12": 1, "mmmu-ecg": 2, "arena": 1}


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_goes_from_its_published_files_to_a_table(name: str, tmp_path: Path, capsys) -> None:
    suite, root = SUITES[name], write_root(name, tmp_path / "root")
    source = ["--n", "2"] if root is None else ["--root", root]
    options = ["--suite", name, *source, "--max-new-tokens", "3", "--out", str(tmp_path / "p.jsonl")]
    assert main(["predict", *options]) == 0
    lines = read_predictions(tmp_path / "p.jsonl")
    assert len(lines) == len({line["id"] for line in lines}) == N.get(name, 3)
    asked = {suite.own} if suite.own else set(suite.texts)
    for line in lines:
        assert set(line["texts"]) == asked
        assert set(line["log_odds"]) == set(suite.label_sets)
    capsys.readouterr()
    arguments = ["--predictions", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "s.json"), "--bootstrap", "20"]
    assert main(["score", *arguments]) == 0
    table = capsys.readouterr().out
    scores = json.loads((tmp_path / "s.json").read_text())
    assert set(scores["protocols"]) == set(suite.scored_sets)
    for protocol, label_set in suite.scored_sets.items():
        assert f"{NAMES[protocol]}: n = " in table
        assert f"{len(label_set.codes)} labels" in table
        assert scores["protocols"][protocol]["from_text"]["unparsed"] >= 0
        assert "fair coin" in table
    if suite.own in ("choice", "qa"):
        assert "uniform chance" in table
        assert f"answers: n = {len(lines)} records (suite {name}, split test" in table
    if suite.own in ("report", "arena") or suite.texts == ("report",):
        assert "constant report" in table
        assert "reference copied" in table
    if suite.published:
        assert "published: " in table


def test_truth_is_what_the_published_files_say(tmp_path: Path) -> None:
    def truths(name: str) -> list:
        suite = SUITES[name]
        source = suite.open(write_root(name, tmp_path / name), "test", None, None)
        return [reference(source[i], suite)["truth"] for i in range(len(source))]

    assert [truth["labels"] for truth in truths("ptb-test")] == [["NORM"], ["MI", "CD"], None]  # the last is no answer
    assert [truth["labels"] for truth in truths("code15-test")] == [["1dAVb", "RBBB"], [], []]
    assert [truth["labels"] for truth in truths("cpsc-test")] == [["AF", "STE"], ["NORM"]]
    assert [truth["labels"] for truth in truths("code15")] == [["AF"], ["RBBB"]]
    assert sorted(truth["labels"] for truth in truths("cpsc")) == [["AF", "RBBB"], ["NORM"]]
    super_truth = truths("ptbxl-super")
    assert [truth["superclass"] for truth in super_truth] == [["NORM"], ["MI"], []]
    assert truths("ptbxl-report")[0]["report"] == "Sinus rhythm. Normal ECG."  # not the German one of the table
    arena = truths("arena")[0]
    assert arena["answers"] == ["Atrial fibrillation.", "Consider anticoagulation."]


def test_groups_are_scored_from_the_statements_over_records_that_have_one_of_them(tmp_path: Path) -> None:
    codes = SUITES["ptbxl-statements"].scored_sets
    assert [len(codes[name].codes) for name in ("statements", "diagnostic", "form", "rhythm")] == [71, 44, 19, 12]
    suite = SUITES["ptbxl-statements"]
    source = suite.open(write_root("ptbxl-statements", tmp_path), "test", None, None)
    lines = [reference(source[i], suite) for i in range(3)]
    odds = dict.fromkeys(codes["statements"].codes, 0.0) | {"IMI": 2.5}
    for line in lines:
        line["log_odds"]["statements"] = odds
    assert [len(eligible(lines, name)) for name in ("statements", "diagnostic", "form", "rhythm")] == [3, 2, 1, 3]
    row = score_matrix(lines, "diagnostic", codes["diagnostic"])[0]
    assert row[codes["diagnostic"].codes.index("IMI")] == 2.5


def test_a_download_of_the_small_files_only_is_read_at_100_hz(tmp_path: Path) -> None:
    root = Path(str(write_root("ptbxl-super", tmp_path)))
    assert SUITES["ptbxl-super"].open(str(root), "test", None, None)[0].hz == 500
    shutil.rmtree(root / "records500")
    assert SUITES["ptbxl-super"].open(str(root), "test", None, None)[0].hz == 100


def test_a_kind_of_scores_goes_from_predicting_to_the_table(tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "p.jsonl")
    kinds = ["--scores", "yes_no", "length_normalised"]
    options = ["--suite", "code15", "--root", str(write_root("code15", tmp_path / "root")), "--texts", "--out", out]
    assert main(["predict", *options, *kinds]) == 0
    lines = read_predictions(Path(out))
    assert all(set(line["length_normalised"]["code15"]) == set(LABEL_SETS["code15"].codes) for line in lines)
    assert "label_list" not in lines[0]
    arguments = ["--predictions", out, "--bootstrap", "0", "--out", str(tmp_path / "s.json")]
    assert main(["score", *arguments, "--scores", "length_normalised"]) == 0
    assert "that log-likelihood per token" in capsys.readouterr().out
    part = json.loads((tmp_path / "s.json").read_text())["protocols"]["code15"]["from_scores"]
    assert part["ece"] is None
    scores = [line["length_normalised"]["code15"]["AF"] for line in lines]
    assert part["per_label"]["AF"]["auc"] == float(scores[0] > scores[1])  # the first has it, the second has not
    (tmp_path / "s.json").unlink()
    assert main(["score", *arguments, "--scores", "label_list"]) == 2
    assert "the predictions have no scores=label_list" in capsys.readouterr().err


def test_settings_without_effect_on_pictures_are_refused() -> None:
    for change in ({"page": "nano"}, {"distort": "scan"}):
        with pytest.raises(ValueError, match="shows published pictures as they are"):
            PredictConfig(suite="csn", **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="texts: report not in choice"):
        PredictConfig(suite="csn", texts=("report",))
    with pytest.raises(ValueError, match="scores: guess not in yes_no"):
        PredictConfig(scores=("guess",))


def test_every_suite_is_listed_on_one_line(capsys) -> None:
    assert main(["suites"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(SUITES)
    for line in lines:
        for word in ("split ", "n ", "labels: ", "asked: ", "parser: ", "metrics: "):
            assert word in line
    assert main(["suites", "mmmu-ecg"]) == 0
    assert "n 200; labels: letters A-D" in capsys.readouterr().out
    assert main(["suites", "ptb"]) == 2


def test_a_simulated_suite_that_is_not_whole_says_so() -> None:
    suite = SUITES["simulated"]
    assert suite.size_note(400, "test") == suite.size_note(9, "validate", 9) == ""
    assert suite.size_note(7, "test", 9) == "asked for: 9; here: 7"
    with pytest.raises(ValueError, match="n=0 must be positive"):
        suite.open(None, "test", 0, None)


def test_options_of_the_source_reach_it(tmp_path: Path) -> None:
    folder, index = tmp_path / "records", tmp_path / "index"
    write_record(open_source("simulated", n=1)[0], folder)  # whose header names no split
    chosen = ("split_of_all=test", f"index={index}")
    assert len(SUITES["wfdb"].open(str(folder), "test", None, None, chosen)) == 1
    assert list(index.glob("*.sqlite"))
    assert not list(folder.glob("*.sqlite"))
    assert read_options(("amplitude=0.5", "check=false", "index=")) == {"amplitude": 0.5, "check": False, "index": ""}
    assert deciding_options({"options": ["index=a", "hz=100"]}) == ("hz=100",)
    assert deciding_options({}) == ()


@pytest.mark.parametrize(
    ("suite", "chosen", "message"),
    [
        ("wfdb", ("check",), "options takes name=value pairs with different names, got 'check'"),
        ("wfdb", ("hz=100",), "source wfdb has no option 'hz'; it has split_of_all, check, index"),
        ("cpsc", ("vocabulary=scp",), "suite cpsc sets 'vocabulary' itself"),
        ("arena", ("hz=100",), "suite arena has no option 'hz'; it has index"),
    ],
)
def test_options_that_there_are_not_are_refused(
    suite: str, chosen: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        SUITES[suite].open(str(tmp_path), "test", None, None, chosen)
