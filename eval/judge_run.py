"""python -m eval judge-llm --predictions FILE: a language model's marks of all generated reports in a file."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eval.judge_llm import Case, LlmJudgeConfig, judge_reports
from eval.judge_prompts import PROTOCOLS
from eval.predict import read_predictions
from eval.suites import SUITES
from train.ecg import STYLES, draw_page


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


def _pages(config: JudgeRunConfig, wanted: set[str]) -> dict[str, bytes]:
    """The pages of some records, drawn on the wide style."""
    settings = json.loads(config.predictions.with_suffix(".config.json").read_text())
    root = config.root or settings["root"]
    source = SUITES[settings["suite"]].open(root, settings["split"], settings["n"], settings["seed"])
    records = (source[i] for i in range(len(source)))
    return {
        record.record_id: _png(draw_page(record, STYLES["wide"], np.random.default_rng(0)).image)
        for record in records
        if record.record_id in wanted
    }


def run_judge(config: JudgeRunConfig) -> Path:
    """Judge the reports of a predictions file and write the result.

    Raises:
        FileExistsError: if the output is there already.
        ValueError: if the file has no reports, or as eval.judge_llm.judge_reports.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    told = [x for x in read_predictions(config.predictions) if "report" in x["texts"] and x["truth"]["report"]]
    pages = _pages(config, {line["id"] for line in told}) if PROTOCOLS[config.llm.protocol].sees_page else {}
    cases = [
        Case(
            case_id=line["id"],
            reference=line["truth"]["report"],
            candidate=line["texts"]["report"]["text"],
            page=pages.get(line["id"]),
        )
        for line in told
    ]
    result = judge_reports(config.llm, cases)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    return config.out
