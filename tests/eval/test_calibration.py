"""Reliability: bins, the error, and what chance allows."""

import numpy as np
import pytest

from eval.calibration import reliability


def test_bins_hold_every_pair_once_and_say_what_came_true() -> None:
    p = np.array([[0.05, 0.05], [0.55, 1 - 1e-12]])
    y = np.array([[False, True], [True, True]])
    found = reliability(y, np.log(p / (1 - p)), n_bins=10, n_draws=3)
    assert [one.seen.whole for one in found.bins] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert (found.bins[0].said, found.bins[0].seen.part) == (pytest.approx(0.05), 1)
    assert found.bins[1].said is None


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers that come true exactly as often as they say: y, log-odds."""
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(200, 4))
    return rng.random(s.shape) < 1 / (1 + np.exp(-s)), s


def test_what_comes_true_as_often_as_said_is_calibrated_about_19_times_in_20() -> None:
    calm = sum(reliability(*draw(seed)).is_calibrated for seed in range(20))
    assert 17 <= calm <= 20  # fewer than 17 of 20 at 0.95 each: 1.6 %


def test_log_odds_that_all_lie_in_the_unit_interval_are_log_odds() -> None:
    found = reliability(np.array([[True], [False]]), np.zeros((2, 1)), n_draws=3)
    assert found.bins[5].said == 0.5
    assert found.ece == 0


def test_overconfidence_is_not_calibrated() -> None:
    y, s = draw(3)
    assert not reliability(y, 4 * s).is_calibrated
