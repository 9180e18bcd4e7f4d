"""Predictions: log-odds equal one forward per label, batches and interruptions change nothing, the file says it all."""

import json
from pathlib import Path

import pytest
import torch

from eval.answering import answer_own
from eval.benchmark_files import AskedRecord
from eval.likelihood import ask_yes_no, score_labels
from eval.predict import PredictConfig, Predictor, read_predictions, run_predict, take_up
from eval.questions import TASK_QUESTIONS
from eval.suites import SUITES
from lora import load_adapter
from minimllama import ImageTransform, Message, encode_dialog, generate, load_model, load_tokenizer
from minimllama.tokenizer import stop_ids
from tests.eval.conftest import predict_config
from train.ecg import LABEL_SETS, STYLES, draw_page, open_source
from train.ecg.instruct import report_text, yes_no_question
from train.ecg.labels import superclasses_of


@pytest.fixture(scope="module")
def predictor(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(predict_config(checkpoint, tmp_path_factory.mktemp("unused") / "p.jsonl"))


def records(n: int = 3) -> list:
    source = open_source("simulated", None, "test", n=7, seed=5)
    return [source[i] for i in range(n)]


# equation


def test_the_questions_are_cut_where_they_begin_to_differ(predictor: Predictor) -> None:
    label_set = LABEL_SETS["superclass"]
    questions = ask_yes_no(label_set, predictor.tokenizer)
    assert len(questions.suffixes) == 5
    for label, suffix in zip(label_set.labels, questions.suffixes, strict=True):
        message = Message(role="user", text=yes_no_question(label.name), n_images=1)
        whole = encode_dialog([message], predictor.tokenizer).tokens
        assert torch.equal(torch.cat([questions.prompt, suffix]), whole)
    assert len({int(suffix[0]) for suffix in questions.suffixes}) > 1
    assert predictor.tokenizer.decode([questions.yes, questions.no]).lower().startswith("y")


# parity


@pytest.mark.parametrize("name", ["superclass", "simulated"])
def test_scores_are_those_of_one_whole_forward_per_label(predictor: Predictor, name: str) -> None:
    label_set = LABEL_SETS[name]
    questions = ask_yes_no(label_set, predictor.tokenizer)
    pages = [draw_page(record, STYLES["nano"]).image for record in records()]
    scores = score_labels(predictor.model, questions, predictor.transform([[page] for page in pages]))
    assert scores.shape == (3, len(label_set.labels))
    for row, page in zip(scores, pages, strict=True):
        images = predictor.transform([[page]])
        for score, suffix in zip(row, questions.suffixes, strict=True):
            with torch.no_grad():
                logits = predictor.model(torch.cat([questions.prompt, suffix])[None], images)[0, -1]
            assert float(score) == pytest.approx(float(logits[questions.yes] - logits[questions.no]), abs=1e-4)
    assert scores.std(0).min() > 1e-4  # pages differ
    assert scores.std(1).min() > 1e-3  # labels differ


def test_a_line_holds_the_models_scores_and_answers_and_the_records_truth(
    predictions: dict[str, Path], checkpoint: Path, adapter: Path
) -> None:
    model, tokenizer = load_adapter(load_model(checkpoint), adapter).eval(), load_tokenizer(checkpoint)
    line, record = (
        read_predictions(predictions["tuned-test"])[4],
        open_source("simulated", None, "test", n=7, seed=5)[4],
    )
    assert (line["id"], line["patient_id"]) == (record.record_id, record.patient_id)
    assert line["truth"]["labels"] == list(LABEL_SETS["simulated"].select(record.labels or ()))
    assert line["truth"]["superclass"] == sorted(superclasses_of(record.labels or ()))
    assert line["truth"]["report"] == report_text(record, LABEL_SETS["simulated"])
    images = ImageTransform(256)([[draw_page(record, STYLES["nano"]).image]])
    scores = score_labels(model, ask_yes_no(LABEL_SETS["superclass"], tokenizer), images)[0].tolist()
    assert list(line["log_odds"]["superclass"]) == list(LABEL_SETS["superclass"].codes)
    assert list(line["log_odds"]["superclass"].values()) == pytest.approx(scores, abs=1e-4)
    assert list(line["log_odds"]["statements"]) == list(LABEL_SETS["simulated"].codes)
    for task, answer in line["texts"].items():
        asked = encode_dialog([Message(role="user", text=TASK_QUESTIONS[task], n_images=1)], tokenizer).tokens
        (row,) = generate(model, [asked], images, max_new_tokens=6, stop_ids=stop_ids(tokenizer))
        new = row[len(asked) :].tolist()
        ended = new[-1] in stop_ids(tokenizer)
        assert answer == {"text": tokenizer.decode(new), "n_tokens": len(new), "ended": ended}


# property


def test_every_record_has_one_line(predictions: dict[str, Path]) -> None:
    ids = [line["id"] for line in read_predictions(predictions["base-test"])]
    assert ids == [f"sim-5-test-{i:06d}" for i in range(7)]


def test_an_adapter_changes_what_is_said(predictions: dict[str, Path]) -> None:
    base, tuned = (read_predictions(predictions[f"{name}-test"]) for name in ("base", "tuned"))
    assert [line["truth"] for line in base] == [line["truth"] for line in tuned]
    assert all(a["log_odds"] != b["log_odds"] for a, b in zip(base, tuned, strict=True))


def same(a: list[dict], b: list[dict]) -> bool:
    """Equal words and truths; log-odds within 1e-4, as sums in float32 allow."""
    for ours, theirs in zip(a, b, strict=True):
        assert {**ours, "log_odds": None} == {**theirs, "log_odds": None}
        for protocol, scores in ours["log_odds"].items():
            assert scores == pytest.approx(theirs["log_odds"][protocol], abs=1e-4)
    return True


@pytest.mark.parametrize("batch", [1, 50])
def test_the_size_of_a_batch_changes_nothing(
    checkpoint: Path, predictions: dict[str, Path], tmp_path: Path, batch: int
) -> None:
    out = run_predict(predict_config(checkpoint, tmp_path / "p.jsonl", batch=batch))
    assert same(read_predictions(out), read_predictions(predictions["base-test"]))


@pytest.mark.parametrize(("whole_lines", "rest"), [(3, ""), (2, '{"id": "sim-5-te'), (0, '{"id"')])
def test_an_interrupted_file_is_completed(
    checkpoint: Path, predictions: dict[str, Path], tmp_path: Path, whole_lines: int, rest: str
) -> None:
    complete = predictions["base-test"].read_text().splitlines(keepends=True)
    out = tmp_path / "p.jsonl"
    out.write_text("".join(complete[:whole_lines]) + rest)
    settings = json.loads(predictions["base-test"].with_suffix(".config.json").read_text())
    out.with_suffix(".config.json").write_text(json.dumps(settings))
    run_predict(predict_config(checkpoint, out))
    assert out.read_text().splitlines(keepends=True)[:whole_lines] == complete[:whole_lines]
    assert same(read_predictions(out), read_predictions(predictions["base-test"]))


def test_the_same_command_twice_adds_nothing(checkpoint: Path, tmp_path: Path) -> None:
    config = predict_config(checkpoint, tmp_path / "p.jsonl", n=2, texts=())
    first = run_predict(config).read_text()
    assert run_predict(config).read_text() == first


def test_the_settings_stand_beside_the_file_and_do_not_name_where_it_ran(predictions: dict[str, Path]) -> None:
    settings = json.loads(predictions["tuned-validate"].with_suffix(".config.json").read_text())
    assert (settings["split"], settings["n"], settings["seed"], settings["texts"]) == ("validate", 7, 5, [])
    assert not {"out", "batch", "device"} & settings.keys()


def test_every_question_of_a_task_is_the_one_that_training_asks() -> None:
    assert TASK_QUESTIONS["report"] == "Write a report of this ECG."
    assert TASK_QUESTIONS["statements"] == "List all findings of this ECG."
    assert set(SUITES["simulated"].texts) <= TASK_QUESTIONS.keys()


@pytest.mark.parametrize(("weights", "tolerance"), [("fast", 1e-3), ("int8", 0.5)])
def test_weights_kept_otherwise_give_nearly_the_same_scores(
    weights: str, tolerance: float, checkpoint: Path, adapter: Path, predictions: dict[str, Path], tmp_path: Path
) -> None:
    config = predict_config(checkpoint, tmp_path / "p.jsonl", adapter=str(adapter), n=2, texts=(), weights=weights)
    kinds = Predictor.load(config).model.text.layers[0].attention.q_proj
    assert type(kinds).__name__ == "FusedLinear"  # the adapter has been merged
    lines, plain = read_predictions(run_predict(config)), read_predictions(predictions["tuned-test"])
    for ours, theirs in zip(lines, plain, strict=False):
        for protocol, scores in ours["log_odds"].items():
            assert scores == pytest.approx(theirs["log_odds"][protocol], abs=tolerance)


def test_answers_are_decoded_by_the_compiled_step_where_that_is_asked(
    checkpoint: Path, tmp_path: Path, compiled_steps: list[object]
) -> None:
    common = {"n": 1, "texts": ("report",), "scores": ()}
    plain = run_predict(predict_config(checkpoint, tmp_path / "plain.jsonl", **common)).read_text()
    assert not compiled_steps
    config = predict_config(checkpoint, tmp_path / "compiled.jsonl", compile=True, **common)
    assert run_predict(config).read_text() == plain
    assert len(compiled_steps) == 1
    settings = [json.loads((tmp_path / f"{name}.config.json").read_text()) for name in ("plain", "compiled")]
    assert "compile" not in settings[0]
    assert settings[1]["compile"] is True


def test_so_are_answers_to_records_own_questions(predictor: Predictor, compiled_steps: list[object]) -> None:
    page = draw_page(records(1)[0], STYLES["nano"]).image
    turns = (("user", "Is it normal?"), ("assistant", "Yes."), ("user", "Sure?"))
    asked = [AskedRecord(record_id="r", patient_id="p", item="i", image=page, turns=turns)]
    given = predictor.model, predictor.tokenizer, asked, predictor.transform([[page]]), 4
    assert answer_own(*given, compile=True) == answer_own(*given)
    assert len(compiled_steps) == 2  # two turns


# refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"suite": "ptb"}, "suite='ptb' is not one of simulated, wfdb, ptbxl-super"),
        ({"texts": ("report", "essay")}, "texts: essay not in"),
        ({"texts": ("yes_no",)}, "texts: yes_no not in"),  # asks every record something else
        ({"weights": "int4"}, "weights='int4' is not one of plain, fast, int8"),
        ({"page": "a4"}, "page='a4' is not one of "),
        ({"dtype": "fp16"}, "dtype='fp16' is not one of float32, bfloat16, float16"),
        ({"batch": 0}, "batch=0 and max_new_tokens=96 must be positive"),
    ],
)
def test_a_contradiction_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictConfig(**fields)


