"""python -m eval judge-llm --predictions FILE: a language model's marks of all generated reports in a file."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from eval.benchmark_files import AskedRecord
from eval.judge import broken_reference, judged_pair
from eval.judge_llm import Case, LlmJudgeConfig, judge_reports
from eval.judge_prompts import PROTOCOLS
from eval.pages import page_of
from eval.predict import read_predictions
from eval.suites import SUITES
from minimllama.console import say
from train.ecg import STYLES


@dataclass(frozen=True, kw_only=True)
class JudgeRunConfig:
    """What is judged by whom.

    Attributes:
        predictions: a file of `eval predict` with generated reports.
        llm: the judge.
        root: the suite's folder, if the protocol shows pages and the suite has one.
        out: the file to write.
    """

    predictions: Path
    llm: LlmJudgeConfig
    root: str | None = None
    out: Path = Path("judged.json")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _pages(config: JudgeRunConfig, settings: dict[str, Any], lines: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """The very pages that the model saw: of its style, with its distortion; published pictures as they are."""
    styles = {line["id"]: line.get("about", {}).get("page") for line in lines}
    root = config.root or settings["root"]
    options = settings.get("options", ())
    source = SUITES[settings["suite"]].open(root, settings["split"], settings["n"], settings["seed"], options)
    pages = {}
    for record in (source[i] for i in range(len(source))):
        if record.record_id not in styles:
            continue
        if isinstance(record, AskedRecord):
            pages[record.record_id] = _png(record.image)
        else:
            page = page_of(record, STYLES[styles[record.record_id] or "wide"], settings.get("distort", "clean"))
            pages[record.record_id] = _png(page.image)
    return pages


def run_judge(config: JudgeRunConfig) -> Path:
    """Judge the reports of a predictions file and write the result.

    Raises:
        FileExistsError: if the output is there already.
        ValueError: if the file has no reports, or as eval.judge_llm.judge_reports.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    settings = json.loads(config.predictions.with_suffix(".config.json").read_text())
    lines = read_predictions(config.predictions)
    broken = [line for line in lines if broken_reference(line)]
    if broken:
        names = [line["item"] for line in broken]
        say(f"{len(broken)} references are a chatbot's question, not a report, and left out: {', '.join(names)}")
    told = [line for line in lines if judged_pair(line) is not None and line not in broken]
    pages = _pages(config, settings, told) if PROTOCOLS[config.llm.protocol].sees_page else {}
    cases = []
    for line in told:
        pair = judged_pair(line, with_questions=True)
        assert pair is not None
        case_id, page = line.get("item", line["id"]), pages.get(line["id"])
        cases.append(Case(case_id=case_id, reference=pair[0], candidate=pair[1], page=page))
    result = {"settings": settings, "broken": [line["item"] for line in broken], **judge_reports(config.llm, cases)}
    if failed := result["model"]["failed"]:
        say(f"{len(failed)} of {len(cases)} reports have a judgement that failed; {next(iter(failed.values()))}")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    return config.out
