"""predictions.jsonl -> scores.json: both protocols from scores and from words, report quality, trivial baselines.

Shapes: N records, L labels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.answers import parse_labels
from eval.bootstrap import bootstrap_intervals, mean_interval
from eval.judge import JUDGES
from eval.metrics import best_f1_thresholds, label_metrics
from eval.predict import read_predictions
from eval.pulse import label_set_metrics, labels_of_text
from eval.suites import SUITES
from train.ecg import LabelSet

Line = dict[str, Any]
CONSTANT_REPORT = "Sinus rhythm. Normal ECG."


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score.

    Attributes:
        predictions: of the split that is reported.
        validation: predictions of the same model on the validation split, for the thresholds; without them
            only metrics of scores and words are reported.
        judge: of JUDGES.
        bootstrap: draws of patients behind every 95 % interval; 0 for no intervals.
        out: the file to write.
    """

    predictions: Path
    validation: Path | None = None
    judge: str = "rules"
    bootstrap: int = 1000
    out: Path = Path("scores.json")

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise ValueError(f"judge={self.judge!r} is not one of {', '.join(JUDGES)}")
        if self.bootstrap < 0:
            raise ValueError(f"bootstrap={self.bootstrap} draws must be 0 or more")


def truth_matrix(lines: Sequence[Line], protocol: str, label_set: LabelSet) -> np.ndarray:
    """Bool [N, L] of what the records carry."""
    field = "superclass" if protocol == "superclass" else "labels"
    return np.array([[code in line["truth"][field] for code in label_set.codes] for line in lines])


def score_matrix(lines: Sequence[Line], protocol: str, label_set: LabelSet) -> np.ndarray:
    """Float [N, L] log-odds."""
    return np.array([[line["log_odds"][protocol][code] for code in label_set.codes] for line in lines])


def text_matrix(lines: Sequence[Line], protocol: str, label_set: LabelSet) -> tuple[np.ndarray, int]:
    """Bool [N, L] of what the generated answers assert, and how many answered nothing (they assert nothing)."""
    parsed = [parse_labels(line["texts"][protocol]["text"], label_set) for line in lines]
    unparsed = sum(codes is None for codes in parsed)
    return np.array([[code in (codes or ()) for code in label_set.codes] for codes in parsed]), unparsed


def eligible(lines: Sequence[Line], protocol: str) -> list[Line]:
    """Records of a protocol: labelled ones, and for the superclasses those that have one (as PTB-XL's benchmark)."""
    labelled = [line for line in lines if line["truth"]["labels"] is not None]
    return [line for line in labelled if protocol != "superclass" or line["truth"]["superclass"]]


def trivial_predictions(y: np.ndarray, label_set: LabelSet, seed: int) -> dict[str, np.ndarray]:
    """What no model is needed for: say nothing, call everything normal, toss coins.

    The prevalence coin falls on a label as often as the reported records carry it.
    """
    normal = np.zeros_like(y)
    for code in ("NORM", "SR"):
        if code in label_set.codes:
            normal[:, label_set.codes.index(code)] = True
    toss = np.random.default_rng(seed).random(y.shape)
    coins = {"prevalence coin": toss < y.mean(0), "fair coin": toss < 0.5}
    return {"nothing": np.zeros_like(y), "all normal": normal, **coins}


