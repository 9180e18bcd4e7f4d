"""How PULSE's released evaluation scores, repaired just enough to run, for comparing with numbers published that way.

Source: AIMedLab/PULSE, evaluation/evaluate_ecgbench.py at a439b6c, with the missing comment sign of line 56 added.
What it does differently from eval.answers and eval.metrics (docs/evaluating.md): labels are substrings of the text,
negation and word ends do not count, the label space is what occurs in the truth, "AUC" is that of 0/1 answers, and a
multiple choice takes the first letter in alphabetical order. Undefined means are None here, NaN there. The random
letter that PULSE gives to an unreadable answer is not copied: it stays unanswered.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, hamming_loss, roc_auc_score
from sklearn.preprocessing import MultiLabelBinarizer

CODES = {
    "ptb-test": ("NORM", "MI", "STTC", "CD", "HYP"),
    "cpsc-test": ("NORM", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"),
    "code15-test": ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"),
}
LETTERS = "ABCDEFGH"


def labels_of_text(text: str, task: str) -> list[str]:
    """Labels that PULSE reads in a generated text: every code that occurs in it, as a substring.

    Raises:
        ValueError: for an unknown task.
    """
    if task not in CODES:
        raise ValueError(f"task={task!r} is not one of {', '.join(CODES)}")
    if task != "code15-test":
        return [code for code in CODES[task] if code in text]
    answer = text.split("Answer:")[-1]
    found = [code for code in CODES[task] if code in answer]
    if "ABNORMAL" in answer:
        return [*found, "ABNORMAL"]
    return [*found, "NORM"] if "NORM" in answer else found


def labels_of_golden(text: str, task: str) -> list[str]:
    """Labels that PULSE reads in a golden answer; CODE-15's single words stand for themselves."""
    if task == "code15-test" and text in ("NORM", "ABNORMAL"):
        return [text]
    return [code for code in CODES[task] if code in text]


def label_set_metrics(y_true: Sequence[Sequence[str]], y_pred: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """PULSE's compute_f1_auc over lists of codes.

    A code that the truth never has is dropped from the predictions. With a single code in the truth, scikit-learn
    returns the F1 of both outcomes and PULSE reads the first, that of the negatives.

    Returns:
        macro_auc_hard, macro_f1, hamming; macro_auc_hard is None if any code is positive everywhere.

    Raises:
        ValueError: if the truth has no code at all.
    """
    binarizer = MultiLabelBinarizer()
    true = np.asarray(binarizer.fit_transform([list(codes) for codes in y_true]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codes outside the truth, and undefined metrics: both are described above
        predicted = np.asarray(binarizer.transform([list(codes) for codes in y_pred]))
        if not true.shape[1]:
            raise ValueError("no golden answer names a label, which PULSE's evaluation cannot score")
        n = len(binarizer.classes_)
        scores = f1_score(true, predicted, average=None)  # pyright: ignore[reportArgumentType]
        f1 = np.atleast_1d(np.asarray(scores))[:n]
        auc = [float(roc_auc_score(true[:, i], predicted[:, i])) for i in range(n)]
    mean_auc = float(np.mean(auc))
    return {
        "macro_auc_hard": None if np.isnan(mean_auc) else mean_auc,
        "macro_f1": float(np.mean(f1)),
        "hamming": float(hamming_loss(true, predicted)),
    }


def score_texts(golden: Sequence[str], generated: Sequence[str], task: str) -> dict[str, float | None]:
    """PULSE's numbers of a multi-label task, from golden answers and generated texts."""
    true = [labels_of_golden(text, task) for text in golden]
    return label_set_metrics(true, [labels_of_text(text, task) for text in generated])


def extract_letter(text: str) -> str | None:
    """The option that PULSE reads in an answer to a multiple choice; None where it would draw a random letter."""
    text = text.strip()
    if text in LETTERS and len(text) == 1:
        return text
    for letter in LETTERS:
        if f"{letter}." in text:
            return letter
    stated = re.search(r"The correct option is ([A-H])", text)
    if stated:
        return stated.group(1)
    parts = text.split("Answer:")
    return next((c for c in parts[-1] if c in LETTERS), None) if len(parts) > 1 else None


def qa_accuracy(golden: Sequence[Any], generated: Sequence[str], options: str) -> float:
    """PULSE's ECG-QA accuracy: the options that are substrings of the lower-cased answer, as a set."""
    choices = [option.strip() for option in options.split(",")]
    correct = [
        {option for option in choices if option in answer.lower()} == set(wanted)
        for wanted, answer in zip(golden, generated, strict=True)
    ]
    return float(np.mean(correct))
