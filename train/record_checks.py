"""What can be seen of one record alone: is its signal one that was seen before, and can it be a heart's."""

import hashlib
import re

import numpy as np
from PIL import Image

from minimllama.image import choose_grid, fit_size
from train.ecg import LEADS, Example, LabelSet
from train.ecg.parse import parse_labels, parse_yes_no

REFUSAL = re.compile(r"(sure, please|please provide|i'?m sorry|i am sorry|as an ai\b|i cannot)", re.IGNORECASE)
_LARGEST_MV = 8.0
_SMALLEST_MV = 0.05


def signal_hash(signal: np.ndarray) -> str:
    """Of [12, n] millivolts, rounded to 5 microvolts so that the gain of the file does not matter."""
    rounded = np.rint(np.nan_to_num(signal, nan=-99) * 200).astype(np.int32)
    return hashlib.sha256(rounded.tobytes()).hexdigest()


def picture_hash(image: Image.Image) -> str:
    """Of the pixels."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def tile_cover(width: int, height: int, tile: int, max_tiles: int) -> tuple[tuple[int, int], float, float]:
    """Grid (rows, columns) that a page of this size in pixels gets, the share of it that the page covers, its scale."""
    rows, columns = grid = choose_grid(width, height, tile, max_tiles)
    fitted = fit_size(width, height, grid, tile)
    return grid, fitted[0] * fitted[1] / (rows * columns * tile * tile), fitted[0] / width


def median_r_mv(signal: np.ndarray) -> float:
    """Height of the QRS in lead II of [12, n] mV: the 99.5 % quantile of the distance from the median."""
    lead = signal[LEADS.index("II")]
    known = lead[np.isfinite(lead)]
    return float(np.quantile(np.abs(known - np.median(known)), 0.995)) if known.size else 0.0


def implausible(signal: np.ndarray) -> list[str]:
    """Complaints about [12, n] mV, as phrases."""
    complaints = []
    flat, empty = [], []
    for lead, values in zip(LEADS, signal, strict=True):
        known = values[np.isfinite(values)]
        if not known.size:
            empty.append(lead)
        elif np.ptp(known) == 0:
            flat.append(lead)
    if empty:
        complaints.append(f"no sample in {', '.join(empty)}")
    if flat:
        complaints.append(f"a flat line in {', '.join(flat)}")
    recorded = signal[np.isfinite(signal).any(axis=1)]
    if len(flat) + len(empty) < len(LEADS):
        largest = float(np.nanmax(np.abs(recorded - np.nanmedian(recorded, axis=1, keepdims=True))))
        if largest > _LARGEST_MV or largest < _SMALLEST_MV:
            complaints.append(f"implausible amplitude (expected {_SMALLEST_MV} to {_LARGEST_MV} mV)")
    return complaints


_LISTS = {"superclass": "superclass", "rhythm": "rhythm", "morphology": "form", "diagnosis": "diagnostic"}


def misread(example: Example, label_set: LabelSet) -> tuple[str, str] | None:
    """Whether the evaluation would read an answer of the training data as something else than was meant.

    Args:
        example: a question, its answer, and the key of what the answer says.
        label_set: of the component.

    Returns:
        Level and complaint; None if it is read as meant, or states only measurements.
    """
    if "present" in example.key:
        said = parse_yes_no(example.answer)
        return None if said == example.key["present"] else ("error", f"task {example.task}: {said} is read")
    if example.task == "report":  # the record's own may say more or less than its labels, but must say something
        if parse_labels(example.answer, "statements") is None and example.key["labels"]:
            return "warning", "its report names no statement that can be read, though it has labels"
        return None
    if "labels" not in example.key:
        return None
    read = parse_labels(example.answer, _LISTS.get(example.task, label_set))
    if read == set(example.key["labels"]):
        return None
    shown, meant = (", ".join(sorted(codes)) or "none" for codes in (read or (), example.key["labels"]))
    return "error", f"task {example.task}: the labels are {meant}, but {'nothing' if read is None else shown} is read"
