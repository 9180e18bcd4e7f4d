"""The waves of one averaged beat: where P, QRS and T begin and end, and how large they are in each lead.

QRS begins and ends where the steepest lead turns slow. P and T begin and end where every lead is calm: on the line, or
hardly moving. The second is needed where the line is a ramp, as after many infarctions: there no level is an end.

Shapes: L = 12 leads, W milliseconds of a beat, B beats.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_closing, uniform_filter1d

from train.ecg.detect import BEFORE, STEEP
from train.ecg.leads import LEADS

P_LEVEL, T_LEVEL = 0.012, 0.020  # mV off the line from which on a wave has begun, where the noise allows
_SLOW = 1.3e-3  # mV/ms: the slope of a P or T wave of usual width at these levels
_OF_STEEPEST = 0.45  # and never more than this share of the wave's largest slope
_SLOWEST = 0.4e-3  # mV/ms: of lines that do nothing
_LITTLE_NOISE = 6e-3  # mV: less, and the edges of the QRS need little smoothing
_LIKE_T = 0.45  # shares of the largest size and slope of ST and T that a T wave has, but no U wave, ramp or blip
_ALIKE = 0.4  # correlation of a beat's P wave with the other beats': that of chance is near 0
_P_MS, _PR_MS = (40, 180), 380  # width of a P wave; it begins at most so long before the QRS
_Q_MV = -0.05  # a Q wave that is deeper has a width
_NO_R = 0.03  # mV
_REST_MS = 50  # the line is flat for longer between P, QRS and T, but not in flutter
AMPLITUDES = ("p", "q", "r", "r_prime", "s", "st", "t")  # mV per lead


@dataclass(frozen=True)
class Waves:
    """One beat; times are ms on its own clock.

    Attributes:
        beat: mV [L, W], 0 on the line before the QRS; NaN rows are leads without samples.
        on, off: of the QRS.
        p: first and last ms of the P wave; None if there is none before every beat, or it does not begin on the line.
        t_end: None if there is no T wave, or it runs into the next beat.
        before, after: ms from the last beat and to the next one.
        noise: of the beat, mV.
    """

    beat: np.ndarray
    on: int
    off: int
    p: tuple[int, int] | None
    t_end: int | None
    before: float
    after: float
    noise: float

    def never_rests(self) -> bool:
        """Whether from this QRS to the next some lead always moves off the line, but for 50 ms at most."""
        used = self.beat[np.isfinite(self.beat).all(1)]
        first, last = self.off + 30, min(round(self.on + self.after) - 30, self.beat.shape[1])
        edges = [first, *(t for run in _busy(used, slice(first, last), P_LEVEL, self.noise) for t in run), last]
        return max(b - a for a, b in zip(edges[::2], edges[1::2], strict=True)) <= _REST_MS

    def amplitudes(self) -> dict[str, dict[str, float | None] | None]:
        """Heights per lead in mV, and the width of Q in ms.

        Returns:
            `p`, `q` (lowest before R), `r`, `r_prime` (a second R), `s` (lowest after R; QS, which has no R, is both),
            `st` (60 ms after the QRS), `t`, `q_width`; None for what cannot be told.
        """
        qrs = self.beat[:, self.on : self.off]
        last = self.t_end or round(min(self.on + self.after - 60, self.beat.shape[1]))
        after = self.beat[:, self.off + 100 : last]
        found = {
            "p": None if self.p is None else _largest(self.beat[:, self.p[0] : self.p[1]]),
            **_qrs_amplitudes(qrs),
            "st": self.beat[:, self.off + 60],
            "t": _largest(after) if after.shape[1] > 20 else None,
        }
        return {
            name: None
            if values is None
            else {lead: None if np.isnan(v) else float(v) for lead, v in zip(LEADS, values, strict=True)}
            for name, values in found.items()
        }

    def slur(self) -> float:
        """Ms from the beginning of the QRS until it is half as steep as it gets: long with a delta wave."""
        steep = np.nanmax(np.abs(np.gradient(self.beat[:, self.on : self.off], axis=1)), axis=0)
        return float(np.argmax(steep > 0.5 * steep.max()))


def _largest(part: np.ndarray) -> np.ndarray:
    """The signed value of the largest deflection [L, w] -> [L]."""
    at = np.abs(np.nan_to_num(part)).argmax(1)
    return part[np.arange(len(part)), at]


def _qrs_amplitudes(qrs: np.ndarray) -> dict[str, np.ndarray]:
    out = {name: np.full(len(qrs), np.nan) for name in ("q", "r", "r_prime", "s", "q_width")}
    for lead, part in enumerate(qrs):
        if np.isnan(part).any():
            continue
        top, bottom = int(part.argmax()), int(part.argmin())
        if _is_st(part, top):
            top = int(part[: bottom + 1].argmax())
        after_top, after_bottom = top + int(part[top:].argmin()), bottom + int(part[bottom:].argmax())
        r = max(float(part[top]), 0.0) if top >= 5 else 0.0  # a QRS does not begin with its peak
        second = float(part[after_bottom])
        q = float(part[: top + 1].min())
        s = 0.0 if _is_st(part, after_top) else float(part[after_top])
        if r < _NO_R:
            q = s = min(q, s)
        both = min(float(part[: bottom + 1].max()), second) > max(0.05, float(part[bottom]) + 0.05)
        out["r"][lead], out["q"][lead], out["s"][lead] = r, min(q, 0.0), min(s, 0.0)
        out["r_prime"][lead] = second if both and not _is_st(part, after_bottom) else 0.0
        out["q_width"][lead] = float((part[: len(part) if r < _NO_R else top + 1] < _Q_MV).sum())
    return out


def _is_st(part: np.ndarray, at: int) -> bool:
    """Whether a QRS [w] is largest where it ends: that is the ST segment's level, not a wave."""
    return at >= len(part) - 8 and abs(float(part[-1])) > 0.05


