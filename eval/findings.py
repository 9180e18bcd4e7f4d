"""Findings that must not be missed, and the records in which they were.

The list follows what clinicians ask for: acute infarction, ventricular tachycardia, complete block, atrial
fibrillation, long QT, hyperkalaemia, pre-excitation. The 71 SCP-ECG statements have no code for some
of them; NOT_CODED says so.

Shapes: N records, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.operating import Point, point_at

# finding: codes that stand for it, of any label set
MUST_NOT_MISS: dict[str, tuple[str, ...]] = {
    "acute injury or infarction": ("INJAS", "INJAL", "INJIN", "INJLA", "INJIL", "STE_", "STE"),
    "infarction, acute or old": ("MI", "ASMI", "IMI", "AMI", "ALMI", "ILMI", "LMI", "IPLMI", "IPMI", "PMI"),
    "high-degree AV block": ("3AVB", "2AVB"),
    "tachyarrhythmia": ("AFIB", "AF", "AFLT", "SVTAC", "PSVT"),
    "long QT interval": ("LNGQT",),
    "pre-excitation": ("WPW",),
    "electrolytes or drugs": ("EL", "DIG"),
}
NOT_CODED = (
    "ventricular tachycardia and fibrillation",
    "hyperkalaemia by itself (EL is any electrolytic disturbance or drug effect)",
    "acute infarction apart from old (the infarction codes are of any age)",
)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A code that must not be missed, at one threshold.

    Attributes:
        finding: of MUST_NOT_MISS.
        code: of the label set.
        point: the threshold and what it does.
        missed: ids of the records that carry the code and score below the threshold, lowest score first.
        missed_in_words: ids whose generated answer does not name it; None if there are no answers.
    """

    finding: str
    code: str
    point: Point
    missed: list[str]
    missed_in_words: list[str] | None


def watched_codes(codes: Sequence[str]) -> dict[str, str]:
    """{code: finding} of those codes that must not be missed."""
    return {code: finding for finding, own in MUST_NOT_MISS.items() for code in own if code in codes}


def watch(
    code: str, lines: Sequence[dict[str, Any]], columns: tuple[np.ndarray, np.ndarray], point: Point, words: Any
) -> Watched:
    """Who carries a code and was missed.

    Args:
        code: of MUST_NOT_MISS.
        lines: of N records.
        columns: y bool [N] and s float [N] of this code.
        point: a threshold that was chosen on other records.
        words: bool [N], whether the generated answer names it; None without answers.
    """
    y, s = columns
    point = point_at(y, s, point.threshold, point.name)
    low = [i for i in np.argsort(s, kind="stable") if y[i] and s[i] < point.threshold]
    unnamed = None if words is None else [lines[int(i)]["id"] for i in np.flatnonzero(y & ~words)]
    finding = watched_codes([code])[code]
    missed = [lines[int(i)]["id"] for i in low]
    return Watched(finding=finding, code=code, point=point, missed=missed, missed_in_words=unnamed)
