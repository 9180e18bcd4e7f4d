"""python -m benchmarks.reading: how well a checkpoint reads simulated pages that it has not seen, for its model card.

Numbers of greedy answers against the simulator's measurements, and the AUC of each yes/no reading.

Shapes: B pages, L questions.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from sklearn.metrics import roc_auc_score

from eval.answers import parse_measurements
from eval.predict import PredictConfig, Predictor
from eval.suites import SUITES
from minimllama import ImageBatch, Message, encode_dialog, next_token_logits
from minimllama.console import Progress, say
from train.ecg import LEADS, EcgRecord, draw_page
from train.ecg.instruct import LOOKS, WAVES

NUMBERS = {"heart_rate": "1/min", "pr": "ms", "qrs": "ms", "qt": "ms", "qtc": "ms", "axis": "degrees"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is read.

    Attributes:
        model: a checkpoint's folder, or "nano".
        n, seed: simulated patients of the test split.
        batch: pages at once.
        leads: leads per page whose waves are read, and that the yes/no readings ask about.
        out: a Markdown table; standard output if empty.
    """

    model: str = "nano"
    n: int = 200
    seed: int = 99
    batch: int = 20
    leads: int = 2
    out: Path | None = None


def parse_waves(text: str) -> dict[str, float]:
    """The waves that a lead's reading names, in millivolts: "R 14" is 1.4."""
    found = re.findall(r"\b(P|Q|R|S|ST|T) (-?\d+(?:\.\d+)?)", text)
    return {name.lower(): float(mm) / 10 for name, mm in found}


def difference(name: str, read: float, truth: float) -> float:
    """How far a reading is off; an axis around the circle."""
    off = abs(read - truth)
    return min(off % 360, 360 - off % 360) if name == "axis" else off


def yes_no_scores(predictor: Predictor, questions: Sequence[str], images: ImageBatch) -> np.ndarray:
    """Log-odds of yes against no, [B, L]."""
    tokenizer = predictor.tokenizer
    rows = [encode_dialog([Message(role="user", text=q, n_images=1)], tokenizer).tokens for q in questions]
    shared = next(i for i in range(len(rows[0])) if len({int(row[i]) for row in rows}) > 1)
    candidates = [tokenizer.encode(word)[0] for word in ("Yes.", "No.")]
    suffixes = [row[shared:] for row in rows]
    logits = next_token_logits(predictor.model, [rows[0][:shared]] * len(images), suffixes, candidates, images)
    return (logits[..., 0] - logits[..., 1]).numpy()


Errors = dict[str, list[float]]


def read_numbers(predictor: Predictor, records: Sequence[EcgRecord], images: ImageBatch, errors: Errors) -> None:
    """Rate, intervals and axis; an answer without the number counts as not read."""
    for question in ("What is the heart rate?", "Measure the intervals and the axis."):
        for record, answer in zip(records, predictor.answers(question, images), strict=True):
            read = parse_measurements(answer["text"])
            for name in NUMBERS if question.startswith("Measure") else ("heart_rate",):
                truth = record.truth.get(name)
                if truth is not None and (name == "heart_rate") == question.startswith("What"):
                    errors.setdefault(name, []).append(difference(name, read.get(name, np.nan), truth))


def read_waves(
    predictor: Predictor, records: Sequence[EcgRecord], images: ImageBatch, leads: Sequence[str], errors: Errors
) -> None:
    """Amplitude of each wave in some leads."""
    for lead in leads:
        for record, answer in zip(records, predictor.answers(f"Read lead {lead}.", images), strict=True):
            read = parse_waves(answer["text"])
            for wave, title in WAVES:
                if record.truth[wave] is not None:
                    error = difference(wave, read.get(wave, np.nan), record.truth[wave][lead])
                    errors.setdefault(f"{title} wave", []).append(error)


def _looks(leads: Sequence[str]) -> Iterator[tuple[str, str, str, Callable[..., bool | None]]]:
    for name, (question, answer) in LOOKS.items():
        for lead in leads if "{lead}" in question else leads[:1]:
            yield name, lead, question.format(lead=lead), answer


def table(errors: Errors, looks: dict[str, list[tuple[bool, float]]]) -> str:
    """Both kinds of reading as Markdown."""
    lines = ["| reading | n | median error | 90 % within | not read |", "|---|---|---|---|---|"]
    for name, values in errors.items():
        known = np.array([v for v in values if np.isfinite(v)])
        unit = NUMBERS.get(name, "mV")
        half, most = np.quantile(known, [0.5, 0.9])
        lines.append(f"| {name} | {len(values)} | {half:.3g} {unit} | {most:.3g} {unit} | {len(values) - len(known)} |")
    lines += ["", "| yes/no reading | n | yes | AUC |", "|---|---|---|---|"]
    for name, pairs in looks.items():
        truth, scores = zip(*pairs, strict=True)
        auc = f"{roc_auc_score(truth, scores):.3f}" if len(set(truth)) == 2 else "-"
        lines.append(f"| {LOOKS[name][0].format(lead='a lead')} | {len(pairs)} | {sum(truth)} | {auc} |")
    return "\n".join(lines)


@torch.no_grad()
def main(options: Options) -> str:
    """Read all pages, and return the table."""
    predictor = Predictor.load(PredictConfig(model=options.model, max_new_tokens=48))
    source = SUITES["simulated"].open(None, "test", options.n, options.seed)
    rng, progress = np.random.default_rng(options.seed), Progress()
    errors: Errors = {}
    looks: dict[str, list[tuple[bool, float]]] = {}
    for start in range(0, options.n, options.batch):
        records = [source[i] for i in range(start, min(start + options.batch, options.n))]
        images = predictor.transform([[draw_page(record, predictor.style).image] for record in records])
        leads = [LEADS[i] for i in rng.choice(len(LEADS), options.leads, replace=False)]
        read_numbers(predictor, records, images, errors)
        read_waves(predictor, records, images, leads, errors)
        asked = list(_looks(leads))
        scores = yes_no_scores(predictor, [question for _, _, question, _ in asked], images)
        for record, row in zip(records, scores, strict=True):
            for (name, lead, _, answer), score in zip(asked, row, strict=True):
                value = answer(dict(record.truth), lead)
                if value is not None:
                    looks.setdefault(name, []).append((bool(value), float(score)))
        progress.show(f"read {start + len(records)}/{options.n}", last=start + len(records) == options.n)
    return table(errors, looks)


if __name__ == "__main__":
    chosen = tyro.cli(Options, prog="python -m benchmarks.reading")
    text = main(chosen)
    if chosen.out is None:
        say(text)
    else:
        chosen.out.write_text(text + "\n")
