"""Subgroups of records, and the same records seen on other pages: macro AUC with an interval for each.

Intervals come from draws of patients (eval.bootstrap). A group's AUC is over the labels that have both outcomes inside
it, so groups with different labels do not compare; how many labels is part of every row.

Shapes: N records, L labels, D draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.bootstrap import Interval, draw_patients, percentile_interval, weighted_ranking
from eval.metrics import label_metrics

FIELDS = ("sex", "age band", "device", "site", "quality", "validated", "layout")  # in the order of the report
_AGES = ((18, "under 18"), (40, "18 to 39"), (65, "40 to 64"), (80, "65 to 79"), (np.inf, "80 and over"))


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """One group: how many, and how well; numbers are None where the group is too small or the metric undefined."""

    field: str
    group: str
    n: int
    is_small: bool
    n_labels: int | None = None
    auc: float | None = None
    interval: Interval = None
    macro_f1: float | None = None
    hamming: float | None = None


def age_band(age: float | None) -> str | None:
    """Of years."""
    return None if age is None else next(name for limit, name in _AGES if age < limit)


def groups_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """{field: {group: indices}}; fields that no record carries are left out, records without one are "unknown"."""
    found: dict[str, dict[str, list[int]]] = {}
    order = {name: i for i, (_, name) in enumerate(_AGES)}
    for field in FIELDS:
        values = []
        for line in lines:
            known = line.get("about") or {}
            values.append(age_band(known.get("age")) if field == "age band" else known.get(field))
        if not any(value is not None for value in values):
            continue
        names = sorted(
            {str(value) for value in values if value is not None}, key=lambda name: (order.get(name, 0), name)
        )
        found[field] = {name: [i for i, value in enumerate(values) if str(value) == name] for name in names}
        if unknown := [i for i, value in enumerate(values) if value is None]:
            found[field]["unknown"] = unknown
    return found


def macro_auc_draws(y: np.ndarray, s: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Macro AUC of every draw, over the labels that have both outcomes. Float [D].

    Args:
        y: bool [N, L].
        s: float [N, L].
        weights: how often each record was drawn, int [N, D].
    """
    both = np.flatnonzero(y.any(0) & ~y.all(0))
    if not len(both):
        return np.full(weights.shape[1], np.nan)
    rows = np.stack([weighted_ranking(y[:, [i]], s[:, [i]], weights)[0] for i in both])
    known = np.isfinite(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, rows, 0).sum(0) / known.sum(0)


def group_rows(
    lines: Sequence[Mapping[str, Any]],
    y: np.ndarray,
    s: np.ndarray,
    thresholds: np.ndarray | None,
    codes: Sequence[str],
    *,
    smallest: int = 30,
    n_draws: int = 300,
) -> list[GroupRow]:
    """All records, then every group of every field.

    Args:
        lines: of N records.
        y, s: [N, L].
        thresholds: [L]; None leaves F1 and Hamming loss out.
        codes: of the L labels.
        smallest: groups with fewer records get no numbers.
        n_draws: behind each interval.
    """
    groups = {"": {"all records": list(range(len(lines)))}, **groups_of(lines)}
    rows = []
    for field, members in groups.items():
        for group, index in members.items():
            if len(index) < smallest:
                rows.append(GroupRow(field=field, group=group, n=len(index), is_small=True))
                continue
            own_y, own_s = y[index], s[index]
            p = None if thresholds is None else own_s >= thresholds
            m = label_metrics(own_y, p, own_s, codes)
            draws = draw_patients(own_y, [lines[i]["patient_id"] for i in index], n_draws, np.random.default_rng(0))
            row = GroupRow(
                field=field,
                group=group,
                n=len(index),
                is_small=False,
                n_labels=m["n_labels"] - m["n_undefined"],
                auc=m["macro_auc"],
                interval=percentile_interval(macro_auc_draws(own_y, own_s, draws.weights)),
                macro_f1=m.get("macro_f1"),
                hamming=m.get("hamming"),
            )
            rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class Change:
    """The same records on other pages: macro AUC there, its interval, and the paired difference from the clean ones."""

    n: int
    auc: float | None
    interval: Interval
    difference: float | None
    difference_interval: Interval


def change_of(
    y: np.ndarray, clean: np.ndarray, other: np.ndarray, patients: Sequence[str], n_draws: int = 300
) -> Change:
    """How far macro AUC falls; both are measured in the same draws of patients.

    Args:
        y: bool [N, L].
        clean, other: scores of the same records and labels, float [N, L].
        patients: of the N records.
        n_draws: behind each interval.
    """
    weights = draw_patients(y, patients, n_draws, np.random.default_rng(0)).weights
    before, after = (macro_auc_draws(y, s, weights) for s in (clean, other))
    first, second = (label_metrics(y, scores=s)["macro_auc"] for s in (clean, other))
    return Change(
        n=len(y),
        auc=second,
        interval=percentile_interval(after),
        difference=None if first is None else second - first,
        difference_interval=percentile_interval(after - before),
    )
