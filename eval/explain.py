"""Where a model looks for a label, and what wiping each lead does to it: pictures, and explain.json.

    {"cases": [{"id": ..., "label": ..., "log_odds": 1.5, "heat": "file.png",
                "leads": {"I": {"attention": 0.1, "occlusion": -0.2, ...}, ...}, ...}], ...}

`attention` is a lead's share of all cross-attention weight, the mean over layers and heads; `occlusion` is the change
of the log-odds when the lead is wiped. Attention is not an explanation; `agreement` says how far the two agree.
cases.jsonl has a line per record as soon as it is done, so a killed run goes on.

Shapes: L cross-attention layers, C labels, Y rows and X columns of page pixels.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.agreement import agreement, agreement_text, between_labels
from eval.heat import areas_of, lead_places, look_for_labels, overlay, share_of
from eval.likelihood import YesNo, ask_yes_no
from eval.occlusion import empty_paper, occlude
from eval.pages import BLANK, SHUFFLED, check_page_kind, own_chance, page_of
from eval.predict import PredictConfig, Predictor, read_predictions, take_up
from eval.references import reference
from eval.suites import SUITES
from minimllama.console import Progress
from train.ecg import LEADS, EcgRecord, LabelSet, Page, PaperStyle, distort
from train.ecg.page import Box

CASES = "cases.jsonl"


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """What to explain.

    Attributes:
        model: a checkpoint's folder, or "nano".
        adapter: a PEFT folder; "" for the model as it is.
        suite: of SUITES.
        root: the suite's folder, if it has one.
        options: of the suite's source, as for `eval predict`.
        split: "train", "validate" or "test".
        n, seed: of the simulated suite; its own if None.
        page: of STYLES; fitted to the model's tiles if empty.
        distort: what happens to the pages, a preset ("clean", "scan", "phone", "paper") or one of DISTORTIONS.
        labels: codes of the suite's labels.
        ids: of records; all of the split if none are named.
        pictures: how many records get pictures, from the first on; the others' `heat` is null.
        dtype: "bfloat16" or "float32".
        device: "cpu", "cuda", ...
        semantics: "meta", "hf" or "hf445".
        out: the folder to write.
    """

    model: str = "nano"
    adapter: str = ""
    suite: str = "simulated"
    root: str | None = None
    options: tuple[str, ...] = ()
    split: str = "test"
    n: int | None = None
    seed: int | None = None
    page: str = ""
    distort: str = "clean"
    labels: tuple[str, ...]
    ids: tuple[str, ...] = ()
    pictures: int = 20
    dtype: str = "float32"
    device: str = "cpu"
    semantics: str = "meta"
    out: Path = Path("explained")

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ValueError(f"suite={self.suite!r} is not one of {', '.join(SUITES)}")
        if SUITES[self.suite].configuration:
            raise ValueError(f"suite={self.suite!r} shows pictures, in which the places of the leads are not known")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels={self.labels} must name at least one code, and none twice")
        check_page_kind(self.distort)
        if self.distort in (SHUFFLED, BLANK):
            raise ValueError(f"distort={self.distort!r}: there the leads are not where their names are")
        if self.pictures < 0:
            raise ValueError(f"pictures={self.pictures} must not be negative")
        self.label_set()

    def label_set(self) -> LabelSet:
        """The chosen labels, as a set to ask for.

        Raises:
            ValueError: if the suite does not ask for one of them.
        """
        known = {label.code: label for found in SUITES[self.suite].label_sets.values() for label in found.labels}
        if unknown := [code for code in self.labels if code not in known]:
            raise ValueError(f"labels: {', '.join(unknown)} not in {', '.join(known)}")
        return LabelSet(name="explained", labels=tuple(known[code] for code in self.labels))

    def predictor(self) -> Predictor:
        """Load the model with all it needs to answer."""
        shared = {
            k: getattr(self, k) for k in ("model", "adapter", "suite", "root", "split", "n", "seed", "page", "distort")
        }
        return Predictor.load(
            PredictConfig(**shared, texts=(), dtype=self.dtype, device=self.device, semantics=self.semantics)
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The page of a record as the model sees it.

    Attributes:
        page: maybe distorted.
        places: boxes of its leads; of a distorted page, upright ones around where the leads have gone.
        paper: the same page without ink, under the same distortion; None if it cannot be drawn.
    """

    page: Page
    places: dict[str, list[Box]]
    paper: Image.Image | None


