"""predictions.jsonl: what a model says about each record of a suite, in words and as log-odds. Scoring reads only this.

Scores of labels: eval.likelihood. Questions: the same about every page, or each record's own (eval.answering).
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.answering import answer_own, ask, choose_letters, generate_answers
from eval.benchmark_files import AskedRecord
from eval.likelihood import SCORES, score_page
from eval.pages import about, check_page_kind, page_of
from eval.questions import TASK_QUESTIONS
from eval.references import reference
from eval.shards import missing, parse_shard, shard_path
from eval.suites import SUITES, Suite, page_for
from lora import load_adapter, merge_adapters
from minimllama import ImageBatch, ImageTransform, MiniMllama, Tokenizer, load_model, load_tokenizer
from minimllama.checkpoint import find_dtype
from minimllama.console import Progress, duration, say
from minimllama.nano import resolve_model
from minimllama.weights import check_weights, hold_weights
from train.ecg import STYLES, EcgRecord, PaperStyle


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What to predict.

    Attributes:
        model: a checkpoint's folder, or "nano".
        adapter: a PEFT folder; "" for the model as it is.
        suite: of SUITES.
        root: the suite's folder, if it has one.
        options: of the suite's source, such as amplitude=0.5 (train.ecg.sources); index=FOLDER if the root cannot be
            written to.
        split: "train", "validate" or "test".
        n, seed: of the simulated suite; its own if None.
        page: of STYLES; fitted to the model's tiles if empty.
        distort: what happens to the pages, of eval.pages.PAGE_KINDS.
        texts: tasks whose answers are generated; the suite's own if None, () for scores only.
        scores: of eval.likelihood.SCORES; thresholds and tables are made from one of them.
        max_new_tokens: per answer.
        batch: pages per forward pass.
        dtype: "bfloat16" or "float32".
        device: "cpu", "cuda", ...
        semantics: "meta", "hf" or "hf445".
        weights: how they are kept, of minimllama.weights.WEIGHTS; an adapter is merged for all but "plain".
        compile: decode with compiled layers, on a GPU as one CUDA graph; for many records.
        shard: "i/n" predicts part i of n, counted from 0, into a file of its own (see eval.shards).
        out: the file to write; the settings go beside it (.config.json).
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
    texts: tuple[str, ...] | None = None
    scores: tuple[str, ...] = ("yes_no",)
    max_new_tokens: int = 96
    batch: int = 16
    dtype: str = "float32"
    device: str = "cpu"
    semantics: str = "meta"
    weights: str = "plain"
    compile: bool = False
    shard: str = "0/1"
    out: Path = Path("predictions.jsonl")

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ValueError(f"suite={self.suite!r} is not one of {', '.join(SUITES)}")
        suite = SUITES[self.suite]
        known = {"texts": [suite.own] if suite.own else list(TASK_QUESTIONS), "scores": list(SCORES)}
        for option, values in (("texts", self.tasks), ("scores", self.scores)):
            if unknown := [value for value in values if value not in known[option]]:
                raise ValueError(f"{option}: {', '.join(unknown)} not in {', '.join(known[option])}")
        if suite.configuration and (self.page or self.distort != "clean"):
            raise ValueError(f"suite {suite.name} shows published pictures as they are; page and distort do not apply")
        if self.page and self.page not in STYLES:
            raise ValueError(f"page={self.page!r} is not one of {', '.join(STYLES)}")
        find_dtype(self.dtype)
        check_page_kind(self.distort)
        check_weights(self.weights)
        parse_shard(self.shard)
        if self.batch < 1 or self.max_new_tokens < 1:
            raise ValueError(f"batch={self.batch} and max_new_tokens={self.max_new_tokens} must be positive")

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is generated; the answer to a record's own question stands under what it is."""
        suite = SUITES[self.suite]
        return self.texts if self.texts is not None else ((suite.own,) if suite.own else suite.texts)


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
        model = load_model(folder, find_dtype(config.dtype), config.device, config.semantics)
        if config.adapter:
            load_adapter(model, config.adapter)
            if config.weights != "plain":
                merge_adapters(model)
        hold_weights(model.eval(), config.weights)
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

    def answers(self, question: str, images: ImageBatch, states: Tensor | None = None) -> list[dict[str, Any]]:
        """Generate one answer per page; `states` are the encoded images, if they are."""
        prompts = [ask(question, self.tokenizer)] * len(images)
        limit, who = self.config.max_new_tokens, (self.model, self.tokenizer)
        return generate_answers(*who, prompts, images, limit, states, compile=self.config.compile)

    def predict(self, records: Sequence[EcgRecord | AskedRecord]) -> list[dict[str, Any]]:
        """One line per record."""
        lines, asked = [reference(record, self.suite) for record in records], []
        pictures = []
        for line, record in zip(lines, records, strict=True):
            if isinstance(record, AskedRecord):
                asked.append(record)
                pictures.append(record.image)
            else:
                page = page_of(record, self.style, self.config.distort)
                line["about"] = about(record, page, self.page_name)
                pictures.append(page.image)
        images = self.transform([[picture] for picture in pictures]).to(self.config.device)
        with torch.no_grad():
            states = self.model.encode(images)  # once for all questions: the pictures do not change
        who = self.model, self.tokenizer
        for name, label_set in self.suite.label_sets.items():
            for kind, scores in score_page(*who, label_set, name, images, self.config.scores, states):
                for line, row in zip(lines, scores.tolist(), strict=True):
                    values = dict(zip(label_set.codes, (round(v, 5) for v in row), strict=True))
                    line.setdefault(SCORES[kind], {})[name] = values
        if self.suite.own == "choice":
            letters = choose_letters(*who, asked, images, self.suite.letters, states)
            for line, logits in zip(lines, letters, strict=True):
                line["letters"] = logits
        for task in self.config.tasks:
            if self.suite.own:
                limit = self.config.max_new_tokens
                told = answer_own(*who, asked, images, limit, states, compile=self.config.compile)
            else:
                told = self.answers(TASK_QUESTIONS[task], images, states)
            for line, answer in zip(lines, told, strict=True):
                line["texts"][task] = answer
        return lines


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


def take_up(path: Path, settings: dict[str, Any]) -> set[str]:
    """Ids that a file of lines has already; a last line that was cut off by a kill is dropped.

    Raises:
        FileExistsError: if the file was made with other settings.
    """
    note = path.with_suffix(".config.json")
    if not path.exists() or not path.stat().st_size:
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
    source = suite.open(config.root, config.split, config.n, config.seed, config.options)
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "batch", "device", "shard")}
    settings["texts"] = config.tasks
    for name in ("options", "compile"):  # left out where they are not used: files without them are taken up
        if not settings[name]:
            del settings[name]
    if note := suite.size_note(len(source), config.split, config.n):
        say(f"suite {suite.name}: {note}")
    part, parts = parse_shard(config.shard)
    out, n_own = shard_path(config.out, part, parts), len(range(part, len(source), parts))
    done = take_up(out, json.loads(json.dumps(settings)))
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
