"""A seeded 12-lead ECG generator with measured ground truth, for teaching and testing. Not a source of evidence.

A model trained on it learns this recipe, not cardiology: never mix it into scores on real data.

Shapes: C = 8 channels, L = 12 leads, N samples.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.ecg.beat import N_CHANNELS, P_WAVES, QRS_WAVES, TO_LEADS, Beat, Wave, measure_beat
from train.ecg.conditions import CONDITIONS, NORMAL, check_conditions
from train.ecg.heart import Heart, Rng, normal_heart
from train.ecg.record import EcgRecord
from train.ecg.signal import LEADS

BEFORE_S, AFTER_S = 0.45, 0.75  # how far a beat reaches from its R peak


@dataclass(frozen=True)
class Event:
    """A beat in time: `at` seconds, its shape, how long ago the last one was, and whether it has atria of its own."""

    at: float
    kind: str  # "usual", "pvc", "pac"
    rr: float


def simulate_ecg(
    conditions: Sequence[str] = (),
    rng: Rng | None = None,
    *,
    seconds: float = 10.0,
    hz: float = 500.0,
    noise_mv: float = 0.012,
    wander_mv: float = 0.040,
    record_id: str = "simulated",
) -> EcgRecord:
    """Draw one recording.

    Args:
        conditions: of CONDITIONS, in any order; none (or "NORM") for a normal heart.
        rng: where all randomness comes from; the same state gives the same bytes.
        seconds, hz: length and sampling rate.
        noise_mv: standard deviation of the noise of each independent channel.
        wander_mv: amplitude of the baseline wander.
        record_id: name of the record.

    Returns:
        A record whose `truth` was measured on the noiseless signal: `heart_rate`, `rr_variation` (largest
        minus smallest RR, ms), `regular`, `n_early` (premature beats), `n_wide_early` (ventricular ones),
        `undulates` (atrial waves between the beats), `spike`, `p_before_qrs`, `pr`, `p_width`, `qrs`, `qt`,
        `qtc` (ms), `axis` (degrees) and per lead `p`, `q`, `r`, `s`, `st`, `t` (mV). What a rhythm does not
        have is None.

    Raises:
        ValueError: if a condition is unknown or does not go with another.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    names = check_conditions([name for name in conditions if name != NORMAL] or [NORMAL])
    heart = normal_heart(rng)
    for name in names:
        CONDITIONS[name].change(heart, rng)
    _vary(heart.beat, rng)
    _set_pr(heart)
    events = _rhythm(heart, rng, seconds)
    channels = _synthesise(heart, events, rng, seconds, hz)
    truth = _truth(heart, events, seconds)
    channels += _disturbance(rng, channels.shape[1], hz, noise_mv, wander_mv)
    return EcgRecord(
        signal=(TO_LEADS @ channels).astype(np.float32),
        hz=hz,
        record_id=record_id,
        patient_id=record_id,
        labels=statements_of(names, truth),
        truth=truth,
        meta={"synthetic": True, "conditions": list(names)},
    )


def statements_of(conditions: Sequence[str], truth: dict[str, Any]) -> frozenset[str]:
    """The SCP codes of a record: what its conditions stand for, and sinus rhythm where nothing else rules."""
    codes = {code for name in conditions for code in CONDITIONS[name].statements}
    if not conditions:
        codes.add(NORMAL)
    if truth["p_before_qrs"] and not codes & {"SBRAD", "STACH", "SARRH", "BIGU"}:
        codes.add("SR")
    return frozenset(codes)


def _vary(beat: Beat, rng: Rng) -> None:
    """Make patients differ: QRS and T scaled as a whole, every lead a little on its own."""
    scale = {"qrs": rng.uniform(0.9, 1.15), "t": rng.uniform(0.85, 1.2), "p": rng.uniform(0.92, 1.12)}
    for name, wave in beat.waves.items():
        group = scale["qrs"] if name in QRS_WAVES else scale["p" if name in P_WAVES else "t"]
        chest = tuple(float(v) for v in np.array(wave.chest) * group * rng.uniform(0.93, 1.07, 6))
        beat.waves[name] = wave.change(limb=(wave.limb[0] * group, wave.limb[1]), chest=chest)


