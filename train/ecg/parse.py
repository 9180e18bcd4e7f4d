"""What a text says of an ECG: labels, yes or no, measurements. Whole words, negation respected, never a guess.

Used on generated answers by the evaluation, and on the answers of training data by the doctor. Substring matching finds
NORM in ABNORMAL and MI in MILD, and takes "no evidence of MI" for MI; that is what PULSE's released evaluation does
(docs/evaluating.md). A text that answers nothing gives None, which is counted, not replaced.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from train.ecg.labels import LABEL_SETS, STATEMENTS, SUPERCLASSES, Label, LabelSet

# Phrases that contain a code as a whole word and mean something else.
_NOT_LABELS = (
    r"ST(?:[- ](?:segment|elevation|depression|change|changes|deviation|abnormality|abnormalities)|[-/]T\b)",
    r"normal sinus rhythm(?=\W)(?! *, *normal)",
    r"normal (?:axis|PR|QRS|QT|QTc|rhythm|rate|range|limits)",
)
_NONE = re.compile(
    r"\bnone\b(?: of (?:them|these|the above))?|\bno (?:rhythm )?(?:label|class|findings?|statement|abnormalit\w+)\b",
    re.I,
)
_CLAUSE_END = re.compile(r"[.;!?](?=\s|$)|\n|\b(?:but|however|although|except|yet|instead)\b", re.I)
_SEEN = r"(?:seen|present|detected|evident|found|shown)"
_NEGATION_BEFORE = re.compile(
    rf"(?<![:=])(?<![:=] )\b(?:no|not(?! {_SEEN}\b)|without|never|neither|nor|absence of|negative for|free of|"
    r"rules? out|ruled out|excludes?|excluding|denies|lacks?|lacking)\b",
    re.I,
)
_NEGATION_AFTER = re.compile(
    r"^\W{0,3}(?:\w+\s+){0,3}?(?:is|are|was|were)?\s*"
    rf"(?:absent|not {_SEEN}|excluded|ruled out|unlikely|negative)\b|"
    r"^\s*[:=]\s*(?:no|absent|negative|0)\b",
    re.I,
)
_POSITIVE_AFTER = re.compile(r"^\s+(?:(?:is|are) )?(?:present|seen|evident|detected|found)\b", re.I)
_POSITIVE = re.compile(
    r"\b(?:there (?:is|are)|present|shows?|showing|consistent with|compatible with|indicates?)\b", re.I
)


def resolve_label_set(label_set: LabelSet | str | Sequence[str]) -> LabelSet:
    """A LabelSet, a name in LABEL_SETS, or a list of codes.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(label_set, LabelSet):
        return label_set
    if isinstance(label_set, str):
        if label_set not in LABEL_SETS:
            raise ValueError(f"label_set={label_set!r} is not one of {', '.join(LABEL_SETS)}")
        return LABEL_SETS[label_set]
    codes = tuple(label_set)
    for known in LABEL_SETS.values():
        if set(known.codes) == set(codes):
            return known
    named = {**STATEMENTS, **SUPERCLASSES}
    return LabelSet(name="given", labels=tuple(named.get(code, Label(code=code, name=code)) for code in codes))


def _phrases(label_set: LabelSet) -> dict[str, str]:
    """Lower-case phrase -> code. A superclass is also meant by the name of any of its statements."""
    phrases: dict[str, str] = {}
    for label in label_set.labels:
        if label.code in SUPERCLASSES and label_set.name in ("superclass", "given"):
            for statement in STATEMENTS.values():
                if statement.superclass == label.code:
                    phrases |= dict.fromkeys(
                        [name.lower() for name in (statement.name, *statement.synonyms)], label.code
                    )
    for label in label_set.labels:
        if label.name != label.code:
            phrases |= dict.fromkeys([name.lower() for name in (label.name, *label.synonyms)], label.code)
    return phrases


