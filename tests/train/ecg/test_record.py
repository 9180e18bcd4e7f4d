"""WFDB records as they come: names in any spelling, any order, several files, microvolts, gaps; and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

from train.ecg import LEADS, EcgRecord, read_record, simulate_ecg, write_record
from train.ecg.record import lead_name
from train.ecg.signal import lead_errors

HZ = 250
HALF_A_UNIT = 0.0005 + 1e-6  # mV: 16 bits at 1000 units per mV, and float32


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Twelve leads of a simulated heart, mV [12, 1000]."""
    return simulate_ecg(["IMI"], np.random.default_rng(1), hz=HZ, seconds=4).signal


def write(
    folder: Path,
    signals: np.ndarray,
    names: Sequence[str],
    *,
    units: str = "mV",
    gain: float = 1000.0,
    files: Sequence[str] | None = None,
) -> Path:
    """A WFDB record "r" of signals [leads, n] in `units`, spread over `files`."""
    n = len(names)
    record = wfdb.Record(
        record_name="r",
        n_sig=n,
        fs=HZ,
        sig_len=signals.shape[1],
        file_name=list(files or ["r.dat"] * n),
        fmt=["16"] * n,
        adc_gain=[gain] * n,
        baseline=[0] * n,
        units=[units] * n,
        sig_name=list(names),
        p_signal=signals.T.astype(float),
        comments=["Age: 55", "Sex: F"],
    )
    record.set_d_features(do_adc=True)
    record.set_defaults()
    folder.mkdir(exist_ok=True)
    record.wrsamp(write_dir=str(folder))
    return folder / "r"


def edit_header(record: Path, old: str, new: str, count: int = -1) -> None:
    header = record.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new, count))


# equation


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("I", "I"),
        ("ii", "II"),
        ("DIII", "III"),
        ("AVR", "aVR"),
        ("avl", "aVL"),
        ("aVF", "aVF"),
        ("v1", "V1"),
        ("MDC_ECG_LEAD_V6", "V6"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("lead II", "II"),
        ("ECG_V3", "V3"),
        (" V4 ", "V4"),
        ("vx", None),
        ("V7", None),
        ("IV", None),
        ("ABP", None),
        ("DV1", None),
    ],
)
def test_names_of_leads_in_any_spelling(spelling: str, name: str | None) -> None:
    assert lead_name(spelling) == name


# parity


def test_a_plain_record_is_read_to_half_a_unit(tmp_path: Path, truth: np.ndarray) -> None:
    record = read_record(write(tmp_path, truth, LEADS))
    assert record.signal.shape == (12, 1000)
    assert record.signal.dtype == np.float32
    assert np.abs(record.signal - truth).max() <= HALF_A_UNIT
    assert (record.hz, record.seconds, record.record_id) == (HZ, 4.0, "r")
    assert (record.labels, record.report, record.split, dict(record.truth)) == (None, None, None, {})


def test_the_numbers_are_wfdbs_own(tmp_path: Path, truth: np.ndarray) -> None:
    path = write(tmp_path, truth, LEADS, gain=200.0)
    assert np.array_equal(read_record(path).signal, wfdb.rdrecord(str(path)).p_signal.T.astype(np.float32))


def test_lower_case_names_are_leads(tmp_path: Path, truth: np.ndarray) -> None:
    record = read_record(write(tmp_path, truth, [name.lower() for name in LEADS]))
    assert np.abs(record.signal - truth).max() <= HALF_A_UNIT


def test_leads_are_taken_by_name_not_by_position(tmp_path: Path, truth: np.ndarray) -> None:
    order = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # as MIMIC-IV-ECG has them
    record = read_record(write(tmp_path, truth[[LEADS.index(name) for name in order]], order))
    assert np.abs(record.signal - truth).max() <= HALF_A_UNIT


