"""A language model's marks of reports (`python -m eval judge-llm`) in the tables, in the place of the rules'."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eval.report import ReportConfig, named_paths, write_report


def attach_judged(scores: Mapping[str, Mapping[str, Any]], judged: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Put the marks of judged.json files beside the scores of the same names; see eval.tables.report_of.

    Args:
        scores: contents of scores.json, by name.
        judged: files of `judge-llm`, by name; all models or none.

    Raises:
        ValueError: if names differ, or marks are of other predictions, of another judge or protocol than the others.
    """
    found = {name: dict(values) for name, values in scores.items()}
    if not judged:
        return found
    if judged.keys() != scores.keys():
        raise ValueError(f"--judged names {', '.join(judged)}, but --scores {', '.join(scores)}")
    judges = set()
    for name, path in judged.items():
        marks = json.loads(path.read_text())
        if marks["settings"] != scores[name]["settings"]:
            raise ValueError(f"{path} judges other predictions than those that {name} was scored on")
        judge = f"{marks['model_name']}, protocol {marks['protocol']}"
        judges.add(judge)
        model = marks["model"]
        found[name]["judged"] = {
            "judge": judge,
            "n": model["n"],
            "score": model["score"],
            "spread": model["spread"],
            "interval": None,
            "criteria": model["criteria"],
            "constant_report": marks["constant_report"]["score"],
            "copy_reference": marks["copy_reference"]["score"],
            "broken": marks["broken"],
            "failed": len(model["failed"]),
        }
    if len(judges) > 1:
        raise ValueError(f"judged by different judges: {'; '.join(sorted(judges))}")
    return found


def read_scores(scores: tuple[str, ...], judged: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Contents of scores.json files with the marks of judged.json files, both as name=file.

    Raises:
        ValueError, FileNotFoundError: as eval.report.named_paths and `attach_judged`; if a file has no scores.
    """
    paths = named_paths(scores, "scores")
    models = {name: json.loads(path.read_text()) for name, path in paths.items()}
    if wrong := [str(paths[name]) for name, found in models.items() if "protocols" not in found]:
        raise ValueError(f"--scores: {', '.join(wrong)} was not written by `eval score`")
    return attach_judged(models, named_paths(judged, "judged"))


@dataclass(frozen=True, kw_only=True)
class JudgedReportConfig(ReportConfig):
    """What to report.

    Attributes:
        judged: judged.json files of `judge-llm`, by the same names: their marks stand in the tables.
    """

    judged: tuple[str, ...] = ()


def write_judged_report(config: JudgedReportConfig) -> Path:
    """Write the report, with a language model's marks if there are any."""
    with TemporaryDirectory() as folder:
        pairs = []
        for i, (name, scores) in enumerate(read_scores(config.scores, config.judged).items()):
            path = Path(folder) / f"{i}.json"
            path.write_text(json.dumps(scores))
            pairs.append(f"{name}={path}")
        return write_report(replace(config, scores=tuple(pairs)))
