"""The stated truth is what calipers find in the signal; the signal obeys its equations, its seed and its settings."""

import numpy as np
import pytest

from tests.train.ecg.measure import lead, reading
from train.ecg import LEADS, EcgRecord, read_record, simulate_ecg, write_record
from train.ecg.conditions import CONDITIONS
from train.ecg.signal import FROM_I_AND_II
from train.ecg.simulate import statements_of

SEEDS = range(4)

# parity: the stated truth against calipers

STEADY = [name for name in CONDITIONS if name not in ("AFLT", "AFIB")]  # whose baseline is flat
ST = ("ASMI", "INJIN", "STD_", "CLBBB", "LVH")  # an ST segment that begins inside the QRS changes what calipers see


@pytest.mark.parametrize("name", ["NORM", *STEADY])
def test_intervals_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = reading(name, seed)
        truth, usual = record.truth, m.usual
        assert usual.qrs == pytest.approx(truth["qrs"], abs=8)  # slope against amplitude as the edge of the QRS
        assert usual.axis == pytest.approx(truth["axis"], abs=10)
        separate = usual.pr is not None or not truth["p_before_qrs"]  # P and T do not touch, as they do at 130 a minute
        if separate:
            assert usual.qt == pytest.approx(truth["qt"], abs=10)
            assert (usual.pr is None) == (truth["pr"] is None)
        else:
            assert truth["heart_rate"] > 100
        if usual.pr is not None:
            assert usual.pr == pytest.approx(truth["pr"], abs=5)
            assert usual.p_width == pytest.approx(truth["p_width"], abs=5)


@pytest.mark.parametrize("name", ["NORM", *CONDITIONS])
def test_rate_and_regularity_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = reading(name, seed)
        if name in (
            "AFIB",
            "BIGU",
        ):  # the mean; a beat that the edge cuts may be counted or not
            inside = len(m.rr) * 60_000 / float(m.times[-1] - m.times[0])
            assert inside == pytest.approx(record.truth["heart_rate"], rel=0.05)
        else:
            assert m.rate == pytest.approx(record.truth["heart_rate"], rel=0.04)
        assert record.truth["regular"] == (np.ptp(m.rr) < 120)
        if name not in ("PVC", "BIGU"):  # whose steepest moment is not where their R is
            assert float(np.ptp(m.rr)) == pytest.approx(record.truth["rr_variation"], abs=80)


@pytest.mark.parametrize("name", ["NORM", "PVC", "BIGU", "PAC", "AFIB", "CLBBB"])
def test_early_beats_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = reading(name, seed)
        wide = sum(beat.qrs > m.usual.qrs + 30 for beat in m.beats)
        assert wide <= record.truth["n_wide_early"] <= wide + 2  # the edges of the recording hide one each
        assert record.truth["undulates"] == (name == "AFIB")
        if name == "PAC":
            assert record.truth["n_early"] == 2
            assert int((m.rr < 0.8 * np.median(m.rr)).sum()) >= 1
        else:
            assert record.truth["n_early"] == record.truth["n_wide_early"]


@pytest.mark.parametrize("name", ["NORM", *(name for name in STEADY if name not in (*ST, "PACE"))])
def test_amplitudes_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = reading(name, seed)
        truth, usual = record.truth, m.usual
        for where in LEADS:
            assert usual.r(where) == pytest.approx(truth["r"][where], abs=0.04)
            lowest, stated = min(usual.q(where), usual.s(where)), min(truth["q"][where], truth["s"][where])
            assert lowest == pytest.approx(stated, abs=0.05)  # the T wave's foot at 190 beats a minute
            if truth["r"][where] > 0.15:  # otherwise Q and S are one wave
                assert usual.q(where) == pytest.approx(truth["q"][where], abs=0.02)
            assert usual.st(where) == pytest.approx(truth["st"][where], abs=0.03)


@pytest.mark.parametrize("name", ["ASMI", "INJIN", "STD_", "CLBBB", "LVH"])
def test_the_st_level_in_the_truth_is_that_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = reading(name, seed)
        for where in LEADS:
            assert m.usual.st(where) == pytest.approx(record.truth["st"][where], abs=0.03)


@pytest.mark.parametrize("name", ["NORM", "SBRAD", "CRBBB", "INVT", "WPW", "LVOLT", "PACE", "LNGQT"])
def test_p_and_t_in_the_truth_are_those_of_the_signal(name: str) -> None:
    for seed in SEEDS:
        record, m = reading(name, seed)
        for where in LEADS:
            assert m.usual.t(where) == pytest.approx(record.truth["t"][where], abs=0.02)
            if record.truth["p"] is not None:
                assert m.usual.p(where) == pytest.approx(record.truth["p"][where], abs=0.01)


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
