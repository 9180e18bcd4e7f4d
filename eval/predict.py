"""predictions.jsonl: what a model says about each record of a suite, in words and as log-odds. Scoring reads only this.

Log-odds of a label: logit of "Yes" minus logit of "No" after "Does this ECG show ...?". All labels of a page
are one batch that shares the image's keys and values and the beginning of the prompt.

Shapes: B pages, L labels.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.pages import about, check_page_kind, page_of
from eval.shards import missing, parse_shard, shard_path
from eval.suites import SUITES, Suite, page_for
from lora import load_adapter
from minimllama import (
    ImageBatch,
    ImageTransform,
    Message,
    MiniMllama,
    Tokenizer,
    encode_dialog,
    generate,
    load_model,
    load_tokenizer,
    next_token_logits,
)
from minimllama.console import Progress, duration
from minimllama.nano import resolve_model
from minimllama.tokenizer import stop_ids
from train.ecg import STYLES, EcgRecord, LabelSet, PaperStyle, build_example
from train.ecg.instruct import report_text, yes_no_question
from train.ecg.labels import superclasses_of


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What to predict.

    Attributes:
        model: a checkpoint's folder, or "nano".
        adapter: a PEFT folder; "" for the model as it is.
        suite: of SUITES.
        root: the suite's folder, if it has one.
        split: "train", "validate" or "test".
        n, seed: of the simulated suite; its own if None.
        page: of STYLES; fitted to the model's tiles if empty.
        distort: what happens to the pages, of eval.pages.PAGE_KINDS.
        texts: tasks whose answers are generated; () for scores only.
        max_new_tokens: per answer.
        batch: pages per forward pass.
        dtype: "bfloat16" or "float32".
        device: "cpu", "cuda", ...
        semantics: "meta", "hf" or "hf445".
        shard: "i/n" predicts part i of n, counted from 0, into a file of its own (see eval.shards).
        out: the file to write; the settings go beside it (.config.json).
    """

    model: str = "nano"
    adapter: str = ""
    suite: str = "simulated"
    root: str | None = None
    split: str = "test"
    n: int | None = None
    seed: int | None = None
    page: str = ""
    distort: str = "clean"
    texts: tuple[str, ...] = ("superclass", "statements", "report")
    max_new_tokens: int = 96
    batch: int = 16
    dtype: str = "float32"
    device: str = "cpu"
    semantics: str = "meta"
    shard: str = "0/1"
    out: Path = Path("predictions.jsonl")

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ValueError(f"suite={self.suite!r} is not one of {', '.join(SUITES)}")
        if unknown := [task for task in self.texts if task not in TASK_QUESTIONS]:
            raise ValueError(f"texts: {', '.join(unknown)} not in {', '.join(TASK_QUESTIONS)}")
        check_page_kind(self.distort)
        parse_shard(self.shard)
        if self.batch < 1 or self.max_new_tokens < 1:
            raise ValueError(f"batch={self.batch} and max_new_tokens={self.max_new_tokens} must be positive")


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """The yes/no questions of a label set, cut into a common beginning and one ending each.

    Attributes:
        prompt: int64 [length], up to where the questions begin to differ.
        suffixes: int64 [length] each, per label.
        yes, no: first token of either answer.
    """

    prompt: Tensor
    suffixes: list[Tensor]
    yes: int
    no: int


def ask_yes_no(label_set: LabelSet, tokenizer: Tokenizer) -> YesNo:
    """Tokenise every whole question, then cut: a word is never tokenised in two halves."""
    rows = []
    for label in label_set.labels:
        message = Message(role="user", text=yes_no_question(label.name), n_images=1)
        rows.append(encode_dialog([message], tokenizer).tokens)
    shared = 0
    while len({int(row[shared]) for row in rows}) == 1 and shared < min(map(len, rows)) - 1:
        shared += 1
    yes, no = tokenizer.encode("Yes.")[0], tokenizer.encode("No.")[0]
    if yes == no:
        raise ValueError("the tokenizer begins Yes and No with the same token, so they cannot be told apart")
    return YesNo(prompt=rows[0][:shared], suffixes=[row[shared:] for row in rows], yes=yes, no=no)