@lru_cache(maxsize=64)
def _pattern(label_set: LabelSet) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of everything that names a label, longest first, and what each phrase means."""
    phrases = _phrases(label_set)
    by_length = sorted(phrases, key=len, reverse=True)
    words = "|".join(re.sub(r"\\[ -]|[ -]", "[ -]", re.escape(phrase)) + "(?:e?s)?" for phrase in by_length)
    codes = "|".join(re.escape(code) for code in sorted(label_set.codes, key=len, reverse=True))
    edge_before, edge_after = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"
    skip = "|".join(_NOT_LABELS)
    names = f"(?P<words>(?i:{words}))" if words else "(?P<words>(?!))"
    # longer names first, so that "ST depression" as a label wins over the phrase that only guards the code ST
    return re.compile(f"{edge_before}(?:{names}|(?P<skip>(?i:{skip}))|(?P<code>{codes})){edge_after}"), phrases


def _meaning(match: re.Match[str], phrases: dict[str, str]) -> str | None:
    if match.group("code"):
        return match.group("code")
    if not match.group("words"):
        return None
    text = match.group("words").lower()
    flat = {re.sub(r"[ -]", " ", phrase): code for phrase, code in phrases.items()}
    for ending in ("", "s", "es"):
        bare = re.sub(r"[ -]", " ", text)
        if bare.endswith(ending) and bare[: len(bare) - len(ending)] in flat:
            return flat[bare[: len(bare) - len(ending)]]
    return None


def _is_negated(clause: str, start: int, end: int) -> bool:
    """Whether a label at clause[start:end] is denied: a negation before it that still holds, or one right after it.

    A negation holds over a list ("no A, B or C") and ends with ", and D" or with a new assertion after a
    comma.
    """
    if _NEGATION_AFTER.match(clause[end:]):
        return True
    before = list(_NEGATION_BEFORE.finditer(clause[:start]))
    if not before:
        return False
    between = clause[before[-1].end() : start]
    restarts = re.search(r", and (?:\w+ )*$", between) and not re.search(r"\bn?or\b", between + clause[end:])
    asserts = "," in between and (_POSITIVE.search(between) or _POSITIVE_AFTER.match(clause[end:]))
    return not restarts and not asserts


def parse_labels(text: str, label_set: LabelSet | str | Sequence[str]) -> set[str] | None:
    """The labels that a text asserts.

    Args:
        text: generated; what follows the last "Answer:" counts if there is one.
        label_set: a LabelSet, its name, or a list of codes.

    Returns:
        Codes; empty if the text says that there are none, or only denies some; None if it speaks of no label.
    """
    resolved = resolve_label_set(label_set)
    pattern, phrases = _pattern(resolved)
    text = re.split(r"\banswer\s*:", text, flags=re.I)[-1].strip()
    if "NORM" in resolved.codes and re.fullmatch(r"normal\W*", text, re.I):
        return {"NORM"}
    asserted: set[str] = set()
    spoken = False
    for clause in _split_clauses(text):
        for match in pattern.finditer(clause):
            code = _meaning(match, phrases)
            if code is not None:
                spoken = True
                if not _is_negated(clause, match.start(), match.end()):
                    asserted.add(code)
    if spoken:
        return asserted
    return set() if _NONE.search(text) else None


def _split_clauses(text: str) -> list[str]:
    clauses, start = [], 0
    for end in _CLAUSE_END.finditer(text):
        clauses.append(text[start : end.start()])
        start = end.end()
    return [*clauses, text[start:]]


def parse_yes_no(text: str) -> bool | None:
    """True for an answer that begins with yes, False for no; None for anything else."""
    match = re.match(r"\W*(?:answer\s*:\s*)?(yes|no)\b", text, re.I)
    return None if match is None else match.group(1).lower() == "yes"


_NUMBER = r"([+-]?\d+(?:\.\d+)?)"
_BOTH = r"\bQT ?/ ?QTc(?:F|B)?(?: intervals?)?(?: is| of|:)?"  # "QT/QTc 380/420", as carts print it
_ATRIAL = re.compile(rf"\batrial rate(?: is| of|:)? {_NUMBER}", re.I)  # not the heart's
_MEASUREMENTS = {
    "heart_rate": rf"\brate(?: is| of|:)? {_NUMBER}|{_NUMBER} ?(?:beats per minute|bpm|/ ?min|per minute)",
    "pr": rf"\bPR(?: interval| time)?(?: is| of|:)? {_NUMBER}",
    "qrs": rf"\bQRS(?: duration| width)?(?: is| of|:)? {_NUMBER}",
    "qt": rf"\bQT(?: interval)?(?: is| of|:)? {_NUMBER}|{_BOTH} {_NUMBER} ?/",
    "qtc": rf"{_BOTH} [\d.]+ ?/ ?{_NUMBER}|(?<!/)(?<!/ )\bQTc(?:F|B)?(?: interval)?(?: is| of|:)? {_NUMBER}",
    "axis": rf"\baxis(?: is| of|:)? {_NUMBER}",
}


def parse_measurements(text: str) -> dict[str, float]:
    """Numbers that a text states, by name: heart_rate (1/min), pr, qrs, qt, qtc (ms), axis (degrees)."""
    found = {}
    for name, pattern in _MEASUREMENTS.items():
        match = re.search(pattern, _ATRIAL.sub("", text), re.I if name in ("heart_rate", "axis") else 0)
        if match:
            found[name] = float(next(group for group in match.groups() if group is not None))
    return found
