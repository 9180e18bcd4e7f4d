"""An ECG read from its samples alone, as a reader with calipers would: beats, intervals, amplitudes, axis.

Nothing here knows how the simulator makes a beat. QRS begins and ends where the steepest lead turns slow; P and T
where any lead leaves the baseline. The signals that tests measure are drawn without noise and wander, so the
baseline is 0 mV.

Shapes: L = 12 leads, N samples, M milliseconds of a beat.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from train.ecg import LEADS, EcgRecord, simulate_ecg

BEFORE, AFTER = 420, 620  # ms of a beat around its R
STEEP = 7.0  # microvolts per ms: QRS is steeper, P and T are not
P_LEVEL, T_LEVEL = 0.012, 0.020  # mV above which a wave has begun


def find_beats(record: EcgRecord) -> np.ndarray:
    """Sample of the steepest moment of every QRS complex: maxima of the slopes that no P or T has, 200 ms apart."""
    slope = np.abs(np.diff(record.signal, axis=1)) * record.hz  # microvolts per ms
    excess = np.maximum(slope - 2 * STEEP, 0).sum(0)
    width = max(round(0.04 * record.hz), 1)
    smooth = np.convolve(excess, np.ones(width) / width, mode="same")
    beats: list[int] = []
    for at in np.argsort(-smooth):
        if smooth[at] < 0.15 * smooth.max():
            break
        if all(abs(at - other) > 0.2 * record.hz for other in beats):
            beats.append(int(at))
    return np.array(sorted(beats))


def cut(record: EcgRecord, at: int) -> np.ndarray | None:
    """The signal around a sample at 1 kHz [L, M]; None where the recording ends."""
    assert record.hz == 1000
    if at < BEFORE or at + AFTER > record.signal.shape[1]:
        return None
    return record.signal[:, at - BEFORE : at + AFTER].astype(float)


def lead(name: str) -> int:
    return LEADS.index(name)


@dataclass
class Beat:
    """One beat, or the median of several.

    Attributes:
        leads: [L, M].
        on, off: of the QRS complex, ms on the beat's own clock.
        after: ms to the next beat.
        time: ms in the recording; 0 for a median.
    """

    leads: np.ndarray
    on: int
    off: int
    after: float
    time: float

    @property
    def qrs(self) -> float:
        return float(self.off - self.on)

    @property
    def qrs_leads(self) -> np.ndarray:
        return self.leads[:, self.on : self.off]

    @property
    def axis(self) -> float:
        """From the net areas in I and aVF, degrees."""
        net = self.qrs_leads.sum(1)
        return float(np.degrees(np.arctan2(2 / np.sqrt(3) * net[lead("aVF")], net[lead("I")])))

    def st(self, name: str) -> float:
        """60 ms after the QRS, mV."""
        return float(self.leads[lead(name), self.off + 60])

    def r(self, name: str) -> float:
        return max(float(self.qrs_leads[lead(name)].max()), 0.0)

    def s(self, name: str) -> float:
        """The lowest point after the R."""
        part = self.qrs_leads[lead(name)]
        return min(float(part[part.argmax() :].min()), 0.0)

    def q(self, name: str) -> float:
        """The lowest point before the R."""
        part = self.qrs_leads[lead(name)]
        return min(float(part[: part.argmax() + 1].min()), 0.0)

    def q_ms(self, name: str) -> float:
        """How long the QRS is below -50 microvolts before its R."""
        part = self.qrs_leads[lead(name)]
        return float((part[: part.argmax() + 1] < -0.05).sum())

    def t_window(self) -> tuple[int, int]:
        """From 100 ms after the QRS to where the T wave ends, ms; the end is where every lead is quiet again."""
        first, last = self.off + 100, min(int(BEFORE + self.after - 100), self.leads.shape[1])
        size = np.abs(self.leads).max(0)
        peak = first + int(size[first:last].argmax())
        quiet = np.flatnonzero(size[peak:] <= T_LEVEL)
        return first, peak + int(quiet[0]) if quiet.size else self.leads.shape[1]

    def t(self, name: str) -> float:
        """The largest deflection of the T wave, signed."""
        first, last = self.t_window()
        part = self.leads[lead(name), first:last]
        return float(part[np.abs(part).argmax()])

    @property
    def qt(self) -> float:
        return float(self.t_window()[1] - self.on)

    def p_extent(self) -> tuple[int, int] | None:
        """First and last ms of the wave before the QRS; None if there is none that begins and ends on the baseline."""
        size = np.abs(self.leads[:, : self.on]).max(0)
        # the foot of the QRS: walk back from its beginning to where the leads are quietest
        foot = int(size[self.on - 45 :].argmin()) + self.on - 45
        above = np.flatnonzero(size[:foot] > P_LEVEL)
        if not above.size:
            return None
        last = int(above[-1])
        quiet = np.flatnonzero(size[:last] <= P_LEVEL)
        if not quiet.size or not 20 < last - quiet[-1] < 180 or last < self.on - 400:
            return None
        return int(quiet[-1]) + 1, last

    @property
    def pr(self) -> float | None:
        extent = self.p_extent()
        return None if extent is None else float(self.on - extent[0])

    @property
    def p_width(self) -> float | None:
        extent = self.p_extent()
        return None if extent is None else float(extent[1] - extent[0])

    def p(self, name: str) -> float:
        extent = self.p_extent()
        assert extent is not None
        part = self.leads[lead(name), extent[0] : extent[1]]
        return float(part[np.abs(part).argmax()])


def delineate(leads: np.ndarray, after: float, time: float = 0.0) -> Beat:
    """Find where the QRS of a cut beat [L, M] begins and ends; the next one comes `after` ms later."""
    steep = np.abs(np.gradient(leads, axis=1)).max(0) * 1000 > STEEP
    on = off = BEFORE
    while steep[max(on - 14, 0) : on].any():
        on -= 1
    while steep[off : off + 14].any():
        off += 1
    return Beat(leads=leads, on=on, off=off, after=after, time=time)


@dataclass
class Reading:
    """Everything about a recording: the times of its beats in ms, each beat, and the median of the ordinary ones."""

    times: np.ndarray
    beats: list[Beat]
    usual: Beat

    @property
    def rr(self) -> np.ndarray:
        return np.diff(self.times)

    @property
    def rate(self) -> float:
        return 60_000 / float(np.median(self.rr))


def read(record: EcgRecord) -> Reading:
    """Measure a recording of 1 kHz without noise."""
    at = find_beats(record)
    times = at * 1000 / record.hz
    gaps = np.diff(times)
    beats: list[Beat] = []
    for i, sample in enumerate(at[:-1]):
        leads = cut(record, int(sample))
        if leads is not None:
            beats.append(delineate(leads, gaps[i], time=times[i]))
    narrow = np.quantile([beat.qrs for beat in beats], 0.2)
    ordinary = [beat for beat in beats if abs(beat.qrs - narrow) <= 12]
    after = float(np.median([beat.after for beat in ordinary]))
    return Reading(times=times, beats=beats, usual=delineate(np.median([b.leads for b in ordinary], axis=0), after))


def clean(name: str, seed: int) -> EcgRecord:
    """A recording of one condition at 1 kHz without noise and wander."""
    return simulate_ecg([name], np.random.default_rng([seed, 7]), hz=1000, noise_mv=0, wander_mv=0)


@lru_cache(maxsize=256)
def reading(name: str, seed: int) -> tuple[EcgRecord, Reading]:
    """`clean`, and what can be measured on it."""
    record = clean(name, seed)
    return record, read(record)
