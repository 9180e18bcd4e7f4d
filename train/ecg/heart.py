"""A patient's heart before a recording is made: a beat, its timing and its rhythm."""

from dataclasses import dataclass

import numpy as np

from train.ecg.beat import Beat, normal_beat

Rng = np.random.Generator


@dataclass
class Heart:
    """A patient before a recording is made: the parameters that conditions change.

    Attributes:
        beat: the shape of an ordinary beat.
        rate: beats per minute.
        pr, qtc: ms; QT = qtc * RR^(1/3) (Fridericia).
        atria: "sinus", "fibrillation", "flutter", "dissociated" or "none" (no P wave).
        jitter: relative standard deviation of RR.
        wave_amplitude: slow RR variation (respiration), relative.
        ectopy: "", "pvc", "bigeminy" or "pac".
    """

    beat: Beat
    rate: float
    pr: float
    qtc: float
    atria: str = "sinus"
    jitter: float = 0.012
    wave_amplitude: float = 0.0
    ectopy: str = ""


def normal_heart(rng: Rng) -> Heart:
    """A normal heart with its own axis, rate and intervals."""
    return Heart(
        beat=normal_beat(axis=rng.uniform(30, 65)),
        rate=rng.uniform(62, 95),
        pr=rng.uniform(140, 180),
        qtc=rng.uniform(395, 430),
    )
