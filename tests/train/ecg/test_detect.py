"""Beats at known moments are found: regular, irregular, paced, wide, small and noisy ones, at every sampling rate."""

import numpy as np
import pytest

from train.ecg.detect import SPIKE_HZ, cut, find_beats, middle_mean, per_millisecond

RATES_HZ = (100.0, 400.0, 500.0)
WEIGHTS = np.array([0.6, 1, 0.4, -0.8, 0.1, 0.7, -0.7, -0.9, 0.5, 1.2, 1.1, 0.8])[:, None]  # of the leads
REGULAR = np.arange(0.6, 9.6, 0.8)
IRREGULAR = np.cumsum([0.6, 0.8, 0.5, 1.1, 0.7, 0.45, 1.3, 0.6, 0.9, 0.55, 1.2])


def drawn(
    times: np.ndarray, hz: float, *, size: float = 1.0, width: float = 0.010, n_seconds: float = 10
) -> np.ndarray:
    """A Gaussian R of `size` mV and standard deviation `width` seconds, with P and T, at each time [12, n]."""
    t = np.arange(round(n_seconds * hz)) / hz
    signal = np.zeros((12, len(t)))
    for at in times:
        for shift, height, spread in ((0.0, 1.0, width), (-0.16, 0.1, 0.02), (0.26 + width, 0.22, 0.04)):
            signal += WEIGHTS * size * height * np.exp(-0.5 * ((t - at - shift) / spread) ** 2)
    return signal