def delineate(cuts: np.ndarray, usual: np.ndarray, before: float, after: float) -> Waves | None:
    """Find the waves of the usual beat.

    Args:
        cuts: beats, mV [B, L, W], each with its QRS at BEFORE; NaN leads have no samples.
        usual: their mean [L, W].
        before, after: ms from the last beat and to the next one.

    Returns:
        None if the QRS has no clear beginning and end.
    """
    used = np.isfinite(usual).all(1)
    smooth = uniform_filter1d(cuts[:, used], 11, axis=2, mode="nearest")
    own = slice(0, BEFORE + round(min(after, 800.0)) - 150)  # what belongs to this beat and not to the next
    spread = np.std(smooth[:, :, own] - smooth[:, :, own].mean(0), axis=0).max(0)
    noise = float(np.median(spread)) / np.sqrt(len(cuts))
    on, off = _qrs(usual[used], 5 if noise < _LITTLE_NOISE else 9)
    if not 40 <= off - on <= 260:
        return None
    beat = uniform_filter1d(usual[used], 11, axis=1, mode="nearest")
    quiet = _quiet(beat, on)
    level = beat[:, quiet : quiet + 16].mean(1, keepdims=True)
    p = _p_wave(beat - level, smooth, (on, off), before, noise)
    next_p = on - 60 if p is None or abs(before - after) > 100 else p[0] - 5
    t_end = _t_end(beat - level, off, round(after) + next_p, noise)
    whole = np.full_like(usual, np.nan)
    whole[used] = usual[used] - level
    return Waves(beat=whole, on=on, off=off, p=p, t_end=t_end, before=before, after=after, noise=noise)


def _qrs(beat: np.ndarray, width: int) -> tuple[int, int]:
    """First and last ms of the QRS in [l, W], smoothed over `width` ms.

    From its middle out, until no lead is steep for 14 ms.
    """
    steep = np.abs(np.gradient(uniform_filter1d(beat, width, axis=1), axis=1)).max(0) > STEEP
    on = off = BEFORE
    while on > 14 and steep[on - 14 : on].any():
        on -= 1
    while off < len(steep) - 14 and steep[off : off + 14].any():
        off += 1
    return on + width // 2, off - width // 2


