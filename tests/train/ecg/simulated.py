"""Simulated recordings of one condition, and what `signal.measure` reads off them."""

from functools import lru_cache
from typing import Any

import numpy as np

from train.ecg import LEADS, EcgRecord, simulate_ecg
from train.ecg.signal import measure


def lead(name: str) -> int:
    """The row of a lead."""
    return LEADS.index(name)


@lru_cache(maxsize=256)
def as_drawn(name: str, seed: int) -> tuple[EcgRecord, dict[str, Any]]:
    """With the simulator's own noise and wander, 500 Hz."""
    record = simulate_ecg([name], np.random.default_rng([seed, 7]), hz=500)
    return record, measure(record.signal, record.hz)


@lru_cache(maxsize=256)
def clean(name: str, seed: int) -> tuple[EcgRecord, dict[str, Any]]:
    """Without noise and wander, 1 kHz."""
    record = simulate_ecg([name], np.random.default_rng([seed, 7]), hz=1000, noise_mv=0, wander_mv=0)
    return record, measure(record.signal, record.hz)
