"""python -m eval explain: the folder that it writes, and what it refuses."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main
from eval.explain import ExplainConfig, explained_text, show_page
from eval.pages import page_of
from eval.predict import read_predictions
from train.ecg import LEADS, STYLES, simulate_ecg

IDS = ("sim-5-test-000006", "sim-5-test-000002")
LABELS = ("CLBBB", "LAO/LAE", "MI")


@pytest.fixture(scope="module")
def explained(checkpoint: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explained") / "folder"
    chosen = ["--labels", *LABELS, "--ids", *IDS, "--n", "7", "--seed", "5"]
    model = ["--model", str(checkpoint), "--adapter", str(adapter)]
    assert main(["explain", *model, "--suite", "simulated", "--split", "test", *chosen, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def result(explained: Path) -> dict:
    return json.loads((explained / "explain.json").read_text())


# property


def test_there_is_a_case_for_every_record_and_label_in_the_suites_order(result: dict) -> None:
    ids = sorted(IDS)
    assert [(case["id"], case["label"]) for case in result["cases"]] == [(i, code) for i in ids for code in LABELS]
    assert set(result) == {"settings", "synthetic", "gates", "agreement", "between_labels", "cases"}
    assert list(result["agreement"]["all"]) == list(LABELS)
    present = {case["label"] for case in result["cases"] if case["truth"]}
    assert set(result["agreement"]["present"]) == present


def test_log_odds_are_those_of_the_predictions(result: dict, predictions: dict[str, Path]) -> None:
    lines = {line["id"]: line for line in read_predictions(predictions["tuned-test"])}
    for case in result["cases"]:
        line, protocol = lines[case["id"]], "superclass" if case["label"] == "MI" else "statements"
        assert case["log_odds"] == pytest.approx(line["log_odds"][protocol][case["label"]], abs=1e-4)
        known = line["truth"]["superclass"] if case["label"] == "MI" else line["truth"]["labels"]
        assert case["truth"] == (case["label"] in known)


def test_every_lead_has_its_attention_and_what_wiping_it_does(result: dict) -> None:
    for case in result["cases"]:
        assert tuple(case["leads"]) == LEADS
        assert all({"attention", "occlusion"} <= set(lead) for lead in case["leads"].values())
        assert set(case["areas"]) == {"rhythm strip", "limb leads", "V1-V6"}
        on_page = sum(lead["attention"] for lead in case["leads"].values())
        assert on_page > 0
        assert 0 < case["class_tokens"] < 1
        assert (
            case["areas"]["V1-V6"]["attention"] <= sum(case["leads"][f"V{i}"]["attention"] for i in range(1, 7)) + 1e-6
        )
        layers = list(case["attention_by_layer"].values())
        for lead in LEADS:
            mean = np.mean([layer[lead] for layer in layers])
            assert case["leads"][lead]["attention"] == pytest.approx(float(mean), abs=1e-5)
    assert len({round(case["leads"]["V1"]["occlusion"], 6) for case in result["cases"]}) == len(result["cases"])


def test_every_case_has_its_picture(explained: Path, result: dict) -> None:
    names = [case["heat"] for case in result["cases"]]
    assert sorted(names) == sorted(path.name for path in explained.glob("*.png"))
    assert "sim_5_test_000002_LAO_LAE.png" in names
    pictures = [np.asarray(Image.open(explained / name)) for name in names]
    assert all(picture.shape == (256, 512, 3) for picture in pictures)
    assert any((a != b).any() for a, b in pairwise(pictures))


def test_the_table_has_a_row_for_every_label(explained: Path) -> None:
    shown = explained_text(explained)
    assert "all pages" in shown
    assert "Two labels of one page: rho" in shown
    assert all(any(line.startswith(f"{code} ") for line in shown.splitlines()) for code in LABELS)


def test_records_beyond_the_number_of_pictures_get_none(checkpoint: Path, tmp_path: Path) -> None:
    chosen = ["--model", str(checkpoint), "--n", "1", "--seed", "5", "--labels", "MI"]
    assert main(["explain", *chosen, "--pictures", "0", "--out", str(tmp_path / "a")]) == 0
    assert not list((tmp_path / "a").glob("*.png"))
    assert json.loads((tmp_path / "a" / "explain.json").read_text())["cases"][0]["heat"] is None


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(checkpoint: Path, adapter: Path, explained: Path) -> None:
    cases, whole = explained / "cases.jsonl", (explained / "explain.json").read_text()
    first, last = cases.read_text().splitlines(keepends=True)
    cases.write_text(first.replace("CLBBB", "KEPT") + last[: len(last) // 2])  # the second line is cut off by a kill
    chosen = ["--labels", *LABELS, "--ids", *IDS, "--n", "7", "--seed", "5", "--out", str(explained)]
    assert main(["explain", "--model", str(checkpoint), "--adapter", str(adapter), *chosen]) == 0
    assert "KEPT" in cases.read_text()  # the first record was not explained again
    cases.write_text(first + cases.read_text().splitlines(keepends=True)[1])
    assert main(["explain", "--model", str(checkpoint), "--adapter", str(adapter), *chosen]) == 0
    assert (explained / "explain.json").read_text() == whole


def test_boxes_and_paper_move_as_the_page_does() -> None:
    record = simulate_ecg(rng=np.random.default_rng(4), record_id="moved")
    clean, turned = (show_page(record, STYLES["nano"], kind) for kind in ("clean", "tilt"))
    assert clean.page.image.tobytes() == page_of(record, STYLES["nano"]).image.tobytes()
    assert turned.page.image.tobytes() == page_of(record, STYLES["nano"], "tilt").image.tobytes()
    assert {lead: len(boxes) for lead, boxes in turned.places.items()} == {k: len(v) for k, v in clean.places.items()}
    assert turned.places != clean.places
    assert turned.paper is not None
    outside = np.ones((256, 512), bool)
    for x0, y0, x1, y1 in (box for boxes in turned.places.values() for box in boxes):
        outside[max(int(y0) - 3, 0) : int(y1) + 4, max(int(x0) - 3, 0) : int(x1) + 4] = False
    differs = (np.asarray(turned.page.image) != np.asarray(turned.paper)).any(2)
    assert differs.sum() > 500  # the traces
    assert not differs[outside].any()  # which all lie in the boxes


# refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ("MI",), "suite": "ptb"}, "suite='ptb' is not one of"),
        ({"labels": ("MI",), "suite": "ptb-test"}, "suite='ptb-test' shows pictures"),
        ({"labels": ()}, "must name at least one code"),
        ({"labels": ("MI", "MI")}, "none twice"),
        ({"labels": ("MI",), "distort": "shuffled_leads"}, "there the leads are not where their names are"),
        ({"labels": ("MI",), "distort": "rain"}, "distort='rain' is not one of"),
        ({"labels": ("MI",), "pictures": -1}, "pictures=-1 must not be negative"),
        ({"labels": ("MI", "FLU")}, "labels: FLU not in NORM, MI,"),
    ],
)
def test_a_contradiction_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExplainConfig(**fields)


def test_a_record_that_is_not_there_and_a_folder_that_is_are_refused(
    checkpoint: Path, explained: Path, tmp_path: Path, capsys
) -> None:
    chosen = ["--model", str(checkpoint), "--n", "2", "--seed", "5", "--labels", "MI", "--ids", "nobody"]
    assert main(["explain", *chosen, "--out", str(tmp_path / "b")]) == 2
    assert "error: ids: nobody not among the 2 records of test" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    chosen = chosen[:-2]
    assert main(["explain", *chosen, "--out", str(explained)]) == 2
    assert "cases.jsonl was made with other settings" in capsys.readouterr().err
    assert main(["explain", *chosen, "--out", str(tmp_path)]) == 2
    assert "exists, without cases.jsonl" in capsys.readouterr().err
