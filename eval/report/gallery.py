"""The gallery of a report: pages as the model saw them, the reference, what was said, and heat maps if there are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.benchmark_files import AskedRecord
from eval.judge import JUDGES
from eval.metrics import to_probability
from eval.pages import page_of
from eval.report.html import Html, element, embedded, joined, number, picture, table
from eval.report.models import Line, Scored
from eval.suites import SUITES
from train.ecg import LEADS, STYLES, EcgRecord

PNG = b"\x89PNG\r\n\x1a\n"


def load_explained(folder: Path, settings: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The cases of `python -m eval explain`, by the record's id.

    Args:
        folder: that it wrote.
        settings: of the predictions beside which they are shown.

    Raises:
        FileNotFoundError: if explain.json or a picture that it names is not there.
        ValueError: if another model was explained, or on other pages; if a picture is outside of the folder, or no
            PNG file.
    """
    if not (folder / "explain.json").is_file():
        raise FileNotFoundError(f"--explain: no file {folder / 'explain.json'}; python -m eval explain makes one")
    found: dict[str, list[dict[str, Any]]] = {}
    explained = json.loads((folder / "explain.json").read_text())
    same = ("model", "adapter", "suite", "split", "seed", "distort", "semantics")
    if differing := [k for k in same if k in settings and explained["settings"][k] != settings[k]]:
        raise ValueError(f"--explain: {folder} was made with another {', '.join(differing)} than the last model's")
    for case in explained["cases"]:
        if case["heat"] is not None:
            path = folder / case["heat"]
            if path.resolve().parent != folder.resolve():
                raise ValueError(f"--explain: {case['heat']} is not inside {folder}")
            if not path.is_file():
                raise FileNotFoundError(f"--explain: no file {path}")
            if not path.read_bytes().startswith(PNG):
                raise ValueError(f"--explain: {path} is no PNG file")
        found.setdefault(case["id"], []).append({**case, "folder": str(folder)})
    return found


def _marks(model: Scored) -> tuple[list[float], str]:
    """How good each line is, and what that means in words: the judge of reports, else the distance of probabilities."""
    report = model.scores["report"]
    if report and all("report" in line["texts"] and line["truth"]["report"] for line in model.lines):
        judge = JUDGES[report["judge"]]
        marks = [judge(line["truth"]["report"], line["texts"]["report"]["text"]).score for line in model.lines]
        return marks, f"the report's score by the judge '{report['judge']}'"
    part = list(model.parts.values())[-1]
    distance = np.abs(to_probability(part.s, are_log_odds=True) - part.y).mean(1)
    by_id = {line["id"]: -float(value) for line, value in zip(part.lines, distance, strict=True)}
    return [by_id.get(line["id"], -1.0) for line in model.lines], "the distance of all probabilities from the truth"


