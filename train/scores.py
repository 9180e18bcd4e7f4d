"""Metrics of label scores during training; `eval.metrics` has the full set, and tests compare the two.

Shapes: N records, L labels.
"""

import numpy as np
from scipy.stats import rankdata


def macro_auc(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """Mean over labels with both outcomes of P(a positive scores above a negative), ties half; None without any.

    Mann-Whitney's U by ranks: Hanley & McNeil 1982. truth: bool [N, L], scores: float [N, L].
    """
    areas = []
    for y, s in zip(truth.T, scores.T, strict=True):
        n_positive, n_negative = int(y.sum()), int((~y).sum())
        if n_positive and n_negative:
            u = rankdata(s)[y].sum() - n_positive * (n_positive + 1) / 2
            areas.append(u / (n_positive * n_negative))
    return float(np.mean(areas)) if areas else None


def macro_f1(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean over all labels of F1 where a score above 0 is a yes; 0 for a label without any hit."""
    said = scores > 0
    hits = (truth & said).sum(0)
    either = truth.sum(0) + said.sum(0)
    return float(np.mean(np.where(either > 0, 2 * hits / np.maximum(either, 1), 0.0)))
