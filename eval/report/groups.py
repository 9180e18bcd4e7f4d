"""Sections about records and pages: subgroups, and what other pages of the same records do to the AUC."""

from collections.abc import Sequence

from eval.groups import change_of, group_rows
from eval.pages import PAGE_KINDS, kind_in_words
from eval.report.html import Html, element, joined, number, table, with_interval
from eval.report.models import Elsewhere, Scored
from eval.score import score_matrix
from eval.tables import NAMES


def subgroups(model: Scored, smallest: int, n_draws: int) -> Html | None:
    """Macro AUC in groups of records; None if no record says anything about itself."""
    parts = []
    for protocol, part in model.parts.items():
        codes = part.label_set.codes
        rows = group_rows(part.lines, part.y, part.s, part.thresholds, codes, smallest=smallest, n_draws=n_draws)
        if len(rows) == 1:
            return None
        shown = [
            [row.field, row.group, row.n, element("small", f"too small (fewer than {smallest})"), "", "", ""]
            if row.is_small
            else [
                row.field,
                row.group,
                row.n,
                with_interval(row.auc, row.interval),
                row.n_labels,
                number(row.macro_f1),
                number(row.hamming),
            ]
            for row in rows
        ]
        headings = ("by", "group", "n", "AUC", "labels in it", "macro F1", "Hamming")
        parts += [element("h3", NAMES.get(protocol, protocol)), table(headings, shown)]
    about = (
        f"95 % intervals from {n_draws} draws of patients. A group's AUC is over the labels that have both outcomes in "
        "it, so groups with different labels do not compare; nor does a macro F1, which counts missing labels as 0."
    )
    return joined([element("p", about, class_="small"), *parts])


def robustness(found: Sequence[Elsewhere], n_draws: int) -> Html:
    """Other pages of the same records, beside the clean ones of exactly these records."""
    about = (
        f"Each row is compared with the clean pages of the same records; 95 % intervals from {n_draws} draws of "
        "patients, of the difference in the same draws. Shuffled leads and blank pages are controls: what is left "
        "there does not come from where the leads are, or from the ECG at all."
    )
    parts = [element("p", about, class_="small")]
    ordered = sorted(found, key=lambda one: PAGE_KINDS.index(one.kind))
    for protocol in found[0].model.parts:
        rows = [_row(one, protocol, n_draws) for one in ordered]
        headings = ("pages", "model", "n", "AUC, clean", "AUC", "difference")
        parts += [element("h3", NAMES.get(protocol, protocol)), table(headings, rows)]
    return joined(parts)


def _row(one: Elsewhere, protocol: str, n_draws: int) -> list[object]:
    part = one.model.parts[protocol]
    place = {line["id"]: i for i, line in enumerate(part.lines)}
    own = [line for line in one.lines if line["id"] in place]
    index = [place[line["id"]] for line in own]
    scores = score_matrix(own, protocol, part.label_set)
    patients = [line["patient_id"] for line in own]
    change = change_of(part.y[index], part.s[index], scores, patients, n_draws)
    before = None if change.auc is None or change.difference is None else change.auc - change.difference
    name = kind_in_words(one.kind)
    return [
        name if one.name in (one.kind, name) else f"{name} ({one.name})",
        one.model.name,
        change.n,
        number(before),
        with_interval(change.auc, change.interval),
        with_interval(change.difference, change.difference_interval),
    ]
