"""Questions about a record and their answers, derived only from its labels and measurements.

Two kinds of task. Findings (`superclass`, `statements`, `yes_no`, `rhythm`, `morphology`, `diagnosis`, `report`) need
labels. Readings (`lead`, `rate`, `intervals`, `look`, `features`) need measurements and never name a diagnosis: they
are what the demo checkpoint is pre-trained on. Every answer can be parsed back to its key by parse.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from train.ecg.labels import LABEL_SETS, STATEMENTS, LabelSet, superclasses_of, vocabulary_of
from train.ecg.looks import LOOKS
from train.ecg.record import EcgRecord
from train.ecg.signal import LEADS
from train.ecg.wording import WORDINGS, reword

Rng = np.random.Generator
RHYTHMS = LABEL_SETS["rhythm"]
NO_FINDING = "None of them"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one record.

    Attributes:
        record_id: which record.
        task: of TASKS.
        question, answer: texts.
        key: what the answer says, for scoring: `labels` (codes), `code` and `present`, or measurements by
            name.
    """

    record_id: str
    task: str
    question: str
    answer: str
    key: dict[str, Any] = field(default_factory=dict)


def name_list(label_set: LabelSet, codes: Iterable[str]) -> str:
    """Names of the labels, in the order of the set: "a, b, c"."""
    chosen = set(codes)
    return ", ".join(label.name for label in label_set.labels if label.code in chosen)


def _need_labels(record: EcgRecord, asked: LabelSet) -> frozenset[str]:
    if record.labels is None:
        raise ValueError(f"record {record.record_id} has no labels, which this task needs")
    if foreign := sorted(record.labels - vocabulary_of(asked)):  # AFIB would be denied when AF is asked for
        raise ValueError(
            f"record {record.record_id} has labels of another vocabulary than label set {asked.name}, which this task "
            f"asks for: {', '.join(foreign)}"
        )
    return record.labels


def _need_truth(record: EcgRecord, *names: str) -> list[Any]:
    if missing := [name for name in names if name not in record.truth]:
        raise ValueError(f"record {record.record_id} has no measurement of {', '.join(missing)}, which this task needs")
    return [record.truth[name] for name in names]


SUPERCLASS_QUESTION = (
    "Which of these classes does this ECG belong to: NORM (normal), MI (myocardial infarction), STTC (ST/T change), "
    "CD (conduction disturbance), HYP (hypertrophy)?"
)