def offsets(found: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ms from each R to where it was found."""
    assert len(found) == len(times), (found, times)
    return found - 1000 * times


# equation


@pytest.mark.parametrize("hz", RATES_HZ)
@pytest.mark.parametrize("times", [REGULAR, IRREGULAR], ids=["regular", "irregular"])
def test_every_r_is_found_where_it_is(times: np.ndarray, hz: float) -> None:
    late = offsets(find_beats(drawn(times, hz), hz).at, times)
    assert np.abs(late).max() <= 15  # the steepest moment lies one standard deviation from the peak
    assert np.ptp(late) <= 4  # and it is the same in every beat


@pytest.mark.parametrize("hz", RATES_HZ)
@pytest.mark.parametrize(("size", "width"), [(1.0, 0.025), (0.3, 0.010), (3.0, 0.012)], ids=["wide", "small", "tall"])
def test_wide_small_and_tall_beats_are_found(size: float, width: float, hz: float) -> None:
    late = offsets(find_beats(drawn(REGULAR, hz, size=size, width=width), hz).at, REGULAR)
    assert np.abs(late).max() <= 1000 * width + 10
    assert np.ptp(late) <= 4


@pytest.mark.parametrize("hz", RATES_HZ)
def test_beats_are_found_in_noise_hum_and_wander(hz: float) -> None:
    rng, t = np.random.default_rng(1), np.arange(round(10 * hz)) / hz
    hum = 0.05 * np.sin(2 * np.pi * 50 * t + 1) + 0.5 * np.sin(2 * np.pi * 0.25 * t)
    found = find_beats(drawn(IRREGULAR, hz) + hum + rng.normal(0, 0.05, (12, len(t))), hz).at
    assert np.abs(offsets(found, IRREGULAR)).max() <= 25


@pytest.mark.parametrize("hz", RATES_HZ)
def test_paced_beats_are_found_and_their_spikes_are_not(hz: float) -> None:
    signal = drawn(REGULAR, hz, width=0.022)
    spikes = np.round((REGULAR - 0.07) * hz).astype(int)
    signal[:, spikes] += 2.0
    beats = find_beats(signal, hz)
    assert np.abs(offsets(beats.at, REGULAR)).max() <= (35 if hz >= SPIKE_HZ else 80)
    if hz < SPIKE_HZ:  # a spike is as wide as a QRS, and taken for a part of it
        assert len(beats.spikes) == 0
        return
    assert np.abs(beats.spikes - 1000 * spikes / hz).max() <= 1
    assert np.abs(beats.signal - find_beats(drawn(REGULAR, hz, width=0.022), hz).signal).max() < 0.1  # of 2 mV


def test_a_fast_rhythm_is_not_halved() -> None:
    times = np.arange(0.4, 9.8, 0.32)  # 188 a minute
    assert np.ptp(offsets(find_beats(drawn(times, 500), 500).at, times)) <= 4


# property


def test_ectopic_beats_are_a_kind_of_their_own() -> None:
    rest, early = np.delete(REGULAR, [4, 8]), REGULAR[[4, 8]] - 0.3
    beats = find_beats(drawn(rest, 500) - drawn(early, 500, size=1.2, width=0.03), 500)
    times = np.sort(np.concatenate([rest, early]))
    assert [len(kind) for kind in beats.kinds] == [len(rest), 2]
    assert [bool(abs(times[n] - early).min() < 1e-9) for n in beats.kinds[1]] == [True, True]
    assert beats.widths[beats.kinds[1]].min() > beats.widths[beats.kinds[0]].max() + 30


def test_in_bigeminy_the_narrow_beat_is_the_usual_one() -> None:
    wide, narrow = np.arange(0.4, 9.9, 1.4), np.arange(1.3, 9.9, 1.4)  # there is one more of the wide ones
    beats = find_beats(drawn(narrow, 500) - drawn(wide, 500, size=1.2, width=0.03), 500)
    assert [len(kind) for kind in beats.kinds] == [7, 7] or len(beats.kinds[0]) == len(narrow)
    assert np.allclose(beats.at[beats.kinds[0]], 1000 * narrow, atol=15)


def test_the_usual_beat_is_the_drawn_one_without_the_wander() -> None:
    t = np.arange(5000) / 500
    clean = drawn(REGULAR, 500)
    usual = find_beats(clean + 0.4 * np.sin(2 * np.pi * 0.2 * t), 500).usual
    beats = find_beats(clean, 500)
    assert np.abs(usual - beats.usual).max() < 0.03
    assert np.ptp(usual, axis=1) == pytest.approx(np.ptp(clean, axis=1), abs=0.02)


def test_a_lead_without_samples_is_not_used_and_a_gap_excludes_its_beats() -> None:
    signal = drawn(REGULAR, 500)
    signal[4] = np.nan
    signal[7, 2000:2100] = np.nan  # at 4.0 to 4.2 s
    beats = find_beats(signal, 500)
    assert np.isnan(beats.signal).all(1).tolist() == [row == 4 for row in range(12)]
    assert len(beats.at) == len(REGULAR)
    near = (np.abs(REGULAR - 4.1) < 0.8) | (REGULAR < 0.42) | (REGULAR > 9.3)
    assert len(beats.cuts) == len(REGULAR) - near.sum()


@pytest.mark.parametrize(("hz", "n"), [(100.0, 70), (400.0, 401), (500.0, 333), (1000.0, 700)])
def test_a_recording_at_1_khz_has_its_length_in_ms(hz: float, n: int) -> None:
    whole, gaps, _ = per_millisecond(np.random.default_rng(0).normal(size=(12, n)), hz)
    assert whole.shape == (12, len(gaps)) == (12, int(np.ceil(n * 1000 / hz)))


def test_the_middle_mean_is_deaf_to_outliers() -> None:
    assert middle_mean(np.array([[1.0], [2], [3], [1000]])).item() == 2.5


# refusal


@pytest.mark.parametrize("what", ["flat", "missing", "noise", "slow waves", "too short"])
def test_nothing_is_found_where_there_is_no_beat(what: str) -> None:
    t = np.arange(5000) / 500
    signals = {
        "flat": np.zeros((12, 5000)),
        "missing": np.full((12, 5000), np.nan),
        "noise": np.random.default_rng(0).normal(0, 0.02, (12, 5000)),
        "slow waves": WEIGHTS * np.sin(2 * np.pi * 0.8 * t),
        "too short": drawn(np.array([0.5]), 500, n_seconds=0.9),
    }
    beats = find_beats(signals[what], 500)
    assert (len(beats.at), beats.kinds, len(beats.cuts)) == (0, [], 0)


def test_beats_at_the_edges_are_not_cut_out() -> None:
    signal = np.arange(24.0).reshape(2, 12)
    parts = cut(signal, np.array([1, 5, 11]), before=2, after=3)
    assert parts.tolist() == [[[3, 4, 5, 6, 7], [15, 16, 17, 18, 19]]]
