"""What a model is asked: questions that are the same for every record, and those that published records bring along."""

import re

import numpy as np

from train.ecg import LABEL_SETS, build_example
from train.ecg.simulate import simulate_ecg

LETTERS = "ABCDEFGH"
BY_CODE = ("superclass", "code15", "cpsc")  # protocols whose answers list codes, as ECGBench does; others list names


def _question_of(task: str) -> str:
    """The question of a task that asks every record the same."""
    return build_example(simulate_ecg(seconds=2.5, hz=100), task, np.random.default_rng(0)).question


def _which(name: str) -> str:
    """A list question about a label set, in the words of the superclass question."""
    choices = ", ".join(f"{label.code} ({label.name})" for label in LABEL_SETS[name].labels)
    return f"Which of these labels does this ECG have: {choices}?"


TASK_QUESTIONS = {
    **{task: _question_of(task) for task in ("superclass", "statements", "report", "rhythm", "intervals")},
    **{name: _which(name) for name in ("code15", "cpsc")},
}


def letters_of(question: str) -> str:
    """The letters that a multiple choice offers: "ABCD" of "A. ... B) ... (C) ... D: ..."; "" if it offers none."""
    marked = re.findall(r"(?<![A-Za-z0-9.])\(?([A-H])[.):](?=\s)", question)
    found = ""
    for letter in LETTERS:
        if letter not in marked:
            break
        found += letter
    return found if len(found) > 1 else ""


def options_of(question: str) -> list[str]:
    """The answers that a question of ECG-QA allows: what stands after its last "Options:", cut at commas."""
    parts = re.split(r"\boptions\s*:", question, flags=re.I)
    if len(parts) == 1:
        return []
    listed = re.split(r"\bonly answer\b|\n", parts[-1].strip(), maxsplit=1, flags=re.I)[0]
    return [option for text in listed.split(",") if (option := text.strip().rstrip(".").strip())]