def superclass(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """The five superclasses; the answer lists codes, as ECGBench's `ptb-test` does."""
    classes = LABEL_SETS["superclass"]
    codes = classes.select(superclasses_of(_need_labels(record, classes)))
    return SUPERCLASS_QUESTION, f"{', '.join(codes) or NO_FINDING}.", {"labels": list(codes)}


def statements(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """All statements of the label set that apply, by name."""
    codes = label_set.select(_need_labels(record, label_set))
    answer = f"{name_list(label_set, codes) or NO_FINDING}."
    return "List all findings of this ECG.", answer, {"labels": list(codes)}


def yes_no_question(name: str) -> str:
    """The question about one finding; the beginning and the end are the same for all of them."""
    return f"Does this ECG show {name}?"


def yes_no(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """One label of the set, present in half of the questions where that is possible."""
    labels = _need_labels(record, label_set)
    present = labels | superclasses_of(labels & STATEMENTS.keys())
    yes = [label for label in label_set.labels if label.code in present]
    no = [label for label in label_set.labels if label.code not in present]
    pool = yes if yes and (not no or rng.random() < 0.5) else no
    label = pool[rng.integers(len(pool))]
    is_there = label.code in present
    return (
        yes_no_question(label.name),
        "Yes." if is_there else "No.",
        {"code": label.code, "present": is_there},
    )


def yes_no_superclass(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """`yes_no` on one of the five superclasses, whatever the label set."""
    return yes_no(record, rng, LABEL_SETS["superclass"])


def rhythm(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """The rhythm statements, and the rate if it was measured."""
    codes = RHYTHMS.select(_need_labels(record, RHYTHMS))
    rate = record.truth.get("heart_rate")
    text = name_list(RHYTHMS, codes) or "no rhythm statement"
    answer = text[0].upper() + text[1:] + (f", {rate:.0f} beats per minute." if rate is not None else ".")
    return "What is the rhythm of this ECG?", answer, {"labels": list(codes), "heart_rate": rate}


INTERVALS = (("pr", "PR"), ("qrs", "QRS"), ("qt", "QT"), ("qtc", "QTc"))


def interval_text(truth: dict[str, Any]) -> str:
    """Such as "PR 160 ms, QRS 90 ms, QT 380 ms, QTc 410 ms, axis 50 degrees", in steps of 10 ms and 10 degrees."""
    parts = [f"{name} {round(truth[key] / 10) * 10} ms" for key, name in INTERVALS if truth.get(key) is not None]
    if truth.get("axis") is not None:
        parts.append(f"axis {round(truth['axis'] / 10) * 10} degrees")
    return ", ".join(parts)


def intervals(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """PR (if there is one), QRS, QT, QTc and the frontal axis."""
    _need_truth(record, "qrs", "qt", "axis")
    key = {name: record.truth.get(name) for name in ("pr", "qrs", "qt", "qtc", "axis")}
    return "Measure the intervals and the axis.", f"{interval_text(key)}.", key


def rate(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """Beats per minute, and how much the RR interval varies (to 50 ms)."""
    value, variation = _need_truth(record, "heart_rate", "rr_variation")
    answer = f"{value:.0f} beats per minute, RR varies by {round(variation / 50) * 50} ms."
    return "What is the heart rate?", answer, {"heart_rate": value, "rr_variation": variation}


WAVES = (("p", "P"), ("q", "Q"), ("r", "R"), ("s", "S"), ("st", "ST"), ("t", "T"))


def lead(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """Size and sign of each wave in one lead, in millimetres of paper (0.1 mV), to half a millimetre below 2."""
    name = LEADS[rng.integers(len(LEADS))]
    waves = _need_truth(record, *(key for key, _ in WAVES))
    key = {wave: None if values is None else values[name] for (wave, _), values in zip(WAVES, waves, strict=True)}
    parts = [f"{title} {_millimetres(mv)}" for wave, title in WAVES if (mv := key[wave]) is not None]
    return f"Read lead {name}.", f"{', '.join(parts)} mm.", {"lead": name, **key}


def _millimetres(mv: float) -> str:
    """Tenths of a millivolt: whole ones from 2 on, halves below."""
    mm = mv * 10
    rounded = round(mm) if abs(mm) >= 2 else round(2 * mm) / 2
    return f"{rounded:g}" if rounded else "0"


def look(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """A yes/no question about something to be seen, answered by measuring."""
    _need_truth(record, "regular", "qrs", "qtc", "spike", "st")
    names = list(LOOKS)
    while True:
        name, where = names[rng.integers(len(names))], LEADS[rng.integers(len(LEADS))]
        question, answer = LOOKS[name]
        value = answer(dict(record.truth), where)
        if value is not None:
            key = {"look": name, "lead": where if "{lead}" in question else None, "present": bool(value)}
            return question.format(lead=where), "Yes." if value else "No.", key


def _kind(record: EcgRecord, label_set: LabelSet, kind: str) -> tuple[str, dict[str, Any]]:
    """The labels of the set that are of a kind ("form", "diagnostic"), as an answer and its key."""
    asked = LabelSet(
        name=kind, labels=tuple(label for label in LABEL_SETS[kind].labels if label.code in label_set.codes)
    )
    if not asked.labels:
        raise ValueError(f"label set {label_set.name} has no {kind} statements, which this task asks for")
    codes = asked.select(_need_labels(record, LABEL_SETS[kind]))
    return f"{name_list(asked, codes) or NO_FINDING}.", {"labels": list(codes)}


def morphology(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """The statements about the form of the waves."""
    return ("Describe the morphology of this ECG.", *_kind(record, label_set, "form"))


def diagnosis(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """The diagnostic statements."""
    return ("What is the diagnosis?", *_kind(record, label_set, "diagnostic"))


def features(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """Heart rate, intervals and axis: what of them was measured."""
    key = _measured(record)
    value = key["heart_rate"]
    parts = [f"heart rate {value:.0f} per minute"] if value is not None else []
    parts += [text] if (text := interval_text(key)) else []
    if not parts:
        raise ValueError(f"record {record.record_id} has no measurement, which this task needs")
    answer = ", ".join(parts)
    return "Describe the basic features of this ECG.", f"{answer[0].upper()}{answer[1:]}.", key


def report_text(record: EcgRecord, label_set: LabelSet) -> str:
    """A report in English from labels and measurements: rhythm and rate, intervals and axis, findings."""
    present = _need_labels(record, label_set)
    sentences = []
    rhythm_codes = [code for code in RHYTHMS.select(present) if code in label_set.codes]
    rate_value = record.truth.get("heart_rate")
    first = [name_list(RHYTHMS, rhythm_codes)] if rhythm_codes else []
    first += [f"heart rate {rate_value:.0f} per minute"] if rate_value is not None else []
    if first:
        sentences.append(", ".join(first))
    if measured := interval_text(dict(record.truth)):
        sentences.append(measured)
    others = [code for code in label_set.select(present) if code not in rhythm_codes]
    if others:
        sentences.append(name_list(label_set, others))
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences) or "No findings."


def report(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """The record's own report if it has one, otherwise the one that its labels and measurements make."""
    text = record.report or report_text(record, label_set)
    return (
        "Write a report of this ECG.",
        text,
        {"labels": list(label_set.select(_need_labels(record, label_set))), **_measured(record)},
    )


def _measured(record: EcgRecord) -> dict[str, Any]:
    return {name: record.truth.get(name) for name in ("heart_rate", "pr", "qrs", "qt", "qtc", "axis")}


Task = Callable[[EcgRecord, Rng, LabelSet], tuple[str, str, dict[str, Any]]]
_FINDINGS: tuple[Task, ...] = (superclass, statements, yes_no, yes_no_superclass, rhythm, morphology, diagnosis, report)
_READINGS: tuple[Task, ...] = (intervals, lead, rate, look, features)
TASKS: dict[str, Task] = {task.__name__: task for task in (*_FINDINGS, *_READINGS)}
REPORTS = ("any", "given", "statements")


def _choose_report(record: EcgRecord, source: str) -> EcgRecord:
    """The record with the report that is asked for."""
    if source == "given" and not record.report:
        raise ValueError(f"record {record.record_id} has no report of its own, but report='given'")
    return replace(record, report=None) if source == "statements" else record


def build_example(
    record: EcgRecord,
    task: str,
    rng: Rng,
    label_set: LabelSet | str = "statements",
    *,
    wording: str = "fixed",
    report: str = "any",
) -> Example:
    """One question about a record and its answer.

    Args:
        record: with the labels or measurements that the task needs.
        task: of TASKS.
        rng: draws what the task leaves open (which finding, which lead).
        label_set: which findings `statements`, `yes_no`, `report`, `morphology` and `diagnosis` speak of.
        wording: "fixed", one question per task; "varied" draws other words for question and answer.
        report: whose report `report` asks for: "given", the record's own, in its own language; "statements", made in
            English from labels and measurements; "any", the record's own if it has one.

    Raises:
        ValueError: if the task, label set, wording or report is unknown, or the record lacks what the task needs,
            or its labels are of another vocabulary than those that the task asks for.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is not one of {', '.join(TASKS)}")
    if wording not in WORDINGS:
        raise ValueError(f"wording={wording!r} is not one of {', '.join(WORDINGS)}")
    if isinstance(label_set, str):
        if label_set not in LABEL_SETS:
            raise ValueError(f"label_set={label_set!r} is not one of {', '.join(LABEL_SETS)}")
        label_set = LABEL_SETS[label_set]
    if report not in REPORTS:
        raise ValueError(f"report={report!r} is not one of {', '.join(REPORTS)}")
    asked = _choose_report(record, report) if task == "report" else record
    question, answer, key = TASKS[task](asked, rng, label_set)
    if wording == "varied":
        names = {label.code: label.name for label in (*LABEL_SETS["superclass"].labels, *label_set.labels)}
        question, answer = reword(task, question, answer, key, rng, names.get(key.get("code", ""), ""))
    return Example(record_id=record.record_id, task=task, question=question, answer=answer, key=key)
