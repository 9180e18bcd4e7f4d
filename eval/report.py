"""report.html: one file that opens offline, with the table, the curves, and pages beside what was said about them."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import roc_curve

from eval.judge import JUDGES
from eval.predict import read_predictions
from eval.score import eligible, score_matrix, truth_matrix
from eval.suites import SUITES
from eval.svg import Line, line_chart
from eval.tables import COLUMNS, HEADINGS, NAMES, brief, check_comparable, rows_of
from train.ecg import STYLES, draw_page

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: .6em 0 1.4em } td, th { padding: .25em .7em; text-align: right }
td:first-child, th:first-child { text-align: left } thead { border-bottom: 2px solid #444 }
tr:nth-child(even) { background: #f4f6f8 } .small { color: #666; font-size: 13px }
svg text { font: 11px system-ui, sans-serif; fill: #333 } svg .title { font-weight: 600; font-size: 12px }
svg .grid { stroke: #ddd; fill: none } .charts { display: flex; flex-wrap: wrap; gap: 10px }
.case { border-top: 1px solid #ccc; padding: 1em 0; break-inside: avoid }
.case img { max-width: 100%; border: 1px solid #ddd } dt { font-weight: 600; margin-top: .4em } dd { margin: 0 }
.warn { background: #fff4d6; padding: .6em 1em; border-left: 4px solid #d9a300 }
"""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model with everything that the report shows of it."""

    name: str
    scores: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]


def _table(models: Sequence[Scored], protocol: str) -> str:
    scores = {model.name: model.scores for model in models}
    about = brief(models[0].scores, protocol)
    head = "".join(f"<th>{escape(text)}</th>" for text in ("model", *HEADINGS))
    body = "".join(
        f"<tr><td>{escape(row.name)}</td>" + "".join(f"<td>{row.shown(column)}</td>" for column in COLUMNS) + "</tr>"
        for row in rows_of(scores, protocol)
    )
    note = f"n = {about['n']}, {about['n_labels']} labels, {about['n_undefined']} undefined and left out of the AUC"
    return (
        f"<h3>{NAMES[protocol]}</h3><p class=small>{note}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _roc(models: Sequence[Scored], suite: str) -> str:
    """One ROC chart per label that has both outcomes, and every model in it."""
    charts = []
    for protocol, label_set in SUITES[suite].label_sets.items():
        lines = {model.name: eligible(list(model.lines), protocol) for model in models}  # type: ignore[arg-type]
        y = truth_matrix(next(iter(lines.values())), protocol, label_set)
        matrices = {name: score_matrix(rows, protocol, label_set) for name, rows in lines.items()}
        for i, label in enumerate(label_set.labels):
            if not 0 < y[:, i].sum() < len(y):
                continue
            curves = []
            for model in models:
                fpr, tpr, _ = roc_curve(y[:, i], matrices[model.name][:, i])
                auc = model.scores["protocols"][protocol]["from_scores"]["per_label"][label.code]["auc"]
                curves.append(Line(name=f"{model.name}: AUC {auc:.3f}", x=fpr.tolist(), y=tpr.tolist()))
            title = f"{label.code}: {label.name} ({int(y[:, i].sum())} of {len(y)})"
            chart = line_chart(
                curves,
                title=title if len(title) < 48 else title[:45] + "...",
                x_label="1 - specificity",
                y_label="sensitivity",
                limits=(0, 1, 0, 1),
            )
            charts.append(chart)
    return f"<div class=charts>{''.join(charts)}</div>"


def _loss(run: Path | None) -> str:
    if run is None:
        return ""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps, losses = [row["step"] for row in log], np.array([row["loss"] for row in log])
    width = max(len(losses) // 50, 1)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    curves = [
        Line(name="loss per answer token", x=steps, y=losses.tolist()),
        Line(name=f"mean of {width} steps", x=steps[width - 1 :], y=smooth.tolist()),
    ]
    chart = line_chart(curves, title="fine-tuning", x_label="step", y_label="loss", size=(700, 300))
    return f"<h2>Fine-tuning</h2><p class=small>{len(log)} steps, {log[-1]['samples']} pages</p>{chart}"


def _picture(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _gallery(models: Sequence[Scored], root: str | None, count: int) -> str:
    """Pages with the reference report and every model's, spread from the best to the worst of the last model."""
    settings, last = models[0].scores["settings"], models[-1]
    judge = JUDGES[last.scores["report"]["judge"]]
    order = sorted(last.lines, key=lambda line: -judge(line["truth"]["report"], line["texts"]["report"]["text"]).score)
    chosen = [order[round(i * (len(order) - 1) / max(count - 1, 1))] for i in range(min(count, len(order)))]
    source = SUITES[settings["suite"]].open(root, settings["split"], settings["n"], settings["seed"])
    by_id = {}
    wanted = {line["id"] for line in chosen}
    for index in range(len(source)):
        record = source[index]
        if record.record_id in wanted:
            by_id[record.record_id] = record
    answers = {model.name: {line["id"]: line for line in model.lines} for model in models}
    cases = []
    for line in chosen:
        page = draw_page(by_id[line["id"]], STYLES["wide"], np.random.default_rng(0))
        reference = line["truth"]["report"]
        entries = [f"<dt>reference</dt><dd>{escape(reference)}</dd>"]
        for name, lines in answers.items():
            text = lines[line["id"]]["texts"]["report"]["text"]
            score = judge(reference, text).score
            entries.append(f"<dt>{escape(name)} ({score:.0f}/100)</dt><dd>{escape(text) or '<i>nothing</i>'}</dd>")
        cases.append(
            f'<div class=case><img alt="ECG page {escape(line["id"])}" src="{_picture(page.image)}">'
            f"<p class=small>{escape(line['id'])}</p><dl>{''.join(entries)}</dl></div>"
        )
    return f"<h2>Pages and reports</h2><p>From the best to the worst report of {escape(last.name)}.</p>{''.join(cases)}"


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to report.

    Attributes:
        scores: scores.json files, by the name to show: `--scores baseline=a.json fine_tuned=b.json`.
        predictions: the predictions files of the same names.
        run: a run folder whose loss curve is shown.
        root: the suite's folder, if it has one.
        pages: how many pages to show.
        out: the file to write.
    """

    scores: tuple[str, ...]
    predictions: tuple[str, ...]
    run: Path | None = None
    root: str | None = None
    pages: int = 8
    out: Path = Path("report.html")


def named_paths(pairs: Sequence[str], option: str) -> dict[str, Path]:
    """("a=x.json", ...) -> {"a": Path("x.json")}.

    Raises:
        ValueError: if a pair has no "=" or a name stands twice.
        FileNotFoundError: if a file is not there.
    """
    paths: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or name in paths:
            raise ValueError(f"--{option} takes name=file pairs with different names, got {pair!r}")
        paths[name] = Path(path)
        if not paths[name].is_file():
            raise FileNotFoundError(f"--{option}: no file {path}")
    return paths


def write_report(config: ReportConfig) -> Path:
    """Write the report.

    Raises:
        FileExistsError: if the file is there already.
        ValueError: if names do not match or the models were scored on different records.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    scores, predictions = named_paths(config.scores, "scores"), named_paths(config.predictions, "predictions")
    if scores.keys() != predictions.keys():
        raise ValueError(f"--scores names {', '.join(scores)}, but --predictions {', '.join(predictions)}")
    models = [
        Scored(name=name, scores=json.loads(path.read_text()), lines=read_predictions(predictions[name]))
        for name, path in scores.items()
    ]
    check_comparable({model.name: model.scores for model in models})
    first = models[0].scores
    settings = first["settings"]
    warning = (
        "These records are SIMULATED, not patients: the numbers show that the system works, and nothing about care."
    )
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>minimllama report</title><style>{STYLE}</style>',
        f"<h1>minimllama: suite {escape(settings['suite'])}, split {escape(settings['split'])}</h1>",
        f"<p class=warn>{warning}</p>" if first["synthetic"] else "",
        "<p class=warn>Research only. Not a medical device.</p><h2>Table I</h2>",
        *(_table(models, protocol) for protocol in first["protocols"]),
        f"<p class=small>Thresholds from {first['n_validation']} validation records.</p>",
        _loss(config.run),
        _gallery(models, config.root, config.pages) if first["report"] else "",
        "<h2>ROC curves</h2>",
        _roc(models, settings["suite"]),
        "</html>",
    ]
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text("\n".join(parts))
    return config.out
