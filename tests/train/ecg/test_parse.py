"""Numbers as reports and carts write them; more on labels stands in tests/eval/test_answers.py."""

import pytest

from train.ecg.parse import parse_measurements


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("QT/QTc 380/420 ms", {"qt": 380, "qtc": 420}),
        ("QT / QTcF: 380 / 420 ms, axis +30", {"qt": 380, "qtc": 420, "axis": 30}),
        ("QTc 420, QT interval 380", {"qt": 380, "qtc": 420}),
        ("Atrial rate 300, ventricular rate 75", {"heart_rate": 75}),
        ("Atrial rate of 300 bpm, 75 bpm", {"heart_rate": 75}),
    ],
)
def test_what_carts_print_together_is_told_apart(text: str, found: dict[str, float]) -> None:
    assert parse_measurements(text) == found
