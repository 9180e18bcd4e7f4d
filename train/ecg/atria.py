"""What the atria do when there is no P wave before every QRS: fibrillate, flutter, or beat on their own.

Fibrillation is what is left between the beats of an irregular rhythm: waves of 4 to 10 Hz. Flutter is locked to the
beats, and repeats itself more often than they do. Dissociated P waves are left over too, at their own steady rate.

Shapes: L = 12 leads, M milliseconds of the recording, W milliseconds of a beat.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

from train.ecg.detect import BEFORE, SMOOTHING_MS, Beats, middle_mean
from train.ecg.waves import Waves

_FIBRILLATION_HZ, _FLUTTER_MS, _SINUS_MS = (4.0, 10.0), (176, 252), (400, 1300)
_SHARE = 0.5  # of the energy between 0.5 and 40 Hz that fibrillation has in its band
_FLUTTER_MV = 0.024  # the same of flutter waves, which are not buried in noise
_LEAST_MV = 0.012  # rms of atrial waves; noise is not counted where it is averaged out
_ALONE = 0.3  # correlation of dissociated waves with the next ones
_REPEATS = 0.6  # correlation of a wave with the next one
_LOCKED = 0.1  # of a wave: how far from whole the number of flutter waves of a beat may be


def left_over(beats: Beats) -> np.ndarray:
    """The recording without its beats: each from its P wave to 400 ms after its QRS; the same elsewhere, mV [L, M]."""
    rest, (before, after) = beats.signal.copy(), (250, 400)
    for kind in beats.kinds:
        whole = [n for n in kind if beats.at[n] >= before and beats.at[n] + after <= rest.shape[1]]
        if len(whole) < 3:
            continue
        pattern = middle_mean(np.stack([beats.signal[:, beats.at[n] - before : beats.at[n] + after] for n in whole]))
        for n in whole:
            t = beats.at[n]
            first = max(t - before, beats.at[n - 1] + after) if n else t - before  # what the last beat has taken away
            rest[:, first : t + after] -= pattern[:, first - t + before :]
    return rest


def fibrillates(beats: Beats) -> float | None:
    """Waves per minute if what is left between the beats is mostly waves of fibrillation; None if it is not."""
    rest = left_over(beats)
    rest = rest[np.isfinite(rest).all(1), BEFORE:-BEFORE]
    if rest.shape[1] < 3000:
        return None
    power = np.abs(np.fft.rfft(rest - rest.mean(1, keepdims=True), axis=1)) ** 2
    hz = np.fft.rfftfreq(rest.shape[1], 1e-3)
    inside = (hz > _FIBRILLATION_HZ[0]) & (hz < _FIBRILLATION_HZ[1])
    rms = np.sqrt(2 * power[:, inside].sum(1)) / rest.shape[1]
    share = power[:, inside].sum(1) / power[:, (hz > 0.5) & (hz < 40)].sum(1)
    best = int((share * (rms > _LEAST_MV)).argmax())
    if share[best] < _SHARE or rms[best] < _LEAST_MV:
        return None
    return 60 * float(hz[inside][power[best, inside].argmax()])


def flutters(waves: Waves) -> float | None:
    """Waves per minute if the line never rests from QRS to QRS, and some lead repeats itself; None if not.

    A whole number of waves goes to a beat: a T and a P wave look like two of them, but not where the next is due.
    """
    lags = np.arange(*_FLUTTER_MS, 2)
    lags = lags[np.abs(waves.after / lags - np.rint(waves.after / lags)) < _LOCKED]
    first, last = waves.off + 30, min(round(waves.on + waves.after) - 30, waves.beat.shape[1])
    if not len(lags) or last - first < 2.2 * lags[0] or not waves.never_rests():
        return None
    best, found = _REPEATS, None
    for lead in waves.beat[:, first:last]:
        if np.isnan(lead).any() or np.std(lead) < _FLUTTER_MV:
            continue
        lead = np.gradient(uniform_filter1d(lead, SMOOTHING_MS))
        for lag in lags:
            if len(lead) < 2.2 * lag:
                continue
            a, b = lead[:-lag], lead[lag:]
            half = len(a) // 2
            alike = min(_correlation(a[:half], b[:half]), _correlation(a[half:], b[half:]))
            if alike > best:
                best, found = alike, 60_000 / float(lag)
    return found


def beats_alone(beats: Beats) -> float | None:
    """The steady rate of small waves that do not go with the beats; None if there are none."""
    rest = left_over(beats)
    rest = uniform_filter1d(rest[np.isfinite(rest).all(1)], 21, axis=1)
    rest = rest[np.sqrt((rest**2).mean(1)) > _LEAST_MV / 2]
    n = rest.shape[1]
    lags = np.arange(_SINUS_MS[0], min(_SINUS_MS[1], n // 2))
    if not len(rest) or not lags.size:
        return None
    power = np.abs(np.fft.rfft(rest - rest.mean(1, keepdims=True), 2 * n, axis=1)) ** 2
    likeness = np.fft.irfft(power, axis=1)[:, :n] * n / np.arange(n, 0, -1)
    best = (likeness[:, lags] / likeness[:, :1]).max(0)
    first = np.flatnonzero(best > 0.8 * best.max())[0]  # two cycles repeat themselves as well as one
    lag = float(lags[first + best[first : first + 60].argmax()])
    rr = float(np.median(np.diff(beats.at)))
    with_the_beats = abs(rr / lag - round(rr / lag)) < 0.04  # then it is what was not removed of them
    return 60_000 / lag if best.max() > _ALONE and not with_the_beats else None


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + 1e-12))
