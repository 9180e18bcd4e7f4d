"""Where a model looks for a label, and what wiping each lead does to it: pictures, and explain.json.

    {"cases": [{"id": ..., "label": ..., "log_odds": 1.5, "heat": "file.png",
                "leads": {"I": {"attention": 0.1, "occlusion": -0.2, ...}, ...}, ...}], ...}

`attention` is a lead's share of all cross-attention weight, the mean over layers and heads; `occlusion` is the change
of the log-odds when the lead is wiped. Attention is not an explanation; `agreement` says how far the two agree.

Shapes: L cross-attention layers, C labels, Y rows and X columns of page pixels.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.agreement import agreement, agreement_text, between_labels
from eval.heat import areas_of, lead_places, look_for_labels, overlay, share_of
from eval.likelihood import YesNo, ask_yes_no
from eval.occlusion import empty_paper, occlude
from eval.pages import page_of
from eval.predict import PredictConfig, Predictor
from eval.references import reference
from eval.suites import SUITES
from minimllama.console import Progress
from train.ecg import LEADS, EcgRecord, LabelSet
from train.ecg.page import Box


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """What to explain.

    Attributes:
        model: a checkpoint's folder, or "nano".
        adapter: a PEFT folder; "" for the model as it is.
        suite: of SUITES.
        root: the suite's folder, if it has one.
        split: "train", "validate" or "test".
        n, seed: of the simulated suite; its own if None.
        page: of STYLES; fitted to the model's tiles if empty.
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
    split: str = "test"
    n: int | None = None
    seed: int | None = None
    page: str = ""
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
        shared = {k: getattr(self, k) for k in ("model", "adapter", "suite", "root", "split", "n", "seed", "page")}
        return Predictor.load(
            PredictConfig(**shared, texts=(), dtype=self.dtype, device=self.device, semantics=self.semantics)
        )


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
    page = page_of(record, predictor.style)
    places = lead_places(page, record)
    areas = areas_of(places)
    model, transform, device = predictor.model, predictor.transform, predictor.config.device
    looked = look_for_labels(model, transform, questions, page.image, device)
    paper, pen = empty_paper(record, predictor.style), page.style.trace_mm * page.px_per_mm / 2
    whole = {"everything": [(0.0, 0.0, float(page.image.width), float(page.image.height))]}
    given = {"paper": paper, "margin": pen, "device": device}
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
    source = SUITES[config.suite].open(config.root, config.split, config.n, config.seed)
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


def run_explain(config: ExplainConfig) -> Path:
    """Explain labels of records.

    Returns:
        The folder.

    Raises:
        FileExistsError: if the folder is there already.
        ValueError: if a record is not there.
    """
    if config.out.exists():
        raise FileExistsError(f"{config.out} exists")
    records = list(_records(config))
    predictor = config.predictor()
    questions = ask_yes_no(config.label_set(), predictor.tokenizer)
    config.out.mkdir(parents=True)
    progress, cases = Progress(), []
    for count, record in enumerate(records, 1):
        folder = config.out if count <= config.pictures else None
        cases += explain_record(predictor, questions, config.labels, record, folder)
        progress.show(f"explained {count}/{len(records)}", last=count == len(records))
    layers = predictor.model.config.text.cross_layers
    gates = [float(predictor.model.text.layers[i].attention_gate.detach().tanh()) for i in layers]  # type: ignore[union-attr]
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    result = {
        "settings": settings,
        "synthetic": SUITES[config.suite].synthetic,
        "gates": dict(zip(map(str, layers), gates, strict=True)),
        "agreement": {"all": agreement(cases), "present": agreement([case for case in cases if case["truth"]])},
        "between_labels": between_labels(cases),
        "cases": cases,
    }
    (config.out / "explain.json").write_text(json.dumps(result, indent=1) + "\n")
    return config.out
