"""Thresholds for a wanted sensitivity or specificity, and shares with their intervals."""

import numpy as np
import pytest
from scipy.stats import binomtest

from eval.operating import (
    Share,
    operating_points,
    point_at,
    threshold_at_sensitivity,
    threshold_at_specificity,
    wilson_interval,
)

Y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 1], bool)
S = np.array([-2.0, -1.0, 0.0, 1.0, 0.5, 2.0, 3.0, 0.0, 4.0, 5.0])


@pytest.mark.parametrize(("part", "whole"), [(0, 7), (7, 7), (3, 11), (95, 100)])
def test_the_interval_is_wilsons(part: int, whole: int) -> None:
    known = binomtest(part, whole).proportion_ci(0.95, method="wilson")
    # scipy's own bound for a share of 0 or 1 is exactly that, up to rounding
    assert wilson_interval(part, whole) == pytest.approx((known.low, known.high), abs=1e-12)


def test_a_share_of_nothing_has_no_value() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval is None


@pytest.mark.parametrize("target", [0.2, 0.6, 0.8, 1.0])
def test_the_threshold_reaches_its_target_and_the_next_score_would_not_do_better(target: float) -> None:
    t = threshold_at_specificity(Y, S, target)
    assert t is not None
    assert np.mean(S[~Y] < t) >= target
    smaller = [v for v in S if v < t]
    assert all(np.mean(S[~Y] < v) < target for v in smaller)
    t = threshold_at_sensitivity(Y, S, target)
    assert t is not None
    assert np.mean(S[Y] >= t) >= target
    assert all(np.mean(S[Y] >= v) < target for v in S if v > t)


def test_what_validation_records_cannot_choose_is_left_out() -> None:
    assert threshold_at_specificity(np.ones(3, bool), np.arange(3.0), 0.9) is None
    assert threshold_at_sensitivity(np.zeros(3, bool), np.arange(3.0), 0.9) is None
    points = operating_points((np.zeros(3, bool), np.arange(3.0)), (Y, S), (0.9,), (0.9,))
    assert [point.name for point in points] == ["specificity 0.9"]


def test_a_point_counts_the_four_cells() -> None:
    point = point_at(Y, S, 1.0)
    assert point.sensitivity == Share(3, 5)
    assert point.specificity == Share(3, 5)
    assert point.ppv == Share(3, 5)
    assert point.npv == Share(3, 5)
    nothing = point_at(Y, S, np.inf)
    assert nothing.sensitivity == Share(0, 5)
    assert nothing.ppv == Share(0, 0)


def test_thresholds_come_from_held_out_records_and_counts_from_the_reported_ones() -> None:
    held = (np.array([0, 0, 1, 1], bool), np.array([0.0, 1.0, 2.0, 3.0]))
    (point,) = operating_points(held, (Y, S), (), (1.0,))
    assert point.threshold == 2.0
    assert point.sensitivity == Share(3, 5)
