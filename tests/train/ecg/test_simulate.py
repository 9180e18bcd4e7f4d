"""The stated truth is what signal.measure finds in the signal; the signal obeys its equations, seed and settings."""

import numpy as np
import pytest

from tests.train.ecg.simulated import clean, lead
from train.ecg import LEADS, EcgRecord, read_record, simulate_ecg, write_record
from train.ecg.conditions import CONDITIONS
from train.ecg.signal import FROM_I_AND_II
from train.ecg.simulate import statements_of

SEEDS = range(3)

# parity: the stated truth against an independent measurement of the signal

STEADY = [name for name in CONDITIONS if name not in ("AFLT", "AFIB")]  # whose baseline is flat
ST = (
    "ASMI",
    "INJIN",
    "STD_",
    "CLBBB",
    "LVH",
)  # an ST segment that begins inside the QRS changes what is measured there
HIDDEN_T = ("STACH", "SVTAC", "BIGU")  # T runs into the next P, the next QRS, the early beat


@pytest.mark.parametrize("name", ["NORM", *STEADY])
def test_intervals_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = clean(name, seed)
        truth = record.truth
        # where a QRS is slow at its edges, as a paced one, slope and amplitude find different ones
        assert m["qrs"] == pytest.approx(truth["qrs"], abs=12 if name == "PACE" else 8)
        assert m["axis"] == pytest.approx(truth["axis"], abs=8)
        if m["qt"] is None:
            assert name in HIDDEN_T
        else:
            assert m["qt"] == pytest.approx(truth["qt"], abs=12)
            assert m["qtc"] == pytest.approx(truth["qtc"], abs=14)
        assert m["p_before_qrs"] == truth["p_before_qrs"]
        for interval in ("pr", "p_width"):
            assert m[interval] == (None if truth[interval] is None else pytest.approx(truth[interval], abs=8))


@pytest.mark.parametrize("name", ["NORM", *CONDITIONS])
def test_the_rhythm_in_the_truth_is_that_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = clean(name, seed)
        truth = record.truth
        assert m["heart_rate"] == pytest.approx(truth["heart_rate"], rel=0.02)
        assert (m["regular"], m["spike"]) == (truth["regular"], truth["spike"])
        assert m["undulates"] in (truth["undulates"], None)
        if m["undulates"] is None:
            assert m["heart_rate"] > 110  # flutter waves would hide
        if (name, seed) == ("PVC", 1):
            continue  # the R of a beat lies just before the recording, its steepest moment in it
        off = {"PVC": 90, "BIGU": 90, "PAC": 60}.get(name, 20)  # R of an early beat is not its steepest moment
        assert m["rr_variation"] == pytest.approx(truth["rr_variation"], abs=off)


@pytest.mark.parametrize("name", ["NORM", "PVC", "BIGU", "PAC", "AFIB", "SARRH", "CLBBB", "PACE"])
def test_early_beats_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = clean(name, seed)
        edge = 1 if name == "BIGU" else 0  # a beat may be cut there
        for what in ("n_early", "n_wide_early"):
            assert record.truth[what] - edge <= m[what] <= record.truth[what], what


@pytest.mark.parametrize("name", ["NORM", *(name for name in STEADY if name not in ST)])
def test_amplitudes_of_the_qrs_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = clean(name, seed)
        truth = record.truth
        for where in LEADS:
            assert m["r"][where] == pytest.approx(truth["r"][where], abs=0.04)
            lowest, stated = min(m["q"][where], m["s"][where]), min(truth["q"][where], truth["s"][where])
            assert lowest == pytest.approx(stated, abs=0.05)
            if truth["r"][where] > 0.15:  # otherwise Q and S are one wave
                assert m["q"][where] == pytest.approx(truth["q"][where], abs=0.03)
                assert m["s"][where] == pytest.approx(truth["s"][where], abs=0.05)


@pytest.mark.parametrize("name", ["NORM", *STEADY])
def test_the_st_level_in_the_truth_is_that_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = clean(name, seed)
        for where in LEADS:  # the T wave's foot lies there at 190 beats a minute
            assert m["st"][where] == pytest.approx(record.truth["st"][where], abs=0.04)


@pytest.mark.parametrize("name", ["NORM", *(name for name in STEADY if name not in ST)])
def test_p_and_t_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = clean(name, seed)
        hidden = name in HIDDEN_T
        assert (m["p"] is None) == (record.truth["p"] is None)
        for where in LEADS:
            if not hidden:
                assert m["t"][where] == pytest.approx(record.truth["t"][where], abs=0.03)
            if record.truth["p"] is not None:
                assert m["p"][where] == pytest.approx(record.truth["p"][where], abs=0.05 if hidden else 0.015)


