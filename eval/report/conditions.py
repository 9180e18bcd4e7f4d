"""Sections about conditions: Table I, operating points, confusion of the superclasses, findings not to be missed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.findings import NOT_CODED, Watched, watch, watched_codes
from eval.operating import Point, Share, operating_points, point_at
from eval.report.html import Html, element, grouped_table, joined, number, share, table, with_interval
from eval.report.models import Part, Scored
from eval.tables import COLUMNS, HEADINGS, NAMES, brief, paper_table, rows_of, thresholds_note


def table_one(models: Sequence[Scored]) -> Html:
    """Both protocols with the trivial baselines, then the paper's form."""
    scores = {model.name: model.scores for model in models}
    parts = []
    for protocol in models[0].parts:
        about = brief(models[0].scores, protocol)
        note = f"n = {about['n']}, {about['n_labels']} labels, {about['n_undefined']} undefined and left out of the AUC"
        rows = [[row.name, *(row.shown(column) for column in COLUMNS)] for row in rows_of(scores, protocol)]
        parts += [element("h3", NAMES.get(protocol, protocol)), element("p", note, class_="small")]
        parts.append(table(("model", *HEADINGS), rows, is_wide=True))
    where = f"F1 and Hamming loss: {thresholds_note(scores)}."
    return joined([*parts, element("p", where, class_="small"), element("pre", paper_table(scores))])


def points_of(part: Part, column: int, specificities: Sequence[float], sensitivities: Sequence[float]) -> list[Point]:
    """Operating points of one label, from validation records; the one of the best F1 first."""
    y, s, points = part.y[:, column], part.s[:, column], []
    if part.thresholds is not None and np.isfinite(part.thresholds[column]):
        points.append(point_at(y, s, float(part.thresholds[column]), "best F1"))
    if part.held is not None:
        held = part.held[0][:, column], part.held[1][:, column]
        points += operating_points(held, (y, s), specificities, sensitivities)
    return points


def conditions(model: Scored, specificities: Sequence[float], sensitivities: Sequence[float]) -> Html:
    """Every label with its AUC, its prevalence and its operating points."""
    parts = []
    for protocol, part in model.parts.items():
        measured = model.scores["protocols"][protocol]["from_scores"]
        bounds = measured.get("intervals", {}).get("per_label", {})
        groups, left_out = [], []
        for i, label in enumerate(part.label_set.labels):
            row = measured["per_label"][label.code]
            points = points_of(part, i, specificities, sensitivities)
            if row["auc"] is None:
                left_out.append(f"{label.code} ({row['n_pos']} of {len(part.y)})")
                continue
            held = "" if part.held is None else f", {int(part.held[0][:, i].sum())} held out"
            count = element("small", f"n = {row['n_pos']} of {len(part.y)}{held}")
            auc = with_interval(row["auc"], bounds.get(label.code, {}).get("auc"))
            first = [joined([element("b", label.code), f" {label.name} ", count]), auc, number(row["ap"])]
            cells = [
                [
                    point.name,
                    f"{point.threshold:.2f}",
                    *map(share, (point.sensitivity, point.specificity, point.ppv, point.npv)),
                ]
                for point in points
            ]
            groups.append((first, cells or [["none", "-", "-", "-", "-", "-"]]))
        headings = ("condition", "AUC", "AP", "point", "log-odds", "sensitivity", "specificity", "PPV", "NPV")
        parts += [element("h3", NAMES.get(protocol, protocol)), grouped_table(headings, groups)]
        if left_out:
            parts.append(element("p", f"Without both outcomes, so left out: {', '.join(left_out)}.", class_="small"))
    return joined(parts)


