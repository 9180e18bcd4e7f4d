"""The part of a model card that comes from scores.json."""

from collections.abc import Mapping
from typing import Any

from eval.card_text import MISSING, table
from eval.tables import COLUMNS, HEADINGS, NAMES, Row, choices_table, report_of, reports_table, rows_of

FEW = 10  # positive records, below which a label's numbers mean little
Scores = Mapping[str, Any]


def describe_scores(scores: Scores | None) -> list[str]:
    """The card's lines about a scores.json: Table I's numbers beside the trivial baselines, then each label."""
    if scores is None:
        return ["## Evaluation", "", f"Scores: {MISSING}. No scores file was given.", ""]
    s = scores["settings"]
    kind = "SIMULATED records, not patients" if scores["synthetic"] else "records"
    held = scores["n_validation"]
    seed = "default" if s["seed"] is None else s["seed"]
    source = f"{held} records of the validation split" if held else f"{MISSING}: no validation predictions"
    lines = [
        "## Evaluation",
        "",
        f"{scores['n_records']} {kind}: suite `{s['suite']}`, split `{s['split']}`, seed {seed}.",
        *([f"Thresholds: {source}."] if scores["protocols"] else []),
        "",
    ]
    for protocol, part in scores["protocols"].items():
        measured = part["from_scores"]
        about = f"n = {measured['n']}, {measured['n_labels']} labels, {measured['n_undefined']} of them undefined"
        lines += [f"### {NAMES.get(protocol, protocol)}", "", f"{about}. Trivial baselines first.", ""]
        rows = [_shown(row) for row in rows_of({"this model": scores}, protocol)]
        lines += table(("", *HEADINGS), rows)
        lines += [_about_intervals(measured), "", "Per label, from scores:", "", *_per_label(measured)]
    if scores.get("choices"):
        lines += ["### Answers", "", "```text", choices_table({"this model": scores}).rstrip(), "```", ""]
    if not scores["protocols"] and report_of(scores):
        lines += ["### Texts", "", "```text", reports_table({"this model": scores}).rstrip(), "```", ""]
    lines += _subgroups(scores)
    return lines


def _shown(row: Row) -> list[str]:
    name = f"**{row.name}**" if row.name == "this model" else row.name
    return [name, *(row.shown(column) for column in COLUMNS)]


def _about_intervals(measured: Mapping[str, Any]) -> str:
    drawn = measured.get("intervals")
    quality = "; ".join(f"{name} {measured[name]:.3f}" for name in ("brier", "ece") if measured.get(name) is not None)
    if drawn is None:
        return f"Intervals: {MISSING}. {quality}"
    level, n, patients = drawn["level"], drawn["n_draws"], drawn["n_patients"]
    return f"In brackets {level:.0%} intervals of {n} draws of {patients} patients. {quality}"


def _per_label(measured: Mapping[str, Any]) -> list[str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    names = ("auc", "ap", "sensitivity", "specificity", "ppv", "npv")
    labels = measured["per_label"].items()
    rows = [(code, m["n_pos"], m["n_neg"], *(number(m.get(name)) for name in names)) for code, m in labels]
    few = [code for code, m in labels if m["n_pos"] < FEW]
    warned = [f"Fewer than {FEW} positive records: {', '.join(few)}.", ""] if few else []
    return [*table(("label", "with", "without", *names), rows), *warned]


def _subgroups(scores: Scores) -> list[str]:
    found = scores.get("subgroups")
    if not found:
        return ["### Subgroups", "", f"{MISSING.capitalize()}: the scores file has none.", ""]
    names = list(found[0])
    return ["### Subgroups", "", *table(names, [[row.get(name, "-") for name in names] for row in found])]
