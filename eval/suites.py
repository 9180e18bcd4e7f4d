"""What is scored: which records, which label spaces, which questions. To add a suite: one row in SUITES.

Three kinds of records: simulated patients; signals of a published data set, drawn on pages as in training; and the
pictures and questions of ECGBench (https://huggingface.co/datasets/PULSE-ECG/ECGBench), used as they are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmark_files import CONFIGURATIONS, BenchmarkSource
from minimllama.config import VisionConfig
from train.ecg import LABEL_SETS, STYLES, LabelSet
from train.ecg.sources import EcgSource, open_source

_BOTH = (("superclass", "superclass"), ("statements", "statements"))
# what an answer is: how its text is read, and what is counted
PARSERS = {
    "choice": "one letter, whole word (eval.answers.parse_choice)",
    "qa": "the question's options and their synonyms as whole words (eval.choices.parse_qa)",
    "report": "none: judged",
    "arena": "none: two turns, judged together",
    "": "whole words, synonyms, negation (eval.answers.parse_labels)",
}
METRICS = {
    "choice": "accuracy of letters and by likelihood, PULSE's accuracy",
    "qa": "accuracy of sets of options, PULSE's accuracy",
    "report": "judge 0-100, constant and copied report",
    "arena": "judge 0-100 (protocol arena), constant and copied answer",
    "": "macro AUC from scores; F1, Hamming loss from thresholds and from words",
}


def read_options(chosen: Sequence[str]) -> dict[str, Any]:
    """("amplitude=0.5", "index=/tmp") -> {"amplitude": 0.5, "index": "/tmp"}; what is no number or bool is text.

    Raises:
        ValueError: if one has no "=", or a name stands twice.
    """
    found: dict[str, Any] = {}
    for pair in chosen:
        name, equals, text = pair.partition("=")
        if not equals or name in found:
            raise ValueError(f"options takes name=value pairs with different names, got {pair!r}")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found


def deciding_options(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the settings of predictions: the options that decide what the records are; where the index is does not."""
    return tuple(sorted(pair for pair in settings.get("options", ()) if not pair.startswith("index=")))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A set of records and how they are asked about.

    Attributes:
        name: as in SUITES.
        source: of SOURCES, or "ecgbench".
        protocols: (name, of LABEL_SETS): label spaces for which the model gives scores.
        groups: label sets that are parts of the statements, scored from the same log-odds; as PTB-XL's benchmark
            does, over the records that have one of their labels.
        texts: tasks whose answers are generated; the same question for every record.
        own: what the answer to the record's own question is: "choice", "qa", "report", "arena" or a protocol; ""
            where records bring no question.
        letters: of a multiple choice whose question does not show its options.
        reference: whose report is the reference: "any", or "statements" for the one that labels make (in English).
        options: of the source.
        configuration: of ECGBench.
        published: how many records the test split has where it is published.
        n, seed: of a simulated source.
        synthetic: the records are not of patients; said in every table.
    """

    name: str
    source: str
    protocols: tuple[tuple[str, str], ...] = _BOTH
    groups: tuple[str, ...] = ()
    texts: tuple[str, ...] = ("superclass", "statements", "report")
    own: str = ""
    letters: str = ""
    reference: str = "any"
    options: tuple[tuple[str, Any], ...] = ()
    configuration: str = ""
    published: tuple[int, ...] = ()
    n: int = 0
    seed: int = 0
    synthetic: bool = False

    @property
    def label_sets(self) -> dict[str, LabelSet]:
        """Label space of each protocol that is asked for."""
        return {protocol: LABEL_SETS[name] for protocol, name in self.protocols}

    @property
    def scored_sets(self) -> dict[str, LabelSet]:
        """Label space of each protocol that is scored: the groups too."""
        return {**self.label_sets, **{name: LABEL_SETS[name] for name in self.groups}}

    @property
    def pulse_task(self) -> str:
        """The name of the set of labels in PULSE's evaluation, if this is one of its."""
        return self.configuration if self.configuration in ("ptb-test", "code15-test", "cpsc-test") else ""

    def open(
        self, root: str | None, split: str, n: int | None, seed: int | None, chosen: Sequence[str] = ()
    ) -> EcgSource:
        """The records of a split.

        Args:
            root: the suite's folder, if it has one.
            split: "train", "validate" or "test".
            n, seed: override a simulated suite's own.
            chosen: options of the source, "name=value" each; see `read_options`.

        Raises:
            ValueError: if n, seed or an option does not apply.
        """
        given, options = read_options(chosen), dict(self.options)
        if self.source == "simulated":
            options = {"n": self.n if n is None else n, "seed": self.seed if seed is None else seed}
        elif n is not None or seed is not None:
            raise ValueError(f"suite {self.name} has the records of its folder; n and seed do not apply")
        if self.configuration:
            if other := given.keys() - {"index"}:
                raise ValueError(f"suite {self.name} has no option {min(other)!r}; it has index")
            return BenchmarkSource(root, self.configuration, split, given.get("index", ""))
        if own := given.keys() & options.keys():
            raise ValueError(f"suite {self.name} sets {min(own)!r} itself")
        if self.source == "ptbxl" and root and not (Path(root) / "records500").is_dir():
            options["hz"] = 100  # a download of the small files only
        return open_source(self.source, root, split, **(options | given))

    def size_note(self, n: int, split: str, asked: int | None = None) -> str:
        """What to say of a number of records beside the published one, or beside those that were to be simulated.

        "" where there is nothing to compare.
        """
        if self.synthetic and n != (asked or self.n):
            return f"asked for: {asked or self.n:,}; here: {n:,}"
        if not self.published or split != "test" or n in self.published:
            return ""
        return f"published: {' or '.join(f'{size:,}' for size in self.published)}; here: {n:,}"

    def line(self) -> str:
        """All about it on one line."""
        sizes = ", ".join(f"{name} {len(labels.codes)}" for name, labels in self.scored_sets.items())
        labels = sizes or {"choice": f"letters {self.letters[0]}-{self.letters[-1]}" if self.letters else ""}.get(
            self.own, {"qa": "options of the question"}.get(self.own, "free text")
        )
        known = " or ".join(f"{size:,}" for size in self.published)
        size = known or (f"{self.n:,}, --n" if self.synthetic else "that of the folder")
        kind = self.own if self.own in PARSERS else ""
        if not self.own and self.texts == ("report",):
            kind = "report"
        asked = "the record's own question" if self.own else f"questions {', '.join(self.texts)}"
        if self.protocols:
            asked += "; yes/no per label"
        return (
            f"{self.name}: split test, n {size}; labels: {labels}; asked: {asked}; "
            f"parser: {PARSERS[kind]}; metrics: {METRICS[kind]}"
        )