def test_a_file_of_other_settings_is_not_touched(checkpoint: Path, tmp_path: Path) -> None:
    out = run_predict(predict_config(checkpoint, tmp_path / "p.jsonl", n=1, texts=()))
    before = out.read_text()
    for changes in ({"seed": 6, "n": 1}, {"n": 2}):
        with pytest.raises(FileExistsError, match=r"was made with other settings \(see p.config.json\)"):
            run_predict(predict_config(checkpoint, out, texts=(), **changes))
    assert out.read_text() == before


def test_a_file_without_a_line_takes_the_settings_of_the_next_attempt(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").touch()  # as a first attempt leaves it whose model did not fit into memory
    (tmp_path / "p.config.json").write_text('{"batch": 64}')
    assert take_up(tmp_path / "p.jsonl", {"batch": 8}) == set()
    assert json.loads((tmp_path / "p.config.json").read_text()) == {"batch": 8}


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": 1}\n{"id": \n{"id": 3}\n')
    with pytest.raises(ValueError, match=r"p.jsonl, line 2: "):
        read_predictions(tmp_path / "p.jsonl")


def test_a_tokenizer_that_begins_yes_and_no_alike_is_refused() -> None:
    class Alike:
        vocabulary = 9
        special = dict.fromkeys(
            ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|image|>"], 0
        )

        def encode(self, text: str) -> list[int]:
            return [1, len(text)]

        def decode(self, ids: list[int]) -> str:
            return ""

    with pytest.raises(ValueError, match="begins Yes and No with the same token"):
        ask_yes_no(LABEL_SETS["superclass"], Alike())


def test_the_pages_of_a_batch_are_encoded_once_whatever_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    config = predict_config(checkpoint, tmp_path / "x.jsonl", scores=("yes_no", "label_list"))
    predictor, encoded = Predictor.load(config), []
    predictor.model.vision.register_forward_hook(lambda *_: encoded.append(1))
    source = SUITES["simulated"].open(None, "test", 3, 5)
    (first, *_), n = predictor.predict([source[i] for i in range(3)]), len(encoded)
    assert n == 1
    assert len(first["texts"]) == 3
    assert {"superclass", "statements"} <= first["log_odds"].keys()
