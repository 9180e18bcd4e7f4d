"""What a generated text says: labels, yes or no, measurements, letters, options. See train.ecg.parse."""

import re
from collections.abc import Sequence

from train.ecg.labels import LabelSet
from train.ecg.parse import parse_labels, parse_measurements, parse_yes_no, resolve_label_set

__all__ = [
    "parse_choice",
    "parse_labels",
    "parse_measurements",
    "parse_options",
    "parse_protocol",
    "parse_yes_no",
    "resolve_label_set",
]

_CODE15_NONE = re.compile(r"\b(?:NORM|ABNORMAL)\b|\b(?:ab)?normal ECG\b", re.I)


def parse_protocol(text: str, protocol: str, label_set: LabelSet) -> set[str] | None:
    """The labels of a protocol that an answer asserts, as `parse_labels`.

    In CODE-15's question of ECGBench the words NORM and ABNORMAL answer for a record that has none of the six labels.
    A group of statements is read in an answer about all of them, so that one that names none of the group has
    answered.
    """
    if protocol in ("diagnostic", "form", "rhythm"):
        codes = parse_labels(text, "statements")
        return None if codes is None else codes & set(label_set.codes)
    codes = parse_labels(text, label_set)
    if codes is None and protocol == "code15" and _CODE15_NONE.search(text):
        return set()
    return codes


_CHOSEN = re.compile(r"\b(?:is|are|option|choice|choose|select|answer)\b[ :]*\(?([A-Ha-h])\b(?!\. ?fib|['\w-])", re.I)

_LISTED = re.compile(r"(?<![\w.-])\(?([A-H])[).:](?=\s)(?!\s?[Ff]ib)")  # "A. ...", "B) ..."


def parse_choice(text: str, letters: str = "ABCDEFGH") -> str | None:
    """The option of a multiple choice that a text chooses; None if it chooses none or more than one.

    A letter at the beginning chooses, unless it begins a list of the options.

    Args:
        text: generated; what follows the last "Answer:" counts if there is one.
        letters: that can be chosen.
    """
    text = re.sub(r"[*`]", "", text)  # Markdown
    text = re.split(r"\banswer\s*:", text, flags=re.I)[-1].strip()
    whole = re.fullmatch(r"\W*([A-Ha-h])\W*", text) or re.match(r"\(?([A-H])(?:[).:](?!\s?[Ff]ib)|\s*(?:\n|$))", text)
    if whole and _LISTED.findall(text)[:2] != ["A", "B"]:
        found = {whole.group(1).upper()}
    else:
        found = {m.group(1) for m in _CHOSEN.finditer(text) if m.group(1).isupper()}
        found |= set(re.findall(r"(?<!not )\(([A-H])\)", text))
    return found.pop() if len(found) == 1 and found <= set(letters) else None


def parse_options(text: str, options: Sequence[str]) -> set[str] | None:
    """The options that a text names as whole words, longer ones first; None if it names none.

    "not sure" names itself and not "no", "lead II" names itself and not "lead I".
    """
    by_length = sorted(options, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(option) for option in by_length)})(?!\w)", re.I)
    spelled = {option.lower(): option for option in options}
    return {spelled[match.group().lower()] for match in pattern.finditer(text)} or None
