"""The shape of one heartbeat: a sum of asymmetric Gaussians and one plateau, seen by eight independent channels.

A wave of the limb leads is a vector in the frontal plane (amplitude A mV, angle a): I = A cos(a), II = A
cos(a - 60). The chest leads take one amplitude each. After McSharry et al. 2003
(doi:10.1109/TBME.2003.808805), unrolled in time.

Shapes: W waves, C = 8 channels (I, II, V1-V6), L = 12 leads, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

N_CHANNELS = 8
TO_LEADS = np.zeros((12, N_CHANNELS), np.float32)  # LEADS = TO_LEADS @ channels
TO_LEADS[0, 0] = TO_LEADS[1, 1] = 1
TO_LEADS[2, :2], TO_LEADS[3, :2], TO_LEADS[4, :2], TO_LEADS[5, :2] = (
    (-1, 1),
    (-0.5, -0.5),
    (1, -0.5),
    (-0.5, 1),
)
TO_LEADS[6:, 2:] = np.eye(6)


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One Gaussian bump.

    Attributes:
        at: milliseconds after the R peak.
        widths: standard deviations before and after its peak, ms.
        limb: frontal vector (mV, degrees).
        chest: V1..V6, mV.
    """

    at: float
    widths: tuple[float, float]
    limb: tuple[float, float]
    chest: tuple[float, ...]

    def change(
        self,
        *,
        at: float | None = None,
        widths: float | tuple[float, float] | None = None,
        limb: tuple[float, float] | None = None,
        chest: Sequence[float | None] | None = None,
    ) -> "Wave":
        """A copy with some numbers replaced; None inside `chest` keeps that lead's."""
        sides = (widths, widths) if isinstance(widths, int | float) else widths
        kept = self.chest if chest is None else chest
        mixed = tuple(old if new is None else float(new) for old, new in zip(self.chest, kept, strict=True))
        return replace(
            self,
            at=self.at if at is None else at,
            widths=sides or self.widths,
            limb=limb or self.limb,
            chest=mixed,
        )

    @property
    def channels(self) -> np.ndarray:
        """Amplitude in each channel, mV [C]."""
        size, angle = self.limb
        frontal = size * np.cos(np.radians([angle, angle - 60]))
        return np.concatenate([frontal, self.chest])


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The ST segment: a level between two smooth edges, as a vector and chest values (mV)."""

    start: float = 45.0  # ms after R
    limb: tuple[float, float] = (0.0, 0.0)
    chest: tuple[float, ...] = (0.0,) * 6

    @property
    def channels(self) -> np.ndarray:
        """Level in each channel, mV [C]."""
        return Wave(at=0, widths=(1, 1), limb=self.limb, chest=self.chest).channels


QRS_WAVES = ("q", "r", "s", "delta", "r2")
P_WAVES = ("p_right", "p_left")


@dataclass
class Beat:
    """All waves of a beat by name (`p_right`, `p_left`, `q`, `r`, `s`, `t`, ...) and its ST segment."""

    waves: dict[str, Wave]
    st: Plateau = field(default_factory=Plateau)
    spike: np.ndarray | None = None  # pacemaker: amplitude in each channel [C]
    spike_at: float = -62.0

    def copy(self) -> "Beat":
        """An independent copy (waves are immutable)."""
        return Beat(dict(self.waves), self.st, self.spike, self.spike_at)

    def part(self, names: Sequence[str]) -> list[Wave]:
        """The waves with these names that are there."""
        return [self.waves[name] for name in names if name in self.waves]

    def draw(self, at_ms: np.ndarray, names: Sequence[str] | None = None, *, with_st: bool = True) -> np.ndarray:
        """Channels at these times after R: [N] -> mV [C, N], of all waves or those named."""
        waves = list(self.waves.values()) if names is None else self.part(names)
        out = np.zeros((N_CHANNELS, len(at_ms)))
        if waves:
            centre = np.array([w.at for w in waves])[:, None]
            before, after = np.array([w.widths for w in waves]).T[..., None]
            offset = at_ms[None] - centre
            shapes = np.exp(-0.5 * (offset / np.where(offset < 0, before, after)) ** 2)
            out += np.stack([w.channels for w in waves], axis=1) @ shapes
        if with_st and "t" in self.waves and np.any(self.st.channels):
            end = self.waves["t"].at - 1.2 * self.waves["t"].widths[0]
            rise, fall = (at_ms - self.st.start) / 6.0, (end - at_ms) / 25.0
            out += np.outer(self.st.channels, _sigmoid(rise) * _sigmoid(fall))
        if self.spike is not None and names is None:
            out += np.outer(self.spike, np.abs(at_ms - self.spike_at) <= 1.0)
        return out


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))


def normal_beat(axis: float) -> Beat:
    """A normal beat with its R vector at `axis` degrees."""
    return Beat(
        {
            "p_right": Wave(at=-168, widths=(17, 19), limb=(0.085, 60), chest=(0.06, 0.07, 0.06, 0.05, 0.05, 0.045)),
            "p_left": Wave(at=-142, widths=(18, 15), limb=(0.075, 50), chest=(-0.035, 0.03, 0.04, 0.045, 0.045, 0.045)),
            "q": Wave(
                at=-24,
                widths=(7.5, 7.5),
                limb=(0.09, axis + 165),
                chest=(0.20, 0.25, 0.10, -0.02, -0.07, -0.08),
            ),
            "r": Wave(at=0, widths=(10, 10), limb=(1.10, axis), chest=(0.10, 0.35, 0.80, 1.50, 1.45, 1.05)),
            "s": Wave(
                at=26,
                widths=(9, 9.5),
                limb=(0.20, axis + 150),
                chest=(-0.85, -1.35, -0.95, -0.55, -0.28, -0.10),
            ),
            "t": Wave(at=265, widths=(52, 34), limb=(0.30, 45), chest=(-0.05, 0.32, 0.42, 0.42, 0.34, 0.24)),
        }
    )


TEMPLATE_MS = np.arange(-450.0, 750.0, 1.0)  # where a beat is looked at when it is measured
QRS_LEVEL, P_LEVEL, T_LEVEL = 0.030, 0.012, 0.020  # mV above which a wave has begun


def _extent(leads: np.ndarray, level: float) -> tuple[float, float] | None:
    """First and last time (ms after R) at which any lead exceeds `level`."""
    above = np.flatnonzero(np.abs(leads).max(0) > level)
    return None if above.size == 0 else (float(TEMPLATE_MS[above[0]]), float(TEMPLATE_MS[above[-1]]))


def measure_beat(beat: Beat) -> dict[str, object]:
    """Times and amplitudes of the noiseless beat.

    Returns:
        `qrs_on`, `qrs_off`, `p_on`, `p_off`, `t_off` in ms after R (None for a wave that is not there),
        `axis` in degrees, and per lead `p`, `q`, `r`, `s`, `t` (signed peaks) and `st` (level 60 ms after
        QRS) in mV [L].
    """
    qrs = TO_LEADS @ beat.draw(TEMPLATE_MS, QRS_WAVES, with_st=False)
    p = TO_LEADS @ beat.draw(TEMPLATE_MS, P_WAVES, with_st=False)
    t = TO_LEADS @ beat.draw(TEMPLATE_MS, ("t",), with_st=False)
    whole = TO_LEADS @ beat.draw(TEMPLATE_MS, ("t",))
    qrs_extent, p_extent, t_extent = _extent(qrs, QRS_LEVEL), _extent(p, P_LEVEL), _extent(t, T_LEVEL)
    assert qrs_extent is not None, "a beat without QRS"
    r_at = qrs.argmax(1)
    before = TEMPLATE_MS[None] < TEMPLATE_MS[r_at][:, None]
    j60 = int(qrs_extent[1] + 60 - TEMPLATE_MS[0])
    net = qrs.sum(1)
    return {
        "qrs_on": qrs_extent[0],
        "qrs_off": qrs_extent[1],
        "p_on": p_extent and p_extent[0],
        "p_off": p_extent and p_extent[1],
        "t_off": t_extent and t_extent[1],
        "axis": float(np.degrees(np.arctan2(2 / np.sqrt(3) * net[5], net[0]))),
        "p": _signed_peak(p),
        "q": np.where(before, qrs, 0).min(1),
        "r": np.maximum(qrs.max(1), 0),
        "s": np.where(before, 0, qrs).min(1),
        "t": _signed_peak(t),
        "st": whole[:, j60],
    }


def _signed_peak(leads: np.ndarray) -> np.ndarray:
    return leads[np.arange(len(leads)), np.abs(leads).argmax(1)]
