"""Curves of a report: ROC and precision-recall as small multiples, reliability, and the loss of the fine-tuning."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from eval.calibration import Reliability, reliability
from eval.report.html import Html, element, joined, markup, number, share, table
from eval.report.models import Scored
from eval.svg import COLOURS, Line, line_chart, small_chart
from eval.tables import NAMES
from train.log import read_log

MOST_POINTS = 150  # of a curve
GREY = "#999"


def key_of(models: Sequence[Scored]) -> Html:
    """Which colour is which model."""
    entries = []
    for i, model in enumerate(models):
        entries += [element("span", style=f"background:{COLOURS[i % len(COLOURS)]}"), model.name]
    return element("p", *entries, class_="small key")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[list[float], list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return x[kept].tolist(), y[kept].tolist()


def _multiples(models: Sequence[Scored], kind: str) -> Html:
    """A chart for each label that has both outcomes, and every model in it."""
    parts = [key_of(models)]
    for protocol, first in models[0].parts.items():
        charts, left_out = [], []
        for i, label in enumerate(first.label_set.labels):
            truth, n_pos = first.y[:, i], int(first.y[:, i].sum())
            if not 0 < n_pos < len(truth):
                left_out.append(label.code)
                continue
            lines = []
            for k, model in enumerate(models):
                part, row = model.parts[protocol], model.scores["protocols"][protocol]["from_scores"]["per_label"]
                curve, metric = (_roc, "auc") if kind == "roc" else (_precision_recall, "ap")
                x, y = curve(part.y[:, i], part.s[:, i])
                lines.append(Line(name=number(row[label.code][metric]), x=x, y=y, colour=COLOURS[k % len(COLOURS)]))
            base = [0.0, 1.0] if kind == "roc" else [n_pos / len(truth)] * 2
            lines.append(Line(name="", x=[0.0, 1.0], y=base, colour=GREY, is_dashed=True))
            axes = ("1 - specificity", "sensitivity") if kind == "roc" else ("sensitivity (recall)", "PPV (precision)")
            title = f"{label.code} ({n_pos} of {len(truth)})"
            charts.append(small_chart(lines, title=title, subtitle=label.name, x_label=axes[0], y_label=axes[1]))
        parts += [element("h3", NAMES.get(protocol, protocol)), element("div", *map(Html, charts), class_="charts")]
        if left_out:
            parts.append(
                element("p", f"Without both outcomes, so without a curve: {', '.join(left_out)}.", class_="small")
            )
    return joined(parts)


def _roc(y: np.ndarray, s: np.ndarray) -> tuple[list[float], list[float]]:
    x, up, _ = roc_curve(y, s)
    return _thinned(x, up)


def _precision_recall(y: np.ndarray, s: np.ndarray) -> tuple[list[float], list[float]]:
    """At each recall its highest precision, without the point that scikit-learn adds at recall 0."""
    precision, recall, _ = precision_recall_curve(y, s)
    last = np.append(np.diff(recall) != 0, True)
    return _thinned(recall[last][:-1][::-1], precision[last][:-1][::-1])


def roc_curves(models: Sequence[Scored]) -> Html:
    """The ROC section."""
    about = "Numbers above a chart are AUCs in the models' colours; the dashed line is chance."
    return joined([element("p", about, class_="small"), _multiples(models, "roc")])


def precision_recall_curves(models: Sequence[Scored]) -> Html:
    """The precision-recall section."""
    about = "Numbers above a chart are average precisions; the dashed line is the prevalence, which is chance here."
    return joined([element("p", about, class_="small"), _multiples(models, "pr")])


def calibration(models: Sequence[Scored]) -> Html:
    """The reliability section."""
    about = (
        "Probabilities are the sigmoid of the log-odds as the model gives them: no temperature or other map was "
        "fitted. A dot is a tenth of the range over all labels and records together, larger where there are more of "
        "them; on the dashed line, what is said comes true as often as it is said."
    )
    parts = [element("p", about, class_="small"), key_of(models)]
    for protocol in models[0].parts:
        found = [reliability(model.parts[protocol].y, model.parts[protocol].s) for model in models]
        lines = [_curve_of(one, COLOURS[k % len(COLOURS)]) for k, one in enumerate(found)]
        lines.append(Line(name="", x=[0.0, 1.0], y=[0.0, 1.0], colour=GREY, is_dashed=True))
        title = NAMES.get(protocol, protocol)
        chart = small_chart(
            lines,
            title=title,
            subtitle="all labels together",
            x_label="probability said",
            y_label="share that was so",
            size=(340, 360),
        )
        verdicts = [_verdict(model, one) for model, one in zip(models, found, strict=True)]
        parts += [
            element("h3", title),
            *verdicts,
            element("div", Html(chart), _bins(models, found), class_="charts"),
        ]
    return joined(parts)


def _curve_of(found: Reliability, colour: str) -> Line:
    bins = [one for one in found.bins if one.said is not None and one.seen.value is not None]
    most = max(one.seen.whole for one in bins)
    return Line(
        name=f"error {found.ece:.3f}",
        x=[one.said or 0.0 for one in bins],
        y=[one.seen.value or 0.0 for one in bins],
        colour=colour,
        dots=[2 + 5 * (one.seen.whole / most) ** 0.5 for one in bins],
    )


def _verdict(model: Scored, found: Reliability) -> Html:
    word = "within" if found.is_calibrated else "above"
    verdict = "calibrated" if found.is_calibrated else "NOT calibrated"
    return element(
        "p",
        element("b", f"{model.name}: {verdict}. "),
        f"Expected calibration error {found.ece:.3f}, {word} the {found.chance:.3f} that perfectly calibrated answers "
        "of this kind stay below in 95 of 100 draws.",
    )


def _bins(models: Sequence[Scored], found: Sequence[Reliability]) -> Html:
    headings = ["said"] + [f"{model.name}: mean said, came true" for model in models]
    rows = []
    for bins in zip(*(one.bins for one in found), strict=True):
        cells = [joined([number(one.said, 2), " / ", share(one.seen)]) if one.seen.whole else "-" for one in bins]
        rows.append([f"{bins[0].low:.1f} to {bins[0].high:.1f}", *cells])
    return table(headings, rows, is_wide=True)


def training_loss(run: Path) -> Html:
    """The loss of a run folder; steps whose loss was not finite have none.

    Raises:
        ValueError: if there is no step with a loss.
    """
    log = read_log(run)
    known = [row for row in log if row["loss"] is not None]
    if not known:
        raise ValueError(f"--run: {run / 'log.jsonl'} has no step with a loss")
    steps, losses = [row["step"] for row in known], np.array([row["loss"] for row in known])
    width = max(len(losses) // 50, 1)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    curves = [
        Line(name="loss per answer token", x=steps, y=losses.tolist()),
        Line(name=f"mean of {width} steps", x=steps[width - 1 :], y=smooth.tolist()),
    ]
    chart = line_chart(curves, title="fine-tuning", x_label="step", y_label="loss", size=(700, 300))
    about = element("p", f"{len(log)} steps, {log[-1]['samples']} pages", class_="small")
    return joined([about, markup(Html(chart))])