def _quiet(beat: np.ndarray, on: int) -> int:
    """Where the 16 quietest ms before the QRS begin: flat, and near where the line is most of the time."""
    line = np.median(beat, axis=1, keepdims=True)
    costs = [
        float(np.ptp(part, axis=1).max() + 0.3 * np.abs(part.mean(1, keepdims=True) - line).max())
        for part in (beat[:, first : first + 16] for first in range(max(on - 260, 0), on - 15))
    ]
    return max(on - 260, 0) + int(np.argmin(costs))


def _slope(beat: np.ndarray) -> np.ndarray:
    """Smoothed and without sign, mV/ms [l, W]."""
    return np.abs(np.gradient(uniform_filter1d(beat, 15, axis=1, mode="nearest"), axis=1))


def _busy(beat: np.ndarray, window: slice, level: float, noise: float, near: int = 0) -> list[tuple[int, int]]:
    """Runs of ms in a window of [l, W] in which some lead is neither on the line nor slow, without gaps below 24 ms.

    Slow is against the steepest moment of the window, or of its last `near` ms.
    """
    slope, size = _slope(beat)[:, window], np.abs(beat)[:, window]
    slow = max(min(_SLOW, _OF_STEEPEST * float(slope[:, -near:].max(initial=0))), _SLOWEST, noise / 7)
    calm = ((slope < slow) | (size <= max(level, 3 * noise))).all(0)
    busy = binary_closing(np.pad(~calm, 40), np.ones(24))[40:-40]
    edges = np.flatnonzero(np.diff(busy.astype(int), prepend=0, append=0)) + (window.start or 0)
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _p_wave(
    beat: np.ndarray, cuts: np.ndarray, qrs: tuple[int, int], rr: float, noise: float
) -> tuple[int, int] | None:
    """First and last ms of the P wave; None without one that begins on the line and comes before every beat."""
    on, off = qrs
    size = np.abs(beat).max(0)
    foot = int(size[on - 45 : on].argmin()) + on - 45
    runs = _busy(beat, slice(max(on - _PR_MS, 0), foot), P_LEVEL, noise, near=200)
    runs = [_without_t(size, a, b) if b - a >= _P_MS[1] else (a, b) for a, b in runs]
    waves = [(a, b) for a, b in runs if _P_MS[0] < b - a < _P_MS[1] and a > max(on - _PR_MS, 0) + 10]
    if not waves:
        return None
    first, last = waves[-1]
    if rr - (on - first) < 350 and size[off + 60 : round(first + rr)].max(initial=0) < 3 * T_LEVEL:
        return None  # so soon after a QRS with nothing between: it is the T wave
    return (first, last) if _before_every_beat(cuts[:, :, first:last]) else None


def _without_t(size: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """The second of two waves that run into each other: from the valley between them."""
    part = uniform_filter1d(size[last - _P_MS[1] : last - _P_MS[0]], 9)
    valley = int(part.argmin())
    seen = 5 < valley < len(part) - 5 and part[valley:].max() > part[valley] + 2 * P_LEVEL
    return (last - _P_MS[1] + valley, last) if seen else (first, last)


def _before_every_beat(waves: np.ndarray) -> bool:
    """Whether most of [B, L, w] look like the mean of the others."""
    likeness = []
    for number, own in enumerate(waves):
        other = np.delete(waves, number, axis=0).mean(0)
        a, b = own - own.mean(1, keepdims=True), other - other.mean(1, keepdims=True)
        likeness.append(float((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + 1e-12)))
    return bool(np.median(likeness) > _ALIKE)


def _t_end(beat: np.ndarray, off: int, last: int, noise: float) -> int | None:
    """Last ms of the T wave in [l, W]: of the last wave that is as steep; None if it is not over before `last`."""
    first, last = off + 80, min(last, beat.shape[1])
    if last - first < 60:
        return None
    size = np.abs(beat).max(0)
    peak = first + int(size[first:last].argmax())
    if size[peak] < 2 * max(T_LEVEL, 3 * noise):
        return None
    steep = _slope(beat).max(0)
    least, steepest = _LIKE_T * float(size[peak]), _LIKE_T * float(steep[first:last].max())
    waves = [
        b
        for a, b in _busy(beat, slice(first, last), T_LEVEL, noise)
        if b - a >= _P_MS[0] and size[a:b].max() > least and steep[a:b].max() > steepest
    ]
    return waves[-1] if waves and waves[-1] < last else None
