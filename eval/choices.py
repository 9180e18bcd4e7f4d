"""Multiple choice and questions with options: how often the answer is the golden one.

Letters are read as whole words (eval.answers.parse_choice), options as whole words with their synonyms. An answer in
which nothing can be read is counted and is wrong; nothing is guessed for it. Beside it stand what needs no model, and
what PULSE's released evaluation makes of the same answers (eval.pulse).
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from eval import pulse
from eval.answers import parse_choice, parse_options, parse_yes_no
from eval.bootstrap import mean_interval
from eval.questions import letters_of, options_of
from eval.suites import Suite
from train.ecg.labels import LABEL_SETS

Line = dict[str, Any]


@lru_cache
def _same_names() -> dict[str, tuple[str, ...]]:
    """Lower-case name of a finding -> all its names."""
    found: dict[str, tuple[str, ...]] = {}
    for label_set in LABEL_SETS.values():
        for label in label_set.labels:
            names = (label.name, *label.synonyms)
            found |= {name.lower(): names for name in names if name.lower() not in found}
    return found


def parse_qa(text: str, options: Sequence[str]) -> set[str] | None:
    """What an answer of ECG-QA says, in lower case; None if it says nothing that can be read.

    Args:
        text: generated, or golden; what follows the last "Answer:" counts if there is one.
        options: that the question allows; a finding's other names count as its name. Without options the whole text
            is the answer: yes, no, or its words.
    """
    text = re.split(r"\banswer\s*:", text, flags=re.I)[-1].strip()
    if not options:
        said = parse_yes_no(text)
        words = " ".join(re.findall(r"[\w.+-]+", text.lower())).rstrip(".")
        return {"yes" if said else "no"} if said is not None else ({words} if words else None)
    meaning = {option.lower(): option.lower() for option in options}
    for option in options:
        for name in _same_names().get(option.lower(), ()):
            meaning.setdefault(name.lower(), option.lower())
    found = parse_options(text, list(meaning))
    return None if found is None else {meaning[name] for name in found}


def _golden_options(truth: dict[str, Any]) -> set[str] | None:
    """The golden options; None if one of them is not among those of the question."""
    options = options_of(truth["questions"][0])
    if not options:
        return parse_qa(truth["answers"][0], ())
    wanted = {part.strip().rstrip(".").lower() for part in truth["answers"][0].split(",")}
    return wanted if wanted <= {option.lower() for option in options} else None


def read_answer(line: Line, suite: Suite) -> tuple[Any, Any, int, float]:
    """One record of a suite of choices.

    Returns:
        What is right (None if it cannot be read), what the model said (None if it cannot be read), how many
        answers there are to choose from, and the chance of a uniform guess.
    """
    truth, text = line["truth"], line["texts"][suite.own]["text"]
    question = truth["questions"][0]
    if suite.own == "choice":
        letters = letters_of(question) or suite.letters
        return parse_choice(truth["answers"][0]), parse_choice(text, letters), len(letters), 1 / len(letters)
    options = options_of(question)
    golden, said = _golden_options(truth), parse_qa(text, options)
    right = (frozenset(golden) if golden else None), (frozenset(said) if said else None)
    chance = 1 / len(options) if options and golden and len(golden) == 1 else 0.0  # a guess names one option
    return *right, len(options), chance


def _pulse_accuracy(lines: Sequence[Line], suite: Suite) -> float:
    """PULSE's accuracy of the same answers; an unreadable letter is wrong instead of random."""
    texts = [line["texts"][suite.own]["text"] for line in lines]
    truths = [line["truth"] for line in lines]
    if suite.own == "choice":
        right = [
            pulse.extract_letter(t) == truth["answers"][0].strip()[:1] for t, truth in zip(texts, truths, strict=True)
        ]
        return float(np.mean(right))
    marks = []
    for text, truth in zip(texts, truths, strict=True):
        options = ", ".join(options_of(truth["questions"][0]))
        marks.append(pulse.qa_accuracy([[part.strip() for part in truth["answers"][0].split(",")]], [text], options))
    return float(np.mean(marks))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(sorted(value))


def score_choices(lines: Sequence[Line], suite: Suite, n_draws: int) -> dict[str, Any] | None:
    """Accuracy in words, by likelihood (letters only), and of what needs no model; None if there are no answers.

    Returns:
        n, left_out (records whose golden answer cannot be read), accuracy, interval, unparsed, by_likelihood
        {accuracy, interval}, pulse, trivial {name: accuracy}.
    """
    told = [line for line in lines if suite.own in line["texts"]]
    read = [(line, *read_answer(line, suite)) for line in told]
    kept = [row for row in read if row[1] is not None]
    if not kept:
        return None
    patients = [line["patient_id"] for line, *_ in kept]

    def measured(marks: list[bool]) -> dict[str, Any]:
        values = [float(mark) for mark in marks]
        interval = mean_interval(values, patients, n_draws=n_draws) if n_draws else None
        return {"accuracy": float(np.mean(values)), "interval": interval}

    commonest, times = Counter(_shown(golden) for _, golden, *_ in kept).most_common(1)[0]
    likely = [line["letters"] for line, *_ in kept if line.get("letters")]
    by_likelihood = None
    if len(likely) == len(kept):
        chosen = [max(logits, key=logits.__getitem__) for logits in likely]
        by_likelihood = measured([c == golden for c, (_, golden, *_) in zip(chosen, kept, strict=True)])
    return {
        "kind": suite.own,
        "n": len(kept),
        "left_out": len(told) - len(kept),
        **measured([said == golden for _, golden, said, *_ in kept]),
        "unparsed": sum(said is None for _, _, said, *_ in kept),
        "by_likelihood": by_likelihood,
        "pulse": _pulse_accuracy([line for line, *_ in kept], suite),
        "trivial": {
            f"always {commonest}": times / len(kept),
            "uniform chance": float(np.mean([chance for *_, chance in kept])),
        },
    }