def _shift(beat: Beat, names: Sequence[str], by: float) -> None:
    for name in names:
        if name in beat.waves:
            beat.waves[name] = beat.waves[name].change(at=beat.waves[name].at + by)


def _set_pr(heart: Heart) -> None:
    """Move the P wave so that it begins `pr` before the QRS does."""
    seen = measure_beat(heart.beat)
    if seen["p_on"] is not None:
        _shift(heart.beat, P_WAVES, seen["qrs_on"] - heart.pr - seen["p_on"])  # type: ignore[operator]


def _with_qt(beat: Beat, qtc: float, rr: float) -> Beat:
    """The beat with its T wave moved so that QT = qtc * RR^(1/3). Fridericia 1920."""
    beat = beat.copy()
    seen = measure_beat(beat)
    if seen["t_off"] is not None:
        _shift(beat, ("t",), seen["qrs_on"] + qtc * rr ** (1 / 3) - seen["t_off"])  # type: ignore[operator]
    return beat


def _rhythm(heart: Heart, rng: Rng, seconds: float) -> list[Event]:
    """When the ventricles beat, from a little before the recording to its end."""
    mean = 60 / heart.rate
    at = -rng.uniform(0.2, 1.0) * mean
    events: list[Event] = []
    early_at = set(rng.choice(np.arange(2, 9), size=2, replace=False).tolist())
    for index in itertools.count():
        if at > seconds + 0.5:
            return events
        if heart.atria == "fibrillation":
            rr = float(np.clip(mean * np.exp(0.22 * rng.standard_normal()), 0.45 * mean, 1.8 * mean))
        else:
            breath = 1 + heart.wave_amplitude * np.sin(2 * np.pi * 0.23 * at)
            rr = mean * breath * (1 + heart.jitter * rng.standard_normal())
        early = (heart.ectopy == "bigeminy" and index % 2 == 1) or (
            heart.ectopy in ("pvc", "pac") and index in early_at
        )
        if early and events:
            ventricular = heart.ectopy != "pac"
            coupling = (0.60 if ventricular else 0.65) * rr
            at += coupling - rr
            events.append(Event(at, "pvc" if ventricular else "pac", coupling))
            at += 2 * rr - coupling if ventricular else 1.08 * rr
        else:
            events.append(Event(at, "usual", rr))
            at += rr
    raise AssertionError("unreachable")


def _pvc_beat(beat: Beat) -> Beat:
    """A ventricular premature beat: wide, bizarre, without P, T against the QRS."""
    return Beat(
        {
            "q": Wave(at=-25, widths=(17, 17), limb=(0.5, -60), chest=(0.5, 0.5, 0.4, 0.2, -0.2, -0.3)),
            "r": Wave(at=8, widths=(21, 21), limb=(1.3, -75), chest=(1.1, 1.5, 1.3, 0.6, -0.6, -1.0)),
            "s": Wave(at=58, widths=(18, 18), limb=(0.4, -70), chest=(0.2, 0.3, 0.2, 0.0, -0.2, -0.3)),
            "t": Wave(at=290, widths=(52, 34), limb=(0.5, 105), chest=(-0.4, -0.5, -0.45, -0.2, 0.25, 0.35)),
        }
    )


def _pac_beat(beat: Beat) -> Beat:
    """An atrial premature beat: the usual QRS after a P wave from elsewhere."""
    beat = beat.copy()
    for name in P_WAVES:
        wave = beat.waves[name]
        beat.waves[name] = wave.change(at=wave.at + 25, limb=(wave.limb[0], -110))
    return beat


def _synthesise(heart: Heart, events: Sequence[Event], rng: Rng, seconds: float, hz: float) -> np.ndarray:
    """The noiseless channels [C, N], mV."""
    n = round(seconds * hz)
    out = np.zeros((N_CHANNELS, n))
    qt_beat = _with_qt(heart.beat, heart.qtc, 60 / heart.rate)
    usual = qt_beat.copy()
    if heart.atria == "dissociated":
        for name in P_WAVES:
            usual.waves.pop(name, None)
    shapes = {"usual": usual, "pvc": _pvc_beat(qt_beat)}
    if heart.ectopy == "pac":
        shapes["pac"] = _pac_beat(qt_beat)
    for event in events:
        _add(out, shapes[event.kind], None, event.at, hz)
    if heart.atria == "dissociated":
        every = 60 / 88
        for at in np.arange(-rng.uniform(0, every), seconds + 0.5, every):
            _add(out, heart.beat, P_WAVES, float(at), hz)
    return out + _atrial_waves(heart, rng, np.arange(n) / hz)


