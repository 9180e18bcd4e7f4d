"""What is scored: which records, which label spaces, which questions. To add a suite: one row in SUITES."""

from dataclasses import dataclass
from typing import Any

from minimllama.config import VisionConfig
from train.ecg import LABEL_SETS, STYLES, LabelSet
from train.ecg.sources import EcgSource, open_source


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A set of records and how they are asked about.

    Attributes:
        name: as in SUITES.
        source: of SOURCES.
        statements: the label set of the all-statements protocol; the other protocol is always the five
            superclasses.
        texts: tasks whose answers are generated.
        n, seed: of a simulated source.
        synthetic: the records are not of patients; said in every table.
    """

    name: str
    source: str
    statements: str = "statements"
    texts: tuple[str, ...] = ("superclass", "statements", "report")
    n: int = 0
    seed: int = 0
    synthetic: bool = False

    @property
    def label_sets(self) -> dict[str, LabelSet]:
        """Label space of each protocol."""
        return {"superclass": LABEL_SETS["superclass"], "statements": LABEL_SETS[self.statements]}

    def open(self, root: str | None, split: str, n: int | None, seed: int | None) -> EcgSource:
        """The records of a split; n and seed override a simulated suite's own."""
        options: dict[str, Any] = {}
        if self.source == "simulated":
            options = {"n": n or self.n, "seed": self.seed if seed is None else seed}
        elif n is not None or seed is not None:
            raise ValueError(f"suite {self.name} has the records of its folder; n and seed do not apply")
        return open_source(self.source, root, split, **options)


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(name="simulated", source="simulated", statements="simulated", n=400, seed=77, synthetic=True),
        Suite(name="wfdb", source="wfdb"),
    )
}


def page_for(vision: VisionConfig) -> str:
    """The style whose pages fill a model's tiles without being rescaled.

    Raises:
        ValueError: if no style was made for such tiles.
    """
    largest = {560: "square", 448: "square448", 256: "nano"}
    if vision.tile_size not in largest:
        raise ValueError(f"no page style for tiles of {vision.tile_size} px; name one of {', '.join(STYLES)}")
    return largest[vision.tile_size]
