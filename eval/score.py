"""predictions.jsonl -> scores.json: both protocols from scores and from words, report quality, trivial baselines.

Shapes: N records, L labels.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.answers import parse_protocol
from eval.bootstrap import bootstrap_intervals, mean_interval
from eval.choices import score_choices
from eval.judge import JUDGES, broken_reference, judged_pair, states_something
from eval.likelihood import SCORES
from eval.metrics import best_f1_thresholds, label_metrics
from eval.predict import read_predictions
from eval.pulse import label_set_metrics, labels_of_golden, labels_of_text
from eval.suites import SUITES, Suite, deciding_options
from train.ecg import LABEL_SETS, LabelSet

Line = dict[str, Any]
CONSTANT_REPORT = "Sinus rhythm. Normal ECG."
GROUPS = ("diagnostic", "form", "rhythm")  # of the statements


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What to score.

    Attributes:
        predictions: of the split that is reported.
        validation: predictions of the same model on the validation split, for the thresholds; without them
            only metrics of scores and words are reported.
        judge: of JUDGES.
        scores: which of the predicted scores to take, of eval.likelihood.SCORES.
        bootstrap: draws of patients behind every 95 % interval; 0 for no intervals.
        out: the file to write.
    """

    predictions: Path
    validation: Path | None = None
    judge: str = "rules"
    scores: str = "yes_no"
    bootstrap: int = 1000
    out: Path = Path("scores.json")

    def __post_init__(self) -> None:
        if self.judge not in JUDGES:
            raise ValueError(f"judge={self.judge!r} is not one of {', '.join(JUDGES)}")
        if self.scores not in SCORES:
            raise ValueError(f"scores={self.scores!r} is not one of {', '.join(SCORES)}")
        if self.bootstrap < 0:
            raise ValueError(f"bootstrap={self.bootstrap} draws must be 0 or more")


def truth_matrix(lines: Sequence[Line], protocol: str, label_set: LabelSet) -> np.ndarray:
    """Bool [N, L] of what the records carry."""
    field = "superclass" if protocol == "superclass" else "labels"
    return np.array([[code in line["truth"][field] for code in label_set.codes] for line in lines])


def score_matrix(lines: Sequence[Line], protocol: str, label_set: LabelSet, scores: str = "yes_no") -> np.ndarray:
    """Float [N, L] log-odds, or another of the predicted scores. A group's are those of the statements.

    Raises:
        ValueError: if the lines do not have them.
    """
    key, asked = SCORES[scores], "statements" if protocol in GROUPS else protocol
    if any(asked not in line.get(key, {}) for line in lines):
        raise ValueError(f"the predictions have no scores={scores}; make them with `eval predict --scores {scores}`")
    return np.array([[line[key][asked][code] for code in label_set.codes] for line in lines])


def text_matrix(lines: Sequence[Line], protocol: str, label_set: LabelSet) -> tuple[np.ndarray, int]:
    """Bool [N, L] of what the generated answers assert, and how many answered nothing (they assert nothing)."""
    task = "statements" if protocol in GROUPS else protocol
    parsed = [parse_protocol(line["texts"][task]["text"], protocol, label_set) for line in lines]
    unparsed = sum(codes is None for codes in parsed)
    return np.array([[code in (codes or ()) for code in label_set.codes] for codes in parsed]), unparsed


