"""What a report is made of: every model's scores and predictions, in one order of records, checked to belong together.

Shapes: N records, L labels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.predict import read_predictions
from eval.score import GROUPS, check_validation, eligible, score_matrix, text_matrix, truth_matrix
from eval.suites import SUITES, deciding_options
from eval.tables import check_comparable
from train.ecg import LABEL_SETS, LabelSet

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One protocol of one model.

    Attributes:
        label_set: of L labels.
        lines: of the N records that the protocol scores.
        y: bool [N, L].
        s: log-odds, float [N, L].
        words: bool [N, L], what the generated answers name; None without answers.
        thresholds: [L] of the best F1 on validation records, infinity where there is none; None without them.
        held: y and s of the validation records; None without them.
    """

    label_set: LabelSet
    lines: list[Line]
    y: np.ndarray
    s: np.ndarray
    words: np.ndarray | None
    thresholds: np.ndarray | None
    held: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model with everything that the report shows of it."""

    name: str
    scores: Mapping[str, Any]
    lines: Sequence[Line]
    parts: Mapping[str, Part]

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it was asked."""
        return self.scores["settings"]


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


def load_models(scores: Sequence[str], predictions: Sequence[str], validation: Sequence[str] = ()) -> list[Scored]:
    """Read all models.

    Args:
        scores, predictions, validation: name=file pairs; validation may name fewer models.

    Raises:
        ValueError: if names do not match, the models were scored on different records, from other scores than yes_no
            or not on the whole of their predictions, or as eval.score.check_validation.
    """
    scored, predicted = named_paths(scores, "scores"), named_paths(predictions, "predictions")
    held = named_paths(validation, "validation")
    if scored.keys() != predicted.keys():
        raise ValueError(f"--scores names {', '.join(scored)}, but --predictions {', '.join(predicted)}")
    if unknown := [name for name in held if name not in scored]:
        raise ValueError(f"--validation names {', '.join(unknown)}, but --scores {', '.join(scored)}")
    contents = {name: json.loads(path.read_text()) for name, path in scored.items()}
    check_comparable(contents)
    models: list[Scored] = []
    for name, content in contents.items():
        if not content["protocols"]:
            raise ValueError(
                f"--scores {name}: suite {content['settings']['suite']} has no scores of labels, which a report is "
                "about; `python -m eval table` shows it"
            )
        if (kind := content.get("scores", "yes_no")) != "yes_no":
            raise ValueError(f"--scores {name}: made from {kind}; a report shows log-odds, of `score --scores yes_no`")
        lines = read_predictions(predicted[name])
        if len(lines) != content["n_records"]:
            raise ValueError(
                f"{predicted[name]} has {len(lines)} lines, but {name} was scored on {content['n_records']}"
            )
        if models:
            lines = _in_order(lines, models[0].lines, predicted[name])
        others = read_predictions(held[name]) if name in held else None
        if others is not None:
            check_validation(held[name], others, lines, content["settings"])
        label_sets = SUITES[content["settings"]["suite"]].label_sets
        parts = {
            protocol: _part(content, lines, others, protocol, label_sets.get(protocol) or LABEL_SETS[protocol])
            for protocol in content["protocols"]
        }
        models.append(Scored(name=name, scores=content, lines=lines, parts=parts))
    return models


def _in_order(lines: Sequence[Line], first: Sequence[Line], path: Path) -> list[Line]:
    by_id = {line["id"]: line for line in lines}
    if by_id.keys() != {line["id"] for line in first}:
        raise ValueError(f"{path} has other records than the first model's predictions")
    return [by_id[line["id"]] for line in first]


def _part(
    scores: Mapping[str, Any], lines: Sequence[Line], held: Sequence[Line] | None, protocol: str, label_set: LabelSet
) -> Part:
    own = eligible(lines, protocol)
    thresholds = None
    if scores["n_validation"] is not None:
        per_label = scores["protocols"][protocol]["from_scores"]["per_label"]
        chosen = [per_label[code]["threshold"] for code in label_set.codes]
        thresholds = np.array([np.inf if value is None else value for value in chosen])
    task = "statements" if protocol in GROUPS else protocol  # groups of the statements have no question of their own
    has_words = all(task in line["texts"] for line in own)
    others = None
    if held is not None:
        kept = eligible(held, protocol)
        others = truth_matrix(kept, protocol, label_set), score_matrix(kept, protocol, label_set)
    return Part(
        label_set=label_set,
        lines=own,
        y=truth_matrix(own, protocol, label_set),
        s=score_matrix(own, protocol, label_set),
        words=text_matrix(own, protocol, label_set)[0] if has_words else None,
        thresholds=thresholds,
        held=others,
    )


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A model's predictions from other pages of the same records.

    Attributes:
        name: as given.
        kind: of eval.pages.PAGE_KINDS.
        model: whose they are.
        lines: at most as many as the model has on clean pages.
    """

    name: str
    kind: str
    model: Scored
    lines: list[Line]


def load_elsewhere(pairs: Sequence[str], models: Sequence[Scored]) -> list[Elsewhere]:
    """Read predictions from other pages, and find out whose they are.

    Raises:
        ValueError: if they are of none of the models, of records that the models were not asked about, or of a model
            that was not asked about clean pages.
    """
    found = []
    for name, path in named_paths(pairs, "robustness").items():
        settings = json.loads(path.with_suffix(".config.json").read_text())
        same = ("model", "adapter", "suite", "root", "split", "seed", "page", "semantics")
        own = [model for model in models if all(model.settings[k] == settings[k] for k in same)]
        own = [model for model in own if deciding_options(model.settings) == deciding_options(settings)]
        if not own:
            raise ValueError(f"--robustness {name}: {path} is of none of {', '.join(m.name for m in models)}")
        if (kind := own[0].settings.get("distort", "clean")) != "clean":
            raise ValueError(
                f"--robustness {name}: {own[0].name} saw {kind} pages, so there are no clean ones beside it"
            )
        lines = read_predictions(path)
        if strange := {line["id"] for line in lines} - {line["id"] for line in own[0].lines}:
            raise ValueError(f"--robustness {name}: the model was not asked about {min(strange)} on clean pages")
        found.append(Elsewhere(name=name, kind=settings.get("distort", "clean"), model=own[0], lines=lines))
    return found
