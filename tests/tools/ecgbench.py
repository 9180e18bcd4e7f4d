"""Small copies of ECGBench in both formats in which it is met: parquet with pictures, and what its script unpacks."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from train.ecg import STYLES, draw_page, simulate_ecg

Item = dict[str, Any]


def picture(number: int) -> bytes:
    """A PNG of a page, another one for each number."""
    record = simulate_ecg([], np.random.default_rng([4, number]), hz=100)
    file = io.BytesIO()
    draw_page(record, STYLES["nano"]).image.save(file, "PNG")
    return file.getvalue()


def turns(question: str, answer: Any) -> list[dict[str, Any]]:
    """As most of its files have them; in ecgqa every value is a list."""
    asked = f"<image>\n{question}"
    return [
        {"from": "human", "value": [asked] if isinstance(answer, list) else asked},
        {"from": "gpt", "value": answer},
    ]


def item(name: str, path: str, question: str, answer: Any) -> Item:
    """One row."""
    return {"id": name, "image_path": path, "conversations": turns(question, answer)}


PTB_QUESTION = "Classify this ECG. Options: NORM, MI, STTC, CD, HYP."
CHOICES = "Which statement is right?\nA. Sinus rhythm\nB. Atrial fibrillation\nC. Atrial flutter\nD. Pacemaker"
QA = "Options: yes, no, not sure\nOnly answer based on the given Options without any explanation."
ITEMS: dict[str, list[Item]] = {
    "ptb-test": [
        item("ptb-00001_hr-0", "ptb-xl/00001_hr-0.png", PTB_QUESTION, "NORM"),
        item("ptb-00002_hr-0", "ptb-xl/00002_hr-0.png", PTB_QUESTION, "MI, CD"),
        item("ptb-00003_hr-0", "ptb-xl/00003_hr-0.png", PTB_QUESTION, "The image is unreadable."),
    ],
    "ptb-test-report": [
        item("ptb-report-07190_hr-0", "ptb-xl/07190_hr-0.png", "Write a report.", "Sinus rhythm. Normal ECG."),
        item("ptb-report-00005_hr-0", "ptb-xl/00005_hr-0.png", "Write a report.", "Atrial fibrillation."),
        item(
            "ptb-report-12941_hr-0",
            "ptb-xl/12941_hr-0.png",
            "Write a report.",
            "Sure, please provide the ECG report that you would like translated.",
        ),
    ],
    "code15-test": [
        item("c-1", "code15/11-0.png", "Labels? Or NORM, ABNORMAL.", "Answer: 1dAVb, RBBB"),
        item("c-2", "code15/12-0.png", "Labels? Or NORM, ABNORMAL.", "ABNORMAL"),
        item("c-3", "code15/13-0.png", "Labels? Or NORM, ABNORMAL.", "NORM"),
    ],
    "cpsc-test": [
        item("p-1", "cpsc/A0001-0.png", "Labels?", "AF, STE"),
        item("p-2", "cpsc/A0002-0.png", "Labels?", "NORM"),
    ],
    "csn-test-no-cot": [
        item("n-1", "csn/JS1-0.png", CHOICES, "B. Atrial fibrillation"),
        item("n-2", "csn/JS2-0.png", CHOICES, "B"),
        item("n-3", "csn/JS3-0.png", CHOICES, "A. Sinus rhythm"),
    ],
    "g12-test-no-cot": [item("g-1", "g12/E1-0.png", CHOICES, "D. Pacemaker")],
    "ecgqa-test": [
        item("q-1", "ptb-xl/00007_hr-0.png", f"Is it normal? {QA}", ["yes"]),
        item("q-2", "ptb-xl/00007_hr-0.png", f"Is there noise? {QA}", ["no"]),
        item(
            "q-3", "ptb-xl/00008_hr-0.png", "What? Options: sinus rhythm, low QRS voltages", ["sinus rhythm"]
        ),
    ],
    "mmmu-ecg": [item("m-1", "mmmu-ecg/1.png", CHOICES, "A"), item("m-2", "mmmu-ecg/2.png", "Which?", "C")],
    "arena": [
        {
            "id": "a-1",
            "image_path": "ecg-arena/1.png",
            "conversations": [
                {"question": "What is the rhythm?", "answer": "Atrial fibrillation."},
                {"question": "What follows from it?", "answer": "Consider anticoagulation."},
            ],
        }
    ],
}  # fmt: skip


def pictures_of(items: Sequence[Item]) -> dict[str, bytes]:
    """PNG of every path."""
    return {path: picture(i) for i, path in enumerate(dict.fromkeys(item["image_path"] for item in items))}


def write_unpacked(root: Path, configuration: str, items: Sequence[Item] = ()) -> Path:
    """`<configuration>.json` beside `images/`, as its authors' script leaves it."""
    items = items or ITEMS[configuration]
    for path, png in pictures_of(items).items():
        (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / path).write_bytes(png)
    renamed = [{"image" if key == "image_path" else key: value for key, value in one.items()} for one in items]
    (root / f"{configuration}.json").write_text(json.dumps(renamed))
    return root


def write_parquet(root: Path, configuration: str, items: Sequence[Item] = ()) -> Path:
    """A folder of the configuration's name with one parquet file, pictures inside."""
    import pyarrow
    import pyarrow.parquet

    items = items or ITEMS[configuration]
    pictures = pictures_of(items)
    rows = [{**one, "image": {"bytes": pictures[one["image_path"]], "path": None}} for one in items]
    (root / configuration).mkdir(parents=True, exist_ok=True)
    file = root / configuration / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return root


def same_picture(png: bytes, image: Image.Image) -> bool:
    """Whether a record shows this PNG."""
    return Image.open(io.BytesIO(png)).convert("RGB").tobytes() == image.tobytes()