def eligible(lines: Sequence[Line], protocol: str) -> list[Line]:
    """Records of a protocol: labelled ones; for superclasses and groups those that have one, as PTB-XL's benchmark.

    Records of a published file whose golden answer cannot be read have no labels.
    """
    labelled = [line for line in lines if line["truth"]["labels"] is not None]
    if protocol in GROUPS:
        codes = set(LABEL_SETS[protocol].codes)
        return [line for line in labelled if codes & set(line["truth"]["labels"])]
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
    lines: Sequence[Line], validation: Sequence[Line] | None, protocol: str, suite: Suite, config: ScoreConfig
) -> dict[str, Any]:
    label_set, n_all, kind = suite.scored_sets[protocol], len(lines), config.scores
    lines = eligible(lines, protocol)
    if not lines:
        raise ValueError(f"no record has labels for the {protocol} protocol")
    y, scores = truth_matrix(lines, protocol, label_set), score_matrix(lines, protocol, label_set, kind)
    predicted = thresholds = None
    if validation is not None:
        held = eligible(validation, protocol)
        if not held:
            raise ValueError(f"no validation record has labels for the {protocol} protocol")
        thresholds = best_f1_thresholds(
            truth_matrix(held, protocol, label_set), score_matrix(held, protocol, label_set, kind)
        )
        predicted = scores >= thresholds
    patients = [line["patient_id"] for line in lines]

    def measured(p: np.ndarray | None, s: np.ndarray | None, t: np.ndarray | None = None) -> dict[str, Any]:
        metrics = label_metrics(y, p, s, label_set.codes, t, are_log_odds=True)
        if config.bootstrap:
            metrics["intervals"] = bootstrap_intervals(
                y, p, s, patients, label_set.codes, n_draws=config.bootstrap, are_log_odds=True
            )
        return metrics

    result = {"from_scores": measured(predicted, scores, thresholds), "n_left_out": n_all - len(lines)}
    if kind != "yes_no":  # likelihoods of names are no probabilities of labels
        undefined = {"brier": None, "ece": None}
        result["from_scores"] |= undefined
        if config.bootstrap:
            result["from_scores"]["intervals"]["means"] |= undefined
    task = "statements" if protocol in GROUPS else protocol
    if all(task in line["texts"] for line in lines):
        words, unparsed = text_matrix(lines, protocol, label_set)
        result["from_text"] = {**measured(words, None), "unparsed": unparsed}
        if protocol == "superclass" or suite.pulse_task:
            result["pulse"] = pulse_metrics(lines, protocol, suite.pulse_task)
    result["trivial"] = {
        name: _brief(label_metrics(y, p, p.astype(float), label_set.codes))
        for name, p in trivial_predictions(y, label_set, seed=0).items()
    }
    return result


def pulse_metrics(
    lines: Sequence[Line], protocol: str = "superclass", pulse_task: str = ""
) -> dict[str, float | None] | None:
    """What PULSE's released evaluation would print for the same answers, beside ours; see eval.pulse.

    Args:
        lines: with answers to the protocol's question.
        protocol: whose answers.
        pulse_task: reads the golden answers as PULSE does; without it the truth is the records' superclasses.

    Returns:
        None where PULSE's evaluation cannot score: no golden answer has a label.
    """
    truth = [line["truth"]["superclass"] for line in lines]
    if pulse_task:
        truth = [labels_of_golden(line["truth"]["answers"][-1], pulse_task) for line in lines]
    task = pulse_task or "ptb-test"
    answers = [labels_of_text(line["texts"][protocol]["text"], task) for line in lines]
    return label_set_metrics(truth, answers) if any(truth) else None


def _brief(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metrics[name] for name in ("macro_auc", "macro_f1", "hamming")}


def score_reports(lines: Sequence[Line], judge: str, n_draws: int = 0) -> dict[str, Any] | None:
    """Mean quality of the generated reports, and of two controls; None if there are no reports to compare.

    References that are no reports are left out, by name, and so are those that state nothing to be compared. The
    controls are one report for everybody, and the reference handed in as the answer.
    """
    whole = [(line, pair) for line in lines if (pair := judged_pair(line)) is not None and not broken_reference(line)]
    kept = [(line, pair) for line, pair in whole if states_something(pair[0])]
    told, pairs = [line for line, _ in kept], [pair for _, pair in kept]
    if not pairs:
        return None
    verdicts = [JUDGES[judge](reference, candidate) for reference, candidate in pairs]
    constant = [JUDGES[judge](reference, CONSTANT_REPORT).score for reference, _ in pairs]
    copied = [JUDGES[judge](reference, reference).score for reference, _ in pairs]
    marks, patients = [v.score for v in verdicts], [line["patient_id"] for line in told]
    return {
        "judge": judge,
        "n": len(pairs),
        "n_silent": len(whole) - len(kept),
        "broken": [line.get("item", line["id"]) for line in lines if broken_reference(line)],
        "score": float(np.mean(marks)),
        "interval": mean_interval(marks, patients, n_draws=n_draws) if n_draws else None,
        "criteria": {name: float(np.mean([v.criteria[name] for v in verdicts])) for name in verdicts[0].criteria},
        "constant_report": float(np.mean(constant)),
        "copy_reference": float(np.mean(copied)),
    }


