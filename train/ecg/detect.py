"""Where the beats of a recording are, which of them look alike, and how the usual one looks.

Steps: 1 kHz; pacemaker spikes out; moments that are steep for their lead are QRS complexes; beats are aligned and
grouped by the shape of their slope; what is left when each group's pattern is taken away is slow wander, and goes;
the largest group is averaged. Nothing here knows how the simulator makes a beat.

Shapes: L = 12 leads, M milliseconds of the recording, W milliseconds of a beat, B beats.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.signal import find_peaks, resample_poly

BEFORE, AFTER = 420, 700  # ms of a beat around its QRS
REFRACTORY = 230  # ms: no heart beats twice within; 260 beats a minute
SMOOTHING_MS = 20  # a mean over them silences mains hum of 50 Hz, and nearly that of 60 Hz
_QUIET = 2e-3  # mV/ms: the slope that lines have anyway
_SHAPE = 60  # ms around the QRS that are compared
_ALIKE = 0.8  # correlation of slopes from which on two beats are of one kind
_CLEAR = 2.5  # how many times steeper than the usual slope of a lead QRS complexes are, at least
STEEP = 7e-3  # mV/ms: QRS is steeper, P and T are not
_AS_OFTEN = 0.6  # a kind with this share of the largest one's beats may be the usual one
_SURE, _LOWEST = (
    0.6,
    0.35,
)  # shares of the largest heights: a lower one is an ectopic beat if a T wave is never so steep
SPIKE_HZ = 400  # samples per second that are needed to see a pacemaker's spike as one
_SPIKE = 0.3  # mV by which a pacemaker's spike leaves its neighbourhood of 11 ms


@dataclass
class Beats:
    """What was found.

    Attributes:
        signal: without spikes and wander, mV [L, M]; NaN rows are leads without samples.
        at: when each QRS is steepest, ms [B].
        kinds: beats of one shape, by number; the usual kind first: the largest, or of two that are as frequent, as in
            bigeminy, the narrower.
        widths: how long each QRS is steep, ms [B].
        spikes: a pacemaker's, ms [S].
        cuts: the usual kind's beats that are whole, mV [B, L, W].
    """

    signal: np.ndarray
    at: np.ndarray
    kinds: list[list[int]]
    widths: np.ndarray
    spikes: np.ndarray
    cuts: np.ndarray

    @property
    def usual(self) -> np.ndarray:
        """The mean of the middle half of the usual beats, mV [L, W]."""
        return middle_mean(self.cuts)


def middle_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the first axis: as calm as a mean, as deaf to outliers as a median."""
    quarter = len(values) // 4
    return np.sort(values, axis=0)[quarter : len(values) - quarter].mean(0)