def test_fifteen_leads_in_two_files_give_twelve(tmp_path: Path, truth: np.ndarray) -> None:
    extra = np.ones((3, truth.shape[1]))
    names = [*(name.lower() for name in LEADS), "vx", "vy", "vz"]
    path = write(tmp_path, np.concatenate([truth, extra]), names, files=["r.dat"] * 12 + ["r.xyz"] * 3)
    assert (tmp_path / "r.xyz").stat().st_size == 3 * 2 * truth.shape[1]
    assert np.abs(read_record(path).signal - truth).max() <= HALF_A_UNIT


@pytest.mark.parametrize("unit", ["uV", "\u00b5V", "\u03bcV"])
def test_microvolts_become_millivolts(tmp_path: Path, truth: np.ndarray, unit: str) -> None:
    path = write(tmp_path, 1000 * truth, LEADS, units="uV", gain=1.0)
    edit_header(path, "/uV", f"/{unit}")
    assert np.abs(read_record(path).signal - truth).max() <= HALF_A_UNIT


def test_volts_become_millivolts(tmp_path: Path, truth: np.ndarray) -> None:
    record = read_record(write(tmp_path, truth / 1000, LEADS, units="V", gain=1e6))
    assert np.abs(record.signal - truth).max() <= HALF_A_UNIT


@pytest.mark.parametrize(
    ("path", "hz", "seconds"),
    [
        ("ptbxl_00001_lr/00001_lr", 100, 10.0),
        ("ptbdb_s0010_re/s0010_re", 1000, 38.4),
        ("ptbdb_s0010_re/s0010_500", 500, 10.0),
    ],
)
def test_real_records_are_read_and_obey_the_lead_equations(shared: Path, path: str, hz: float, seconds: float) -> None:
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    record = read_record(shared / "data" / path)
    assert (record.signal.shape, record.hz) == ((12, round(seconds * hz)), hz)
    assert max(lead_errors(record.signal.astype(float)).values()) <= 0.0016  # 1.5 units of 1/1000 mV, and float32
    assert 0.3 < np.abs(record.signal).max() < 5


def test_two_readings_of_one_real_patient_agree(shared: Path) -> None:
    """The 15-lead record of 1 kHz in two files, and its first ten seconds as another program decimated them."""
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    folder = shared / "data" / "ptbdb_s0010_re"
    full, short = read_record(folder / "s0010_re").signal[:, :10_000:2], read_record(folder / "s0010_500").signal
    for ours, theirs in zip(full, short, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99


# property


def test_the_header_file_names_the_record_too(tmp_path: Path, truth: np.ndarray) -> None:
    path = write(tmp_path, truth, LEADS)
    assert np.array_equal(read_record(path.with_suffix(".hea")).signal, read_record(str(path)).signal)


def test_derived_leads_that_were_not_recorded_are_computed(tmp_path: Path, truth: np.ndarray) -> None:
    kept = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
    record = read_record(write(tmp_path, truth[[LEADS.index(name) for name in kept]], kept))
    assert np.abs(record.signal - truth).max() <= 2 * HALF_A_UNIT  # the rounding of I and of II


def test_a_gap_stays_a_gap(tmp_path: Path, truth: np.ndarray) -> None:
    gappy = truth.astype(float).copy()
    gappy[7, 100:150] = np.nan
    record = read_record(write(tmp_path, gappy, LEADS))
    assert np.array_equal(np.isnan(record.signal), np.isnan(gappy))


def test_everything_that_was_written_is_read_back(tmp_path: Path, truth: np.ndarray) -> None:
    record = EcgRecord(
        signal=truth,
        hz=HZ,
        record_id="a b/7",
        patient_id="p7",
        split="test",
        labels=frozenset({"LAO/LAE", "SR"}),
        report='Sinus rhythm, "LAE".',
        truth={"pr": None, "qrs": 91.5, "p": {"I": 0.1}},
        meta={"age": 55},
    )
    path = write_record(record, tmp_path)
    assert path.name == "a_b_7"
    back = read_record(path)
    assert np.abs(back.signal - truth).max() <= HALF_A_UNIT
    assert replace(back, signal=truth) == record


def test_the_check_can_be_left_out(tmp_path: Path, truth: np.ndarray) -> None:
    wrong = truth.copy()
    wrong[[3, 4]] = wrong[[4, 3]]
    path = write(tmp_path, wrong, LEADS)
    assert np.abs(read_record(path, check=False).signal - wrong).max() <= HALF_A_UNIT


# refusal


def test_swapped_leads_are_refused_and_named(tmp_path: Path, truth: np.ndarray) -> None:
    wrong = truth.copy()
    wrong[[3, 4]] = wrong[[4, 3]]
    with pytest.raises(ValueError, match=r"r: the limb leads contradict .* aVR and aVL fit when swapped"):
        read_record(write(tmp_path, wrong, LEADS))


@pytest.mark.parametrize("gain", ["", " 0/mV"])
def test_a_missing_gain_is_refused(tmp_path: Path, truth: np.ndarray, gain: str) -> None:
    path = write(tmp_path, truth, LEADS)
    lines = path.with_suffix(".hea").read_text().splitlines()
    fields = lines[5].split()
    lines[5] = f"{fields[0]} {fields[1]}{gain}" + (f" {' '.join(fields[3:])}" if gain else "")
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="states no gain, so its millivolts are unknown"):
        read_record(path)


