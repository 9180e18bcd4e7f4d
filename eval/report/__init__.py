"""report.html: one file that opens offline, with tables, curves, and pages beside what was said about them.

Every section of SECTIONS is always there; one that cannot be filled says which command fills it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.report import conditions, curves, gallery, groups
from eval.report.html import POLICY, STYLE, Html, absent, element, joined, markup
from eval.report.models import Elsewhere, Scored, load_elsewhere, load_models, named_paths

__all__ = ["SECTIONS", "ReportConfig", "named_paths", "write_report"]

SECTIONS = {  # anchor: heading
    "table-1": "Table I",
    "training": "Fine-tuning",
    "conditions": "Every condition, at its operating points",
    "must-not-miss": "Findings that must not be missed",
    "roc": "ROC curves",
    "precision-recall": "Precision-recall curves",
    "calibration": "Reliability",
    "confusion": "Confusion of the superclasses",
    "subgroups": "Subgroups",
    "robustness": "Robustness: other pages of the same records",
    "gallery": "Pages and reports",
}


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to report.

    Attributes:
        scores: scores.json files, by the name to show: `--scores baseline=a.json fine_tuned=b.json`. Sections about one
            model are about the last.
        predictions: the predictions files of the same names.
        validation: predictions on the validation split, for operating points: of the same names, or fewer.
        robustness: predictions from other pages (`eval predict --distort`), by names of your own.
        explain: the folder of `eval explain`.
        run: a run folder whose loss curve is shown.
        root: the suite's folder, if it has one; the one that was predicted if None.
        specificities, sensitivities: targets of the operating points, met on validation records.
        must_not_miss: the sensitivity to reach, on validation records, for findings that must not be missed.
        smallest_group: subgroups with fewer records get no numbers.
        draws: of patients, behind the intervals of subgroups and robustness.
        pages: how many pages to show.
        out: the file to write.
    """

    scores: tuple[str, ...]
    predictions: tuple[str, ...]
    validation: tuple[str, ...] = ()
    robustness: tuple[str, ...] = ()
    explain: Path | None = None
    run: Path | None = None
    root: str | None = None
    specificities: tuple[float, ...] = (0.95,)
    sensitivities: tuple[float, ...] = (0.95,)
    must_not_miss: float = 0.95
    smallest_group: int = 30
    draws: int = 300
    pages: int = 8
    out: Path = Path("report.html")

    def __post_init__(self) -> None:
        targets = (*self.specificities, *self.sensitivities, self.must_not_miss)
        if not all(0 < target <= 1 for target in targets):
            raise ValueError(f"specificities, sensitivities and must_not_miss must lie in (0, 1], got {targets}")
        if min(self.smallest_group, self.draws) < 1 or self.pages < 0:
            raise ValueError(
                f"smallest_group={self.smallest_group} and draws={self.draws} must be positive, pages={self.pages} not "
                "negative"
            )


def _contents(config: ReportConfig, models: Sequence[Scored], elsewhere: Sequence[Elsewhere]) -> dict[str, Html]:
    """The inside of every section."""
    last, name = models[-1], models[-1].name
    explained = {} if config.explain is None else gallery.load_explained(config.explain, last.settings)
    held = f"python -m eval report ... --validation {name}=VALIDATION.jsonl"
    predicted = "python -m eval predict ..."
    other_pages = (
        f"{predicted} --distort phone --out phone.jsonl; python -m eval report ... --robustness phone=phone.jsonl"
    )
    points: Html = conditions.conditions(last, config.specificities, config.sensitivities)
    if last.parts and next(iter(last.parts.values())).held is None:
        points = joined([absent("operating points at chosen sensitivities and specificities", held), points])
    pages = gallery.gallery(models, config.root, config.pages, explained)
    if config.explain is None:
        pages = joined(
            [absent("heat maps", "python -m eval explain ...; python -m eval report ... --explain FOLDER"), pages]
        )
    return {
        "table-1": conditions.table_one(models),
        "training": absent("no run folder was given", "python -m eval report ... --run RUN")
        if config.run is None
        else curves.training_loss(config.run),
        "conditions": points,
        "must-not-miss": conditions.must_not_miss(last, config.must_not_miss)
        or absent("no validation records choose its thresholds, or no record carries such a finding", held),
        "roc": curves.roc_curves(models),
        "precision-recall": curves.precision_recall_curves(models),
        "calibration": curves.calibration(models),
        "confusion": conditions.confusion(last)
        or absent("scored without validation records", "python -m eval score ... --validation VALIDATION.jsonl"),
        "subgroups": groups.subgroups(last, config.smallest_group, config.draws)
        or absent("the predictions say nothing about their records", f"{predicted} (made anew, with `about`)"),
        "robustness": groups.robustness(elsewhere, config.draws)
        if elsewhere
        else absent("no predictions from other pages were given", other_pages),
        "gallery": pages,
    }


def _heading(models: Sequence[Scored]) -> list[Any]:
    first, settings = models[0].scores, models[0].settings
    simulated = (
        "These records are SIMULATED, not patients: the numbers show that the system works, and nothing about care."
    )
    last = f"Sections about one model are about {models[-1].name}." if len(models) > 1 else ""
    return [
        element("h1", f"minimllama: suite {settings['suite']}, split {settings['split']}"),
        element("p", simulated, class_="warn") if first["synthetic"] else "",
        element("p", "Research only. Not a medical device.", class_="warn"),
        element("p", last, class_="small") if last else "",
        element("nav", *(element("a", title, href=f"#{anchor}") for anchor, title in SECTIONS.items())),
    ]


def write_report(config: ReportConfig) -> Path:
    """Write the report.

    Raises:
        FileExistsError: if the file is there already.
        FileNotFoundError: if a file that was named is not there.
        ValueError: if names do not match or the models were scored on different records.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    models = load_models(config.scores, config.predictions, config.validation)
    elsewhere = load_elsewhere(config.robustness, models)
    contents = _contents(config, models, elsewhere)
    sections = [
        element("section", element("h2", title), contents[anchor], id=anchor) for anchor, title in SECTIONS.items()
    ]
    body = joined([*_heading(models), *sections], "\n")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>minimllama report</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{STYLE}</style></head>'
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(f"{head}<body>{markup(body)}</body></html>\n", encoding="utf-8")
    return config.out