def per_millisecond(signal: np.ndarray, hz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A recording [L, n] at 1 kHz, without a pacemaker's spikes.

    Returns:
        float64 [L, M], NaN rows for leads that are flat or more than half missing; where a used lead was missing for a
        while, bool [M]: those samples are interpolated; and when there were spikes, ms [S].
    """
    ratio = Fraction(1000 / hz).limit_denominator(1000)
    n = int(np.ceil(signal.shape[1] * ratio.numerator / ratio.denominator))
    out, gaps, spikes = np.full((len(signal), n), np.nan), np.zeros(n, bool), np.zeros(n, bool)
    for row, values in zip(out, signal.astype(float), strict=True):
        known = np.isfinite(values)
        if known.mean() < 0.5 or np.ptp(values[known]) == 0:
            continue
        whole = np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])
        if hz >= SPIKE_HZ:  # before resampling, which would make ripples of them
            whole, high = _without_spikes(whole, hz)
            spikes[np.minimum(high * 1000 / hz, n - 1).astype(int)] = True
        row[:] = resample_poly(whole - np.median(whole), ratio.numerator, ratio.denominator, padtype="line")
        if hz < SPIKE_HZ:
            row[:], _ = _without_spikes(row, 1000)
        missing = np.flatnonzero(~known) * 1000 / hz
        gaps[np.unique(np.clip(missing[:, None] + np.arange(1000 / hz), 0, n - 1).astype(int))] = True
    moments = np.flatnonzero(spikes)
    return out, gaps, moments[np.diff(moments, prepend=-100) > 20]


def _without_spikes(values: np.ndarray, hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Spikes are 1 to 3 ms wide; nothing that a heart makes is. The rest [n], and which samples were spikes."""
    smooth = median_filter(values, max(5, 2 * round(0.0055 * hz) - 1))
    high = np.abs(values - smooth) > _SPIKE
    spiky = uniform_filter1d(high.astype(float), max(3, 2 * round(0.0045 * hz) - 1)) > 1e-6
    return np.where(spiky, smooth, values), np.flatnonzero(high)


def slopes(signal: np.ndarray) -> np.ndarray:
    """Smoothed slope, mV/ms [.., M]."""
    return np.gradient(uniform_filter1d(signal, SMOOTHING_MS, axis=-1, mode="nearest"), axis=-1)


def _find(slope: np.ndarray) -> np.ndarray:
    """Where QRS complexes are, ms [B]."""
    size = np.abs(slope)
    against = size / (np.median(size, axis=1, keepdims=True) + _QUIET)
    energy = uniform_filter1d((against**2).mean(0), 60)  # squares: a T wave is long, a QRS complex is steep
    steep = np.sqrt(np.maximum(energy, 0))  # running sums may end a little below 0
    peaks, found = find_peaks(steep, distance=REFRACTORY, height=0)
    heights = found["peak_heights"]
    largest = np.sort(heights)[::-1][: max(3, slope.shape[1] // 2000)]
    if not len(largest) or np.median(largest) < _CLEAR:
        return np.empty(0, int)
    share = heights / np.median(largest)
    steepest = np.array([size[:, max(t - 40, 0) : t + 40].max() for t in peaks])
    return peaks[(share > _SURE) | ((share > _LOWEST) & (steepest > 2 * STEEP))]


def _group(slope: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Beats by shape, the largest group first, and their moments aligned within the group."""
    at, reach = at.copy(), 40
    patterns: list[np.ndarray] = []
    kinds: list[list[int]] = []
    padded = np.pad(slope, ((0, 0), (_SHAPE + reach, _SHAPE + reach)))
    for number, moment in enumerate(at):
        near = padded[:, moment : moment + 2 * (_SHAPE + reach)]
        windows = sliding_window_view(near, 2 * _SHAPE, axis=1)  # [L, 2 reach + 1, 2 shape]
        norms = np.sqrt((windows**2).sum((0, 2))) + 1e-12
        likeness = [(np.einsum("lsw,lw->s", windows, p) / norms / np.sqrt((p**2).sum())) for p in patterns]
        best = int(np.argmax([values.max() for values in likeness])) if likeness else -1
        if best < 0 or likeness[best].max() < _ALIKE:
            patterns.append(windows[:, reach])
            kinds.append([number])
            continue
        shift = int(likeness[best].argmax())
        at[number] = moment + shift - reach
        n = len(kinds[best])
        patterns[best] = (patterns[best] * n + windows[:, shift]) / (n + 1)
        kinds[best].append(number)
    return at, sorted(kinds, key=len, reverse=True)


def cut(signal: np.ndarray, at: np.ndarray, before: int = BEFORE, after: int = AFTER) -> np.ndarray:
    """The signal around moments that lie well inside of it, mV [B, L, W]."""
    inside = at[(at >= before) & (at + after <= signal.shape[1])]
    return np.stack([signal[:, t - before : t + after] for t in inside]) if len(inside) else np.empty((0, 12, 0))


def _wander(signal: np.ndarray, at: np.ndarray, kinds: list[list[int]]) -> np.ndarray:
    """The slow part of what is left without the beats, mV [L, M]; three box filters are nearly a Gaussian."""
    rr = float(np.median(np.diff(at))) if len(at) > 1 else 1000.0
    width = int(np.clip(0.6 * rr, 400, 700))

    def slow(values: np.ndarray) -> np.ndarray:
        for _ in range(3):
            values = uniform_filter1d(values, width, axis=1, mode="nearest")
        return values

    wander = slow(signal)
    edges = np.concatenate([[0], at[:-1] + 0.6 * np.diff(at), [signal.shape[1]]]).astype(int)
    for _ in range(4):  # each time less of the beats is taken for wander
        flat, beats = signal - wander, np.zeros_like(signal)
        for kind in kinds:
            if len(kind) < 3:
                continue
            parts = cut(flat, at[kind], BEFORE, AFTER)
            if not len(parts):
                continue
            pattern = middle_mean(parts)
            for number in kind:
                first = max(edges[number], at[number] - BEFORE, 0)
                last = min(edges[number + 1], at[number] + AFTER, signal.shape[1])
                beats[:, first:last] = pattern[:, first - at[number] + BEFORE : last - at[number] + BEFORE]
        for kind in kinds:  # rare beats: nothing is known there but that the line goes on
            for number in kind if len(kind) < 3 else ():
                first, last = edges[number], edges[number + 1]
                beats[:, first:last] = flat[:, first:last]
        wander = slow(signal - beats)
    return wander


def _widths(signal: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Ms from the first to the last steep moment of each QRS, without pauses of 14 ms [B]."""
    steep = np.abs(np.gradient(uniform_filter1d(signal, 9, axis=1), axis=1)).max(0) > STEEP
    total = np.concatenate([np.zeros(15, int), np.cumsum(steep), np.full(14, steep.sum())])
    calm = total[14:] == total[:-14]  # calm[t + 14]: no steep moment in t .. t + 13; steep before the recording is not
    widths = []
    for moment in at:
        off = int(calm[moment + 14 :].argmax())
        on = int(calm[: moment + 1][::-1].argmax())  # the 14 ms that end before moment - on
        widths.append(on + off - 8)  # 8 ms are the smoothing's
    return np.array(widths)


def _usual_first(kinds: list[list[int]], widths: np.ndarray) -> list[list[int]]:
    often = [kind for kind in kinds if len(kind) > _AS_OFTEN * len(kinds[0])]
    usual = min(often, key=lambda kind: float(np.median(widths[kind])))
    return [usual, *(kind for kind in kinds if kind is not usual)]


def find_beats(signal: np.ndarray, hz: float) -> Beats:
    """Clean a recording [L, n] and find its beats; none where nothing is clearly steeper than the rest."""
    whole, gaps, spikes = per_millisecond(signal, hz)
    used = np.isfinite(whole).all(1)
    none = np.empty(0, int)
    nothing = Beats(whole, none, [], none, none, np.empty((0, 12, 0)))
    if not used.any() or whole.shape[1] < 1000:
        return nothing
    clean = whole[used]
    slope = slopes(clean)
    at = _find(slope)
    if not len(at):
        return nothing
    at, kinds = _group(slope, at)
    order = np.argsort(at)
    at, kinds = at[order], [sorted(int(np.flatnonzero(order == i)[0]) for i in kind) for kind in kinds]
    whole[used] = clean - _wander(clean, at, kinds)
    widths = _widths(whole[used], at)
    kinds = _usual_first(kinds, widths)
    untouched = [t for t in at[kinds[0]] if not gaps[max(t - BEFORE, 0) : t + AFTER].any()]
    return Beats(whole, at, kinds, widths, spikes, cut(whole, np.array(untouched, int)))
