"""Questions about a record and their answers, derived only from its labels and measurements.

Two kinds of task. Findings (`superclass`, `statements`, `yes_no`, `rhythm`, `report`) need labels. Readings
(`lead`, `rate`, `intervals`, `look`) need measurements and never name a diagnosis: they are what the demo
checkpoint is pre-trained on. Every answer can be parsed back to its key by eval/answers.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from train.ecg.labels import LABEL_SETS, LabelSet, superclasses_of
from train.ecg.record import EcgRecord
from train.ecg.signal import LEADS

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


def _need_labels(record: EcgRecord) -> frozenset[str]:
    if record.labels is None:
        raise ValueError(f"record {record.record_id} has no labels, which this task needs")
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
    codes = LABEL_SETS["superclass"].select(superclasses_of(_need_labels(record)))
    return SUPERCLASS_QUESTION, f"{', '.join(codes) or NO_FINDING}.", {"labels": list(codes)}


def statements(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """All statements of the label set that apply, by name."""
    codes = label_set.select(_need_labels(record))
    answer = f"{name_list(label_set, codes) or NO_FINDING}."
    return "List all findings of this ECG.", answer, {"labels": list(codes)}


def yes_no_question(name: str) -> str:
    """The question about one finding; the beginning and the end are the same for all of them."""
    return f"Does this ECG show {name}?"


def yes_no(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """One label of the set, present in half of the questions where that is possible."""
    present = _need_labels(record) | superclasses_of(record.labels or ())
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
    codes = RHYTHMS.select(_need_labels(record))
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


def _sign(mv: float, level: float = 0.1) -> int:
    return (mv >= level) - (mv <= -level)


# name: (question, answer from the measurements); `{lead}` is drawn. None: the question makes no sense here.
LOOKS: dict[str, tuple[str, Callable[[dict[str, Any], str], bool | None]]] = {
    "regular": ("Are the beats evenly spaced?", lambda t, lead: t["regular"]),
    "early": ("Is there a beat that comes early?", lambda t, lead: t["n_early"] > 0),
    "wide_early": ("Is there an early beat with a wide QRS?", lambda t, lead: t["n_wide_early"] > 0),
    "undulates": ("Does the line between the beats undulate?", lambda t, lead: t["undulates"]),
    "p": ("Is there a P wave before each QRS?", lambda t, lead: t["p_before_qrs"]),
    "spike": ("Are there thin spikes before the QRS?", lambda t, lead: t["spike"]),
    "pr_long": ("Is the PR longer than 200 ms?", lambda t, lead: None if t["pr"] is None else t["pr"] > 200),
    "pr_short": (
        "Is the PR shorter than 120 ms?",
        lambda t, lead: None if t["pr"] is None else t["pr"] < 120,
    ),
    "p_wide": (
        "Is the P wider than 115 ms?",
        lambda t, lead: None if t["p_width"] is None else t["p_width"] > 115,
    ),
    "qrs_wide": ("Is the QRS wider than 115 ms?", lambda t, lead: t["qrs"] > 115),
    "qrs_between": ("Is the QRS wider than 98 ms?", lambda t, lead: t["qrs"] > 98),
    "qtc_long": ("Is the QTc longer than 470 ms?", lambda t, lead: t["qtc"] > 470),
    "slow": ("Is the rate below 60?", lambda t, lead: t["heart_rate"] < 60),
    "fast": ("Is the rate above 100?", lambda t, lead: t["heart_rate"] > 100),
    "p_tall": ("Is the P in {lead} taller than 2 mm?", lambda t, lead: t["p"] and t["p"][lead] > 0.2),
    "t_negative": ("Is the T in {lead} negative?", lambda t, lead: t["t"][lead] < -0.05),
    "st_high": ("Is the ST in {lead} above the line?", lambda t, lead: _sign(t["st"][lead]) > 0),
    "st_low": ("Is the ST in {lead} below the line?", lambda t, lead: _sign(t["st"][lead]) < 0),
    "upright": (
        "Is the QRS in {lead} mostly upright?",
        lambda t, lead: t["r"][lead] > -min(t["s"][lead], t["q"][lead]),
    ),
    "tall": ("Is the R in {lead} taller than 15 mm?", lambda t, lead: t["r"][lead] > 1.5),
    "small": ("Is the QRS in {lead} smaller than 5 mm?", lambda t, lead: _height(t, lead) < 0.5),
    "q": ("Is there a deep Q in {lead}?", lambda t, lead: t["q"][lead] < -0.2),
}


def _height(truth: dict[str, Any], lead_name: str) -> float:
    return truth["r"][lead_name] - min(truth["s"][lead_name], truth["q"][lead_name])


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


def report_text(record: EcgRecord, label_set: LabelSet) -> str:
    """A report in English from labels and measurements: rhythm and rate, intervals and axis, findings."""
    present = _need_labels(record)
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
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def report(record: EcgRecord, rng: Rng, label_set: LabelSet) -> tuple[str, str, dict[str, Any]]:
    """The record's own report if it has one, otherwise the one that its labels and measurements make."""
    text = record.report or report_text(record, label_set)
    return (
        "Write a report of this ECG.",
        text,
        {"labels": list(label_set.select(_need_labels(record))), **_measured(record)},
    )


def _measured(record: EcgRecord) -> dict[str, Any]:
    return {name: record.truth.get(name) for name in ("heart_rate", "pr", "qrs", "qt", "qtc", "axis")}


Task = Callable[[EcgRecord, Rng, LabelSet], tuple[str, str, dict[str, Any]]]
TASKS: dict[str, Task] = {
    task.__name__: task
    for task in (superclass, statements, yes_no, yes_no_superclass, rhythm, intervals, report, lead, rate, look)
}


def build_example(record: EcgRecord, task: str, rng: Rng, label_set: LabelSet | str = "statements") -> Example:
    """One question about a record and its answer.

    Args:
        record: with the labels or measurements that the task needs.
        task: of TASKS.
        rng: draws what the task leaves open (which finding, which lead).
        label_set: which findings `statements`, `yes_no` and `report` speak of.

    Raises:
        ValueError: if the task or label set is unknown, or the record lacks what the task needs.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is not one of {', '.join(TASKS)}")
    if isinstance(label_set, str):
        if label_set not in LABEL_SETS:
            raise ValueError(f"label_set={label_set!r} is not one of {', '.join(LABEL_SETS)}")
        label_set = LABEL_SETS[label_set]
    question, answer, key = TASKS[task](record, rng, label_set)
    return Example(record_id=record.record_id, task=task, question=question, answer=answer, key=key)