def _score_protocol(
    lines: Sequence[Line], validation: Sequence[Line] | None, protocol: str, suite: str, n_draws: int
) -> dict[str, Any]:
    label_set = SUITES[suite].label_sets[protocol]
    lines = eligible(lines, protocol)
    if not lines:
        raise ValueError(f"no record has labels for the {protocol} protocol")
    y, scores = truth_matrix(lines, protocol, label_set), score_matrix(lines, protocol, label_set)
    predicted = thresholds = None
    if validation is not None:
        held = eligible(validation, protocol)
        if not held:
            raise ValueError(f"no validation record has labels for the {protocol} protocol")
        thresholds = best_f1_thresholds(
            truth_matrix(held, protocol, label_set), score_matrix(held, protocol, label_set)
        )
        predicted = scores >= thresholds
    patients = [line["patient_id"] for line in lines]

    def measured(p: np.ndarray | None, s: np.ndarray | None, t: np.ndarray | None = None) -> dict[str, Any]:
        metrics = label_metrics(y, p, s, label_set.codes, t)
        if n_draws:
            metrics["intervals"] = bootstrap_intervals(y, p, s, patients, label_set.codes, n_draws=n_draws)
        return metrics

    result = {"from_scores": measured(predicted, scores, thresholds)}
    if all(protocol in line["texts"] for line in lines):
        words, unparsed = text_matrix(lines, protocol, label_set)
        result["from_text"] = {**measured(words, None), "unparsed": unparsed}
        if protocol == "superclass":
            result["pulse"] = pulse_metrics(lines)
    result["trivial"] = {
        name: _brief(label_metrics(y, p, p.astype(float), label_set.codes))
        for name, p in trivial_predictions(y, label_set, seed=0).items()
    }
    return result


def pulse_metrics(lines: Sequence[Line]) -> dict[str, float | None]:
    """What PULSE's released evaluation would print for the same answers, beside ours; see eval.pulse."""
    truth = [line["truth"]["superclass"] for line in lines]
    return label_set_metrics(truth, [labels_of_text(line["texts"]["superclass"]["text"], "ptb-test") for line in lines])


def _brief(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("macro_auc", "macro_f1", "hamming")}


def score_reports(lines: Sequence[Line], judge: str, n_draws: int = 0) -> dict[str, Any] | None:
    """Mean quality of the generated reports, and of two controls; None if there are no reports to compare.

    The controls are one report for everybody, and the reference handed in as the answer.
    """
    told = [line for line in lines if "report" in line["texts"] and line["truth"]["report"]]
    pairs = [(line["truth"]["report"], line["texts"]["report"]["text"]) for line in told]
    if not pairs:
        return None
    verdicts = [JUDGES[judge](reference, candidate) for reference, candidate in pairs]
    constant = [JUDGES[judge](reference, CONSTANT_REPORT).score for reference, _ in pairs]
    copied = [JUDGES[judge](reference, reference).score for reference, _ in pairs]
    marks, patients = [v.score for v in verdicts], [line["patient_id"] for line in told]
    return {
        "judge": judge,
        "n": len(pairs),
        "score": float(np.mean(marks)),
        "interval": mean_interval(marks, patients, n_draws=n_draws) if n_draws else None,
        "criteria": {name: float(np.mean([v.criteria[name] for v in verdicts])) for name in verdicts[0].criteria},
        "constant_report": float(np.mean(constant)),
        "copy_reference": float(np.mean(copied)),
    }


def _settings(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".config.json").read_text())


def score(config: ScoreConfig) -> dict[str, Any]:
    """Score a predictions file, and write the result.

    Raises:
        FileExistsError: if the output is there already.
        ValueError: if the validation predictions are of another model or overlap the reported records.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    lines, settings = read_predictions(config.predictions), _settings(config.predictions)
    validation = None
    if config.validation is not None:
        validation = read_predictions(config.validation)
        other = _settings(config.validation)
        if differing := [k for k in ("model", "adapter", "suite", "page", "semantics") if other[k] != settings[k]]:
            raise ValueError(
                f"{config.validation} was made with another {', '.join(differing)}: no source of thresholds"
            )
        if shared := {line["patient_id"] for line in lines} & {line["patient_id"] for line in validation}:
            raise ValueError(f"{len(shared)} patients stand in both files, such as {min(shared)}")
    suite = settings["suite"]
    result = {
        "settings": settings,
        "n_records": len(lines),
        "n_validation": None if validation is None else len(validation),
        "synthetic": SUITES[suite].synthetic,
        "protocols": {
            name: _score_protocol(lines, validation, name, suite, config.bootstrap) for name in SUITES[suite].label_sets
        },
        "report": score_reports(lines, config.judge, config.bootstrap),
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    return result
