"""Waves of known width and height, on a flat line and on a ramp."""

import math

import numpy as np
import pytest

from train.ecg import LEADS
from train.ecg.detect import BEFORE, find_beats
from train.ecg.waves import Waves, delineate

MS = np.arange(10_000.0)


def recording(*waves: tuple[float, float, float], rr: float = 900, ramp: float = 0.0) -> np.ndarray:
    """Beats every `rr` ms, the same in every lead [12, 10000].

    Waves are Gaussians: ms after R, mV, standard deviation. The line rises by `ramp` mV from the end of T to the next
    R, and falls back under the T wave.
    """
    phase = (MS - 500) % rr
    centred = np.where(phase > rr / 2, phase - rr, phase)
    assert all(abs(at) < rr / 2 for at, _, _ in waves)
    one = sum(h * np.exp(-0.5 * ((centred - at) / s) ** 2) for at, h, s in waves)
    one = one + ramp * np.interp(phase, [0, 60, 160, 360, rr - 40, rr], [1, 1, 1, 0, 1, 1])
    return np.tile(one, (12, 1))


def found(signal: np.ndarray, rr: float = 900) -> Waves:
    beats = find_beats(signal, 1000)
    waves = delineate(beats.cuts, beats.usual, rr, rr)
    assert waves is not None
    return waves


R, P, T = (0.0, 1.0, 10.0), (-160.0, 0.15, 20.0), (280.0, 0.3, 40.0)
# it climbs slowly
DELTA = ((-44.0, 0.12, 9.0), (-34.0, 0.2, 9.0), (-24.0, 0.3, 9.0))


def reach(height: float, spread: float, level: float) -> float:
    """How far from its peak a Gaussian has fallen to a level."""
    return spread * math.sqrt(2 * math.log(height / level))


# equation


def test_p_begins_and_t_ends_at_their_levels_above_the_line() -> None:
    waves = found(recording(R, P, T))
    assert waves.p is not None
    assert waves.t_end is not None
    at_r = waves.p[0] - waves.on, waves.t_end - waves.on
    q = -(BEFORE - waves.on)
    assert q == pytest.approx(
        -reach(1.0, 10.0, 0.05), abs=12
    )  # where it turns steep, 24 ms; R may be aligned on its flank
    assert at_r[0] == pytest.approx(-160 - reach(0.15, 20, 0.012) + 28, abs=14)
    assert at_r[1] == pytest.approx(280 + reach(0.3, 40, 0.020) + 28, abs=14)
    assert waves.p[1] - waves.p[0] == pytest.approx(2 * reach(0.15, 20, 0.012), abs=8)


@pytest.mark.parametrize("slope", [0.0, 0.6, 0.9])
def test_a_line_that_is_a_ramp_between_t_and_p_changes_little(slope: float) -> None:
    """In microvolts per ms; where a level is reached is 100 ms later."""
    flat = found(recording(R, P, T))
    waves = found(recording(R, P, T, ramp=slope * 0.5))
    assert flat.t_end is not None
    assert flat.p is not None
    assert waves.t_end is not None
    assert waves.p is not None
    assert waves.t_end - waves.on == pytest.approx(flat.t_end - flat.on, abs=25)
    assert waves.p[0] - waves.on == pytest.approx(flat.p[0] - flat.on, abs=15)


def test_a_u_wave_is_not_the_end_of_t() -> None:
    flat = found(recording(R, P, T, rr=1100), 1100)
    waves = found(recording(R, P, T, (470.0, 0.12, 30.0), rr=1100), 1100)
    assert flat.t_end is not None
    assert waves.t_end is not None
    assert waves.t_end - waves.on == pytest.approx(flat.t_end - flat.on, abs=10)


def test_amplitudes_are_the_heights_of_the_waves() -> None:
    q, s = (-22.0, -0.2, 6.0), (24.0, -0.5, 8.0)
    heights = found(recording(R, q, s, P, T)).amplitudes()
    expected = {"p": 0.15, "q": -0.1, "r": 0.94, "s": -0.44, "st": 0.0, "t": 0.3, "r_prime": 0.0}
    for name, value in expected.items():
        lead = heights[name]
        assert lead is not None
        assert set(lead) == set(LEADS)
        assert lead["II"] == pytest.approx(value, abs=0.06), name  # neighbours overlap


def test_a_second_r_is_told_from_an_st_segment() -> None:
    second = found(recording((0.0, 0.4, 9.0), (30.0, -0.6, 9.0), (62.0, 0.7, 10.0), P, T)).amplitudes()["r_prime"]
    assert second is not None
    assert second["V1"] == pytest.approx(0.7, abs=0.06)
    level = [(float(at), 0.2, 12.0) for at in range(50, 200, 20)]
    raised = found(recording((0.0, 0.4, 9.0), (28.0, -0.6, 9.0), *level, P, T)).amplitudes()
    assert raised["r_prime"] is not None
    assert raised["r_prime"]["V1"] == 0.0
    assert raised["st"] is not None
    assert raised["st"]["V1"] == pytest.approx(0.3, abs=0.1)


def test_a_qs_complex_is_q_and_s() -> None:
    heights = found(-recording(R) + recording(P, T)).amplitudes()
    assert heights["q"] == heights["s"]
    assert heights["s"] is not None
    assert heights["s"]["V1"] == pytest.approx(-1, abs=0.03)
    assert heights["r"] is not None
    assert heights["r"]["V1"] == pytest.approx(0, abs=0.03)


def test_a_delta_wave_makes_the_beginning_long() -> None:
    plain, slurred = found(recording(R, P, T)), found(recording(R, *DELTA, P, T))
    assert slurred.slur() > plain.slur() + 12


# refusal


def test_without_p_or_t_there_is_none() -> None:
    assert found(recording(R, T)).p is None
    alone = found(recording(R, P))
    assert alone.t_end is None
    assert found(recording(R, T)).amplitudes()["p"] is None


def test_a_t_wave_just_before_the_next_qrs_is_not_a_p_wave() -> None:
    assert found(recording(R, (150.0, 0.3, 25.0), rr=320), 320).p is None


def test_a_complex_without_beginning_and_end_is_not_measured() -> None:
    saw = np.tile((MS % 300) / 300, (12, 1))
    usual = saw[:, :1120]
    assert delineate(usual[None], usual, 300, 300) is None