def show_page(record: EcgRecord, style: PaperStyle, kind: str) -> Shown:
    """Draw a record's page, and its paper; what happens to the one happens to the other and to every lead's boxes."""
    clean, paper = page_of(record, style), empty_paper(record, style)
    boxes = {(lead, n): box for lead, own in lead_places(clean, record).items() for n, box in enumerate(own)}

    def moved(image: Image.Image) -> Page:
        named = {f"{lead} {n}": box for (lead, n), box in boxes.items()}
        return distort(replace(clean, image=image, lead_boxes=named), own_chance(record, kind), kind)

    page, places = moved(clean.image), {}
    for lead, n in boxes:
        if (box := page.lead_boxes.get(f"{lead} {n}")) is not None:
            places.setdefault(lead, []).append(box)
    return Shown(page=page, places=places, paper=None if paper is None else moved(paper).image)


def _values(heat: np.ndarray, boxes: Sequence[Box], occlusion: float) -> dict[str, float]:
    """What explain.json says of an area."""
    share = share_of(heat, boxes)
    return {"attention": share.weight, "occlusion": occlusion, "density": share.density, "area": share.area}


def explain_record(
    predictor: Predictor, questions: YesNo, codes: Sequence[str], record: EcgRecord, out: Path | None
) -> list[dict[str, Any]]:
    """One case per label of a record.

    Args:
        predictor: model, transform and page style.
        questions: of the labels.
        codes: of the labels, in their order.
        record: to draw.
        out: folder for pictures; None for none.
    """
    shown = show_page(record, predictor.style, predictor.config.distort)
    page, places = shown.page, shown.places
    areas = areas_of(places)
    model, transform, device = predictor.model, predictor.transform, predictor.config.device
    looked = look_for_labels(model, transform, questions, page.image, device)
    pen = page.style.trace_mm * page.px_per_mm / 2
    whole = {"everything": [(0.0, 0.0, float(page.image.width), float(page.image.height))]}
    given = {"paper": shown.paper, "margin": pen, "device": device}
    moved = occlude(model, transform, questions, page.image, areas | whole, **given)
    truth = reference(record, predictor.suite)["truth"]
    labels = None if truth["labels"] is None else {*truth["labels"], *(truth["superclass"] or ())}
    cases = []
    for c, code in enumerate(codes):
        layers = looked.maps.page[:, c].numpy()  # [L, Y, X]
        heat, changes = layers.mean(0), dict(zip(moved.areas, moved.changes[:, c].tolist(), strict=True))
        values = {name: _values(heat, boxes, changes[name]) for name, boxes in areas.items()}
        picture = None
        if out is not None:
            picture = re.sub(r"\W+", "_", f"{record.record_id}-{code}") + ".png"
            overlay(page.image, heat, [box for boxes in places.values() for box in boxes]).save(out / picture)
        cases.append(
            {
                "id": record.record_id,
                "label": code,
                "log_odds": float(looked.log_odds[c]),
                "heat": picture,
                "leads": {lead: values[lead] for lead in LEADS if lead in values},
                "truth": None if labels is None else code in labels,
                "areas": {name: value for name, value in values.items() if name not in LEADS},
                "attention_by_layer": {
                    str(layer): {lead: share_of(one, places[lead]).weight for lead in places}
                    for layer, one in zip(model.config.text.cross_layers, layers, strict=True)
                },
                "class_tokens": float(looked.maps.class_tokens[:, c].mean()),
                "padding": float(looked.maps.padding[:, c].mean()),
                "occlusion_of_everything": changes["everything"],
                "fill": moved.fill,
            }
        )
    return cases


