"""Intervals of multi-label metrics: bootstrap over patients, all draws at once.

A draw takes as many patients as there are, with replacement, with all their records; so a record counts as often as
its patient was drawn, and every metric is that of a weighted sample. Draws in which a label loses all its positives or
all its negatives are thrown away and drawn again, as PTB-XL's benchmark does (arXiv:2004.13701, sec. III). Percentile
interval: Efron & Tibshirani 1993, ch. 13.

Shapes: N records, L labels, P patients, D draws, M columns ranked together,
G distinct scores of their positives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eval.metrics import N_BINS, to_probability

MAX_ROUNDS = 100  # rounds of D draws before incomplete ones are accepted
CHUNK = 2**23  # counts held at once while ranking
Interval = list[float] | None
Side = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How often each record was drawn.

    Attributes:
        weights: int32 [N, D].
        n_patients: P.
        complete: whether every label that has both outcomes has them in every draw. Only where fewer than one draw
            in MAX_ROUNDS is complete, the last round's incomplete ones are used, without their missing labels.
    """

    weights: np.ndarray
    n_patients: int
    complete: bool


def draw_patients(y: np.ndarray, patients: Sequence[str], n_draws: int, rng: np.random.Generator) -> Draws:
    """Draw patients until every label keeps both of its outcomes.

    Args:
        y: bool [N, L].
        patients: of the N records.
        n_draws: D.
        rng: source of randomness.

    Raises:
        ValueError: if sizes do not fit.
    """
    if len(patients) != len(y) or n_draws < 1:
        raise ValueError(f"{len(y)} records need as many patients, got {len(patients)}, and n_draws={n_draws} >= 1")
    names, of_record = np.unique(np.asarray(patients), return_inverse=True)
    n_patients = len(names)
    both = y.any(0) & ~y.all(0)
    carriers = np.zeros((2 * int(both.sum()), n_patients), np.float32)  # one row per outcome that must stay
    for row, outcome in enumerate(np.concatenate([y[:, both], ~y[:, both]], axis=1).T):
        carriers[row, of_record[outcome]] = 1
    kept: list[np.ndarray] = []
    n_kept, drawn = 0, np.zeros((n_patients, 0), np.int32)
    for _ in range(MAX_ROUNDS):
        chosen = rng.integers(n_patients, size=(n_draws, n_patients)) + n_patients * np.arange(n_draws)[:, None]
        drawn = np.bincount(chosen.ravel(), minlength=n_draws * n_patients).reshape(n_draws, n_patients).T
        drawn = drawn.astype(np.int32)  # [P, D]
        complete = (carriers @ (drawn > 0).astype(np.float32) > 0).all(0)
        kept.append(drawn[:, complete])
        n_kept += int(complete.sum())
        if n_kept >= n_draws:
            break
    counts = np.concatenate([*kept, drawn], axis=1)[:, :n_draws]
    return Draws(weights=np.ascontiguousarray(counts[of_record]), n_patients=n_patients, complete=n_kept >= n_draws)


