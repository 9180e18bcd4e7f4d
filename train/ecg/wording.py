"""Other words for the same questions and answers, drawn by a generator; what an answer says never changes.

Without them a model learns one sentence per task. A test parses every answer back to its key, whatever its words.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

WORDINGS = ("fixed", "varied")
_WHOLE = ("{question}", "{question}", "Look at this ECG. {question}", "Here is a 12-lead ECG. {question}")

# task: other ways to ask; {question} is the fixed question, {name} a finding, {lead} a lead
QUESTIONS: dict[str, tuple[str, ...]] = {
    "superclass": (*_WHOLE, "{question} Name all that apply.", "Classify this ECG. {question}"),
    "statements": (
        "List all findings of this ECG.",
        "What does this ECG show? List every finding.",
        "Name all statements that apply to this ECG.",
        "Which rhythm, form and diagnostic statements describe this ECG?",
        "Interpret this 12-lead ECG: list its findings.",
    ),
    "yes_no": (
        "Does this ECG show {name}?",
        "Is there {name} in this ECG?",
        "Look at this ECG. Does it show {name}?",
        "Would you say that this ECG shows {name}?",
        "{name}: is it present in this ECG?",
    ),
    "yes_no_superclass": (
        "Does this ECG show {name}?",
        "Does this ECG belong to the class {name}?",
        "Is this ECG one of {name}?",
    ),
    "rhythm": (
        "What is the rhythm of this ECG?",
        "Which rhythm does this ECG show?",
        "Name the heart rhythm.",
        "Describe the rhythm in this recording.",
        "What rhythm do you see, and at what rate?",
    ),
    "intervals": (
        "Measure the intervals and the axis.",
        "What are the PR, QRS, QT and QTc intervals and the axis?",
        "Give the intervals in milliseconds and the axis in degrees.",
        "Read the intervals and the electrical axis off this ECG.",
    ),
    "features": (
        "Describe the basic features of this ECG.",
        "What are the basic measurements of this ECG?",
        "Give heart rate, intervals and axis of this ECG.",
        "Summarise rate, conduction times and axis.",
        "Start with the basics: what are the rate, the intervals and the axis?",
    ),
    "morphology": (
        "Describe the morphology of this ECG.",
        "Which changes of form do the waves of this ECG show?",
        "Are the P waves, QRS complexes, ST segments and T waves changed? Name the findings.",
        "List what is remarkable about the waveforms.",
        "What waveform abnormalities do you see?",
    ),
    "diagnosis": (
        "What is the diagnosis?",
        "Which diagnostic statements apply to this ECG?",
        "What conditions does this ECG suggest?",
        "Give your diagnosis of this ECG.",
        "What would you diagnose from this recording?",
    ),
    "report": (
        "Write a report of this ECG.",
        "Please report this ECG.",
        "Write a clinical report for this 12-lead ECG.",
        "Interpret this ECG and write the report.",
        "Summarise this ECG as a cardiologist would.",
    ),
    "lead": ("Read lead {lead}.", "Measure the waves of lead {lead}.", "What are the waves of lead {lead}, in mm?"),
    "rate": (
        "What is the heart rate?",
        "How fast is the heart beating, and how regular?",
        "Give the heart rate and how much RR varies.",
        "Count the beats: what is the rate?",
    ),
    "look": (*_WHOLE, "{question} Answer yes or no."),
}

# task: other ways to answer; {text} is the fixed answer without its full stop
_LISTS = ("{text}.", "{text}.", "This ECG shows: {text}.", "Findings: {text}.", "Answer: {text}.")
ANSWERS: dict[str, tuple[str, ...]] = {
    "superclass": ("{text}.", "{text}.", "The classes are: {text}.", "Answer: {text}."),
    "statements": _LISTS,
    "morphology": _LISTS,
    "diagnosis": ("{text}.", "{text}.", "Diagnosis: {text}.", "The ECG suggests: {text}."),
    "rhythm": ("{text}.", "Rhythm: {text}.", "The rhythm is as follows: {text}."),
    "intervals": ("{text}.", "Measured: {text}.", "The intervals are {text}."),
    "features": ("{text}.", "Basic features: {text}.", "I measure {text}."),
    "rate": ("{text}.", "The rate is {text}.", "About {text}."),
    "lead": ("{text}.", "In lead {lead}: {text}."),
}
_YES_NO = {
    True: ("Yes.", "Yes, it does.", "Yes, {name} can be seen."),
    False: ("No.", "No, it does not.", "No, there is no sign of it."),
}
_LOOKED = {True: ("Yes.", "Yes, that is so."), False: ("No.", "No, that is not so.")}


def reword(
    task: str, question: str, answer: str, key: Mapping[str, Any], rng: np.random.Generator, name: str = ""
) -> tuple[str, str]:
    """Draw other words for a question and its answer.

    Args:
        task: of TASKS.
        question, answer: in fixed words.
        key: of the answer.
        rng: draws one wording of each.
        name: of the finding that a `yes_no` question asks for.
    """
    slots = {"question": question, "name": name, "lead": key.get("lead") or ""}
    asked = str(rng.choice(QUESTIONS[task])).format(**slots)
    if task.startswith("yes_no"):
        answers = _YES_NO[key["present"]]
    elif task == "look":
        answers = _LOOKED[key["present"]]
    else:
        answers = ANSWERS.get(task, ("{whole}",)) if _can_be_framed(key) else ("{whole}",)  # a report as it is
    slots |= {"text": answer.removesuffix("."), "whole": answer}
    return asked[0].upper() + asked[1:], str(rng.choice(answers)).format(**slots)


def _can_be_framed(key: Mapping[str, Any]) -> bool:
    """An answer that says "none" stands alone."""
    return bool(key.get("labels", True))
