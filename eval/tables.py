"""Table I of the paper, with both protocols and the trivial baselines beside every number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.score import check_comparable

COLUMNS = ("auc", "macro_f1", "hamming", "text_f1", "text_hamming", "unparsed", "report_score")
HEADINGS = ("AUC", "macro F1", "Hamming", "F1 of words", "Hamming of words", "unparsed", "report 0-100")
MEASURES = {  # column: where its interval stands
    "auc": ("from_scores", "macro_auc"),
    "macro_f1": ("from_scores", "macro_f1"),
    "hamming": ("from_scores", "hamming"),
    "text_f1": ("from_text", "macro_f1"),
    "text_hamming": ("from_text", "hamming"),
}
PUBLISHED = {  # arXiv:2501.18670, Table I
    "base": {"auc": 0.51, "macro_f1": 0.33, "hamming": 0.49, "report_score": None},
    "fine-tuned": {"auc": 0.98, "macro_f1": 0.74, "hamming": 0.11, "report_score": 85.4},
}
PUBLISHED_NOTE = (
    "The published numbers come without label set, split, n, interval or the way the AUC was computed. Their base row "
    "is a fair coin's on five superclasses, and on all statements 0.11 would be a worse Hamming loss than saying "
    "nothing, so only the five-superclass column can mean the same; an AUC of 0.98 is above what models of the signal "
    "reach there (0.93). Rows marked PULSE read the generated words as PULSE's released evaluation does: substrings, "
    "the AUC of 0/1 answers. The report scores are those of another judge. See docs/evaluating.md."
)
NAMES = {
    "superclass": "5 superclasses",
    "statements": "all statements",
    "diagnostic": "44 diagnostic statements",
    "form": "19 form statements",
    "rhythm": "12 rhythm statements",
    "code15": "6 labels of CODE-15",
    "cpsc": "9 labels of CPSC 2018",
}
SCORE_WORDS = {
    "yes_no": "the log-odds of yes against no",
    "label_list": "the log-likelihood of the label's name as the answer to the list question",
    "length_normalised": "that log-likelihood per token",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; None where a number does not exist."""

    name: str
    protocol: str
    values: dict[str, Any]

    def shown(self, column: str) -> str:
        """A number, and its interval where there is one."""
        text = format_value(column, self.values.get(column))
        bounds = self.values.get("intervals", {}).get(column)
        return text if bounds is None else f"{text} ({'-'.join(format_value(column, bound) for bound in bounds)})"


