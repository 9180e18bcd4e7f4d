"""A recording measured from its samples alone, as a reader with calipers would: rate, intervals, axis.

The usual beat is measured (train/ecg/detect.py). QRS begins and ends where the steepest lead turns slow; P begins and T
ends where no lead is off the line any more. Whatever cannot be told is None, never a guess.

Shapes: L = 12 leads, W milliseconds of a beat, B beats.
"""

from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from train.ecg.detect import BEFORE, Beats, find_beats, middle_mean
from train.ecg.leads import FROM_I_AND_II, LEADS

UNITS = {
    "n_beats": "", "heart_rate": "1/min", "rr": "ms", "rr_variation": "ms", "regular": "",
    "pr": "ms", "qrs": "ms", "qt": "ms", "qtc": "ms", "axis": "degrees",
}  # fmt: skip
STEEP = 7e-3  # mV/ms: QRS is steeper, P and T are not
P_LEVEL, T_LEVEL = 0.012, 0.020  # mV off the line from which on a wave has begun, where the noise allows
_REGULAR_MS = 120  # RR of a regular rhythm varies less
_FEWEST = 3  # beats for an average
_ALIKE = 0.4  # correlation of a beat's P wave with the other beats': that of chance is near 0


def measure(signal: np.ndarray, hz: float) -> dict[str, Any]:
    """Measure a recording.

    Args:
        signal: mV [12, n] in the order of LEADS; leads that are flat or mostly NaN are not used.
        hz: samples per second, 100 or more.

    Returns:
        The names of `EcgRecord.truth`, in UNITS: `n_beats`, `heart_rate`, `rr` (median), `rr_variation` (largest minus
        smallest RR), `regular`, `pr`, `qrs`, `qt`, `qtc` (Fridericia 1920), `axis`; None for what cannot be told.

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
    bigeminy = len(beats.kinds) > 1 and len(beats.kinds[1]) > 0.6 * len(beats.kinds[0])  # which beat is the usual one?
    if len(beats.cuts) >= _FEWEST and not bigeminy:
        out.update(_intervals(beats, out["rr"]))
    if out["qt"] is not None:
        out["qtc"] = out["qt"] / (60 / out["heart_rate"]) ** (1 / 3)
    return out


def _timing(beats: Beats) -> dict[str, Any]:
    """Rate and regularity. The rate is the mean of the intervals near the median one, so early beats do not count."""
    rr = np.diff(beats.at).astype(float)
    middle = float(np.median(rr))
    near = rr[np.abs(rr - middle) < 0.25 * middle]
    mean = float(near.mean() if len(near) > 0.6 * len(rr) else rr.mean())
    variation = float(np.ptp(rr)) if len(rr) > 1 else None
    regular = None if variation is None else variation < _REGULAR_MS
    return {"heart_rate": 60_000 / mean, "rr": middle, "rr_variation": variation, "regular": regular}


def _intervals(beats: Beats, rr: float) -> dict[str, Any]:
    """PR, QRS, QT and axis of the usual beat."""
    cuts = uniform_filter1d(beats.cuts[:, np.isfinite(beats.usual).all(1)], 11, axis=2, mode="nearest")
    beat, used = middle_mean(cuts), np.isfinite(beats.usual).all(1)
    on, off = _qrs(beats.usual[used])
    if not 40 <= off - on <= 260:
        return {}
    quiet = _quiet(beat, on)
    beat = beat - beat[:, quiet : quiet + 16].mean(1, keepdims=True)
    noise = float(np.std(cuts - cuts.mean(0), axis=0).max(0).mean()) / np.sqrt(len(cuts))
    p_on, t_off = _p_begin(beat, cuts, on, noise), _t_end(beat, on, off, rr, noise)
    net = np.full(len(LEADS), np.nan)
    net[used] = beat[:, on:off].sum(1)
    return {
        "qrs": float(off - on),
        "pr": None if p_on is None else float(on - p_on),
        "qt": None if t_off is None else float(t_off - on),
        "axis": frontal_axis(net),
    }


def _qrs(beat: np.ndarray) -> tuple[int, int]:
    """First and last ms of the QRS in [l, W]: going out from its middle, until no lead is steep for 14 ms."""
    steep = np.abs(np.gradient(uniform_filter1d(beat, 9, axis=1), axis=1)).max(0) > STEEP
    on = off = BEFORE
    while on > 14 and steep[on - 14 : on].any():
        on -= 1
    while off < len(steep) - 14 and steep[off : off + 14].any():
        off += 1
    return on + 4, off - 4  # half of the smoothing


def _quiet(beat: np.ndarray, on: int) -> int:
    """Where the 16 quietest ms before the QRS begin: flat, and near where the line is most of the time."""
    line = np.median(beat, axis=1, keepdims=True)
    costs = [
        float(np.ptp(part, axis=1).max() + 0.3 * np.abs(part.mean(1, keepdims=True) - line).max())
        for part in (beat[:, first : first + 16] for first in range(max(on - 260, 0), on - 15))
    ]
    return max(on - 260, 0) + int(np.argmin(costs))


def _p_begin(beat: np.ndarray, cuts: np.ndarray, on: int, noise: float) -> int | None:
    """First ms of the P wave; None without one that begins on the line and comes before every beat."""
    size = np.abs(beat[:, :on]).max(0)
    level = max(P_LEVEL, 3 * noise)
    foot = int(size[on - 45 :].argmin()) + on - 45
    edges = np.diff((uniform_filter1d(size[:foot], 9) > level).astype(int), prepend=0, append=0)
    runs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    waves = [(int(a), int(b)) for a, b in runs if 40 < b - a < 180 and a > 20]
    if not waves:
        return None
    first, last = waves[-1]
    likeness = []
    for number in range(len(cuts)):
        other = np.delete(cuts, number, axis=0).mean(0)[:, first:last]
        own = cuts[number][:, first:last]
        a, b = own - own.mean(1, keepdims=True), other - other.mean(1, keepdims=True)
        likeness.append(float((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + 1e-12)))
    return first if np.median(likeness) > _ALIKE else None


def _t_end(beat: np.ndarray, on: int, off: int, rr: float, noise: float) -> int | None:
    """Last ms of the T wave; None if there is none, or it runs into the next beat."""
    size = np.abs(beat).max(0)
    last = min(round(on + rr) - 40, beat.shape[1])
    first = off + 80
    if last - first < 60:
        return None
    peak = first + int(size[first:last].argmax())
    level = max(T_LEVEL, 3 * noise, 0.06 * float(size[peak]))
    calm = np.flatnonzero(size[peak:last] <= level)
    return peak + int(calm[0]) if calm.size and size[peak] > 2 * level else None


def frontal_axis(net: np.ndarray) -> float | None:
    """The axis in degrees from the net area of the QRS in each lead [12]; two limb leads tell it."""
    rows = [(1.0, 0.0), (0.0, 1.0), *FROM_I_AND_II.values()]
    known = [i for i in range(6) if np.isfinite(net[i])]
    if len(known) < 2:
        return None
    (i, ii), *_ = np.linalg.lstsq(np.array([rows[k] for k in known]), net[known], rcond=None)
    return float(np.degrees(np.arctan2(2 / np.sqrt(3) * (ii - i / 2), i)))
