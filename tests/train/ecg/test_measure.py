"""Measurements of noisy signals against the simulator's truth; of real records, that they are plausible."""

from pathlib import Path

import numpy as np
import pytest

from train.ecg import LEADS, read_record, simulate_ecg
from train.ecg.signal import measure

# what 12 microvolts of noise, wander and a grid of 10 ms leave: the truth is read off the noiseless parts of a beat
TOLERANCE = {"heart_rate": 2, "pr": 20, "qrs": 20, "qt": 30, "axis": 15}
NAMES = ("NORM", "SBRAD", "STACH", "1AVB", "CRBBB", "CLBBB", "LAFB", "LVH", "INVT", "LNGQT")


@pytest.mark.parametrize("hz", [100, 250, 400, 500, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_noisy_recordings_are_measured_within_the_stated_tolerances(name: str, hz: int) -> None:
    record = simulate_ecg([name], np.random.default_rng([3, hz]), hz=hz)
    found = measure(record.signal, hz)
    assert found["regular"]
    for what, tolerance in TOLERANCE.items():
        if name == "STACH" and (what == "qt" or found[what] is None):
            continue  # T and the next P are one wave
        assert found[what] == pytest.approx(record.truth[what], abs=tolerance), what


@pytest.mark.parametrize("name", ["AFIB", "3AVB", "PACE"])
def test_a_rhythm_without_conducted_p_waves_has_no_pr(name: str) -> None:
    found = measure(simulate_ecg([name], np.random.default_rng([3, 1]), hz=500).signal, 500)
    assert found["pr"] is None
    assert found["regular"] == (name != "AFIB")


def test_large_wander_and_noise_change_little() -> None:
    record = simulate_ecg([], np.random.default_rng(6), hz=250, noise_mv=0.03, wander_mv=0.4)
    found = measure(record.signal, 250)
    for what in ("heart_rate", "pr", "qrs", "axis"):
        assert found[what] == pytest.approx(record.truth[what], abs=1.5 * TOLERANCE[what]), what


@pytest.mark.parametrize("kept", [("II",), ("V2", "V5"), ("I", "aVF", "V1"), ("aVR", "aVL")])
def test_some_leads_tell_the_rate_and_two_limb_leads_the_axis(kept: tuple[str, ...]) -> None:
    record = simulate_ecg([], np.random.default_rng(8), hz=500)
    signal = np.full_like(record.signal, np.nan)
    rows = [LEADS.index(lead) for lead in kept]
    signal[rows] = record.signal[rows]
    found = measure(signal, 500)
    assert found["heart_rate"] == pytest.approx(record.truth["heart_rate"], abs=2)
    n_limb = sum(lead in LEADS[:6] for lead in kept)
    assert (found["axis"] is None) == (n_limb < 2)
    if n_limb >= 2:
        assert found["axis"] == pytest.approx(record.truth["axis"], abs=20)


def test_what_cannot_be_told_is_none() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (12, 5000)).astype(np.float32)
    for signal in (noise, np.zeros((12, 5000), np.float32), np.full((12, 5000), np.nan, np.float32)):
        assert {name for name, value in measure(signal, 500).items() if value is not None} == {"n_beats"}


@pytest.mark.parametrize(
    ("path", "rate"), [("ptbxl_00001_lr/00001_lr", (58, 70)), ("ptbdb_s0010_re/s0010_re", (75, 88))]
)
def test_real_records_are_measured_plausibly(shared: Path, path: str, rate: tuple[int, int]) -> None:
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    record = read_record(shared / "data" / path)
    found = measure(record.signal, record.hz)
    assert rate[0] < found["heart_rate"] < rate[1]
    assert 60 < found["qrs"] < 140
    if found["pr"] is not None:
        assert 110 < found["pr"] < 220


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \[12, n\], got \[3, 900\]"):
        measure(np.zeros((3, 900), np.float32), 500)
    with pytest.raises(ValueError, match="hz=50 must be at least 100"):
        measure(np.zeros((12, 900), np.float32), 50)
