"""How a step grows: exponents by hand, and one point on two ranks."""

import pytest

from benchmarks.growth import Found, Point, chart, exponent, page, run_point


def test_the_exponent_of_a_power_is_its_power() -> None:
    x = [1, 2, 4, 8]
    assert exponent(x, [3 * value**1.5 for value in x]) == pytest.approx(1.5)
    assert exponent(x, [7.0] * 4) == pytest.approx(0.0)
    assert 0 < exponent(x, [10.0 + value for value in x]) < 0.5  # a fixed share hides the rest


def test_two_ranks_hold_half_of_the_weights_and_moments_each() -> None:
    one, two = (run_point(Point(ranks=n, length=16), "small", steps=1) for n in (1, 2))
    assert two.held == pytest.approx(one.held / 2, rel=0.02)
    assert len(one.seconds) == 1
    assert one.seconds[0] > 0
    assert one.peak > 0


def test_the_page_states_the_exponents_and_the_chart_has_every_sweep() -> None:
    points = [(n, Found(seconds=[0.1 * n], peak=n * n * 2**20, held=2**20)) for n in (1, 2, 4)]
    text = page({"batch": points}, "x", "small", "A note.")
    assert "| s per step | batch | 1.00 | 1.00 |" in text
    assert "| peak MiB | batch | 2.00 | 2.00 |" in text
    assert "A note." in text
    assert chart({"batch": points, "tiles": points}).count("<polyline") == 4