def report_of(scores: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is shown of the reports: a language model's marks if there are any (eval.judged), otherwise the rules'."""
    return scores.get("judged") or scores["report"]


def brief(scores: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """The numbers of one scored model that tables show."""
    part = scores["protocols"][protocol]
    words, measured, report = part.get("from_text"), part["from_scores"], report_of(scores)
    return {
        "auc": measured["macro_auc"],
        "macro_f1": measured.get("macro_f1"),
        "hamming": measured.get("hamming"),
        "text_f1": words and words["macro_f1"],
        "text_hamming": words and words["hamming"],
        "unparsed": words and words["unparsed"],
        "report_score": report and report["score"],
        "intervals": _intervals(part, report),
        "n": measured["n"],
        "n_labels": measured["n_labels"],
        "n_undefined": measured["n_undefined"],
    }


def _intervals(part: Mapping[str, Any], report: Mapping[str, Any] | None) -> dict[str, list[float] | None]:
    """95 % interval of every column that has one."""
    found = {
        column: part.get(kind, {}).get("intervals", {}).get("means", {}).get(metric)
        for column, (kind, metric) in MEASURES.items()
    }
    return {**found, "report_score": report.get("interval") if report else None}


def rows_of(models: Mapping[str, Mapping[str, Any]], protocol: str) -> list[Row]:
    """Trivial baselines, then every model.

    Args:
        models: scores.json contents by the name to show; all of the same suite and records.
        protocol: "superclass" or "statements".
    """
    first = next(iter(models.values()))
    report = report_of(first)
    constant = report["constant_report"] if report else None
    rows = []
    for name, values in first["protocols"][protocol]["trivial"].items():
        shown = {"auc": values["macro_auc"], "macro_f1": values["macro_f1"], "hamming": values["hamming"]}
        if name == "all normal":
            shown["report_score"] = constant
        rows.append(Row(name=name, protocol=protocol, values=shown))
    if report and "copy_reference" in report:
        copied = {"report_score": report["copy_reference"]}
        rows.append(Row(name="reference copied", protocol=protocol, values=copied))
    rows += [Row(name=name, protocol=protocol, values=brief(scores, protocol)) for name, scores in models.items()]
    return rows


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


def _about_intervals(scores: Mapping[str, Any], protocol: str) -> str:
    drawn = scores["protocols"][protocol]["from_scores"].get("intervals")
    if drawn is None:
        return ""
    lost = "" if drawn["complete"] else ", some of which lack a label"
    return (
        f"; in brackets {drawn['level']:.0%} intervals of {drawn['n_draws']} draws of {drawn['n_patients']} "
        f"patients{lost}"
    )


def paper_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Table I in the paper's form: its published columns, then every model's on five superclasses."""
    published = {f"paper, {name}": values for name, values in PUBLISHED.items()}
    ours = {name: brief(scores, "superclass") for name, scores in models.items() if "superclass" in scores["protocols"]}
    columns = {**published, **ours}
    shown = {"auc": "AUC", "macro_f1": "macro F1", "hamming": "Hamming loss", "report_score": "report 0-100"}
    lines = [
        [title, *(format_value(measure, values.get(measure)) for values in columns.values())]
        for measure, title in shown.items()
    ]
    words = {name: scores["protocols"].get("superclass", {}).get("pulse") for name, scores in models.items()}
    for measure, title in (("macro_auc_hard", "AUC, PULSE"), ("macro_f1", "F1, PULSE"), ("hamming", "Hamming, PULSE")):
        numbers = [format_value(measure, (words.get(name) or {}).get(measure)) for name in columns]
        lines.append([title, *numbers])
    return f"Table I\n{format_table(('5 superclasses', *columns), lines)}\n{PUBLISHED_NOTE}\n"


def _bracket(column: str, value: float | None, interval: Sequence[float] | None) -> str:
    return Row(name="", protocol="", values={column: value, "intervals": {column: interval}}).shown(column)


def choices_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Accuracy on questions with options; above the models what needs none."""
    first = next(iter(models.values()))["choices"]
    lines = [[name, format_value("accuracy", value), "-", "-", "-"] for name, value in first["trivial"].items()]
    for name, scores in models.items():
        own, likely = scores["choices"], scores["choices"]["by_likelihood"] or {}
        shown = [_bracket("accuracy", part.get("accuracy"), part.get("interval")) for part in (own, likely)]
        lines.append([name, shown[0], str(own["unparsed"]), shown[1], format_value("accuracy", own["pulse"])])
    return format_table(("model", "accuracy of words", "unparsed", "by likelihood", "PULSE"), lines) + "\n"


def reports_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Marks of a suite that only has texts; above the models the two controls."""
    reports = {name: report for name, scores in models.items() if (report := report_of(scores))}
    first = next(iter(reports.values()))
    controls = {"constant report": first["constant_report"], "reference copied": first["copy_reference"]}
    lines = [[name, format_value("report_score", value), str(first["n"])] for name, value in controls.items()]
    lines += [
        [name, _bracket("report_score", report["score"], report.get("interval")), str(report["n"])]
        for name, report in reports.items()
    ]
    return format_table(("model", "judged 0-100", "n"), lines) + "\n"


def pulse_table(models: Mapping[str, Mapping[str, Any]], protocol: str) -> str:
    """What PULSE's evaluation makes of the same answers; "" where the set of labels is not one of its."""
    found = {name: scores["protocols"][protocol].get("pulse") for name, scores in models.items()}
    lines = [
        [name, *(format_value(key, values[key]) for key in ("macro_auc_hard", "macro_f1", "hamming"))]
        for name, values in found.items()
        if values
    ]
    return format_table(("read as PULSE does", "AUC of 0/1", "F1", "Hamming"), lines) + "\n" if lines else ""


def _records(first: Mapping[str, Any], n: int) -> str:
    settings = first["settings"]
    kind = "SIMULATED records, not patients" if first["synthetic"] else "records"
    note = f"; {first['size_note']}" if first.get("size_note") else ""
    seed = settings["seed"] if settings["seed"] is not None else "default"
    return f"n = {n} {kind} (suite {settings['suite']}, split {settings['split']}, seed {seed}{note})"


def _said(about: Mapping[str, str]) -> str:
    """What holds for every model, once; otherwise each model's own."""
    same = len(set(about.values())) == 1
    return next(iter(about.values())) if same else "; ".join(f"{name}: {text}" for name, text in about.items())


def thresholds_note(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Where every model's F1 and Hamming loss come from."""
    held = {name: scores["n_validation"] for name, scores in models.items()}
    best = "thresholds with the best F1 on {} validation records"
    return _said({k: "none without validation records" if n is None else best.format(n) for k, n in held.items()})


def _about_reports(models: Mapping[str, Mapping[str, Any]]) -> str:
    reports = {name: report for name, scores in models.items() if (report := report_of(scores))}
    if not reports:
        return ""
    first = next(iter(reports.values()))
    left_out = f"; {len(first['broken'])} references are no reports and left out" if first.get("broken") else ""
    left_out += f"; {first['n_silent']} references state nothing to compare" if first.get("n_silent") else ""
    failed = [f"; judgements of {r['failed']} of {name}'s failed" for name, r in reports.items() if r.get("failed")]
    return f" report: judge '{first['judge']}', agreement with the reference{left_out}{''.join(failed)}."


def _about_cut_off(models: Mapping[str, Mapping[str, Any]]) -> str:
    cut = [f"{name}'s {n} of {task}" for name, s in models.items() for task, n in s.get("cut_off", {}).items()]
    return f" Answers that were cut off at max_new_tokens: {', '.join(cut)}." if cut else ""


def table_text(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Every protocol and Table I as text, with what was scored on which records said above each."""
    check_comparable(models)
    first = next(iter(models.values()))
    parts = []
    for protocol in first["protocols"]:
        about = brief(first, protocol)
        left_out = first["protocols"][protocol].get("n_left_out", 0)
        parts.append(
            f"{NAMES[protocol]}: {_records(first, about['n'])}; {about['n_labels']} labels, "
            f"{about['n_undefined']} of them undefined and left out of the AUC"
            f"{f'; {left_out} records without a label left out' if left_out else ''}{_about_intervals(first, protocol)}"
        )
        lines = [[row.name, *(row.shown(column) for column in COLUMNS)] for row in rows_of(models, protocol)]
        parts.append(format_table(("model", *HEADINGS), lines) + "\n")
        if protocol != "superclass" and (pulse := pulse_table(models, protocol)):
            parts.append(pulse)
    if choices := first.get("choices"):
        left_out = f"; {choices['left_out']} with an unreadable golden answer left out" if choices["left_out"] else ""
        parts += [f"answers: {_records(first, choices['n'])}{left_out}", choices_table(models)]
    if not first["protocols"] and report_of(first):
        parts += [f"texts: {_records(first, first['n_records'])}", reports_table(models)]
    if "superclass" in first["protocols"]:
        parts.append(paper_table(models))
    words = ""
    if first["protocols"]:
        kinds = {name: SCORE_WORDS[scores.get("scores", "yes_no")] for name, scores in models.items()}
        words = (
            f"AUC: macro over labels, from {_said(kinds)}. F1 and Hamming loss: {thresholds_note(models)}; 'of words': "
            "labels parsed from generated answers."
        )
    parts.append((words + _about_reports(models) + _about_cut_off(models)).strip())
    return "\n".join(parts if any(parts) else [f"{_records(first, first['n_records'])}: nothing to score"])


def table_json(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same as data: model -> protocol -> numbers, and the trivial baselines under "trivial"."""
    check_comparable(models)
    first = next(iter(models.values()))
    result: dict[str, Any] = {
        name: {protocol: brief(scores, protocol) for protocol in scores["protocols"]} for name, scores in models.items()
    }
    for name, scores in models.items():
        if scores.get("choices"):
            result[name]["choices"] = scores["choices"]
        if not scores["protocols"] and report_of(scores):
            result[name]["report"] = report_of(scores)
    result["trivial"] = {protocol: part["trivial"] for protocol, part in first["protocols"].items()}
    result["about"] = {
        "synthetic": first["synthetic"],
        "settings": first["settings"],
        "n_validation": first["n_validation"],
    }
    return result
