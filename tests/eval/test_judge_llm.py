"""A language model as judge, against a real server on loopback that also misbehaves."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason='needs the extra "judge"')

from eval.judge_llm import Case, LlmJudge, LlmJudgeConfig, Pace, check_references, judge_reports
from eval.judge_prompts import PROTOCOLS
from eval.pages import page_of
from train.ecg import STYLES, open_source

GOOD = json.dumps({"diagnosis": 8, "waveform": 5, "rhythm": 10})
CASES = [
    Case(case_id=f"r{i}", reference=f"Sinus rhythm, rate {60 + i}.", candidate=f"Rate {60 + i}.") for i in range(3)
]


class Server(ThreadingHTTPServer):
    """Answers with the next of `script` while there is one, then well. A step is a status, a text, or seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Any] = []
        self.reply: Any = GOOD
        self.requests: list[dict[str, Any]] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(asked)
            step = self.server.script.pop(0) if self.server.script else None
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        if isinstance(step, float):
            time.sleep(step)
        text = self.server.reply(asked) if callable(self.server.reply) else self.server.reply
        content = step if isinstance(step, str) else text
        body = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        }  # fmt: skip
        status = step if isinstance(step, int) else 200
        raw = json.dumps(body if status == 200 else {"error": {"message": "no"}}).encode()
        if step == "<cut>":
            raw = raw[: len(raw) // 2]
        kind = "text/html" if step == "<html>" else "application/json"
        raw = {"<html>": b"<html>busy</html>", "<list>": b"[]"}.get(str(step), raw)
        with self.server.lock:
            self.server.now -= 1
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except OSError:
            self.close_connection = True  # the client stopped waiting


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    served = Server()
    thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def config(server: Server, tmp_path: Path) -> LlmJudgeConfig:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return LlmJudgeConfig(
        model="m", base_url=url, repeats=1, workers=2, backoff_seconds=0.001, timeout_seconds=20, cache=tmp_path / "c"
    )


# equation


def test_a_score_is_the_mean_of_the_criteria_out_of_100(server: Server, config: LlmJudgeConfig) -> None:
    result = judge_reports(config, CASES)
    assert result["model"]["score"] == pytest.approx(100 * 23 / 30)
    assert result["model"]["criteria"] == {"diagnosis": 8, "waveform": 5, "rhythm": 10}
    assert (result["model"]["n"], result["model"]["failed"], result["model"]["spread"]) == (3, {}, 0)
    assert len(server.requests) == 9  # three records, each with the answer and both controls


def test_controls_are_judged_beside_the_model(server: Server, config: LlmJudgeConfig) -> None:
    def by_content(asked: dict[str, Any]) -> str:
        text = asked["messages"][0]["content"][-1]["text"]
        reference, candidate = text.split("Reference report:\n")[1].split("\n\nGenerated report:\n")
        mark = 10 if reference == candidate else 0 if candidate == "Sinus rhythm. Normal ECG." else 6
        return json.dumps(dict.fromkeys(("diagnosis", "waveform", "rhythm"), mark))

    server.reply = by_content
    result = judge_reports(config, CASES)
    assert [result[k]["score"] for k in ("model", "constant_report", "copy_reference")] == pytest.approx([60, 0, 100])


def test_repeats_have_a_spread(server: Server, config: LlmJudgeConfig) -> None:
    server.script = [json.dumps(dict.fromkeys(("diagnosis", "waveform", "rhythm"), v)) for v in (2, 4)]
    result = judge_reports(replace(config, repeats=2, workers=1), CASES[:1])
    assert result["model"]["score"] == pytest.approx(30)
    assert result["model"]["spread"] == pytest.approx(10)


def test_the_papers_protocol_shows_the_page_and_pulses_does_not() -> None:
    with pytest.raises(ValueError, match="shows the page, and there is none"):
        PROTOCOLS["paper"].messages("a", "b", None)
    content = PROTOCOLS["paper"].messages("a", "b", b"png")[0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert [part["type"] for part in PROTOCOLS["pulse"].messages("a", "b", b"png")[0]["content"]] == ["text"]
    assert PROTOCOLS["paper"].score(dict.fromkeys(PROTOCOLS["paper"].criteria, 85.0)) == 85


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"diagnosis": 8, "wave', "no JSON"),
        ("[1, 2, 3]", "keys must be"),
        ('{"Diagnosis": 8, "waveform": 5, "rhythm": 10}', "keys must be"),
        ('{"diagnosis": 8, "waveform": 5}', "keys must be"),
        ('{"diagnosis": 11, "waveform": 5, "rhythm": 10}', "diagnosis=11 is not a number from 0 to 10"),
        ('{"diagnosis": "8", "waveform": 5, "rhythm": 10}', "is not a number"),
        ('{"diagnosis": true, "waveform": 5, "rhythm": 10}', "is not a number"),
        ('{"diagnosis": NaN, "waveform": 5, "rhythm": 10}', "is not a number"),
    ],
)
def test_a_reply_that_is_not_what_was_asked_for_has_no_marks(reply: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PROTOCOLS["pulse"].marks(reply)


# misbehaviour


@pytest.mark.parametrize(
    "step", [429, 500, 503, '{"diagnosis": 8, "wa', '{"other": 1}', "<cut>", "<html>", "<list>", ""]
)
def test_what_goes_wrong_once_is_tried_again(server: Server, config: LlmJudgeConfig, step: Any) -> None:
    server.script = [step, step]
    assert LlmJudge(config).judge(CASES[0], 0) == json.loads(GOOD)
    assert len(server.requests) == 3


def test_a_slow_answer_is_given_up_and_asked_again(server: Server, config: LlmJudgeConfig) -> None:
    server.script = [3.0]
    assert LlmJudge(replace(config, timeout_seconds=1.0)).judge(CASES[0], 0) == json.loads(GOOD)
    assert len(server.requests) >= 2


def test_what_always_goes_wrong_is_reported_and_the_rest_is_scored(server: Server, config: LlmJudgeConfig) -> None:
    server.reply = lambda asked: '{"refuses": 1}' if "rate 61" in asked["messages"][0]["content"][-1]["text"] else GOOD
    result = judge_reports(replace(config, max_attempts=2), CASES)
    assert list(result["model"]["failed"]) == ["r1"]
    assert "2 attempts failed, the last with malformed reply" in result["model"]["failed"]["r1"]
    assert result["model"]["n"] == 2
    assert not LlmJudge(config).cached(CASES[1], 0).exists()  # a failure is not kept


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refused_request_ends_the_run_at_once(server: Server, config: LlmJudgeConfig, status: int) -> None:
    server.script = [status] * 50
    with pytest.raises(RuntimeError, match="refuses the request"):
        judge_reports(replace(config, workers=1), CASES[:1])


# property


def test_a_second_run_asks_nothing_and_another_question_does(server: Server, config: LlmJudgeConfig) -> None:
    first = judge_reports(config, CASES)
    n = len(server.requests)
    again = judge_reports(config, CASES)
    assert len(server.requests) == n
    assert again["estimate"] == {"requests": 0, "tokens_in": 0, "tokens_out": 0, "usd": 0}
    assert again["model"] == first["model"]
    judge_reports(config, [replace(CASES[0], candidate="Another.")])
    assert len(server.requests) == n + 1  # both controls are known


def test_requests_overlap_and_stay_within_the_number_of_workers(server: Server, config: LlmJudgeConfig) -> None:
    server.script = [0.05] * 27
    judge_reports(replace(config, workers=3, repeats=3), CASES)
    assert 1 < server.most <= 3


def test_starts_keep_their_distance() -> None:
    pace = Pace(per_minute=60 / 0.02)
    began = time.monotonic()
    for _ in range(4):
        pace.wait()
    assert time.monotonic() - began >= 3 * 0.02


# refusal


def test_the_eight_broken_references_are_refused_by_name() -> None:
    by_name = replace(CASES[0], case_id="ptb-report-12941_hr-0")
    by_text = replace(CASES[1], reference="Sure, please provide the ECG report that you would like translated.")
    with pytest.raises(ValueError, match=r"2 references .*: ptb-report-12941_hr-0, r1"):
        check_references([by_name, by_text, CASES[2]])
    check_references([replace(CASES[0], case_id="ptb-report-07190_hr-0")])


def test_pulses_file_has_eight_of_them(shared: Path) -> None:
    path = shared / "data" / "pulse_ptb_report_generation_test_500.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    items = json.loads(path.read_text())
    cases = []
    for item in items:
        turns = item.get("conversation") or item["conversations"]
        golden = turns[-1].get("value", turns[-1].get("content"))
        cases.append(Case(case_id=item["id"], reference=golden, candidate=""))
    assert len(cases) == 500
    with pytest.raises(ValueError, match=r"^8 references"):
        check_references(cases)


def test_an_estimate_above_the_limit_starts_nothing(server: Server, config: LlmJudgeConfig) -> None:
    with pytest.raises(ValueError, match="above max_usd"):
        judge_reports(replace(config, usd_per_million_in=1e6, max_usd=1.0), CASES)
    assert server.requests == []


def test_a_missing_key_is_one_sentence(config: LlmJudgeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        LlmJudge(config)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="protocol='bleu' is not one of paper, pulse, arena"):
        LlmJudgeConfig(model="m", base_url="u", protocol="bleu")
    with pytest.raises(ValueError, match="requests_per_minute, backoff_seconds and max_usd must not be negative"):
        LlmJudgeConfig(model="m", base_url="u", requests_per_minute=-1)


def test_the_command_judges_a_predictions_file_with_its_pages(
    server: Server, config: LlmJudgeConfig, predictions: dict[str, Path], tmp_path: Path, capsys
) -> None:
    from eval.__main__ import main

    server.reply = json.dumps(dict.fromkeys(PROTOCOLS["paper"].criteria, 70))
    out = tmp_path / "judged.json"
    options = ["--llm.model", "m", "--llm.base-url", config.base_url, "--llm.cache", str(tmp_path / "cache")]
    options += ["--llm.protocol", "paper", "--llm.repeats", "1", "--out", str(out)]
    assert main(["judge-llm", "--predictions", str(predictions["base-test"]), *options]) == 0
    result = json.loads(out.read_text())
    assert (result["model"]["score"], result["model"]["n"]) == (70, 7)
    sent = {request["messages"][0]["content"][0]["image_url"]["url"].split(",")[1] for request in server.requests}
    shown = set()
    for i in range(7):  # the very pages that the model saw
        record = open_source("simulated", None, "test", n=7, seed=5)[i]
        file = io.BytesIO()
        page_of(record, STYLES["nano"]).image.save(file, "PNG")
        shown.add(base64.b64encode(file.getvalue()).decode())
    assert sent == shown
    assert main(["judge-llm", "--predictions", str(predictions["base-test"]), *options]) == 2  # nothing is overwritten
    server.reply, options[-1] = "no", str(tmp_path / "failed.json")
    options += ["--llm.protocol", "pulse", "--llm.max-attempts", "1"]
    assert main(["judge-llm", "--predictions", str(predictions["base-test"]), *options]) == 0
    assert "7 of 7 reports have a judgement that failed; sim-5-test-000000: 1 attempts" in capsys.readouterr().out
