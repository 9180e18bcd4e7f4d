"""A recording measured from its samples alone, as a reader with calipers would: rhythm, intervals, axis, amplitudes.

The usual beat is measured (train/ecg/detect.py finds it, train/ecg/waves.py its waves). Whatever cannot be told is
None, never a guess. Nothing here knows how the simulator makes a beat.

Shapes: L = 12 leads, W milliseconds of a beat, B beats.
"""

from typing import Any

import numpy as np

from train.ecg.atria import beats_alone, fibrillates, flutters
from train.ecg.detect import SPIKE_HZ, Beats, find_beats
from train.ecg.leads import FROM_I_AND_II, LEADS
from train.ecg.waves import AMPLITUDES, Waves, delineate

UNITS = {
    "n_beats": "", "heart_rate": "1/min", "rr": "ms", "rr_variation": "ms", "rr_spread": "", "regular": "",
    "n_early": "", "n_wide_early": "", "spike": "", "p_before_qrs": "", "undulates": "", "atrial_rate": "1/min",
    "pr": "ms", "p_width": "ms", "qrs": "ms", "slur": "ms", "qt": "ms", "qtc": "ms", "axis": "degrees",
    **dict.fromkeys(AMPLITUDES, "mV"), "q_width": "ms",
}  # fmt: skip
PER_LEAD = (*AMPLITUDES, "q_width")
_REGULAR_MS = 120  # RR of a regular rhythm varies less
_FEWEST = 3  # beats for an average
_EARLY, _EARLY_AND_WIDE = 0.75, 0.85  # of the usual RR
_WIDER_MS = 30  # than the usual QRS
_SPREAD = 0.1  # standard deviation of RR to its mean, above which no narrow beat is called early
_LONG_RR_MS = 800  # P waves that the beats do not follow are seen between slow beats only
_SHORT_RR_MS = 550  # flutter waves would have no room to repeat themselves


def measure(signal: np.ndarray, hz: float) -> dict[str, Any]:
    """Measure a recording.

    Args:
        signal: mV [12, n] in the order of LEADS; leads that are flat or mostly NaN are not used.
        hz: samples per second, 100 or more.

    Returns:
        The names of `EcgRecord.truth` and some more, in UNITS; None for what cannot be told:
        rhythm: `n_beats`, `heart_rate`, `rr` (median), `rr_variation` (largest minus smallest RR), `rr_spread`
        (standard deviation to mean), `regular`, `n_early` and, of them, `n_wide_early`, `spike` (a
        pacemaker's, before the beats; needs 400 Hz), `p_before_qrs`, `undulates` (fibrillation or flutter waves),
        `atrial_rate`;
        the usual beat: `pr`, `p_width`, `qrs`, `slur` (from its beginning until it is half as steep as it gets), `qt`,
        `qtc` (Fridericia 1920), `axis`;
        PER_LEAD, each a dictionary with every lead: see `Waves.amplitudes`.

    Raises:
        ValueError: if the signal has not twelve rows, or hz is below 100.
    """
    if signal.ndim != 2 or len(signal) != len(LEADS):
        raise ValueError(f"signal must be [12, n], got {list(signal.shape)}")
    if not hz >= 100:
        raise ValueError(f"hz={hz} must be at least 100")
    out: dict[str, Any] = dict.fromkeys(UNITS)
    beats = find_beats(signal, hz)
    out["n_beats"] = len(beats.at)
    if len(beats.at) < 2:
        return out
    out.update(_timing(beats))
    out["spike"] = _paced(beats) if hz >= SPIKE_HZ else None
    if len(beats.cuts) < _FEWEST:
        return out
    waves = delineate(beats.cuts, beats.usual, *_neighbours(beats))
    if waves is not None:
        out.update(_atria(beats, waves, out))
        out.update(_intervals(waves, out))
    return out


def _usual_rr(beats: Beats) -> float:
    """Median RR of usual beats that follow each other, ms; the mean of all RR where none do, as in bigeminy."""
    usual = np.isin(np.arange(len(beats.at)), beats.kinds[0])
    rr = np.diff(beats.at)
    pairs = rr[usual[:-1] & usual[1:]]
    return float(np.median(pairs) if len(pairs) > 1 else np.mean(rr))


def _neighbours(beats: Beats) -> tuple[float, float]:
    """Median ms from the beat before a usual one, and to the beat after it, of whatever kind."""
    rr, usual = np.diff(beats.at), np.array(beats.kinds[0])
    before, after = rr[usual[usual > 0] - 1], rr[usual[usual < len(rr)]]
    return tuple(float(np.median(values if len(values) else rr)) for values in (before, after))  # type: ignore[return-value]