def confusion(model: Scored) -> Html | None:
    """Superclasses carried against superclasses said; None without thresholds or superclasses."""
    part = model.parts.get("superclass")
    if part is None or part.thresholds is None:
        return None
    codes = part.label_set.codes
    p = part.s >= part.thresholds
    said = np.concatenate([p, ~p.any(1, keepdims=True)], axis=1)  # [N, L + 1]
    headings = ("carried", "n", *codes, "none of them")
    every = [[code, *_shares(part.y[:, i], said)] for i, code in enumerate(codes)]
    one = part.y.sum(1) == 1
    margin = np.where(np.isfinite(part.thresholds), part.s - part.thresholds, -np.inf)
    best = np.where(p.any(1), margin.argmax(1), len(codes))
    first = best[:, None] == np.arange(len(codes) + 1)  # [N, L + 1]
    alone = [[code, *_shares(part.y[:, i] & one, first)] for i, code in enumerate(codes)]
    about = (
        "Of the records that carry the row's class: how many are said to have the column's, at the threshold of the "
        "best F1. A record may carry and be given several, so rows need not add up."
    )
    once = (
        f"The {int(one.sum())} records that carry exactly one class, each counted once: under the class furthest above "
        "its threshold."
    )
    parts = [element("p", about, class_="small"), table(headings, every)]
    return joined([*parts, element("p", once, class_="small"), table(headings, alone)])


def _shares(carried: np.ndarray, said: np.ndarray) -> list[Any]:
    n = int(carried.sum())
    counts = (carried[:, None] & said).sum(0)
    cells = [n]
    for count in counts:
        part = count / n if n else 0.0
        colour = f"background:rgba(31,95,168,{0.55 * part:.2f})"
        cells.append(element("span", f"{part:.2f} ", element("small", str(count)), style=f"{colour};padding:.2em .5em"))  # type: ignore[arg-type]
    return cells


def must_not_miss(model: Scored, target: float) -> Html | None:
    """Sensitivity of findings that must not be missed, and every record in which they were; None without validation."""
    parts: list[Any] = []
    for protocol, part in model.parts.items():
        if protocol == "superclass" or part.held is None:
            continue
        rows, cases = [], []
        absent = []
        for code in watched_codes(part.label_set.codes):
            i = part.label_set.codes.index(code)
            if not part.y[:, i].any():
                absent.append(code)
                continue
            points = points_of(part, i, (), (target,))
            chosen = [point for point in points if point.name != "best F1"]
            if not chosen:
                absent.append(f"{code} (no validation record)")
                continue
            words = None if part.words is None else part.words[:, i]
            found = watch(code, part.lines, (part.y[:, i], part.s[:, i]), chosen[0], words)
            rows.append(_watched_row(found, part, i))
            cases.append(_missed(found))
        if not rows:
            continue
        headings = ("finding", "code", f"sensitivity at {target:g} held out", "false alarms", "sensitivity of words")
        parts += [element("h3", NAMES.get(protocol, protocol)), table(headings, rows), *cases]
        if absent:
            parts.append(element("p", f"Without a positive record: {', '.join(absent)}.", class_="small"))
    if not parts:
        return None
    about = (
        f"The threshold is the largest that finds {target:.0%} of a code's validation records. The list of codes is "
        "eval.findings.MUST_NOT_MISS. The statements have no code for " + "; ".join(NOT_CODED) + "."
    )
    return joined([element("p", about, class_="small"), *parts])


def _watched_row(found: Watched, part: Part, column: int) -> list[Any]:
    point = found.point
    alarms = Share(point.specificity.whole - point.specificity.part, point.specificity.whole)
    words: Any = "no answers"
    if found.missed_in_words is not None:
        n = point.sensitivity.whole
        words = share(Share(n - len(found.missed_in_words), n))
    name = part.label_set.labels[column].name
    return [
        found.finding,
        joined([element("b", found.code), f" {name}"]),
        share(point.sensitivity),
        share(alarms),
        words,
    ]


def _missed(found: Watched) -> Html:
    text = ", ".join(found.missed) or "none"
    parts = [element("b", f"{found.code} missed by score: "), f"{text}. "]
    if found.missed_in_words is not None:
        parts += [element("b", "Not named in words: "), f"{', '.join(found.missed_in_words) or 'none'}."]
    return element("p", *parts, class_="small")
