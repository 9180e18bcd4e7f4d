"""A model of ours as judge, without a server: its replies are read, kept and counted like an endpoint's."""

import json
from pathlib import Path

import pytest
import torch

from eval.__main__ import main
from eval.judge_llm import Case, LlmJudgeConfig, judge_reports
from eval.judge_local import LocalJudge
from eval.judge_prompts import PROTOCOLS
from minimllama import Message, encode_dialog, load_tokenizer, save_model
from tests.eval.conftest import CONFIG
from tests.tools.tiny import tiny_model

CASES = [Case(case_id="a", reference="Sinus rhythm.", candidate="Atrial fibrillation.")]
REPLY = json.dumps({"diagnosis": 8, "waveform": 5, "rhythm": 10})


def config(model: Path | str, cache: Path, **changes: object) -> LlmJudgeConfig:
    return LlmJudgeConfig(model=str(model), base_url="local", repeats=1, cache=cache, max_tokens=60, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """A tiny model that was taught to give one reply, whatever it is asked."""
    folder = tmp_path_factory.mktemp("judge") / "checkpoint"
    model, tokenizer = tiny_model(config=CONFIG), load_tokenizer(tokenizer_file)
    asked = PROTOCOLS["pulse"].messages("Sinus rhythm.", "Atrial fibrillation.", None)[0]["content"][0]["text"]
    dialog = encode_dialog([Message(role="user", text=asked), Message(role="assistant", text=REPLY)], tokenizer)
    kept = dialog.labels >= 0
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(dialog.tokens[None])[0, kept], dialog.labels[kept])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if float(loss.detach()) < 0.02:
            break
    save_model(model, folder)
    (folder / "tokenizer.model").write_bytes(tokenizer_file.read_bytes())
    return folder


def test_its_marks_are_those_that_it_writes(judge_folder: Path, tmp_path: Path) -> None:
    question = PROTOCOLS["pulse"].messages(CASES[0].reference, CASES[0].candidate, None)
    assert LocalJudge(str(judge_folder), 0.0, 60).reply(question, seed=0) == REPLY
    result = judge_reports(config(judge_folder, tmp_path), CASES)
    assert result["model"]["score"] == pytest.approx(100 * 23 / 30)
    assert {"constant_report", "copy_reference"} <= result.keys()  # judged too
    assert len(list(tmp_path.glob("*.json"))) >= 1  # a second run costs nothing


def test_a_model_that_writes_no_json_is_reported_and_not_guessed(tmp_path: Path) -> None:
    result = judge_reports(config("nano", tmp_path), CASES)
    for name in ("model", "constant_report", "copy_reference"):
        assert (result[name]["score"], result[name]["n"]) == (None, 0)
    assert "malformed reply" in result["model"]["failed"]["a"]


def test_marks_stand_in_the_table_in_the_place_of_the_rules(
    judge_folder: Path, predictions: dict[str, Path], tmp_path: Path, capsys
) -> None:
    scores, judged = str(tmp_path / "scores.json"), str(tmp_path / "judged.json")
    assert main(["score", "--predictions", str(predictions["base-test"]), "--bootstrap", "0", "--out", scores]) == 0
    stored = json.loads(Path(scores).read_text())
    marks = {"score": 41.5, "criteria": {}, "spread": 0.0, "n": 7, "failed": {}}
    about = {"model_name": "j-1", "protocol": "pulse", "broken": [], "settings": stored["settings"]}
    controls = {"constant_report": {**marks, "score": 12.5}, "copy_reference": {**marks, "score": 97.5}}
    Path(judged).write_text(json.dumps({**about, "model": marks, **controls}))
    capsys.readouterr()
    assert main(["table", "--scores", f"m={scores}", "--judged", f"m={judged}"]) == 0
    table = capsys.readouterr().out
    for number in ("41.5", "12.5", "97.5", "j-1, protocol pulse"):
        assert number in table
    page = ["--predictions", f"m={predictions['base-test']}", "--pages", "1", "--out", str(tmp_path / "r.html")]
    assert main(["report", "--scores", f"m={scores}", "--judged", f"m={judged}", *page]) == 0
    assert "41.5" in (tmp_path / "r.html").read_text()
    assert main(["table", "--scores", f"m={scores}", "--judged", f"other={judged}"]) == 2
    Path(judged).write_text(json.dumps({**about, "model": marks, **controls, "settings": {}}))
    assert main(["table", "--scores", f"m={scores}", "--judged", f"m={judged}"]) == 2
    assert "judges other predictions" in capsys.readouterr().err
