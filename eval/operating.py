"""Operating points: thresholds chosen on validation records for a stated sensitivity or specificity, and what they do.

Predicted is what scores at least the threshold. Every share comes with its counts and Wilson's 95 % interval, which
holds up where the bootstrap does not: for few records, and for shares of 0 and 1.

Shapes: N records.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson_interval(part: int, whole: int) -> tuple[float, float] | None:
    """95 % interval of a share of independent records; None if there are none. Wilson 1927, JASA 22(158)."""
    if not whole:
        return None
    share, weight = part / whole, Z**2 / whole
    middle = (share + weight / 2) / (1 + weight)
    half = Z * float(np.sqrt(share * (1 - share) / whole + weight / (4 * whole))) / (1 + weight)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        """The share; None if there is nothing to share."""
        return self.part / self.whole if self.whole else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval."""
        return wilson_interval(self.part, self.whole)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A threshold, how it was chosen, and what it does on the reported records."""

    name: str
    threshold: float
    sensitivity: Share
    specificity: Share
    ppv: Share
    npv: Share


def threshold_at_specificity(y: np.ndarray, s: np.ndarray, target: float) -> float | None:
    """The smallest threshold whose specificity is at least `target`; None without negative records.

    Args:
        y: bool [N].
        s: float [N].
        target: in (0, 1].
    """
    negatives, values = np.sort(s[~y]), np.unique(s)
    if not len(negatives):
        return None
    values = np.append(values, np.nextafter(values[-1], np.inf))  # above all of them nothing is predicted
    specificity = np.searchsorted(negatives, values, "left") / len(negatives)
    return float(values[np.argmax(specificity >= target)])


def threshold_at_sensitivity(y: np.ndarray, s: np.ndarray, target: float) -> float | None:
    """The largest threshold whose sensitivity is at least `target`; None without positive records.

    Args:
        y: bool [N].
        s: float [N].
        target: in (0, 1].
    """
    positives = np.sort(s[y])
    if not len(positives):
        return None
    sensitivity = (len(positives) - np.searchsorted(positives, positives, "left")) / len(positives)
    return float(positives[np.flatnonzero(sensitivity >= target)[-1]])


def point_at(y: np.ndarray, s: np.ndarray, threshold: float, name: str = "") -> Point:
    """What a threshold does.

    Args:
        y: bool [N].
        s: float [N].
        threshold: predicted is what is at least as large; infinity predicts nothing.
        name: how it was chosen.
    """
    p = s >= threshold
    tp, n_pos, n_said = int((y & p).sum()), int(y.sum()), int(p.sum())
    tn = len(y) - n_pos - n_said + tp
    return Point(
        name=name,
        threshold=threshold,
        sensitivity=Share(tp, n_pos),
        specificity=Share(tn, len(y) - n_pos),
        ppv=Share(tp, n_said),
        npv=Share(tn, len(y) - n_said),
    )


def operating_points(
    held: tuple[np.ndarray, np.ndarray],
    reported: tuple[np.ndarray, np.ndarray],
    specificities: Sequence[float],
    sensitivities: Sequence[float],
) -> list[Point]:
    """Thresholds from validation records, on reported ones; what validation records cannot choose is left out.

    Args:
        held: y bool [N] and s float [N] of validation records.
        reported: the same of other records.
        specificities, sensitivities: targets.
    """
    chosen = [(f"specificity {t:g}", threshold_at_specificity(*held, t)) for t in specificities]
    chosen += [(f"sensitivity {t:g}", threshold_at_sensitivity(*held, t)) for t in sensitivities]
    return [point_at(*reported, threshold, name) for name, threshold in chosen if threshold is not None]
