"""Reports judged by a language model behind any OpenAI-compatible endpoint.

The key is read by the client from OPENAI_API_KEY. Every valid reply is kept by the content of its question, so that a
second run costs nothing. Two controls are always judged beside the model: one report for everybody, and the reference
handed in as the answer. Needs `pip install "minimllama[judge]"`.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.judge import is_broken
from eval.judge_local import LOCAL, LocalJudge
from eval.judge_prompts import PROTOCOLS
from eval.pace import Pace
from minimllama.console import Progress, say

CONSTANT_REPORT = "Sinus rhythm. Normal ECG."
PAGE_TOKENS = 1500  # assumed of an image in the estimate; services count differently


@dataclass(frozen=True, kw_only=True)
class Case:
    """One report to judge. `page` is a PNG, for protocols that show it."""

    case_id: str
    reference: str
    candidate: str
    page: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class LlmJudgeConfig:
    """Who judges, and how.

    Attributes:
        model: the judge's name at the endpoint; name an exact version, since the number depends on it.
        base_url: of the endpoint, such as http://localhost:8000/v1; "local" for a model of ours without a server,
            whose folder (or "nano") `model` is.
        protocol: "paper" or "pulse".
        repeats: how often each report is judged; the spread over repeats is reported.
        workers: requests under way at once.
        requests_per_minute: at most; 0 for no limit.
        max_attempts: per judgement, before it is reported as failed.
        backoff_seconds: before the second attempt; doubled for each further one.
        timeout_seconds: per request.
        temperature, max_tokens: of the judge.
        usd_per_million_in, usd_per_million_out: prices, for the estimate.
        max_usd: refuse to start above this estimate; 0 for no limit.
        cache: folder of replies.
    """

    model: str
    base_url: str
    protocol: str = "pulse"
    repeats: int = 3
    workers: int = 8
    requests_per_minute: float = 0.0
    max_attempts: int = 5
    backoff_seconds: float = 1.0
    timeout_seconds: float = 60.0
    temperature: float = 0.0
    max_tokens: int = 300
    usd_per_million_in: float = 0.0
    usd_per_million_out: float = 0.0
    max_usd: float = 0.0
    cache: Path = Path("runs/judge_cache")

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if min(self.repeats, self.workers, self.max_attempts) < 1:
            raise ValueError(f"repeats={self.repeats}, workers={self.workers}, max_attempts={self.max_attempts}: >= 1")
        if min(self.requests_per_minute, self.backoff_seconds, self.max_usd) < 0:
            raise ValueError("requests_per_minute, backoff_seconds and max_usd must not be negative")


class RefusedError(RuntimeError):
    """The endpoint takes no request of this kind, so none of the others either."""


def check_references(cases: Sequence[Case]) -> None:
    """Refuse references that are no reports.

    Raises:
        ValueError: naming them.
    """
    broken = [case.case_id for case in cases if is_broken(case.case_id, case.reference)]
    if broken:
        raise ValueError(f"{len(broken)} references are a chatbot's question, not a report: {', '.join(broken)}")


class LlmJudge:
    """A judge: `judge(case, repeat)` is its marks. Safe to call from several threads."""

    def __init__(self, config: LlmJudgeConfig) -> None:
        self._pace = Pace(config.requests_per_minute)
        self.config, self.protocol = config, PROTOCOLS[config.protocol]
        self._local = None
        if config.base_url == LOCAL:
            self._local = LocalJudge(config.model, config.temperature, config.max_tokens)
            return
        import openai

        try:
            self._client = openai.OpenAI(
                base_url=config.base_url, timeout=config.timeout_seconds, max_retries=0
            )  # retries are ours, so that they are counted and malformed replies are among them
        except openai.OpenAIError as error:
            raise ValueError(f"{error}; a local server takes any value of OPENAI_API_KEY") from error
        self._openai = openai

    def _request(self, case: Case) -> dict[str, Any]:
        return {
            "model": self.config.model,
            "messages": self.protocol.messages(case.reference, case.candidate, case.page),
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            "response_format": {"type": "json_object"},
        }

    def cached(self, case: Case, repeat: int) -> Path:
        """Where the reply is kept: named by the content of the question, the endpoint and the repeat."""
        question = json.dumps([self.config.base_url, self.config.protocol, repeat, self._request(case)], sort_keys=True)
        return self.config.cache / f"{hashlib.sha256(question.encode()).hexdigest()}.json"

    def judge(self, case: Case, repeat: int) -> dict[str, float]:
        """Marks of one report.

        Raises:
            RuntimeError: after max_attempts, with what went wrong at the last one.
            RefusedError: at once, if the endpoint refuses the request itself (400, 401, 404).
        """
        path = self.cached(case, repeat)
        if path.is_file():
            return self.protocol.marks(json.loads(path.read_text())["reply"])
        if self._local is not None:
            return self._judge_here(self._local, path, case, repeat)
        problem = ""
        for attempt in range(self.config.max_attempts):
            self._pace.wait()
            wait = self.config.backoff_seconds * 2**attempt
            try:
                response = self._client.chat.completions.create(**self._request(case))
                reply = response.choices[0].message.content or ""
                marks = self.protocol.marks(reply)
                self._keep(path, reply, response.usage)
                return marks
            except (ValueError, IndexError, TypeError, AttributeError) as error:  # half an answer, a page of HTML, ...
                problem = f"malformed reply: {error}"
            except self._openai.APIStatusError as error:
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise RefusedError(f"{self.config.base_url} refuses the request: {error}") from error
                problem, wait = f"HTTP {error.status_code}", max(wait, _retry_after(error))
            except self._openai.OpenAIError as error:
                problem = f"{type(error).__name__}: {error}"
            if attempt + 1 < self.config.max_attempts:
                time.sleep(wait)
        raise RuntimeError(f"{case.case_id}: {self.config.max_attempts} attempts failed, the last with {problem}")

    def _judge_here(self, judge: LocalJudge, path: Path, case: Case, repeat: int) -> dict[str, float]:
        """One answer of our own model; a greedy one would be the same at a second attempt."""
        attempts = self.config.max_attempts if self.config.temperature else 1
        problem = ""
        for attempt in range(attempts):
            reply = judge.reply(self._request(case)["messages"], seed=1000 * repeat + attempt)
            try:
                marks = self.protocol.marks(reply)
            except ValueError as error:
                problem = f"malformed reply: {error}"
                continue
            self._keep(path, reply, None)
            return marks
        raise RuntimeError(f"{case.case_id}: {attempts} attempts failed, the last with {problem}")

    def _keep(self, path: Path, reply: str, usage: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{threading.get_ident()}")
        kept = {"reply": reply, "model": self.config.model, "usage": usage.model_dump() if usage else None}
        partial.write_text(json.dumps(kept))
        os.replace(partial, path)


def _retry_after(error: Any) -> float:
    try:
        return float(error.response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0


def estimate(judge: LlmJudge, tasks: Sequence[tuple[Case, int]]) -> dict[str, float]:
    """Requests that are not kept yet, and about what they cost (four characters to a token).

    Returns:
        `requests`, `tokens_in`, `tokens_out`, `usd`.
    """
    config, open_tasks = judge.config, [task for task in tasks if not judge.cached(*task).is_file()]
    tokens_in = 0.0
    for case, _ in open_tasks:
        text = judge.protocol.messages(case.reference, case.candidate, case.page)[0]["content"][-1]["text"]
        tokens_in += len(text) / 4 + PAGE_TOKENS * judge.protocol.sees_page
    tokens_out = 15.0 * len(judge.protocol.criteria) * len(open_tasks)
    usd = (tokens_in * config.usd_per_million_in + tokens_out * config.usd_per_million_out) / 1e6
    return {"requests": len(open_tasks), "tokens_in": tokens_in, "tokens_out": tokens_out, "usd": usd}


def judge_reports(config: LlmJudgeConfig, cases: Sequence[Case]) -> dict[str, Any]:
    """Judge reports and both controls.

    Returns:
        The config's judge, model and protocol, `estimate`, and for "model", "constant_report" and "copy_reference":
        `score` (0-100, mean over the records that were judged), `criteria`, `spread` (standard deviation over repeats,
        mean over records), `n`, `failed` {id: why}.

    Raises:
        ValueError: for broken references, no case, or an estimate above max_usd.
        RefusedError: if the endpoint refuses requests.
    """
    if not cases:
        raise ValueError("there is no report to judge")
    check_references(cases)
    judge = LlmJudge(config)

    def answering(kind: Callable[[Case], str]) -> list[Case]:
        return [Case(case_id=c.case_id, reference=c.reference, candidate=kind(c), page=c.page) for c in cases]

    groups = {
        "model": list(cases),
        "constant_report": answering(lambda case: CONSTANT_REPORT),
        "copy_reference": answering(lambda case: case.reference),
    }
    tasks = [(case, repeat) for group in groups.values() for case in group for repeat in range(config.repeats)]
    cost = estimate(judge, tasks)
    say(f"judge {config.model}: {cost['requests']:.0f} of {len(tasks)} requests, about {cost['usd']:.2f} USD")
    if config.max_usd and cost["usd"] > config.max_usd:
        raise ValueError(f"the estimate of {cost['usd']:.2f} USD is above max_usd={config.max_usd}")
    replies = _ask_all(judge, tasks)
    size = len(cases) * config.repeats
    result = {
        name: _summary(judge, group, replies[i * size : (i + 1) * size])
        for i, (name, group) in enumerate(groups.items())
    }
    about = {"judge": "llm", "model_name": config.model, "protocol": config.protocol, "repeats": config.repeats}
    return {**about, "estimate": cost, **result}


def _ask_all(judge: LlmJudge, tasks: Sequence[tuple[Case, int]]) -> list[dict[str, float] | str]:
    """Marks of every task in order, or why there are none."""
    progress, done, lock = Progress(), [0], threading.Lock()

    def one(task: tuple[Case, int]) -> dict[str, float] | str:
        try:
            answer: dict[str, float] | str = judge.judge(*task)
        except RefusedError:
            raise
        except RuntimeError as error:
            answer = str(error)
        with lock:
            done[0] += 1
            progress.show(f"judged {done[0]}/{len(tasks)}", last=done[0] == len(tasks))
        return answer

    with ThreadPoolExecutor(judge.config.workers) as pool:
        return list(pool.map(one, tasks))


def _summary(judge: LlmJudge, cases: Sequence[Case], replies: Sequence[dict[str, float] | str]) -> dict[str, Any]:
    k = judge.config.repeats
    failed: dict[str, str] = {}
    scores, spreads, marks = [], [], []
    for i, case in enumerate(cases):
        given = [reply for reply in replies[i * k : (i + 1) * k] if isinstance(reply, dict)]
        problems = [reply for reply in replies[i * k : (i + 1) * k] if isinstance(reply, str)]
        if problems:
            failed[case.case_id] = problems[-1]
        if given:
            own = [judge.protocol.score(one) for one in given]
            scores.append(float(np.mean(own)))
            spreads.append(float(np.std(own)))
            marks += given
    mean = {key: float(np.mean([one[key] for one in marks])) if marks else None for key in judge.protocol.criteria}
    return {
        "score": float(np.mean(scores)) if scores else None,
        "criteria": mean,
        "spread": float(np.mean(spreads)) if spreads else None,
        "n": len(scores),
        "failed": failed,
    }
