"""Table I of the paper, with both protocols and the trivial baselines beside every number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = ("auc", "macro_f1", "hamming", "text_f1", "text_hamming", "unparsed", "report_score")
HEADINGS = ("AUC", "macro F1", "Hamming", "F1 of words", "Hamming of words", "unparsed", "report 0-100")
NAMES = {"superclass": "5 superclasses", "statements": "all statements"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; None where a number does not exist."""

    name: str
    protocol: str
    values: dict[str, float | int | None]


def brief(scores: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """The numbers of one scored model that tables show."""
    part = scores["protocols"][protocol]
    words, measured, report = part.get("from_text"), part["from_scores"], scores["report"]
    return {
        "auc": measured["macro_auc"],
        "macro_f1": measured.get("macro_f1"),
        "hamming": measured.get("hamming"),
        "text_f1": words and words["macro_f1"],
        "text_hamming": words and words["hamming"],
        "unparsed": words and words["unparsed"],
        "report_score": report and report["score"],
        "n": measured["n"],
        "n_labels": measured["n_labels"],
        "n_undefined": measured["n_undefined"],
    }


def rows_of(models: Mapping[str, Mapping[str, Any]], protocol: str) -> list[Row]:
    """Trivial baselines, then every model.

    Args:
        models: scores.json contents by the name to show; all of the same suite and records.
        protocol: "superclass" or "statements".
    """
    first = next(iter(models.values()))
    constant = first["report"]["constant_report"] if first["report"] else None
    rows = []
    for name, values in first["protocols"][protocol]["trivial"].items():
        shown = {"auc": values["macro_auc"], "macro_f1": values["macro_f1"], "hamming": values["hamming"]}
        if name == "all normal":
            shown["report_score"] = constant
        rows.append(Row(name=name, protocol=protocol, values=shown))
    rows += [Row(name=name, protocol=protocol, values=brief(scores, protocol)) for name, scores in models.items()]
    return rows


def check_comparable(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a table over different records.

    Raises:
        ValueError: if the models were not scored on the same suite, split, n and seed.
    """
    keys = ("suite", "split", "n", "seed", "root")
    seen = {name: tuple(scores["settings"][key] for key in keys) for name, scores in models.items()}
    if len(set(seen.values())) > 1:
        raise ValueError(f"scored on different records: {seen}")


def format_value(column: str, value: float | None) -> str:
    """Digits as the paper prints them; "-" for a number that does not exist."""
    if value is None:
        return "-"
    if column == "unparsed":
        return str(value)
    return f"{value:.1f}" if column == "report_score" else f"{value:.3f}"


def format_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, the first one left, the others right."""
    cells = [list(headings), *(list(line) for line in lines)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headings))]
    shown = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def table_text(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Both protocols as text, with what was scored on which records said above each."""
    check_comparable(models)
    first = next(iter(models.values()))
    settings = first["settings"]
    parts = []
    for protocol in first["protocols"]:
        about = brief(first, protocol)
        kind = "SIMULATED records, not patients" if first["synthetic"] else "records"
        parts.append(
            f"{NAMES[protocol]}: n = {about['n']} {kind} (suite {settings['suite']}, split {settings['split']}, "
            f"seed {settings['seed'] if settings['seed'] is not None else 'default'}); {about['n_labels']} labels, "
            f"{about['n_undefined']} of them undefined and left out of the AUC"
        )
        lines = [
            [row.name, *(format_value(column, row.values.get(column)) for column in COLUMNS)]
            for row in rows_of(models, protocol)
        ]
        parts.append(format_table(("model", *HEADINGS), lines) + "\n")
    n_validation = first["n_validation"]
    parts.append(
        "AUC: macro over labels, from the log-odds of yes against no. F1 and Hamming loss: thresholds with the best "
        f"F1 on {n_validation} validation records; 'of words': labels parsed from generated answers. report: judge "
        f"'{first['report']['judge']}', agreement with the reference."
        if first["report"]
        else ""
    )
    return "\n".join(parts)


def table_json(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same as data: model -> protocol -> numbers, and the trivial baselines under "trivial"."""
    check_comparable(models)
    first = next(iter(models.values()))
    result: dict[str, Any] = {
        name: {protocol: brief(scores, protocol) for protocol in scores["protocols"]} for name, scores in models.items()
    }
    result["trivial"] = {protocol: part["trivial"] for protocol, part in first["protocols"].items()}
    result["about"] = {
        "synthetic": first["synthetic"],
        "settings": first["settings"],
        "n_validation": first["n_validation"],
    }
    return result
