"""Letters and options: what is read, what is counted, and what stands beside it."""

from typing import Any

import pytest

from eval.choices import parse_qa, score_choices
from eval.questions import letters_of, options_of
from eval.suites import SUITES

QUESTION = "Which?\nA. Sinus rhythm\nB. Atrial fibrillation\nC. Flutter"


def line(
    golden: str, text: str, question: str = QUESTION, own: str = "choice", letters: dict[str, float] | None = None
) -> dict[str, Any]:
    return {
        "id": text,
        "patient_id": text,
        "truth": {"labels": None, "superclass": None, "report": None, "questions": [question], "answers": [golden]},
        "log_odds": {},
        "texts": {own: {"text": text}},
        **({"letters": letters} if letters else {}),
    }


# equation


@pytest.mark.parametrize(
    ("question", "letters"),
    [
        (QUESTION, "ABC"),
        ("Which? (A) one (B) two", "AB"),
        ("Which? A: one, B: two, C: three, D: four", "ABCD"),
        ("A. Fib or not?", ""),  # one letter is no choice
        ("Look at V1. B. is not offered, C. neither", ""),
    ],
)
def test_letters_that_a_question_offers(question: str, letters: str) -> None:
    assert letters_of(question) == letters


def test_options_end_where_the_instruction_begins() -> None:
    asked = "Noise? Options: yes, no, not sure Only answer based on the given Options without any explanation."
    assert options_of(asked) == ["yes", "no", "not sure"]
    assert options_of("Options: a. Options: static noise, burst noise.") == ["static noise", "burst noise"]
    assert options_of("Is it normal?") == []


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("Not sure.", ["yes", "no", "not sure"], {"not sure"}),
        ("Answer: yes", ["yes", "no"], {"yes"}),
        ("First-degree AV block and normal ECG", ["first degree AV block", "normal ECG"],
         {"first degree av block", "normal ecg"}),
        ("It is hard to say.", ["yes", "no"], None),
        ("Yes, it is.", [], {"yes"}),
        ("Lead V1.", [], {"lead v1"}),
        ("", [], None),
    ],
)  # fmt: skip
def test_options_are_read_as_whole_words_with_their_other_names(
    text: str, options: list[str], said: set | None
) -> None:
    assert parse_qa(text, options) == said


def test_accuracy_by_hand() -> None:
    likely = {"A": 0.0, "B": 1.0, "C": -1.0}
    lines = [
        line("B. Atrial fibrillation", "B", letters=likely),
        line("B", "The answer is (B).", letters=likely),
        line("A", "A. Fib", letters=likely),
        line("C", "no idea", letters=likely),
        line("see the text", "A", letters=likely),  # golden answer unreadable
    ]
    found = score_choices(lines, SUITES["csn"], n_draws=50)
    assert found is not None
    assert (found["n"], found["left_out"], found["unparsed"]) == (4, 1, 2)
    assert found["accuracy"] == 2 / 4
    assert found["by_likelihood"]["accuracy"] == 2 / 4
    assert found["trivial"] == {"always B": 2 / 4, "uniform chance": pytest.approx(1 / 3)}
    assert found["pulse"] == 2 / 4  # "A. Fib" is A there; "(B)" and "no idea" are nothing
    low, high = found["interval"]
    assert low <= 0.5 <= high


def test_sets_of_options_must_be_equal() -> None:
    two = "Which? Options: sinus rhythm, low QRS voltage, noise"
    lines = [
        line("sinus rhythm, noise", "Noise, sinus rhythm.", two, "qa"),
        line("sinus rhythm", "Sinus rhythm with low voltage.", two, "qa"),
        line("sinus rhythm", "normal sinus rhythm", two, "qa"),
        line("elephant", "noise", two, "qa"),
    ]
    found = score_choices(lines, SUITES["ecgqa"], n_draws=0)
    assert found is not None
    assert (found["accuracy"], found["unparsed"], found["left_out"], found["interval"]) == (2 / 3, 0, 1, None)
    assert found["trivial"] == {"always sinus rhythm": 2 / 3, "uniform chance": pytest.approx(2 / 9)}


def test_a_letter_that_is_not_offered_is_not_an_answer() -> None:
    found = score_choices([line("B", "D")], SUITES["csn"], n_draws=0)
    assert found is not None
    assert (found["unparsed"], found["accuracy"]) == (1, 0.0)


def test_without_answers_there_is_nothing_to_score() -> None:
    assert score_choices([{**line("B", "B"), "texts": {}}], SUITES["csn"], n_draws=0) is None