def _timing(beats: Beats) -> dict[str, Any]:
    """Rate, regularity and beats that come too soon. The rate is the mean RR between beats that come in time."""
    rr = np.diff(beats.at).astype(float)
    wide, narrow = _early(beats)
    early = wide | narrow
    others = np.array([x for number, x in enumerate(rr) if not {number, number + 1} & early])
    usual = others if len(others) > 1 else rr
    near = usual[np.abs(usual - np.median(usual)) < 0.25 * np.median(usual)]  # a beat that was missed does not count
    steady = len(usual) > 2 and usual.std() < _SPREAD * usual.mean()
    variation = float(np.ptp(rr)) if len(rr) > 1 else None
    return {
        "heart_rate": 60_000 / float((near if len(near) > 0.8 * len(usual) or steady else usual).mean()),
        "rr": float(np.median(rr)),
        "rr_variation": variation,
        "rr_spread": float(rr.std() / rr.mean()) if len(rr) > 1 else None,
        "regular": None if variation is None else variation < _REGULAR_MS,
        "n_early": len(early),
        "n_wide_early": len(wide),
    }


def _early(beats: Beats) -> tuple[set[int], set[int]]:
    """Wide and narrow beats that come too soon; the first of a recording is known by its shape only."""
    rr = np.diff(beats.at, prepend=beats.at[0]) / _usual_rr(beats)
    width = float(np.median(beats.widths[beats.kinds[0]])) + _WIDER_MS
    others = {number for kind in beats.kinds[1:] for number in kind}
    wide: set[int] = set()
    for n in sorted(n for n in others if beats.widths[n] > width):
        if n == 0 or rr[n] < _EARLY_AND_WIDE or n - 1 in wide:  # two in a row: the second is no escape beat
            wide.add(n)
    narrow = {n for n in range(1, len(rr)) if rr[n] < _EARLY and n not in wide and n - 1 not in wide}
    rest = [x for n, x in enumerate(rr) if n and not {n, n - 1} & (wide | narrow)]
    irregular = len(rest) > 2 and float(np.std(rest)) > _SPREAD
    return wide, set() if irregular else narrow


def _paced(beats: Beats) -> bool:
    """Whether a spike stands in the 130 ms before most beats."""
    before = [bool(((beats.spikes > t - 130) & (beats.spikes < t + 20)).any()) for t in beats.at]
    return float(np.mean(before)) > 0.6


def _atria(beats: Beats, waves: Waves, rhythm: dict[str, Any]) -> dict[str, Any]:
    """Whether P waves come before the beats, or waves run through them, and how often."""
    regular = rhythm["rr_spread"] is None or rhythm["rr_spread"] < _SPREAD
    rate = flutters(waves) if regular else fibrillates(beats) if waves.p is None else None
    if rate is not None:
        return {"p_before_qrs": False, "undulates": True, "atrial_rate": rate}
    hidden = regular and waves.after < _SHORT_RR_MS and (waves.p is None or waves.never_rests())
    undulates = None if hidden else False
    if waves.p is not None:
        return {"p_before_qrs": True, "undulates": undulates, "atrial_rate": rhythm["heart_rate"]}
    alone = beats_alone(beats) if waves.after > _LONG_RR_MS else None
    return {"p_before_qrs": False, "undulates": undulates, "atrial_rate": alone}


def _intervals(waves: Waves, rhythm: dict[str, Any]) -> dict[str, Any]:
    """Intervals, axis and amplitudes of the usual beat."""
    p = waves.p if rhythm["p_before_qrs"] else None
    flutter = rhythm["undulates"] and rhythm["rr_spread"] < _SPREAD  # T ends somewhere under its waves
    qt = None if waves.t_end is None or flutter else float(waves.t_end - waves.on)
    amplitudes = waves.amplitudes()
    return {
        "pr": None if p is None else float(waves.on - p[0]),
        "p_width": None if p is None else float(p[1] - p[0]),
        "qrs": float(waves.off - waves.on),
        "slur": waves.slur(),
        "qt": qt,
        "qtc": None if qt is None else qt / (60 / rhythm["heart_rate"]) ** (1 / 3),
        "axis": frontal_axis(waves.beat[:, waves.on : waves.off].sum(1)),
        **amplitudes,
        "p": None if p is None else amplitudes["p"],
    }


def frontal_axis(net: np.ndarray) -> float | None:
    """The axis in degrees from the net area of the QRS in each lead [12]; two limb leads tell it."""
    rows = [(1.0, 0.0), (0.0, 1.0), *FROM_I_AND_II.values()]
    known = [i for i in range(6) if np.isfinite(net[i])]
    if len(known) < 2:
        return None
    (i, ii), *_ = np.linalg.lstsq(np.array([rows[k] for k in known]), net[known], rcond=None)
    return float(np.degrees(np.arctan2(2 / np.sqrt(3) * (ii - i / 2), i)))
