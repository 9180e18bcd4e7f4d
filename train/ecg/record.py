"""One 12-lead ECG, whatever data set it came from, and the reader of WFDB files.

wfdb reads the files; `read_record` closes its traps: a missing gain, names of leads in any spelling, units
other than millivolts, lead equations that do not hold. https://wfdb.readthedocs.io, rdsamp.
"""

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from train.ecg.signal import LEADS, check_lead_equations, derive_limb_leads

MV_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "\u00b5v": 1e-3, "\u03bcv": 1e-3, "v": 1e3}  # two signs for micro
NOTE = "minimllama: "  # our own header comments start with this, and hold JSON


@dataclass(frozen=True, kw_only=True)
class EcgRecord:
    """A recording in fixed units and lead order.

    Attributes:
        signal: float32 [12, n] in millivolts, rows in the order of LEADS; NaN where nothing was recorded.
        hz: samples per second.
        record_id: what the data set calls it.
        patient_id: for splits that keep patients apart; None if unknown.
        split: "train", "validate" or "test"; None if the source has no split.
        labels: codes that apply, of SCP statements unless the source was told another vocabulary; None if the record
            is not labelled.
        report: free text of the data set.
        truth: measurements by name (`heart_rate` in 1/min, `pr`, `qrs`, `qt`, `qtc` in ms, `axis` in degrees,
            and so on), with None for what does not exist in this rhythm; empty if nothing was measured.
        meta: age, sex, device and whatever else the source knows.
    """

    signal: np.ndarray
    hz: float
    record_id: str
    patient_id: str | None = None
    split: str | None = None
    labels: frozenset[str] | None = None
    report: str | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[0] != len(LEADS) or self.signal.dtype != np.float32:
            raise ValueError(
                f"record {self.record_id}: signal must be float32 [12, n], got {self.signal.dtype} {self.signal.shape}"
            )
        if not self.hz > 0:
            raise ValueError(f"record {self.record_id}: hz={self.hz} must be positive")

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.signal.shape[1] / self.hz


def lead_name(name: str) -> str | None:
    """The name in LEADS for any spelling ("avr", "DII", "MDC_ECG_LEAD_V1", "lead I"); None for another signal."""
    bare = re.sub(r"^(MDC_ECG_LEAD_|ECG_|LEAD[ _]*)", "", name.strip().upper())
    bare = re.sub(r"^D(?=I{1,3}$)", "", bare)
    return {lead.upper(): lead for lead in LEADS}.get(bare)


