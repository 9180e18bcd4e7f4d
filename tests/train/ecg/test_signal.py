"""Derived leads, the equations that tie them, resampling."""

import numpy as np
import pytest

from train.ecg import LEADS
from train.ecg.signal import check_lead_equations, derive_limb_leads, lead_errors, resample


def twelve_leads(n: int = 400) -> np.ndarray:
    """Random walks for the independent leads, the others derived [12, n]."""
    rng = np.random.default_rng(3)
    leads = {name: rng.standard_normal(n).cumsum() / 10 for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")}
    derive_limb_leads(leads)
    return np.stack([leads[name] for name in LEADS])


# equation


def test_derived_leads_by_hand() -> None:
    leads = {"I": np.array([0.5]), "II": np.array([1.25])}
    derive_limb_leads(leads)
    assert {name: float(values[0]) for name, values in leads.items()} == {
        "I": 0.5,
        "II": 1.25,
        "III": 0.75,
        "aVR": -0.875,
        "aVL": -0.125,
        "aVF": 1.0,
    }


def test_recorded_leads_are_kept_and_nothing_is_made_of_one_lead() -> None:
    leads = {"I": np.array([1.0]), "II": np.array([1.0]), "aVR": np.array([7.0])}
    derive_limb_leads(leads)
    assert leads["aVR"][0] == 7.0
    alone = {"I": np.array([1.0])}
    derive_limb_leads(alone)
    assert list(alone) == ["I"]


# property


def test_true_leads_have_no_error() -> None:
    assert max(lead_errors(twelve_leads()).values()) < 1e-12
    check_lead_equations(twelve_leads(), "here")


def test_missing_samples_do_not_count() -> None:
    signal = twelve_leads()
    signal[3, 10:50] = np.nan
    signal[1, 300:] = np.nan
    check_lead_equations(signal, "here")
    signal[5] = np.nan
    assert lead_errors(signal)["aVF"] == 0.0


def test_a_halved_rate_keeps_a_slow_wave_and_removes_what_would_fold_back() -> None:
    t = np.arange(2000) / 500
    slow, fast = np.sin(2 * np.pi * 3 * t), np.sin(2 * np.pi * 190 * t)  # 190 Hz lies above the new limit of 125 Hz
    half = resample(np.stack([slow, slow + fast]).astype(np.float32), 500, 250)
    assert half.shape == (2, 1000)
    assert half.dtype == np.float32
    middle = slice(100, -100)  # the filter's ends see zeros
    assert np.abs(half[0] - slow[::2])[middle].max() < 2e-3
    assert np.abs(half[1] - half[0])[middle].max() < 2e-3


def test_the_same_rate_changes_nothing() -> None:
    signal = twelve_leads().astype(np.float32)
    assert resample(signal, 400, 400) is signal


@pytest.mark.parametrize(("hz", "target", "n", "m"), [(100, 250, 40, 100), (400, 500, 41, 52), (1000, 360, 250, 90)])
def test_length_is_rounded_up(hz: float, target: float, n: int, m: int) -> None:
    assert resample(np.zeros((2, n), np.float32), hz, target).shape == (2, m)


# refusal


@pytest.mark.parametrize(("a", "b"), [("aVR", "aVL"), ("aVR", "aVF"), ("aVL", "aVF"), ("III", "aVF")])
def test_two_swapped_leads_are_named(a: str, b: str) -> None:
    signal = twelve_leads()
    i, j = LEADS.index(a), LEADS.index(b)
    signal[[i, j]] = signal[[j, i]]
    with pytest.raises(ValueError, match=rf"rec-1: .* in {a} .*, {b} .*; and {a} and {b} fit when swapped"):
        check_lead_equations(signal, "rec-1")


def test_one_wrong_lead_is_named() -> None:
    signal = twelve_leads()
    signal[4] *= 1.5
    with pytest.raises(ValueError, match=r"in aVL \(by \d.\d\d mV\); the other limb leads agree"):
        check_lead_equations(signal, "rec-1")


@pytest.mark.parametrize("change", ["swap I and II", "scale every lead to one"])
def test_a_wrong_reference_or_scaling_is_guessed(change: str) -> None:
    signal = twelve_leads()
    if change == "swap I and II":
        signal[[0, 1]] = signal[[1, 0]]
    else:
        signal /= np.abs(signal).max(1, keepdims=True)
    with pytest.raises(ValueError, match="so I or II is wrong, or leads are scaled one by one"):
        check_lead_equations(signal, "rec-1")


def test_an_error_within_the_tolerance_passes() -> None:
    signal = twelve_leads()
    signal[2] += 0.04
    check_lead_equations(signal, "rec-1")
    with pytest.raises(ValueError, match="in III"):
        check_lead_equations(signal, "rec-1", tolerance_mv=0.03)