def score_labels(model: MiniMllama, questions: YesNo, images: ImageBatch) -> Tensor:
    """Log-odds of every label on every page, float32 [B, L]."""
    prompts = [questions.prompt] * len(images)
    logits = next_token_logits(model, prompts, questions.suffixes, [questions.yes, questions.no], images)
    return logits[..., 0] - logits[..., 1]  # [B, L]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model with all it needs to answer."""

    model: MiniMllama
    tokenizer: Tokenizer
    transform: ImageTransform
    page_name: str
    suite: Suite
    config: PredictConfig

    @classmethod
    def load(cls, config: PredictConfig) -> "Predictor":
        """Load the model, its tokenizer and its adapter."""
        folder = resolve_model(config.model)
        model = load_model(folder, getattr(torch, config.dtype), config.device, config.semantics)
        if config.adapter:
            load_adapter(model, config.adapter)
        model.eval()
        vision = model.config.vision
        return cls(
            model=model,
            tokenizer=load_tokenizer(folder),
            transform=ImageTransform(vision.tile_size, vision.max_tiles),
            page_name=config.page or page_for(vision),
            suite=SUITES[config.suite],
            config=config,
        )

    @property
    def style(self) -> PaperStyle:
        """Of the pages."""
        return STYLES[self.page_name]

    def answers(self, question: str, images: ImageBatch) -> list[dict[str, Any]]:
        """Generate one answer per page: text, number of tokens, whether it ended by itself."""
        prompt = encode_dialog([Message(role="user", text=question, n_images=1)], self.tokenizer).tokens
        stops = stop_ids(self.tokenizer)
        limit = self.config.max_new_tokens
        rows = generate(self.model, [prompt] * len(images), images, max_new_tokens=limit, stop_ids=stops)
        new = [row[len(prompt) :].tolist() for row in rows]
        return [
            {
                "text": self.tokenizer.decode(ids),
                "n_tokens": len(ids),
                "ended": bool(ids) and ids[-1] in stops,
            }
            for ids in new
        ]

    def predict(self, records: Sequence[EcgRecord]) -> list[dict[str, Any]]:
        """One line per record."""
        pages = [page_of(record, self.style, self.config.distort) for record in records]
        images = self.transform([[page.image] for page in pages]).to(self.config.device)
        lines = [
            {**_reference(record, self.suite), "about": about(record, page, self.page_name)}
            for record, page in zip(records, pages, strict=True)
        ]
        for name, label_set in self.suite.label_sets.items():
            scores = score_labels(self.model, ask_yes_no(label_set, self.tokenizer), images)
            for line, row in zip(lines, scores.tolist(), strict=True):
                line["log_odds"][name] = dict(zip(label_set.codes, (round(v, 5) for v in row), strict=True))
        for task in self.config.texts:
            question = TASK_QUESTIONS[task]
            for line, answer in zip(lines, self.answers(question, images), strict=True):
                line["texts"][task] = answer
        return lines


def _question_of(task: str) -> str:
    """The question of a task that asks every record the same."""
    from train.ecg.simulate import simulate_ecg

    return build_example(simulate_ecg(seconds=2.5, hz=100), task, np.random.default_rng(0)).question


TASK_QUESTIONS = {task: _question_of(task) for task in ("superclass", "statements", "report", "rhythm", "intervals")}


def _reference(record: EcgRecord, suite: Suite) -> dict[str, Any]:
    """The part of a line that does not come from the model."""
    labels = record.labels
    truth: dict[str, Any] = {"labels": None, "superclass": None, "report": record.report}
    if labels is not None:
        known = suite.label_sets["statements"].select(labels)
        truth |= {"labels": list(known), "superclass": sorted(superclasses_of(labels))}
        truth["report"] = record.report or report_text(record, suite.label_sets["statements"])
    return {
        "id": record.record_id,
        "patient_id": record.patient_id or record.record_id,
        "truth": truth,
        "log_odds": {},
        "texts": {},
    }


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """All lines of a predictions file.

    Raises:
        ValueError: if a line is not JSON; it names the line.
    """
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return lines


def _done(path: Path, settings: dict[str, Any]) -> set[str]:
    """Ids already predicted; a last line that was cut off by a kill is dropped.

    Raises:
        FileExistsError: if the file was made with other settings.
    """
    note = path.with_suffix(".config.json")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(settings, indent=2) + "\n")
        return set()
    if not note.is_file() or json.loads(note.read_text()) != settings:
        raise FileExistsError(f"{path} was made with other settings (see {note.name}); choose another file")
    content = path.read_text()
    if content and not content.endswith("\n"):
        kept = content[: content.rfind("\n") + 1]
        partial = path.with_suffix(".partial")
        partial.write_text(kept)
        os.replace(partial, path)
    return {line["id"] for line in read_predictions(path)}


def run_predict(config: PredictConfig) -> Path:
    """Predict every record of the suite that the file does not have yet.

    Raises:
        FileExistsError: if the file was made with other settings.
    """
    suite = SUITES[config.suite]
    source = suite.open(config.root, config.split, config.n, config.seed)
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "batch", "device", "shard")}
    part, parts = parse_shard(config.shard)
    out, n_own = shard_path(config.out, part, parts), len(range(part, len(source), parts))
    done = _done(out, json.loads(json.dumps(settings)))
    predictor = Predictor.load(config)
    progress, count = Progress(), len(done)
    with out.open("a") as file:
        for records in missing(source, done, config.batch, part, parts):
            started = _now()
            for line in predictor.predict(records):
                file.write(json.dumps(line) + "\n")
            file.flush()
            count += len(records)
            left = (n_own - count) * (_now() - started) / len(records)
            progress.show(f"predicted {count}/{n_own}  {duration(left)} left", last=count == n_own)
    return out


def _now() -> float:
    import time

    return time.perf_counter()
