"""Measurements of noisy signals against the simulator's truth; of real records, that they are plausible."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.ecg import LEADS, read_record, simulate_ecg
from train.ecg.measure import PER_LEAD, UNITS
from train.ecg.signal import measure

# what 12 microvolts of noise, wander and a grid of 10 ms leave: the truth is read off the noiseless parts of a beat
TOLERANCE = {"heart_rate": 2, "pr": 15, "qrs": 15, "qt": 25, "axis": 10}
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


def read(shared: Path, path: str) -> dict[str, Any]:
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    record = read_record(shared / "data" / path)
    return measure(record.signal, record.hz)


def test_a_real_normal_record_is_measured_as_such(shared: Path) -> None:
    """PTB-XL 1: NORM, SR; static noise in I to V1. What is asserted was read off the drawn beat."""
    m = read(shared, "ptbxl_00001_lr/00001_lr")
    assert (m["p_before_qrs"], m["regular"], m["n_early"], m["undulates"], m["spike"]) == (True, True, 0, False, None)
    assert m["heart_rate"] == pytest.approx(64, abs=1)
    assert m["pr"] == pytest.approx(145, abs=10)
    assert m["qrs"] == pytest.approx(80, abs=10)
    assert m["qt"] == pytest.approx(385, abs=15)  # a blip of noise behind the T wave is not its end
    assert m["axis"] == pytest.approx(14, abs=5)
    assert m["r"]["I"] == pytest.approx(0.64, abs=0.05)
    assert m["s"]["V2"] == pytest.approx(-1.34, abs=0.05)


@pytest.mark.parametrize("path", ["s0010_re", "s0010_500"])
def test_a_real_infarction_is_measured_as_it_looks(shared: Path, path: str) -> None:
    """PTB patient 1, akinesia of the inferior wall.

    The axis of -105 is right: Q or QS in II, III and aVF, a QRS that is about as deep as high in I, R' in V1. The P
    wave is upright in I and II, so no electrodes of the arms are swapped; and the Frank leads of the same recording,
    from electrodes of their own, point up and to the right too (-131). The line is a ramp from T to P, on which no
    level is the end of T: QT was read as 511 ms before slopes were looked at.
    """
    m = read(shared, f"ptbdb_s0010_re/{path}")
    assert m["axis"] == pytest.approx(-105, abs=5)
    assert min(m["p"]["I"], m["p"]["II"]) > 0.05 > 0 > m["p"]["aVR"]
    assert min(m["q_width"][lead] for lead in ("II", "III", "aVF")) >= 40
    assert -m["s"]["I"] == pytest.approx(m["r"]["I"], abs=0.05)
    assert m["r_prime"]["V1"] == pytest.approx(1.1, abs=0.1)
    assert m["qrs"] == pytest.approx(125, abs=10)
    assert m["qt"] == pytest.approx(425, abs=12)  # by tangents: 400 to 408 in the limb leads, 422 in V2 and V3
    assert m["qtc"] == pytest.approx(472, abs=14)
    assert m["pr"] == pytest.approx(160, abs=15)
    assert m["heart_rate"] == pytest.approx(82, abs=1)


def test_every_measurement_has_a_unit_and_per_lead_ones_every_lead() -> None:
    found = measure(simulate_ecg([], np.random.default_rng(1), hz=400).signal, 400)
    assert list(found) == list(UNITS)
    assert {name for name, value in found.items() if isinstance(value, dict)} == set(PER_LEAD)
    assert all(list(found[name]) == list(LEADS) for name in PER_LEAD)


def test_a_lead_without_samples_has_no_amplitudes() -> None:
    signal = simulate_ecg([], np.random.default_rng(1), hz=400).signal.copy()
    signal[LEADS.index("V3")] = np.nan
    found = measure(signal, 400)
    assert {name: found[name]["V3"] for name in PER_LEAD} == dict.fromkeys(PER_LEAD)
    assert found["r"]["V4"] == pytest.approx(measure(np.nan_to_num(signal), 400)["r"]["V4"])


@pytest.mark.parametrize(("hz", "seen"), [(100, None), (250, None), (400, True), (500, True), (1000, True)])
def test_a_pacemaker_is_seen_where_the_sampling_rate_allows(hz: int, seen: bool | None) -> None:
    assert measure(simulate_ecg(["PACE"], np.random.default_rng(3), hz=hz).signal, hz)["spike"] is seen


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \[12, n\], got \[3, 900\]"):
        measure(np.zeros((3, 900), np.float32), 500)
    with pytest.raises(ValueError, match="hz=50 must be at least 100"):
        measure(np.zeros((12, 900), np.float32), 50)
