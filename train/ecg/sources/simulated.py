"""Simulated patients, made when they are asked for. Record i of a split is a function of (seed, split, i)."""

from pathlib import Path

import numpy as np

from train.ecg.conditions import draw_conditions
from train.ecg.record import EcgRecord
from train.ecg.simulate import simulate_ecg

_STREAMS = {"train": 0, "validate": 1, "test": 2}


class SimulatedSource:
    """`n` patients, one record each; splits are different patients because their random streams differ.

    Args:
        root: must be None: nothing is read.
        split: "train", "validate" or "test".
        n: number of patients.
        seed: of the whole set.
        hz: sampling rate.
        normal: share of normal hearts.

    Raises:
        ValueError: if a root is given, n or hz is not positive, seed is negative, or normal is no share.
    """

    name = "simulated"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        n: int = 1000,
        seed: int = 0,
        hz: float = 250.0,
        normal: float = 0.15,
    ) -> None:
        if root is not None:
            raise ValueError(f"the simulated source reads no folder, but root={str(root)!r} was given")
        if n < 1:
            raise ValueError(f"simulated: n={n} must be positive")
        if not (hz > 0 and seed >= 0 and 0 <= normal <= 1):
            raise ValueError(
                f"simulated: hz={hz} must be positive, seed={seed} not negative, normal={normal} in [0, 1]"
            )
        self.split, self.n, self.seed, self.hz, self.normal = split, n, seed, hz, normal

    def __len__(self) -> int:
        """Number of patients."""
        return self.n

    def __getitem__(self, index: int) -> EcgRecord:
        """Patient `index`."""
        if not 0 <= index < self.n:
            raise IndexError(f"simulated record {index} of {self.n}")
        rng = np.random.default_rng([self.seed, _STREAMS[self.split], index])
        record_id = f"sim-{self.seed}-{self.split}-{index:06d}"
        return simulate_ecg(draw_conditions(rng, self.normal), rng, hz=self.hz, record_id=record_id)
