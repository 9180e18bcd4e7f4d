"""Report quality from 0 to 100. One judge works offline and is always there: `rules`.

`rules` compares what two reports state, in the three criteria of PULSE's judge (its evaluation/prompts.py), 0
to 10 each:

- diagnosis: F1 of the diagnostic statements;
- waveform: mean of the F1 of the form statements and of the agreement of PR, QRS, QT, QTc and axis;
- rhythm: mean of the F1 of the rhythm statements and of the agreement of the rate.

Two reports that both name nothing agree (F1 = 1). A number agrees fully within its tolerance and not at all
beyond three times that; one that the reference states and the candidate does not disagrees. A mean leaves out
numbers that the reference does not state. The score is the mean of the criteria times 10. It measures
agreement of statements, not style.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eval.answers import parse_labels, parse_measurements
from train.ecg.labels import LABEL_SETS

# Within these a second reader would not call it a difference: 1/min, ms, degrees.
TOLERANCE = {"heart_rate": 5.0, "pr": 20.0, "qrs": 15.0, "qt": 30.0, "qtc": 30.0, "axis": 20.0}
WAVEFORM = ("pr", "qrs", "qt", "qtc", "axis")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judge's opinion of one report.

    Attributes:
        score: 0 to 100.
        criteria: by name, 0 to 10.
    """

    score: float
    criteria: dict[str, float]


def f1_of_sets(reference: set[str], candidate: set[str]) -> float:
    """2 |A and B| / (|A| + |B|); 1 if both are empty."""
    if not reference and not candidate:
        return 1.0
    return 2 * len(reference & candidate) / (len(reference) + len(candidate))


def agreement(name: str, reference: float, candidate: float | None) -> float:
    """1 within the tolerance of this measurement, falling to 0 at three times that; 0 if it is not stated."""
    if candidate is None:
        return 0.0
    difference = abs(reference - candidate)
    if name == "axis":
        difference = min(difference % 360, 360 - difference % 360)
    return min(1.0, max(0.0, 1.5 - difference / (2 * TOLERANCE[name])))


def _numbers(names: tuple[str, ...], reference: dict[str, float], candidate: dict[str, float]) -> list[float]:
    return [agreement(name, reference[name], candidate.get(name)) for name in names if name in reference]


def _criterion(labels: float, numbers: list[float]) -> float:
    parts = [labels] + ([sum(numbers) / len(numbers)] if numbers else [])
    return 10 * sum(parts) / len(parts)


def judge_by_rules(reference: str, candidate: str) -> Verdict:
    """Compare two reports; see the top of this file."""
    ours, theirs = parse_measurements(reference), parse_measurements(candidate)

    def f1(kind: str) -> float:
        label_set = LABEL_SETS[kind]
        return f1_of_sets(parse_labels(reference, label_set) or set(), parse_labels(candidate, label_set) or set())

    criteria = {
        "diagnosis": _criterion(f1("diagnostic"), []),
        "waveform": _criterion(f1("form"), _numbers(WAVEFORM, ours, theirs)),
        "rhythm": _criterion(f1("rhythm"), _numbers(("heart_rate",), ours, theirs)),
    }
    return Verdict(score=10 * sum(criteria.values()) / len(criteria), criteria=criteria)


def states_something(report: str) -> bool:
    """Whether a report has a statement or a number that `rules` compares; without, every answer would agree with it."""
    labels = (parse_labels(report, LABEL_SETS[kind]) for kind in ("diagnostic", "form", "rhythm"))
    return bool(parse_measurements(report)) or any(found is not None for found in labels)


# References of PULSE's 500 that are a chatbot's "please provide the ECG report"; a judge cannot grade against them.
BROKEN_REFERENCES = ("12941", "09740", "06353", "09110", "03805", "16239", "10743", "08880")


def is_broken(case_id: str, reference: str) -> bool:
    """Whether a reference is a chatbot's question and not a report, by its words or by its published name."""
    asks = reference.strip().lower().startswith("sure, please provide")
    return asks or (case_id.startswith("ptb-report-") and case_id[11:16] in BROKEN_REFERENCES)


def broken_reference(line: Mapping[str, Any]) -> bool:
    """Whether a line of predictions has such a reference."""
    return is_broken(str(line.get("item", "")), line["truth"]["report"] or "")


def judged_pair(line: Mapping[str, Any], *, with_questions: bool = False) -> tuple[str, str] | None:
    """(reference, candidate) of a line of predictions: its reports, or the answers of its dialog (suite arena).

    Args:
        line: of a predictions file.
        with_questions: put the dialog's questions before the answers on both sides.

    Returns:
        None if there is nothing to judge.
    """
    if "arena" in line["texts"]:
        told, truth = line["texts"]["arena"], line["truth"]
        candidates = [turn["text"] for turn in told.get("turns", [told])]
        both = [_dialog(truth["questions"], answers, with_questions) for answers in (truth["answers"], candidates)]
        return both[0], both[1]
    if "report" not in line["texts"] or not line["truth"]["report"]:
        return None
    return line["truth"]["report"], line["texts"]["report"]["text"]


def _dialog(questions: list[str], answers: list[str], with_questions: bool) -> str:
    if not with_questions:
        return "\n".join(answers)
    return "\n".join(f"Question: {q}\nAnswer: {a}" for q, a in zip(questions, answers, strict=True))


Judge = Callable[[str, str], Verdict]
JUDGES: dict[str, Judge] = {"rules": judge_by_rules}