def choose(model: Scored, count: int) -> tuple[list[Line], list[Line], str]:
    """Hits and failures, of different labels as far as there are such; and what they were chosen by."""
    marks, how = _marks(model)
    order = sorted(range(len(marks)), key=lambda i: (-marks[i], i))
    n_hits = min((count + 1) // 2, len(order))
    hits = _different(model.lines, order, n_hits)
    left = [i for i in reversed(order) if i not in hits]
    failures = _different(model.lines, left, min(count // 2, len(left)))
    return [model.lines[i] for i in hits], [model.lines[i] for i in failures], how


def _different(lines: Sequence[Line], order: Sequence[int], count: int) -> list[int]:
    """The first `count` with labels of their own; the first others if there are not that many."""
    seen, chosen = set(), []
    for i in order:
        labels = tuple(lines[i]["truth"]["labels"] or ())
        if len(chosen) < count and labels not in seen:
            seen.add(labels)
            chosen.append(i)
    return [*chosen, *(i for i in order if i not in chosen)][:count]


def _records(model: Scored, root: str | None, wanted: set[str]) -> dict[str, EcgRecord | AskedRecord]:
    found: dict[str, EcgRecord | AskedRecord] = {}
    if not wanted:
        return found
    settings, root = model.settings, root or model.settings["root"]
    options = settings.get("options", ())
    source = SUITES[settings["suite"]].open(root, settings["split"], settings["n"], settings["seed"], options)
    for index in range(len(source)):
        if len(found) == len(wanted):
            break
        record = source[index]
        if record.record_id in wanted:
            found[record.record_id] = record
    if missing := wanted - found.keys():
        raise ValueError(f"the suite's records lack {min(missing)}; is root={root!r} the folder that was predicted?")
    return found


def gallery(models: Sequence[Scored], root: str | None, count: int, explained: dict[str, list[dict[str, Any]]]) -> Html:
    """Hits, failures and explained cases of the last model.

    Raises:
        ValueError: if an explained record was not predicted, or the suite no longer has a record.
    """
    last = models[-1]
    by_id = {line["id"]: line for line in last.lines}
    if strange := explained.keys() - by_id.keys():
        raise ValueError(f"--explain: {min(strange)} is not among the predictions of {last.name}")
    hits, failures, how = choose(last, count)
    shown = {line["id"] for line in (*hits, *failures)}
    with_picture = [i for i, cases in explained.items() if any(case["heat"] for case in cases) and i not in shown]
    others = [by_id[i] for i in with_picture[:count]]
    records = _records(last, root, {line["id"] for line in (*hits, *failures, *others)})
    parts = [
        element("p", f"Chosen from {len(last.lines)} records by {how}, of {last.name}; pages as that model saw them.")
    ]
    if explained:
        parts.append(element("p", _REMARK, class_="small"))
    for title, lines in (("Hits", hits), ("Failures", failures), ("Other explained cases", others)):
        if lines:
            cases = (_case(models, line, records[line["id"]], explained.get(line["id"], ())) for line in lines)
            parts += [element("h3", title), *cases]
    return joined(parts)


_REMARK = (
    "Heat maps show where the cross-attention of the question's last token falls; attention is not an explanation. "
    "Beside it, per lead: occlusion, the change of the log-odds when the lead is wiped off the page."
)


def _page(settings: Mapping[str, Any], line: Line, record: EcgRecord | AskedRecord) -> Image.Image:
    """As the model saw it."""
    if isinstance(record, AskedRecord):
        return record.image
    style = STYLES[(line.get("about") or {}).get("page") or settings["page"] or "wide"]
    return page_of(record, style, settings.get("distort", "clean")).image


def _case(
    models: Sequence[Scored], line: Line, record: EcgRecord | AskedRecord, explained: Sequence[dict[str, Any]]
) -> Html:
    entries: list[Any] = []
    for question in line["truth"].get("questions", ()):
        entries += [element("dt", "question"), element("dd", question)]
    entries += [element("dt", "reference"), element("dd", line["truth"]["report"] or "no report")]
    entries += [element("dt", "labels"), element("dd", ", ".join(line["truth"]["labels"] or ()) or "none")]
    for model in models:
        own = next(one for one in model.lines if one["id"] == line["id"])
        for task in [task for task in ("report", "statements") if task in own["texts"]] or own["texts"]:
            mark = _mark(model, own) if task == "report" else ""
            said = own["texts"][task]["text"] or element("i", "nothing")
            entries += [element("dt", f"{model.name}, {task}{mark}"), element("dd", said)]
        if (found := _found(model, line["id"])) is not None:
            entries += [element("dt", f"{model.name}, by score"), element("dd", found or "none")]
    image = picture(_page(models[-1].settings, line, record), f"ECG page {line['id']}")
    maps = joined(_explained(case, record.record_id, Path(case["folder"])) for case in explained)
    return element("div", image, element("p", line["id"], class_="small"), element("dl", *entries), maps, class_="case")


def _mark(model: Scored, line: Line) -> str:
    report, reference = model.scores["report"], line["truth"]["report"]
    if not report or not reference:
        return ""
    return f" ({JUDGES[report['judge']](reference, line['texts']['report']['text']).score:.0f}/100)"


def _found(model: Scored, record_id: str) -> str | None:
    """Codes whose scores reach their threshold; None without thresholds."""
    part = list(model.parts.values())[-1]
    index = [i for i, line in enumerate(part.lines) if line["id"] == record_id]
    if part.thresholds is None or not index:
        return None
    reached = part.s[index[0]] >= part.thresholds
    return ", ".join(code for code, yes in zip(part.label_set.codes, reached, strict=True) if yes)


def _explained(case: dict[str, Any], record_id: str, folder: Path) -> Html:
    leads = [lead for lead in LEADS if lead in case["leads"]]
    rows = [
        [name, *(number(case["leads"][lead].get(name), 2) for lead in leads)] for name in ("attention", "occlusion")
    ]
    caption = element("figcaption", element("b", case["label"]), f": log-odds {case['log_odds']:.2f}", class_="small")
    heat: Any = ""
    if case["heat"] is not None:
        heat = embedded((folder / case["heat"]).read_bytes(), f"heat map of {case['label']} on {record_id}")
    return element("figure", caption, heat, table(("lead", *leads), rows, is_wide=True))
