"""Pages as numbers: a plain style, records made for measuring, and how dark each pixel is."""

import numpy as np

from train.ecg import LEADS, EcgRecord, PaperStyle
from train.ecg.page import PALETTES, Page

BARE = PaperStyle(grid=False, pulse=False, names=False, palette="grey")


def record(hz: float = 500, seconds: float = 10.0, **leads: np.ndarray) -> EcgRecord:
    """A flat record in which some leads are given."""
    signal = np.zeros((12, round(seconds * hz)), np.float32)
    for name, values in leads.items():
        signal[LEADS.index(name)] = values
    return EcgRecord(signal=signal, hz=hz, record_id="drawn")


def only(lead: str, values: np.ndarray, hz: float = 500) -> EcgRecord:
    """A record in which every other lead was not recorded."""
    made = record(hz, len(values) / hz, **{lead: values})
    others = [i for i, name in enumerate(LEADS) if name != lead]
    made.signal[others] = np.nan
    return made


def ink(page: Page) -> np.ndarray:
    """How dark each pixel is, as a share of the way from paper to trace: float [H, W]. For pages without a grid."""
    paper, _, _, trace = (np.array(colour, float) for colour in PALETTES[page.style.palette])
    shown = np.asarray(page.image, float)
    return ((shown - paper) @ (trace - paper)) / ((trace - paper) @ (trace - paper))


def spikes(times: np.ndarray, hz: float, seconds: float, height: float) -> np.ndarray:
    """Narrow triangles of 30 ms at these times."""
    t = np.arange(round(seconds * hz)) / hz
    return height * np.maximum(1 - np.abs(t[:, None] - times) / 0.03, 0).max(1)


def line_centres(profile: np.ndarray, level: float) -> np.ndarray:
    """Centres of gravity of the runs of pixels above a level."""
    inside = np.concatenate([[False], profile > level, [False]])
    starts, stops = np.flatnonzero(inside[1:] & ~inside[:-1]), np.flatnonzero(~inside[1:] & inside[:-1])
    runs = [(np.arange(a, b) + 0.5, profile[a:b]) for a, b in zip(starts, stops, strict=True)]
    return np.array([(x * weight).sum() / weight.sum() for x, weight in runs])