def count_cut_off(lines: Sequence[Line]) -> dict[str, int]:
    """How many answers of each task ended at the limit of tokens and not by themselves; only tasks with some."""
    told = [(task, turn) for line in lines for task, one in line["texts"].items() for turn in one.get("turns", [one])]
    return dict(Counter(task for task, turn in told if not turn.get("ended", True)))


def _settings(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".config.json").read_text())


def _read_once(path: Path) -> list[Line]:
    """All lines of a predictions file, in which no record stands twice."""
    lines = read_predictions(path)
    if twice := [name for name, n in Counter(line["id"] for line in lines).items() if n > 1]:
        raise ValueError(f"{path}: {len(twice)} records stand there more than once, such as {twice[0]}")
    return lines


def check_comparable(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a table over different records.

    Raises:
        ValueError: if suite, split, n, seed or options are not the same, or a file of predictions was not finished.
    """
    keys = ("suite", "split", "n", "seed", "root")
    seen = {
        name: (*(s["settings"][key] for key in keys), *deciding_options(s["settings"]), s["n_records"])
        for name, s in models.items()
    }
    if len(set(seen.values())) > 1:
        raise ValueError(f"scored on different records: {seen}")


def check_validation(path: Path, held: Sequence[Line], lines: Sequence[Line], settings: Mapping[str, Any]) -> None:
    """Refuse predictions that are no source of thresholds for others.

    Args:
        path: of the validation predictions.
        held: their lines.
        lines, settings: of what is reported.

    Raises:
        ValueError: if they are of another model, of patients that are reported, or of those that train it.
    """
    other = _settings(path)
    differing = [k for k in ("model", "adapter", "suite", "page", "semantics") if other[k] != settings[k]]
    if deciding_options(other) != deciding_options(settings):
        differing.append("choice of options")
    if differing:
        raise ValueError(f"{path} was made with another {', '.join(differing)}: no source of thresholds")
    if other["split"] == "train":
        raise ValueError(f"{path} is of the split that trains a model: no source of thresholds")
    if shared := {line["patient_id"] for line in lines} & {line["patient_id"] for line in held}:
        raise ValueError(f"{len(shared)} patients stand in both files, such as {min(shared)}")


def score(config: ScoreConfig) -> dict[str, Any]:
    """Score a predictions file, and write the result.

    Raises:
        FileExistsError: if the output is there already.
        ValueError: if a record stands in a file twice, or as `check_validation`.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    lines, settings = _read_once(config.predictions), _settings(config.predictions)
    validation = None
    if config.validation is not None:
        validation = _read_once(config.validation)
        check_validation(config.validation, validation, lines, settings)
    suite = SUITES[settings["suite"]]
    result = {
        "settings": settings,
        "n_records": len(lines),
        "n_validation": None if validation is None else len(validation),
        "scores": config.scores,
        "size_note": suite.size_note(len(lines), settings["split"], settings["n"]),
        "synthetic": suite.synthetic,
        "cut_off": count_cut_off(lines),
        "protocols": {name: _score_protocol(lines, validation, name, suite, config) for name in suite.scored_sets},
        "report": score_reports(lines, config.judge, config.bootstrap),
        "choices": score_choices(lines, suite, config.bootstrap) if suite.own in ("choice", "qa") else None,
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    return result