def _benchmark(name: str, configuration: str, own: str, labels: str = "", letters: str = "") -> Suite:
    return Suite(
        name=name,
        source="ecgbench",
        protocols=((own, labels),) if labels else (),
        texts=(),
        own=own,
        letters=letters,
        configuration=configuration,
        published=(CONFIGURATIONS[configuration],),
    )


_FOLD_10 = (2198, 2203)  # PTB-XL 1.0.3 and 1.0.1; 2,158 and 2,163 of them have a superclass
_STATEMENTS = (("statements", "statements"),)
SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="simulated",
            source="simulated",
            protocols=(("superclass", "superclass"), ("statements", "simulated")),
            n=400,
            seed=77,
            synthetic=True,
        ),
        Suite(name="wfdb", source="wfdb"),
        Suite(
            name="ptbxl-super",
            source="ptbxl",
            protocols=(("superclass", "superclass"),),
            texts=("superclass",),
            reference="statements",
            published=_FOLD_10,
        ),
        Suite(
            name="ptbxl-statements",
            source="ptbxl",
            protocols=_STATEMENTS,
            groups=("diagnostic", "form", "rhythm"),
            texts=("statements",),
            reference="statements",
            published=_FOLD_10,
        ),
        Suite(
            name="ptbxl-report",
            source="ptbxl",
            protocols=(),
            texts=("report",),
            reference="statements",  # the published reports are largely German
            published=_FOLD_10,
        ),
        Suite(
            name="code15",
            source="code15",
            protocols=(("code15", "code15"),),
            texts=("code15",),
        ),
        Suite(
            name="cpsc",
            source="physionet_challenge",
            protocols=(("cpsc", "cpsc"),),
            texts=("cpsc",),
            options=(("vocabulary", "cpsc"),),
        ),
        _benchmark("ptb-test", "ptb-test", "superclass", "superclass"),
        _benchmark("ptb-test-report", "ptb-test-report", "report"),
        _benchmark("code15-test", "code15-test", "code15", "code15"),
        _benchmark("cpsc-test", "cpsc-test", "cpsc", "cpsc"),
        _benchmark("csn", "csn-test-no-cot", "choice", letters="ABCDEFGH"),
        _benchmark("g12", "g12-test-no-cot", "choice", letters="ABCDEFGH"),
        _benchmark("ecgqa", "ecgqa-test", "qa"),
        _benchmark("mmmu-ecg", "mmmu-ecg", "choice", letters="ABCD"),
        _benchmark("arena", "arena", "arena"),
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
