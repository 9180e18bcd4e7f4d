"""Multi-label metrics of predictions (F1, Hamming loss, balanced accuracy) and of scores (AUC, Brier score, ...).

scikit-learn computes the curves.

A metric that a label does not define (no positive, or no negative record) is left out of the means and
counted; it is never NaN and never 0.5.

Shapes: N records, L labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

N_BINS = 15  # of the calibration error
LABEL_FIELDS = (
    "auc",
    "ap",
    "f1",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "threshold",
)  # None: not measured, undefined, or a threshold that no score reaches


def _matrix(values: Any, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or (shape is not None and matrix.shape != shape):
        raise ValueError(
            f"{name} must be [records, labels]{f' = {list(shape)}' if shape else ''}, got {list(matrix.shape)}"
        )
    return matrix


def _binary(values: Any, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    matrix = _matrix(values, name, shape)
    if not matrix.size:
        raise ValueError(f"{name} has no records or no labels: {list(matrix.shape)}")
    if not np.isin(matrix, (0, 1)).all():
        raise ValueError(f"{name} must hold 0 and 1 only")
    return matrix.astype(bool)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _prediction_metrics(y: np.ndarray, p: np.ndarray) -> dict[str, Any]:
    """Of one label: y, p bool [N]."""
    tp, fp, fn, tn = (int(x.sum()) for x in (y & p, ~y & p, y & ~p, ~y & ~p))
    return {
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
    }


def _score_metrics(y: np.ndarray, s: np.ndarray) -> dict[str, Any]:
    """Of one label: y bool [N], s float [N]."""
    defined = 0 < y.sum() < len(y)
    return {
        "auc": float(roc_auc_score(y, s)) if defined else None,
        "ap": float(average_precision_score(y, s)) if y.any() else None,
    }


def expected_calibration_error(y: np.ndarray, probability: np.ndarray, n_bins: int = N_BINS) -> float:
    """Mean distance of frequency from probability over equal bins, weighted by their records. arXiv:1706.04599, Eq. 3.

    Args:
        y: bool, any shape.
        probability: in [0, 1], same shape.
        n_bins: number of bins.
    """
    bins = np.minimum((probability.ravel() * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    observed = np.bincount(bins, y.ravel().astype(float), n_bins)
    predicted = np.bincount(bins, probability.ravel(), n_bins)
    return float(np.abs(observed - predicted).sum() / count.sum())


def to_probability(scores: np.ndarray, *, are_log_odds: bool = False) -> np.ndarray:
    """Unless they are said to be log-odds, scores that all lie in [0, 1] are taken as probabilities."""
    if not are_log_odds and scores.min() >= 0 and scores.max() <= 1:
        return scores
    return 1 / (1 + np.exp(-np.clip(scores, -500, 500)))


def label_metrics(
    y_true: Any,
    y_pred: Any = None,
    scores: Any = None,
    names: Sequence[str] | None = None,
    thresholds: Any = None,
    *,
    are_log_odds: bool = False,
) -> dict[str, Any]:
    """Metrics over a fixed label space.

    Args:
        y_true: bool or 0-1 [N, L].
        y_pred: bool or 0-1 [N, L]; None leaves the metrics of predictions out.
        scores: float [N, L], probabilities or log-odds, larger means more likely; None leaves their metrics
            out.
        names: of the L labels; "0", "1", ... if None.
        thresholds: [L], reported per label beside the predictions that they made.
        are_log_odds: of the scores; see `to_probability`.

    Returns:
        `n`, `n_labels`, `n_undefined` (labels without positives or without negatives), `per_label`, and
        from y_pred `macro_f1` (over all labels, 0 where undefined), `hamming`, `balanced_accuracy` (over
        labels with both outcomes), `pulse_auc` (the same number under the name that PULSE prints it by: the
        AUC of 0/1 answers); from scores `macro_auc`, `macro_ap` (over the same labels), `macro_auc_10`,
        `macro_ap_10` (labels with at least 10 positives), `micro_auc`, `micro_ap`, `brier`, `ece`. A mean
        over no label is None.

    Raises:
        ValueError: if shapes do not fit, there is nothing to measure, values are not 0 or 1, or a score is not
            finite.
    """
    y = _binary(y_true, "y_true")
    labels = [str(i) for i in range(y.shape[1])] if names is None else list(names)
    if len(labels) != y.shape[1] or len(set(labels)) != len(labels):
        raise ValueError(f"names must be {y.shape[1]} different labels, got {len(labels)}")
    if y_pred is None and scores is None:
        raise ValueError("nothing to measure: give y_pred, scores or both")
    n_pos = y.sum(0)
    both = (n_pos > 0) & (n_pos < len(y))
    per_label: dict[str, dict[str, Any]] = {
        name: {"n_pos": int(n_pos[i]), "n_neg": int(len(y) - n_pos[i]), **dict.fromkeys(LABEL_FIELDS)}
        for i, name in enumerate(labels)
    }
    result: dict[str, Any] = {"n": len(y), "n_labels": len(labels), "n_undefined": int((~both).sum())}
    if y_pred is not None:
        p = _binary(y_pred, "y_pred", y.shape)
        for i, name in enumerate(labels):
            per_label[name] |= _prediction_metrics(y[:, i], p[:, i])
        result |= _prediction_means(y, p, [per_label[name] for name in labels], both)
    if scores is not None:
        s = _matrix(scores, "scores", y.shape).astype(float)
        if not np.isfinite(s).all():
            raise ValueError("scores must be finite")
        for i, name in enumerate(labels):
            per_label[name] |= _score_metrics(y[:, i], s[:, i])
        probability = to_probability(s, are_log_odds=are_log_odds)
        result |= _score_means(y, s, probability, [per_label[name] for name in labels])
    if thresholds is not None:
        for name, threshold in zip(labels, thresholds, strict=True):
            per_label[name]["threshold"] = float(threshold) if np.isfinite(threshold) else None  # JSON has no infinity
    return {**result, "per_label": per_label}


def _prediction_means(y: np.ndarray, p: np.ndarray, rows: list[dict[str, Any]], both: np.ndarray) -> dict[str, Any]:
    balanced = [(r["sensitivity"] + r["specificity"]) / 2 for r, ok in zip(rows, both, strict=True) if ok]
    return {
        "macro_f1": float(np.mean([row["f1"] for row in rows])),
        "hamming": float((y != p).mean()),
        "balanced_accuracy": _mean(balanced),
        "pulse_auc": _mean(balanced),
    }


def _score_means(y: np.ndarray, s: np.ndarray, probability: np.ndarray, rows: list[dict[str, Any]]) -> dict[str, Any]:
    defined = 0 < y.sum() < y.size
    common = [row for row in rows if row["n_pos"] >= 10 and row["auc"] is not None]
    return {
        "macro_auc": _mean([row["auc"] for row in rows]),
        "macro_auc_10": _mean([row["auc"] for row in common]),
        "macro_ap": _mean([row["ap"] for row in rows if row["auc"] is not None]),
        "macro_ap_10": _mean([row["ap"] for row in common]),
        "micro_auc": float(roc_auc_score(y.ravel(), s.ravel())) if defined else None,
        "micro_ap": float(average_precision_score(y.ravel(), s.ravel())) if defined else None,
        "brier": float(((probability - y) ** 2).mean()),
        "ece": expected_calibration_error(y, probability),
    }


def best_f1_thresholds(y_val: Any, scores_val: Any) -> np.ndarray:
    """Per label the smallest score that maximises F1 when everything from it on counts as predicted.

    Take them from a validation split, never from the records that are reported.

    Args:
        y_val: bool or 0-1 [N, L].
        scores_val: float [N, L].

    Returns:
        float [L]; for a label without positives infinity, which predicts it nowhere.
    """
    y = _binary(y_val, "y_val")
    s = _matrix(scores_val, "scores_val", y.shape).astype(float)
    if not np.isfinite(s).all():
        raise ValueError("scores_val must be finite")
    return np.array([_best_threshold(y[:, i], s[:, i]) for i in range(y.shape[1])])


def _best_threshold(y: np.ndarray, s: np.ndarray) -> float:
    if not y.any():
        return float("inf")
    order = np.argsort(-s, kind="stable")
    ordered, hits = s[order], np.cumsum(y[order])
    last_of_value = np.append(ordered[1:] != ordered[:-1], True)
    n_predicted = np.flatnonzero(last_of_value) + 1
    f1 = 2 * hits[last_of_value] / (n_predicted + y.sum())
    best = np.flatnonzero(f1 == f1.max())[-1]  # scores fall, so the last one is the smallest
    return float(ordered[last_of_value][best])
