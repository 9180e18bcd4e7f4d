"""Every answer says its key, parsed back by the evaluation's parsers; questions ask what the record can answer."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from train.ecg import LABEL_SETS, LEADS, TASKS, EcgRecord, Example, build_example, simulate_ecg
from train.ecg.conditions import CONDITIONS, draw_conditions
from train.ecg.instruct import LOOKS, interval_text, name_list, report_text
from train.ecg.labels import STATEMENTS
from train.ecg.parse import parse_labels, parse_measurements, parse_yes_no

Rng = np.random.Generator


def patients(n: int) -> list[EcgRecord]:
    """Simulated patients, every condition among them."""
    records = [simulate_ecg([name], np.random.default_rng([1, i]), hz=100) for i, name in enumerate(CONDITIONS)]
    for seed in range(n - len(records)):
        rng = np.random.default_rng([2, seed])
        records.append(simulate_ecg(draw_conditions(rng), rng, hz=100))
    return records


@pytest.fixture(scope="module")
def records() -> list[EcgRecord]:
    return patients(80)


def labelled(*codes: str, **fields: object) -> EcgRecord:
    """A record of which only the labels are known."""
    return EcgRecord(signal=np.zeros((12, 10), np.float32), hz=10, record_id="r", labels=frozenset(codes), **fields)  # type: ignore[arg-type]


# equation


@pytest.mark.parametrize(
    ("codes", "task", "answer"),
    [
        (("NORM", "SR"), "superclass", "NORM."),
        (("LVH", "IMI", "SR"), "superclass", "MI, HYP."),
        (("SR",), "superclass", "None of them."),
        (("SR", "CLBBB"), "statements", "complete left bundle branch block, sinus rhythm."),
        ((), "statements", "None of them."),
        (("AFIB", "PVC"), "rhythm", "Atrial fibrillation."),
        (("PVC",), "rhythm", "No rhythm statement."),
        (("SR", "LVH", "VCLVH", "INVT"), "diagnosis", "left ventricular hypertrophy."),
        (
            ("SR", "LVH", "VCLVH", "INVT"),
            "morphology",
            "voltage criteria for left ventricular hypertrophy, inverted T waves.",
        ),
    ],
)
def test_answers_by_hand(codes: tuple[str, ...], task: str, answer: str) -> None:
    assert build_example(labelled(*codes), task, np.random.default_rng(0)).answer == answer


def test_a_report_by_hand() -> None:
    truth = {"heart_rate": 71.6, "pr": 214.0, "qrs": 95.0, "qt": 401.0, "qtc": 418.0, "axis": -34.0}
    record = labelled("SR", "1AVB", "LAFB", truth=truth)
    assert report_text(record, LABEL_SETS["statements"]) == (
        "Sinus rhythm, heart rate 72 per minute. "
        "PR 210 ms, QRS 100 ms, QT 400 ms, QTc 420 ms, axis -30 degrees. "
        "Left anterior fascicular block, first degree AV block."
    )


def test_intervals_that_do_not_exist_are_left_out() -> None:
    assert interval_text({"pr": None, "qrs": 92.0, "axis": None}) == "QRS 90 ms"


def test_a_lead_is_read_in_millimetres() -> None:
    waves = {"p": 0.12, "q": -0.04, "r": 1.26, "s": -0.21, "st": 0.0, "t": 0.33}
    truth = {wave: dict.fromkeys(LEADS, value) for wave, value in waves.items()}
    example = build_example(labelled(truth=truth), "lead", np.random.default_rng(0))
    assert example.question == f"Read lead {example.key['lead']}."
    assert example.answer == "P 1, Q -0.5, R 13, S -2, ST 0, T 3 mm."


# round trip: answer -> key


def _labels(label_set: str) -> Callable[[Example], bool]:
    return lambda e: parse_labels(e.answer, label_set) == set(e.key["labels"])


def _measured(example: Example, names: tuple[str, ...], tolerance: dict[str, float]) -> bool:
    found = parse_measurements(example.answer)
    known = {name for name in names if example.key[name] is not None}
    return found.keys() == known and all(abs(found[n] - example.key[n]) <= tolerance[n] for n in known)


TENS = {"pr": 5.0, "qrs": 5.0, "qt": 5.0, "qtc": 5.0, "axis": 5.0, "heart_rate": 0.5}  # as answers are rounded


def _rate(e: Example) -> bool:
    variation = re.fullmatch(r".*, RR varies by (\d+) ms\.", e.answer)
    assert variation is not None
    near = abs(float(variation[1]) - e.key["rr_variation"]) <= 25
    return near and abs(parse_measurements(e.answer)["heart_rate"] - e.key["heart_rate"]) <= 0.5


def _lead(e: Example) -> bool:
    found = {name.lower(): float(value) for name, value in re.findall(r"\b(P|Q|R|S|ST|T) (-?[\d.]+)", e.answer)}
    known = {wave: e.key[wave] for wave in ("p", "q", "r", "s", "st", "t") if e.key[wave] is not None}
    half = {wave: 0.05 if abs(mv) >= 0.2 else 0.025 for wave, mv in known.items()}  # mV: half of what it is rounded to
    return found.keys() == known.keys() and all(abs(found[w] / 10 - known[w]) <= half[w] + 1e-9 for w in known)


def _rhythm(e: Example) -> bool:
    return parse_labels(e.answer, "rhythm") == set(e.key["labels"]) and _measured(e, ("heart_rate",), TENS)


def _report(e: Example) -> bool:
    return parse_labels(e.answer, "statements") == set(e.key["labels"]) and _measured(e, tuple(TENS), TENS)


ROUND_TRIPS: dict[str, Callable[[Example], bool]] = {
    "superclass": _labels("superclass"),
    "statements": _labels("statements"),
    "yes_no": lambda e: parse_yes_no(e.answer) == e.key["present"],
    "yes_no_superclass": lambda e: parse_yes_no(e.answer) == e.key["present"],
    "rhythm": _rhythm,
    "intervals": lambda e: _measured(e, ("pr", "qrs", "qt", "qtc", "axis"), TENS),
    "report": _report,
    "lead": _lead,
    "rate": _rate,
    "look": lambda e: parse_yes_no(e.answer) == e.key["present"],
    "features": lambda e: _measured(e, tuple(TENS), TENS),
    "morphology": _labels("form"),
    "diagnosis": _labels("diagnostic"),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_is_parsed_back_to_its_key(task: str, records: list[EcgRecord]) -> None:
    for record in records:
        example = build_example(record, task, np.random.default_rng(len(record.labels or ())))
        assert ROUND_TRIPS[task](example), (example.answer, example.key)
        assert (example.record_id, example.task) == (record.record_id, task)


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_in_other_words_is_parsed_back_to_its_key(task: str, records: list[EcgRecord]) -> None:
    rng, questions = np.random.default_rng(8), set()
    for record in records:
        example = build_example(record, task, rng, wording="varied")
        assert ROUND_TRIPS[task](example), (example.answer, example.key)
        questions.add(example.question)
    assert len(questions) >= 3


@pytest.mark.parametrize(
    "name", ["statements", "diagnostic", "form", "rhythm", "simulated", "superclass", "cpsc", "code15"]
)
def test_any_list_of_names_is_parsed_back_to_its_codes(name: str) -> None:
    label_set, rng = LABEL_SETS[name], np.random.default_rng(4)
    for code in label_set.codes:
        assert parse_labels(f"{name_list(label_set, [code])}.", label_set) == {code}
    for _ in range(60):
        codes = set(rng.choice(label_set.codes, rng.integers(2, 6)))
        assert parse_labels(f"{name_list(label_set, codes)}.", label_set) == codes


def test_any_report_of_the_71_statements_is_parsed_back() -> None:
    rng = np.random.default_rng(6)
    for _ in range(100):
        codes = set(map(str, rng.choice(list(STATEMENTS), rng.integers(1, 7))))
        text = report_text(labelled(*codes), LABEL_SETS["statements"])
        assert parse_labels(text, "statements") == codes, text


# property


def test_all_tasks_are_covered_above() -> None:
    assert ROUND_TRIPS.keys() == TASKS.keys()


@pytest.mark.parametrize("task", TASKS)
def test_the_same_generator_state_asks_the_same(task: str, records: list[EcgRecord]) -> None:
    def ask(seed: int) -> Example:
        return build_example(records[3], task, np.random.default_rng(seed))

    assert ask(2) == ask(2)


def test_yes_and_no_are_asked_equally_often_and_about_every_label(records: list[EcgRecord]) -> None:
    rng, n = np.random.default_rng(0), 4000
    keys = [build_example(records[5], "yes_no", rng, "simulated").key for _ in range(n)]
    assert abs(sum(key["present"] for key in keys) - n / 2) < 4.5 * (n / 4) ** 0.5
    assert {key["code"] for key in keys} == set(LABEL_SETS["simulated"].codes)


def test_a_record_without_labels_of_the_set_is_asked_for_absent_ones_only() -> None:
    rng = np.random.default_rng(0)
    assert not any(build_example(labelled("SR"), "yes_no", rng, "superclass").key["present"] for _ in range(20))


def test_a_superclass_can_be_asked_with_yes_or_no() -> None:
    rng = np.random.default_rng(0)
    answers = {
        (e.key["code"], e.answer)
        for e in (build_example(labelled("LVH"), "yes_no", rng, "superclass") for _ in range(80))
    }
    assert answers == {("HYP", "Yes."), *((code, "No.") for code in ("NORM", "MI", "STTC", "CD"))}


def test_a_records_own_report_is_the_answer() -> None:
    for text in ("Sinusrhythmus. Normales EKG.", "sinusrhythmus  lagetyp normal"):
        for wording in ("fixed", "varied"):
            made = build_example(labelled("SR", report=text), "report", np.random.default_rng(0), wording=wording)
            assert made.answer == text


def test_the_report_is_the_records_own_or_made_of_its_statements_as_asked() -> None:
    def report(record: EcgRecord, source: str) -> str:
        return build_example(record, "report", np.random.default_rng(0), report=source).answer

    german, bare = labelled("SR", report="Sinusrhythmus."), labelled("SR")
    assert report(german, "any") == report(german, "given") == "Sinusrhythmus."
    assert report(german, "statements") == report(bare, "any") == report(bare, "statements") == "Sinus rhythm."
    with pytest.raises(ValueError, match="record r has no report of its own"):
        report(bare, "given")


def test_other_words_leave_chance_and_key_as_they_are(records: list[EcgRecord]) -> None:
    for task in TASKS:
        fixed = build_example(records[4], task, np.random.default_rng(1))
        varied = build_example(records[4], task, np.random.default_rng(1), wording="varied")
        assert varied.key == fixed.key


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_is_asked_with_both_answers(look: str, records: list[EcgRecord]) -> None:
    answers = {LOOKS[look][1](dict(record.truth), lead) for record in records for lead in LEADS}
    assert {True, False} <= {bool(answer) for answer in answers if answer is not None}


def test_looks_never_name_a_diagnosis() -> None:
    questions = " ".join(question for question, _ in LOOKS.values()).lower()
    names = {label.name.lower() for label in STATEMENTS.values()}
    assert [name for name in names if name in questions] == []


@pytest.mark.parametrize(
    ("question", "name", "answer"),
    [
        ("Is the PR longer than 200 ms?", "1AVB", True),
        ("Is the QRS wider than 115 ms?", "CLBBB", True),
        ("Are the beats evenly spaced?", "AFIB", False),
        ("Is there a P wave before each QRS?", "AFLT", False),
        ("Is the rate below 60?", "SBRAD", True),
        ("Is there an early beat with a wide QRS?", "PVC", True),
        ("Is there an early beat with a wide QRS?", "PAC", False),
        ("Is there a beat that comes early?", "PAC", True),
        ("Does the line between the beats undulate?", "AFLT", True),
        ("Does the line between the beats undulate?", "NORM", False),
    ],
)
def test_looks_answer_what_a_reader_would(question: str, name: str, answer: bool) -> None:
    measure = next(function for text, function in LOOKS.values() if text == question)
    record = simulate_ecg([name], np.random.default_rng(3), hz=100)
    assert measure(dict(record.truth), "II") is answer


# refusal


def test_what_does_not_exist_or_is_not_known_is_refused() -> None:
    rng, bare = np.random.default_rng(0), labelled("SR")
    unlabelled = EcgRecord(signal=np.zeros((12, 10), np.float32), hz=10, record_id="u7")
    with pytest.raises(ValueError, match="task='reports' is not one of superclass, statements"):
        build_example(bare, "reports", rng)
    with pytest.raises(ValueError, match="label_set='scp' is not one of superclass, statements"):
        build_example(bare, "statements", rng, "scp")
    with pytest.raises(ValueError, match="wording='free' is not one of fixed, varied"):
        build_example(bare, "statements", rng, wording="free")
    with pytest.raises(ValueError, match="report='own' is not one of any, given, statements"):
        build_example(bare, "statements", rng, report="own")
    with pytest.raises(ValueError, match="label set superclass has no form statements"):
        build_example(bare, "morphology", rng, "superclass")
    with pytest.raises(ValueError, match="record r has no measurement, which this task needs"):
        build_example(bare, "features", rng)
    for task in ("superclass", "statements", "yes_no", "rhythm", "report", "morphology", "diagnosis"):
        with pytest.raises(ValueError, match="record u7 has no labels, which this task needs"):
            build_example(unlabelled, task, rng)
    for task in ("intervals", "rate", "lead", "look"):
        with pytest.raises(ValueError, match=r"record r has no measurement of .*, which this task needs"):
            build_example(bare, task, rng)
