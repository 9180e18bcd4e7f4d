"""The judge by rules, on reports whose score can be worked out by hand."""

import pytest

from eval.judge import JUDGES, TOLERANCE, agreement, f1_of_sets, judge_by_rules

REFERENCE = (
    "Sinus rhythm, heart rate 72 per minute. PR 160 ms, QRS 90 ms, QT 380 ms, QTc 410 ms, axis 50 degrees. "
    "Left ventricular hypertrophy, inferior myocardial infarction, ST depression."
)


# equation


@pytest.mark.parametrize(
    ("reference", "candidate", "value"),
    [
        ({"a", "b"}, {"a", "b"}, 1.0),
        ({"a", "b"}, {"a"}, 2 / 3),
        ({"a"}, {"b"}, 0.0),
        (set(), set(), 1.0),
        ({"a"}, set(), 0.0),
        (set(), {"a"}, 0.0),
    ],
)
def test_f1_of_two_sets(reference: set[str], candidate: set[str], value: float) -> None:
    assert f1_of_sets(reference, candidate) == value


@pytest.mark.parametrize(
    ("name", "reference", "candidate", "value"),
    [
        ("pr", 160, 160, 1.0),
        ("pr", 160, 180, 1.0),  # within 20 ms
        ("pr", 160, 200, 0.5),  # twice the tolerance
        ("pr", 160, 220, 0.0),  # three times
        ("pr", 160, 60, 0.0),
        ("pr", 160, None, 0.0),
        ("heart_rate", 72, 79.5, 0.75),
        ("axis", 170, -170, 1.0),  # 20 degrees apart
        ("axis", -90, 90, 0.0),
    ],
)
def test_a_number_agrees_within_its_tolerance_and_not_beyond_three(
    name: str, reference: float, candidate: float | None, value: float
) -> None:
    assert agreement(name, reference, candidate) == pytest.approx(value)


def test_the_same_report_is_perfect() -> None:
    verdict = judge_by_rules(REFERENCE, REFERENCE)
    assert verdict.score == 100.0
    assert verdict.criteria == {"diagnosis": 10.0, "waveform": 10.0, "rhythm": 10.0}


def test_a_half_right_report_by_hand() -> None:
    candidate = "Sinus bradycardia, heart rate 79.5 per minute. PR 200 ms, QRS 90 ms. Inferior myocardial infarction."
    verdict = judge_by_rules(REFERENCE, candidate)
    # diagnosis: one of two found: F1 2/3. form: ST depression missed: F1 0; numbers: PR 1/2, QRS 1, QT, QTc, axis 0.
    # rhythm: F1 0; rate 3/4.
    assert verdict.criteria == pytest.approx(
        {"diagnosis": 20 / 3, "waveform": 10 * (0 + 0.3) / 2, "rhythm": 10 * 0.375}
    )
    assert verdict.score == pytest.approx(10 * (20 / 3 + 1.5 + 3.75) / 3)


def test_a_constant_normal_report_gets_what_it_deserves() -> None:
    verdict = judge_by_rules("Sinus rhythm, heart rate 72 per minute. Normal ECG.", "Sinus rhythm. Normal ECG.")
    # diagnosis NORM and rhythm SR agree, no form statement on either side; the rate is not stated
    assert verdict.criteria == {"diagnosis": 10.0, "waveform": 10.0, "rhythm": 5.0}


def test_numbers_that_the_reference_does_not_state_do_not_count() -> None:
    with_numbers = judge_by_rules("Atrial fibrillation.", "Atrial fibrillation, heart rate 90 per minute. QRS 200 ms.")
    assert with_numbers.score == 100.0


# property


def test_denied_findings_are_not_found() -> None:
    denied = judge_by_rules("Inferior myocardial infarction.", "No inferior myocardial infarction.")
    assert denied.criteria["diagnosis"] == 0.0


@pytest.mark.parametrize("candidate", ["", "I cannot tell.", "x" * 5000, "\ufffd\n\n"])
def test_an_unreadable_report_is_scored_not_refused(candidate: str) -> None:
    verdict = judge_by_rules(REFERENCE, candidate)
    assert verdict.score == 0.0


def test_the_order_of_findings_and_the_style_do_not_matter() -> None:
    other = (
        "ST DEPRESSION; inferior infarction and left ventricular hypertrophy. The axis is 50, QTc 410, QT 380, QRS 90, "
        "PR 160. Normal sinus rhythm at a rate of 72."
    )
    assert judge_by_rules(REFERENCE, other).score == 100.0


def test_every_judge_gives_a_score_from_0_to_100_out_of_criteria_from_0_to_10() -> None:
    for judge in JUDGES.values():
        verdict = judge(REFERENCE, "Sinus rhythm, heart rate 72 per minute. QRS 90 ms.")
        assert 0 < verdict.score < 100
        assert all(0 <= value <= 10 for value in verdict.criteria.values())


def test_there_is_a_tolerance_for_everything_that_reports_state() -> None:
    assert set(TOLERANCE) == {"heart_rate", "pr", "qrs", "qt", "qtc", "axis"}