@pytest.mark.parametrize(
    ("new", "message"), [("r 12", "states no sampling rate"), ("r/2 12 250 1000", "a record of several segments")]
)
def test_a_missing_rate_and_several_segments_are_refused(
    tmp_path: Path, truth: np.ndarray, new: str, message: str
) -> None:
    path = write(tmp_path, truth, LEADS)
    edit_header(path, "r 12 250 1000", new)
    with pytest.raises(ValueError, match=message):
        read_record(path)


def test_an_unknown_unit_is_refused(tmp_path: Path, truth: np.ndarray) -> None:
    path = write(tmp_path, truth, LEADS)
    edit_header(path, "/mV", "/mmHg")
    with pytest.raises(ValueError, match=r"lead I is in 'mmHg'; accepted units are mV, uV and V"):
        read_record(path)


def test_a_missing_lead_is_named(tmp_path: Path, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"no lead V3; the file has I, II, .*V2, V4"):
        read_record(write(tmp_path, np.delete(truth, 8, axis=0), [name for name in LEADS if name != "V3"]))


def test_a_lead_that_stands_there_twice_is_refused(tmp_path: Path, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="lead V6 stands there twice"):
        read_record(write(tmp_path, np.concatenate([truth, truth[-1:]]), [*LEADS, "v6"]))


def test_a_truncated_signal_file_is_refused(tmp_path: Path, truth: np.ndarray) -> None:
    path = write(tmp_path, truth, LEADS)
    content = path.with_suffix(".dat").read_bytes()
    path.with_suffix(".dat").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged record"):
        read_record(path)


def test_missing_files_are_named(tmp_path: Path, truth: np.ndarray) -> None:
    with pytest.raises(FileNotFoundError, match=r"no WFDB header .*nothing.hea"):
        read_record(tmp_path / "nothing")
    path = write(tmp_path, truth, LEADS)
    path.with_suffix(".dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"r.dat"):
        read_record(path)


def test_a_record_is_twelve_leads_of_float32_at_a_positive_rate(truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"record x: signal must be float32 \[12, n\], got float64"):
        EcgRecord(signal=truth.astype(float), hz=HZ, record_id="x")
    with pytest.raises(ValueError, match=r"got float32 \(11, 1000\)"):
        EcgRecord(signal=truth[:11], hz=HZ, record_id="x")
    with pytest.raises(ValueError, match="hz=0 must be positive"):
        EcgRecord(signal=truth, hz=0, record_id="x")


def test_writing_refuses_to_overwrite_and_what_16_bits_do_not_hold(tmp_path: Path, truth: np.ndarray) -> None:
    record = EcgRecord(signal=truth, hz=HZ, record_id="x")
    write_record(record, tmp_path)
    with pytest.raises(FileExistsError, match=r"x.hea exists"):
        write_record(record, tmp_path)
    with pytest.raises(ValueError, match=r"record y: .* mV do not fit into 16 bits"):
        write_record(EcgRecord(signal=40 * truth, hz=HZ, record_id="y"), tmp_path)
