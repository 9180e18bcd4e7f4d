"""The ECG room: records, sources, the simulator, pages and questions. NumPy, SciPy and Pillow; no torch, no model."""

from train.ecg.distort import DISTORTIONS, PRESETS, distort
from train.ecg.instruct import TASKS, Example, build_example
from train.ecg.labels import LABEL_SETS, LabelSet
from train.ecg.page import STYLES, Page, PaperStyle, draw_page
from train.ecg.record import EcgRecord, read_record, write_record
from train.ecg.signal import LEADS
from train.ecg.simulate import simulate_ecg
from train.ecg.sources import SOURCES, open_source

__all__ = [
    "DISTORTIONS",
    "LABEL_SETS",
    "LEADS",
    "PRESETS",
    "SOURCES",
    "STYLES",
    "TASKS",
    "EcgRecord",
    "Example",
    "LabelSet",
    "Page",
    "PaperStyle",
    "build_example",
    "distort",
    "draw_page",
    "open_source",
    "read_record",
    "simulate_ecg",
    "write_record",
]