# property


@pytest.mark.parametrize("name", ["NORM", *CONDITIONS])
def test_the_lead_equations_hold_to_float32(name: str) -> None:
    signal = simulate_ecg([name], np.random.default_rng(3), hz=250).signal.astype(float)
    for where, (of_i, of_ii) in FROM_I_AND_II.items():
        assert np.abs(signal[lead(where)] - of_i * signal[0] - of_ii * signal[1]).max() < 1e-6


def test_the_same_generator_state_gives_the_same_bytes() -> None:
    def draw(seed: int) -> EcgRecord:
        return simulate_ecg(["CLBBB", "AFIB"], np.random.default_rng(seed), hz=250)

    first, again, other = draw(5), draw(5), draw(6)
    assert first.signal.tobytes() == again.signal.tobytes()
    assert first.truth == again.truth
    assert first.signal.tobytes() != other.signal.tobytes()


def test_the_order_of_conditions_does_not_matter() -> None:
    a = simulate_ecg(["CLBBB", "AFIB"], np.random.default_rng(5), hz=250)
    b = simulate_ecg(["AFIB", "CLBBB"], np.random.default_rng(5), hz=250)
    assert np.array_equal(a.signal, b.signal)


def test_noise_and_wander_are_added_to_the_same_clean_signal() -> None:
    noisy = simulate_ecg(["IMI"], np.random.default_rng(2), hz=500, wander_mv=0).signal
    wandering = simulate_ecg(["IMI"], np.random.default_rng(2), hz=500, noise_mv=0).signal
    plain = simulate_ecg(["IMI"], np.random.default_rng(2), hz=500, noise_mv=0, wander_mv=0).signal
    assert (noisy - plain)[[0, 1, 6, 7, 8, 9, 10, 11]].std() == pytest.approx(0.012, rel=0.02)
    drift = np.abs(wandering - plain)[[0, 1, 6, 7, 8, 9, 10, 11]].max(1)
    assert np.allclose(drift, 0.040, atol=2e-4)  # a sine of this amplitude in every independent channel


@pytest.mark.parametrize(("seconds", "hz"), [(10.0, 500.0), (7.0, 400.0), (2.5, 100.0)])
def test_length_and_sampling_rate_are_as_asked(seconds: float, hz: float) -> None:
    record = simulate_ecg([], np.random.default_rng(1), seconds=seconds, hz=hz)
    assert record.signal.shape == (12, round(seconds * hz))
    assert (record.hz, record.seconds) == (hz, seconds)
    assert record.signal.dtype == np.float32


def test_a_recording_too_short_for_two_beats_has_the_rate_of_its_heart() -> None:
    rates = [simulate_ecg(["3AVB"], np.random.default_rng(i), seconds=1.0).truth["heart_rate"] for i in range(3)]
    assert all(34 <= rate <= 42 for rate in rates)


def test_a_record_survives_wfdb(tmp_path) -> None:
    record = simulate_ecg(["1AVB", "LVH"], np.random.default_rng(4), hz=500, record_id="patient-7")
    back = read_record(write_record(record, tmp_path))
    assert np.abs(back.signal - record.signal).max() <= 0.0005 + 1e-6  # half of one unit of 1/1000 mV
    assert (back.hz, back.record_id, back.labels, back.meta) == (500.0, "patient-7", record.labels, dict(record.meta))
    assert back.truth == record.truth
    assert back.patient_id == "patient-7"


def test_labels_are_the_conditions_statements_and_the_rhythm() -> None:
    def labels(*names: str) -> set[str]:
        return set(simulate_ecg(names, np.random.default_rng(0), hz=100).labels or ())

    assert labels() == labels("NORM") == {"NORM", "SR"}
    assert labels("LVH") == {"LVH", "VCLVH", "SR"}
    assert labels("SBRAD", "ASMI") == {"SBRAD", "ASMI", "INJAS", "STE_"}
    assert labels("AFIB", "CRBBB") == {"AFIB", "CRBBB"}
    assert labels("BIGU") == {"BIGU", "PVC"}
    assert labels("3AVB") == {"3AVB"}
    assert statements_of([], {"p_before_qrs": True}) == {"NORM", "SR"}
