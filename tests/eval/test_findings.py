"""Findings that must not be missed, and the records in which they were."""

import numpy as np

from eval.findings import MUST_NOT_MISS, watch, watched_codes
from eval.operating import Share, point_at
from train.ecg import LABEL_SETS


def test_every_code_is_of_a_label_set_and_stands_once() -> None:
    codes = [code for own in MUST_NOT_MISS.values() for code in own]
    assert len(codes) == len(set(codes))
    known = {code for label_set in LABEL_SETS.values() for code in label_set.codes}
    assert set(codes) <= known


def test_missed_records_are_named_lowest_score_first() -> None:
    lines = [{"id": name} for name in "abcde"]
    y, s = np.array([1, 1, 1, 0, 1], bool), np.array([0.5, -3.0, 2.0, 9.0, -1.0])
    words = np.array([0, 1, 1, 0, 0], bool)
    found = watch("3AVB", lines, (y, s), point_at(y, s, 1.0, "sensitivity 0.9"), words)
    assert found.finding == "high-degree AV block"
    assert found.missed == ["b", "e", "a"]
    assert found.missed_in_words == ["a", "e"]
    assert found.point.sensitivity == Share(1, 4)
    assert watch("3AVB", lines, (y, s), found.point, None).missed_in_words is None


def test_only_codes_of_the_label_set_are_watched() -> None:
    assert watched_codes(("NORM", "AFIB", "WPW")) == {"AFIB": "tachyarrhythmia", "WPW": "pre-excitation"}