def need_package(name: str, extra: str, what: str) -> Any:
    """An optional package, which `what` takes.

    Raises:
        ValueError: if it is not installed, with the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{what} needs the extra: pip install 'minimllama[{extra}]'") from error


def _need_wfdb() -> Any:
    return need_package("wfdb", "ecg", "the WFDB format")


def _read_units(header: Path) -> list[str]:
    """The unit of each signal, where wfdb would guess or drop what it does not know.

    Refused are a missing sampling rate (wfdb assumes 250 Hz) and a missing gain (200 units per millivolt); a unit
    in other than ASCII letters loses them in wfdb, and microvolts become volts.
    """
    text = header.read_bytes()
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    lines = [line for line in decoded.splitlines() if line.strip() and line[0] != "#"]
    first = lines[0].split() if lines else []
    if first and "/" in first[0]:
        raise ValueError(f"{header}: a record of several segments; join them first (wfdb.rdrecord, wfdb.wrsamp)")
    if len(first) < 3:
        raise ValueError(f"{header}: the first line states no sampling rate")
    units = []
    for line in lines[1:]:
        fields = line.split()
        gain = re.match(r"([0-9.eE+-]+)(?:\(.*?\))?(?:/(.+))?", fields[2]) if len(fields) > 2 else None
        if gain is None or float(gain.group(1)) == 0:
            raise ValueError(f"{header}: signal {fields[-1]!r} states no gain, so its millivolts are unknown")
        units.append(gain.group(2) or "mV")
    return units


def _in_millivolts(values: np.ndarray, unit: str, where: str) -> np.ndarray:
    factor = MV_PER_UNIT.get(unit.strip().lower())
    if factor is None:
        raise ValueError(f"{where} is in {unit!r}; accepted units are mV, uV and V")
    return values * factor


def _read_signals(base: Path, units: list[str]) -> tuple[dict[str, np.ndarray], float]:
    """All signals that are leads of the twelve, by name in millivolts, and samples per second."""
    wfdb = _need_wfdb()
    try:
        values, fields = wfdb.rdsamp(str(base))
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"{base}: damaged record ({error})") from error
    if values is None:
        raise ValueError(f"{base}: the record has no signals")
    leads: dict[str, np.ndarray] = {}
    for column, (raw_name, unit) in enumerate(zip(fields["sig_name"], units, strict=True)):
        name = lead_name(raw_name or "")  # None where the header gives no name
        if name is None:
            continue
        if name in leads:
            raise ValueError(f"{base}: lead {name} stands there twice")
        leads[name] = _in_millivolts(values[:, column], unit, f"{base}, lead {raw_name}")
    derive_limb_leads(leads)
    if missing := [lead for lead in LEADS if lead not in leads]:
        raise ValueError(
            f"{base}: no lead {', '.join(missing)}; the file has {', '.join(map(str, fields['sig_name']))}"
        )
    return leads, float(fields["fs"])


def read_record(path: str | Path, *, check: bool = True) -> EcgRecord:
    """Read a WFDB record.

    Args:
        path: of the record, with or without `.hea`.
        check: refuse a record whose limb leads do not satisfy Einthoven's and Goldberger's equations.

    Returns:
        The twelve leads; III, aVR, aVL and aVF are computed from I and II where they were not recorded.
        Labels and measurements are there if `write_record` wrote them.

    Raises:
        FileNotFoundError: if there is no header or a signal file is missing.
        ValueError: if a lead is missing or stands there twice, a gain or the sampling rate is missing, a unit is
            unknown, a file is damaged or the leads contradict each other.
    """
    base = Path(path).with_suffix("") if Path(path).suffix == ".hea" else Path(path)
    header = base.with_name(base.name + ".hea")
    if not header.is_file():
        raise FileNotFoundError(f"no WFDB header {header}")
    leads, hz = _read_signals(base, _read_units(header))
    signal = np.stack([leads[lead] for lead in LEADS]).astype(np.float32)
    if check:
        check_lead_equations(signal, str(base))
    return record_from_note({"record_id": base.name, **read_note(header)}, signal, hz)


def record_note(record: EcgRecord) -> dict[str, Any]:
    """All that is known about a record but its signal, as JSON types."""
    return {
        "record_id": record.record_id,
        "patient_id": record.patient_id,
        "split": record.split,
        "labels": None if record.labels is None else sorted(record.labels),
        "report": record.report,
        "truth": dict(record.truth),
        "meta": dict(record.meta),
    }


def record_from_note(note: Mapping[str, Any], signal: np.ndarray, hz: float) -> EcgRecord:
    """The record that `record_note` described."""
    return EcgRecord(
        signal=signal,
        hz=hz,
        record_id=note["record_id"],
        patient_id=note.get("patient_id"),
        split=note.get("split"),
        labels=None if note.get("labels") is None else frozenset(note["labels"]),
        report=note.get("report"),
        truth=note.get("truth", {}),
        meta=note.get("meta", {}),
    )


def read_note(header: Path) -> dict[str, Any]:
    """What `write_record` stored in a header's comments: labels, measurements, split and so on; {} in other files."""
    lines = [line.lstrip("# ") for line in header.read_text(errors="replace").splitlines() if line.startswith("#")]
    parts = [line[len(NOTE) :] for line in lines if line.startswith(NOTE)]
    try:
        return {key: value for part in parts for key, value in json.loads(part).items()}
    except json.JSONDecodeError as error:
        raise ValueError(f"{header}: damaged comment {NOTE!r} ({error})") from error


def write_record(record: EcgRecord, folder: str | Path) -> Path:
    """Write a record as WFDB (16 bit, 1000 units per millivolt), with labels and measurements as header comments.

    Returns:
        The path to give to `read_record`.

    Raises:
        FileExistsError: if the folder already has this record.
        ValueError: if a value lies outside of +-32 mV.
    """
    wfdb = _need_wfdb()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_-]", "_", record.record_id)
    if (folder / f"{name}.hea").exists():
        raise FileExistsError(f"{folder / name}.hea exists")
    if np.nanmax(np.abs(record.signal), initial=0) > 32:
        raise ValueError(
            f"record {record.record_id}: {np.nanmax(np.abs(record.signal)):.1f} mV do not fit into 16 bits"
        )
    known = record_note(record)
    wfdb.wrsamp(
        name,
        fs=record.hz,
        units=["mV"] * len(LEADS),
        sig_name=list(LEADS),
        p_signal=record.signal.T.astype(np.float64),
        fmt=["16"] * len(LEADS),
        adc_gain=[1000.0] * len(LEADS),
        baseline=[0] * len(LEADS),
        comments=[NOTE + json.dumps({key: value}) for key, value in known.items() if value not in (None, {})],
        write_dir=str(folder),
    )
    return folder / name
