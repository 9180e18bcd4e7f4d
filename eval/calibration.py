"""Reliability: how often what was said with a probability came true, and whether that is what chance allows.

Shapes: N records, L labels.
"""

from dataclasses import dataclass

import numpy as np

from eval.metrics import expected_calibration_error, to_probability
from eval.operating import Share


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Label-record pairs whose probability lies in [low, high): mean of what was said, share that came true."""

    low: float
    high: float
    said: float | None
    seen: Share


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Bins, the calibration error, and the error that a perfectly calibrated model of the same answers stays below.

    `chance` is the 95 % quantile of the error when every answer comes true exactly as often as it says.
    """

    bins: list[Bin]
    ece: float
    chance: float

    @property
    def is_calibrated(self) -> bool:
        """Whether the error is no larger than chance explains."""
        return self.ece <= self.chance


def reliability(y: np.ndarray, s: np.ndarray, n_bins: int = 10, n_draws: int = 100) -> Reliability:
    """Of all labels together.

    Args:
        y: bool [N, L].
        s: log-odds, float [N, L].
        n_bins: of equal width, for the curve; the error uses those of eval.metrics.
        n_draws: how often the answers are made to come true, for `chance`.
    """
    p = to_probability(s, are_log_odds=True)
    which = np.minimum((p * n_bins).astype(int), n_bins - 1)
    bins = []
    for b in range(n_bins):
        inside = which == b
        count = int(inside.sum())
        said = float(p[inside].mean()) if count else None
        bins.append(Bin(low=b / n_bins, high=(b + 1) / n_bins, said=said, seen=Share(int(y[inside].sum()), count)))
    rng = np.random.default_rng(0)
    drawn = [expected_calibration_error(rng.random(p.shape) < p, p) for _ in range(n_draws)]
    return Reliability(bins=bins, ece=expected_calibration_error(y, p), chance=float(np.quantile(drawn, 0.95)))
