"""Loss and label scores on a fixed part of the validation split, while a run goes on.

The scores are those of `eval`: logit of "Yes" minus logit of "No" after each label's question; here through the
model's own forward pass, which every sharding strategy knows, with all questions about a page in one batch.

Shapes: B pages, L labels, R questions, T tokens, D width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minimllama import Message, encode_dialog
from minimllama.chat import pad_rows
from minimllama.visibility import see
from train.dataset import PAD_MULTIPLE, Batch, EcgDataset, Sample, collate
from train.ecg import LABEL_SETS, EcgRecord
from train.ecg.instruct import yes_no_question
from train.ecg.labels import superclasses_of, vocabulary_of
from train.mixture import PICTURES, Item, Mixture
from train.scores import macro_auc, macro_f1
from train.settings import METRICS
from train.setup import Setup, build_dataset
from train.step import batch_loss
from train.whole import let_go

ROWS = 64  # questions per forward pass


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The records to validate on, the same every time.

    Attributes:
        dataset: of the validation split.
        items: in the order of a mixture.
        questions: ids of each label's question.
        codes: of the labels.
        of_superclasses: whether they are the five superclasses, which follow from a record's statements.
        has_labels: of each component, whether its records have labels of their vocabulary; others give a loss alone.
        yes, no: first token of either answer.
    """

    dataset: EcgDataset
    items: list[Item]
    questions: list[Tensor]
    codes: tuple[str, ...]
    of_superclasses: bool
    has_labels: list[bool]
    yes: int
    no: int


def prepare_validation(setup: Setup) -> Validation:
    """Open the validation split of the recipe's records.

    Raises:
        ValueError: if it is empty, or the recipe watches a score of labels that none of its components has.
    """
    config = setup.config
    dataset = setup.world.main_first(lambda: build_dataset(config, setup.model, setup.tokenizer, "validate"))
    sizes = [len(source) for source in dataset.sources]
    if not all(sizes):
        raise ValueError(f"validate.every={config.validate.every}, but the validation split has {sizes} records")
    mixture = Mixture(sizes, [component.weight for component in config.data.components], config.seed)
    count = min(config.validate.n, mixture.epoch_length)
    name = config.validate.labels or config.data.components[0].label_set
    labels, components = LABEL_SETS[name], config.data.components
    vocabulary = vocabulary_of(labels)
    has_labels = [c.source != PICTURES and vocabulary_of(LABEL_SETS[c.label_set]) == vocabulary for c in components]
    if not any(has_labels) and config.validate.metric != "loss":
        raise ValueError(
            f"validate.metric={config.validate.metric!r} needs records with labels of {name!r}, which no component of "
            "the recipe has; set validate.labels, or watch the loss"
        )
    asked = [Message(role="user", text=yes_no_question(label.name), n_images=1) for label in labels.labels]
    return Validation(
        dataset=dataset,
        items=[mixture.item(position) for position in range(count)],
        questions=[encode_dialog([message], setup.tokenizer).tokens for message in asked],
        codes=tuple(labels.codes),
        of_superclasses=name == "superclass",
        has_labels=has_labels,
        yes=setup.tokenizer.encode("Yes.")[0],
        no=setup.tokenizer.encode("No.")[0],
    )


def _log_odds(setup: Setup, sample: Sample, validation: Validation) -> np.ndarray:
    """Of every label on a page: float32 [L]."""
    found = []
    plain = collate([sample], setup.model.config, leak=setup.model.leak)
    for first in range(0, len(validation.questions), ROWS):
        questions = validation.questions[first : first + ROWS]
        tokens = pad_rows(questions, setup.model.config.text.pad_id, PAD_MULTIPLE)  # [R, T]
        counts, leak = [[n] if n else [] for n in plain.n_tiles], setup.model.leak
        sight = see(tokens, counts, setup.model.config, n_slots=1, sample_of_row=[0] * len(tokens), leak=leak)
        batch = Batch(**{**plain.__dict__, "tokens": tokens, "labels": tokens, "sight": sight}).to(setup.device)
        hidden = setup.model(batch.tokens, batch.images(setup.transform), batch.sight, hidden=True)  # [R, T, D]
        last = torch.tensor([len(question) - 1 for question in questions], device=setup.device)
        logits = setup.model.text.lm_head(hidden[torch.arange(len(last), device=setup.device), last]).float()
        found.append((logits[:, validation.yes] - logits[:, validation.no]).cpu())
    return torch.cat(found).numpy()


def _truth(validation: Validation, item: Item) -> list[bool] | None:
    if not validation.has_labels[item.component]:  # CODE-15 does not say that a heart has no infarction
        return None
    record = validation.dataset.sources[item.component][item.index]
    if not isinstance(record, EcgRecord) or record.labels is None:
        return None
    known = superclasses_of(record.labels) if validation.of_superclasses else set(record.labels)
    if validation.of_superclasses and not known:  # left out, as in PTB-XL's benchmark and by `eval score`
        return None
    return [code in known for code in validation.codes]


@torch.no_grad()
def validate(setup: Setup, validation: Validation) -> dict[str, Any]:
    """Loss per answer token, macro AUC and macro F1; all ranks share the records and call this together."""
    world = setup.world
    rounds = -(-len(validation.items) // world.size)
    loss, count, rows = 0.0, 0, []
    setup.model.eval()
    for turn in range(rounds):
        place = turn * world.size + world.rank
        is_extra = place >= len(validation.items)  # so that every rank runs as many passes
        item = validation.items[min(place, len(validation.items) - 1)]
        sample = validation.dataset[item]
        batch = collate([sample], setup.model.config, leak=setup.model.leak)
        part = float(batch_loss(setup, batch, 1))
        odds = _log_odds(setup, sample, validation)
        if is_extra:
            continue
        loss, count = loss + part, count + batch.n_answer_tokens
        truth = _truth(validation, item)
        if truth is not None:
            rows.append((truth, odds.tolist()))
    let_go(setup.model)
    setup.model.train()
    loss, count = world.totals([loss, float(count)])
    rows = [row for part in world.gather(rows) for row in part]
    result: dict[str, Any] = {"loss": loss / max(count, 1), "records": len(rows), "macro_auc": None, "macro_f1": None}
    if rows:
        truth, scores = (np.array(column) for column in zip(*rows, strict=True))
        result |= {"macro_auc": macro_auc(truth.astype(bool), scores), "macro_f1": macro_f1(truth.astype(bool), scores)}
    return result


def is_better(value: float | None, best: float | None, metric: str) -> bool:
    """Whether a value of the watched metric is the best so far; an undefined one never is."""
    if value is None or not np.isfinite(value):
        return False
    return best is None or (value > best if METRICS[metric] else value < best)