def _add(out: np.ndarray, beat: Beat, names: Sequence[str] | None, at: float, hz: float) -> None:
    first, last = max(int((at - BEFORE_S) * hz), 0), min(int((at + AFTER_S) * hz), out.shape[1])
    if last > first:
        at_ms = (np.arange(first, last) / hz - at) * 1000
        out[:, first:last] += beat.draw(at_ms, names, with_st=names is None)


def _atrial_waves(heart: Heart, rng: Rng, t: np.ndarray) -> np.ndarray:
    """Fibrillation (three f waves of 5 to 8.5 Hz) or flutter (a saw of 300 per minute), in each channel."""
    if heart.atria == "fibrillation":
        weights = np.array([0.4, 0.8, 1.2, 0.8, 0.5, 0.3, 0.3, 0.3])
        wave = np.zeros_like(t)
        for size in (0.045, 0.030, 0.025):
            wave += size * np.sin(2 * np.pi * (rng.uniform(5, 8.5) * t + rng.random()))
        return np.outer(weights, wave)
    if heart.atria == "flutter":
        weights = np.array([0.1, 1.0, -0.7, -0.3, 0, 0, 0, 0])
        phase = (5 * t + rng.random()) % 1
        saw = np.where(phase < 0.7, 1 - phase / 0.35, -1 + (phase - 0.7) / 0.15)
        return np.outer(weights, 0.5 * 0.22 * saw)
    return np.zeros((N_CHANNELS, len(t)))


def _disturbance(rng: Rng, n: int, hz: float, noise_mv: float, wander_mv: float) -> np.ndarray:
    """Noise and slow wander of each independent channel [C, N], so that the lead equations still hold."""
    t = np.arange(n) / hz
    rates, phases = rng.uniform(0.15, 0.35, (N_CHANNELS, 1)), rng.random((N_CHANNELS, 1))
    wander = wander_mv * np.sin(2 * np.pi * (rates * t + phases))
    return wander + noise_mv * rng.standard_normal((N_CHANNELS, n))


def _truth(heart: Heart, events: Sequence[Event], seconds: float) -> dict[str, Any]:
    """Measurements of the ordinary beat, and of its timing inside the recording."""
    rr = 60 / heart.rate
    seen: dict[str, Any] = measure_beat(_with_qt(heart.beat, heart.qtc, rr))
    inside = [event for event in events if 0 <= event.at < seconds]
    gaps = np.diff([event.at for event in inside])
    usual = [b.at - a.at for a, b in itertools.pairwise(inside) if a.kind == b.kind == "usual"]
    counted = gaps if heart.atria == "fibrillation" or not usual else usual
    mean = float(np.mean(counted)) if len(counted) else rr  # too short for two beats
    sinus = heart.atria == "sinus" and seen["p_on"] is not None
    variation = 1000 * float(np.ptp(gaps)) if len(gaps) > 1 else 0.0
    qt = seen["t_off"] - seen["qrs_on"]
    truth: dict[str, Any] = {
        "heart_rate": 60 / mean,
        "rr_variation": variation,
        "regular": variation < 120,
        "p_before_qrs": sinus,
        "pr": seen["qrs_on"] - seen["p_on"] if sinus else None,
        "p_width": seen["p_off"] - seen["p_on"] if sinus else None,
        "qrs": seen["qrs_off"] - seen["qrs_on"],
        "qt": qt,
        "qtc": qt / rr ** (1 / 3),
        "axis": seen["axis"],
        "spike": heart.beat.spike is not None,
        "n_early": sum(event.kind != "usual" for event in inside),
        "n_wide_early": sum(event.kind == "pvc" for event in inside),
        "undulates": heart.atria in ("fibrillation", "flutter"),
    }
    for wave in ("p", "q", "r", "s", "st", "t"):
        if wave == "p" and not sinus:
            truth[wave] = None
        else:
            truth[wave] = {lead: round(float(v), 4) for lead, v in zip(LEADS, seen[wave], strict=True)}
    return truth