def _records(config: ExplainConfig) -> Iterator[EcgRecord]:
    source = SUITES[config.suite].open(config.root, config.split, config.n, config.seed, config.options)
    wanted = set(config.ids)
    for index in range(len(source)):
        record = source[index]
        if not config.ids or record.record_id in wanted:
            wanted.discard(record.record_id)
            yield record
            if config.ids and not wanted:
                return
    if wanted:
        raise ValueError(f"ids: {', '.join(sorted(wanted))} not among the {len(source)} records of {config.split}")


def explained_text(folder: Path) -> str:
    """What is to be seen in an explain.json as a whole: the agreement over pages that have the label, and over all."""
    explained = json.loads((folder / "explain.json").read_text())
    found, alike = explained["agreement"], explained["between_labels"]
    parts = [("pages that have the label", found["present"]), ("all pages", found["all"])]
    shown = "\n\n".join(f"{name}\n{agreement_text(part)}" for name, part in parts if part)
    if alike["attention"] is not None and alike["occlusion"] is not None:
        shown += (
            f"\n\nTwo labels of one page: rho {alike['attention']:.2f} between their attention to the leads, "
            f"{alike['occlusion']:.2f} between their sizes of occlusion."
        )
    return (
        f"{shown}\n\nblank: log-odds with everything wiped. rho: Spearman's, over the leads of a page, of attention "
        "and the size of occlusion, mean over pages +- standard error; rho of area: the same of a lead's mere area. "
        "att: share of the attention; occ: change of the log-odds when these leads are wiped together."
    )


def _cases(config: ExplainConfig, records: Sequence[EcgRecord], predictor: Predictor) -> list[dict[str, Any]]:
    """The cases of all records, those that a killed run has left in cases.jsonl among them."""
    path, pictured = config.out / CASES, {record.record_id for record in records[: config.pictures]}
    settings = {name: value for name, value in _settings(config).items() if name not in ("out", "device")}
    done = take_up(path, json.loads(json.dumps(settings)))
    questions = ask_yes_no(config.label_set(), predictor.tokenizer)
    progress, count = Progress(), len(done)
    with path.open("a") as file:
        for record in (record for record in records if record.record_id not in done):
            folder = config.out if record.record_id in pictured else None
            cases = explain_record(predictor, questions, config.labels, record, folder)
            file.write(json.dumps({"id": record.record_id, "cases": cases}) + "\n")
            file.flush()
            count += 1
            progress.show(f"explained {count}/{len(records)}", last=count == len(records))
    return [case for line in read_predictions(path) for case in line["cases"]]


def _settings(config: ExplainConfig) -> dict[str, Any]:
    named = {k: v for k, v in asdict(config).items() if k != "options" or v}
    return {k: str(v) if isinstance(v, Path) else v for k, v in named.items()}


def run_explain(config: ExplainConfig) -> Path:
    """Explain labels of records; what a killed run has done is not done again.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder is there already and has something else, or was made with other settings.
        ValueError: if a record is not there.
    """
    if config.out.exists() and not (config.out / CASES).is_file():
        raise FileExistsError(f"{config.out} exists, without {CASES}; choose another folder")
    records = list(_records(config))
    predictor = config.predictor()
    cases = _cases(config, records, predictor)
    layers = predictor.model.config.text.cross_layers
    gates = [float(predictor.model.text.layers[i].attention_gate.detach().tanh()) for i in layers]  # type: ignore[union-attr]
    result = {
        "settings": _settings(config),
        "synthetic": SUITES[config.suite].synthetic,
        "gates": dict(zip(map(str, layers), gates, strict=True)),
        "agreement": {"all": agreement(cases), "present": agreement([case for case in cases if case["truth"]])},
        "between_labels": between_labels(cases),
        "cases": cases,
    }
    partial = config.out / "explain.json.partial"
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, config.out / "explain.json")
    return config.out