def _weight_above(values: np.ndarray, s: np.ndarray, counted: np.ndarray, w: np.ndarray, side: Side) -> np.ndarray:
    """Weight of the counted scores above each of some values, "left": or equal to it. Float32 [G, D].

    Args:
        values: [G], falling.
        s: float [N, M].
        counted: bool [N, M].
        w: float32 [N, D].
        side: "left" or "right", as in numpy.searchsorted.
    """
    n = len(s)
    record, _ = np.nonzero(counted)
    reached = np.searchsorted(-values, -s[counted], side)  # the first value that a score is above
    parts, carried = [], np.zeros(n, np.float32)
    step = max(CHUNK // n, 1)
    for at in range(0, len(values), step):
        size = min(step, len(values) - at)
        inside = (reached >= at) & (reached < at + size)
        found = np.bincount((reached[inside] - at) * n + record[inside], minlength=size * n).reshape(size, n)
        found = carried + np.cumsum(found, axis=0, dtype=np.float32)  # [step, N] scores of each record so far
        carried = found[-1]
        parts.append(found @ w)
    return np.concatenate(parts)


def weighted_ranking(y: np.ndarray, s: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC and average precision of every draw, over all M columns together; NaN where a draw lacks an outcome.

    Both need only how many negatives score above each distinct score of a positive: AUC is the chance that a positive
    is above a negative, ties half; average precision is the mean over positives of the precision at their score, as
    scikit-learn's. Counts are exact in float32 below 2^24.

    Args:
        y: bool [N, M].
        s: float [N, M].
        weights: int [N, D].

    Returns:
        float [D] each.
    """
    w = weights.astype(np.float32)
    record, _ = np.nonzero(y)
    order = np.argsort(-s[y], kind="stable")
    values, start = np.unique(-s[y][order], return_index=True)
    values = -values  # [G] falling
    own = np.add.reduceat(w[record[order]], start, axis=0).astype(np.float64) if len(values) else w[:0]  # [G, D]
    tp = np.cumsum(own, axis=0)
    with_ties = _weight_above(values, s, ~y, w, "left") if len(values) else w[:0]
    tied = len(values) and np.isin(s[~y], values).any()
    above = (with_ties + _weight_above(values, s, ~y, w, "right")) / 2 if tied else with_ties
    n_pos, n_neg = own.sum(0), (~y).sum(1) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = 1 - (own * above).sum(0) / (n_pos * n_neg)
        ap = np.where(own > 0, own * tp / np.maximum(tp + with_ties, 1), 0).sum(0) / n_pos
    return auc, ap


def _counts(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Float64 [L, D] of what one label's metrics of predictions are made of."""
    w = weights.astype(np.float64)
    tp, n_pos, n_said = ((m.T.astype(np.float64) @ w) for m in (y & p, y, p))
    total = w.sum(0)
    tn = total - n_pos - n_said + tp
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "f1": np.where(tp > 0, 2 * tp / (n_pos + n_said), 0.0),
            "sensitivity": tp / n_pos,
            "specificity": tn / (total - n_pos),
            "ppv": tp / n_said,
            "npv": tn / (total - n_said),
        }


def _draws_of_predictions(y: np.ndarray, p: np.ndarray, weights: np.ndarray) -> tuple[dict, dict]:
    per_label = _counts(y, p, weights)
    both = y.any(0) & ~y.all(0)
    balanced = (per_label["sensitivity"] + per_label["specificity"])[both] / 2
    wrong = (y != p).mean(1)
    means = {
        "macro_f1": per_label["f1"].mean(0),
        "hamming": wrong @ weights / weights.sum(0),
        "balanced_accuracy": _mean(balanced),
    }
    return means, per_label


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over labels [., D] that a draw defines; NaN if it defines none."""
    known = ~np.isnan(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, rows, 0).sum(0) / known.sum(0)


def _calibration(y: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Calibration error of every draw, float [D]; eval.metrics.expected_calibration_error."""
    bins = np.minimum((probability * N_BINS).astype(int), N_BINS - 1)
    gap = y - probability  # [N, L]
    per_record = np.stack([np.where(bins == b, gap, 0).sum(1) for b in range(N_BINS)])  # [bins, N]
    return np.abs(per_record @ weights).sum(0) / (weights.sum(0) * y.shape[1])


def _draws_of_scores(y: np.ndarray, s: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> tuple[dict, dict]:
    ranked = [weighted_ranking(y[:, i : i + 1], s[:, i : i + 1], weights) for i in range(y.shape[1])]
    auc, ap = (np.stack([row[k] for row in ranked]) for k in (0, 1))  # [L, D]
    both, ten = y.any(0) & ~y.all(0), y.sum(0) >= 10
    micro_auc, micro_ap = weighted_ranking(y, s, weights)
    means = {
        "macro_auc": _mean(auc[both]),
        "macro_auc_10": _mean(auc[both & ten]),
        "macro_ap": _mean(ap[both]),
        "macro_ap_10": _mean(ap[both & ten]),
        "micro_auc": micro_auc,
        "micro_ap": micro_ap,
        "brier": ((probability - y) ** 2).mean(1) @ weights / weights.sum(0),
        "ece": _calibration(y, probability, weights),
    }
    return means, {"auc": auc, "ap": ap}


def percentile_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Bounds between which the middle `level` of the draws lies; None if fewer than half of them define the value."""
    known = values[np.isfinite(values)]
    if 2 * len(known) < len(values):
        return None
    return [float(bound) for bound in np.quantile(known, [(1 - level) / 2, (1 + level) / 2])]


def bootstrap_intervals(
    y_true: np.ndarray,
    y_pred: np.ndarray | None,
    scores: np.ndarray | None,
    patients: Sequence[str],
    names: Sequence[str],
    *,
    n_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    are_log_odds: bool = False,
) -> dict[str, Any]:
    """Intervals of everything in eval.metrics.label_metrics.

    Args:
        y_true, y_pred: bool [N, L].
        scores: float [N, L].
        patients: of the N records; records of one patient are drawn together.
        names: of the L labels.
        n_draws, level, seed: of the bootstrap.
        are_log_odds: of the scores; see eval.metrics.to_probability.

    Returns:
        `n_draws`, `level`, `n_patients`, `complete` (see Draws), `means` {metric: [low, high]} and `per_label`
        {name: {metric: [low, high]}}; None for what too few draws define.

    Raises:
        ValueError: if sizes do not fit.
    """
    y = np.asarray(y_true).astype(bool)
    draws = draw_patients(y, patients, n_draws, np.random.default_rng(seed))
    means: dict[str, np.ndarray] = {}
    fields: dict[str, np.ndarray] = {}
    if y_pred is not None:
        more, per_label = _draws_of_predictions(y, np.asarray(y_pred).astype(bool), draws.weights)
        means, fields = means | more, fields | per_label
    if scores is not None:
        s = np.asarray(scores, float)
        more, per_label = _draws_of_scores(y, s, to_probability(s, are_log_odds=are_log_odds), draws.weights)
        means, fields = means | more, fields | per_label
    return {
        "n_draws": n_draws,
        "level": level,
        "n_patients": draws.n_patients,
        "complete": draws.complete,
        "means": {name: percentile_interval(values, level) for name, values in means.items()},
        "per_label": {
            label: {name: percentile_interval(values[i], level) for name, values in fields.items()}
            for i, label in enumerate(names)
        },
    }


def mean_interval(
    values: Sequence[float], patients: Sequence[str], *, n_draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of a mean over records, patients drawn; for report scores and accuracies."""
    draws = draw_patients(np.zeros((len(values), 1), bool), patients, n_draws, np.random.default_rng(seed))
    return percentile_interval(np.asarray(values, float) @ draws.weights / draws.weights.sum(0), level)
