"""Atrial activity of known rate among beats."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.ecg.simulated import as_drawn, clean
from train.ecg import simulate_ecg
from train.ecg.atria import beats_alone, fibrillates, left_over
from train.ecg.detect import find_beats
from train.ecg.record import read_record
from train.ecg.signal import measure

# equation


def test_what_is_left_over_without_the_beats_is_the_waves_that_were_added() -> None:
    record, _ = clean("NORM", 1)
    t = np.arange(record.signal.shape[1]) / 1000
    waves = 0.05 * np.sin(2 * np.pi * 6.3 * t)
    beats = find_beats(record.signal + waves, 1000)
    rest = left_over(beats)[:, 1000:-1000]
    assert np.corrcoef(rest[1], waves[1000:-1000])[0, 1] > 0.6  # a mean of 13 beats keeps some
    assert fibrillates(beats) == pytest.approx(60 * 6.3, abs=10)
    assert fibrillates(find_beats(record.signal, 1000)) is None


@pytest.mark.parametrize("rate", [70, 88, 110])
def test_waves_at_a_rate_of_their_own_are_counted(rate: float) -> None:
    beats = find_beats(simulate_ecg(["SBRAD"], np.random.default_rng(2), hz=500).signal, 500)
    t = np.arange(beats.signal.shape[1])
    cycle = 60_000 / rate
    beats.signal += 0.1 * np.exp(-0.5 * ((t % cycle - cycle / 2) / 25) ** 2)
    assert beats_alone(beats) == pytest.approx(rate, abs=2)


def test_flutter_waves_come_300_times_a_minute() -> None:
    rates = [m["atrial_rate"] for seed in range(12) if (m := as_drawn("AFLT", seed)[1])["heart_rate"] < 140]
    assert len(rates) >= 3
    assert rates == pytest.approx([300] * len(rates), abs=20)


# refusal


@pytest.mark.parametrize("name", ["NORM", "1AVB", "STACH", "CLBBB", "SBRAD"])
def test_sinus_rhythm_has_the_atrial_rate_of_its_beats_and_does_not_undulate(name: str) -> None:
    for seed in range(3):
        m = as_drawn(name, seed)[1]
        assert m["atrial_rate"] == m["heart_rate"]
        assert not m["undulates"]


def test_a_ramp_from_t_to_p_is_no_flutter(shared: Path) -> None:
    record = shared / "data" / "ptbdb_s0010_re" / "s0010_re"
    if not record.with_suffix(".hea").exists():
        pytest.skip("no real record beside the reference files")
    signal = read_record(record).signal[:, 10_000:20_000]
    hum = 0.02 * np.sin(2 * np.pi * 0.05 * np.arange(10_000))
    found = measure((signal + hum).astype(np.float32), 1000)  # T, then P 216 ms later; RR is 728
    assert (found["undulates"], found["p_before_qrs"]) == (False, True)


def test_two_flutter_waves_for_each_beat_cannot_be_told() -> None:
    fast = [m for seed in range(6) if (m := as_drawn("AFLT", seed)[1])["heart_rate"] > 140]
    assert fast
    assert [m["undulates"] for m in fast] == [None] * len(fast)


def test_fibrillation_has_no_p_wave_whose_interval_could_be_measured() -> None:
    record = simulate_ecg(["AFIB"], np.random.default_rng(4), hz=250)
    found = measure(record.signal, 250)
    assert (found["undulates"], found["p_before_qrs"], found["pr"], found["p"]) == (True, False, None, None)
