"""`python -m train doctor`: what is wrong with the data of a recipe, found before a run instead of after it.

Patients and names of records are compared over all records, where the source has an index; what needs a record
opened is looked at for some of each split, evenly spread.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from minimllama import ModelConfig, Tokenizer, load_tokenizer
from minimllama.chat import NO_LABEL, EncodedDialog
from minimllama.nano import resolve_model
from minimllama.tokenizer import BOS
from train.config import RunConfig
from train.dataset import encode_example, open_component
from train.ecg import LABEL_SETS, STYLES, EcgRecord, Example, build_example, open_source
from train.ecg.labels import STATEMENTS, SUPERCLASSES
from train.ecg.sources import SPLITS, Conversation, Dialog, EcgSource
from train.mixture import ComponentConfig, component_names
from train.plan import model_config
from train.record_checks import (
    REFUSAL,
    implausible,
    median_r_mv,
    misread,
    picture_hash,
    signal_hash,
    tile_cover,
)

PLAUSIBLE_R_MV = (0.35, 1.6)  # median over records of the R wave in lead II
LEVELS = ("error", "warning", "note")
_SHOWN = 3  # records named in a finding


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """How closely to look.

    Attributes:
        records: of each split and component that are opened; 0 opens all.
        against: further test sets, as "source=folder", that must share no patient or record with the training
            data: "ptbxl=data/ptb-xl" says whether ECGInstruct's pictures show records of PTB-XL's fold 10.
    """

    records: int = 200
    against: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to know. Training may start unless there is an "error"."""

    level: str
    text: str


@dataclass
class Part:
    """One split of one component, and what was seen of it."""

    name: str
    split: str
    source: EcgSource
    component: ComponentConfig | None
    hashes: dict[str, str] = field(default_factory=dict)  # of signals and pictures -> record
    patients: dict[str, str | None] = field(default_factory=dict)  # record -> patient

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.name}, {self.split}"


class _Findings(list[Finding]):
    """Collects; many records with one complaint become one finding."""

    def __init__(self) -> None:
        super().__init__()
        self._grouped: dict[tuple[str, str], list[str]] = {}

    def say(self, level: str, text: str) -> None:
        self.append(Finding(level=level, text=text))

    def of_record(self, level: str, complaint: str, record: str) -> None:
        self._grouped.setdefault((level, complaint), []).append(record)

    def close_group(self, title: str, n_opened: int) -> None:
        for (level, complaint), records in self._grouped.items():
            shown = "; ".join(records[:_SHOWN]) + ("; ..." if len(records) > _SHOWN else "")
            self.say(level, f"{title}: {len(records)} of {n_opened} records opened: {complaint}: {shown}")
        self._grouped.clear()


def _open_parts(config: RunConfig, options: DoctorConfig, findings: _Findings) -> list[Part]:
    parts = []
    components = config.data.components
    for name, component in zip(component_names(components), components, strict=True):
        for split in SPLITS:
            try:
                source = open_component(component, split)
            except (OSError, ValueError) as error:
                findings.say("error" if split == "train" else "note", f"{name}, {split}: {error}")
                continue
            parts.append(Part(name=name, split=split, source=source, component=component))
    for against in options.against:
        source_name, _, root = against.partition("=")
        source = open_source(source_name, root or None, "test")
        parts.append(Part(name=against, split="test", source=source, component=None))
    return parts


def _look_at(part: Part, n: int, budget: "_Budget", findings: _Findings) -> None:
    """Open some records of a part."""
    size = len(part.source)
    numbers = range(size) if n == 0 else np.unique(np.linspace(0, size - 1, min(n, size)).astype(int)).tolist()
    heights: list[float] = []
    covers: list[float] = []
    labels: Counter[str] = Counter()
    for number in numbers:
        try:
            record = part.source[number]
        except (FileNotFoundError, ValueError) as error:
            findings.of_record("error", "cannot be opened", f"{number}: {error}")
            continue
        if isinstance(record, Conversation):
            print_ = picture_hash(record.image)
            covers.append(tile_cover(*record.image.size, budget.vision.tile_size, budget.vision.max_tiles)[1])
        else:
            print_ = signal_hash(record.signal)
            heights.append(median_r_mv(record.signal))
            labels.update(record.labels or ())
            for complaint in implausible(record.signal):
                findings.of_record("warning", complaint, record.record_id)
            if unknown := sorted((record.labels or frozenset()) - _known_codes(part.component)):
                findings.of_record("error", f"labels that are in no label set: {', '.join(unknown)}", record.record_id)
        if print_ in part.hashes:
            findings.of_record("warning", "the same signal twice", f"{record.record_id} and {part.hashes[print_]}")
        part.hashes.setdefault(print_, record.record_id)
        part.patients.setdefault(
            f"{part.name}:{record.record_id}", record.patient_id and f"{part.name}:{record.patient_id}"
        )
        if part.split == "train" and part.component is not None:
            budget.ask(record, part.component, findings)
    findings.close_group(part.title, len(numbers))
    if covers:
        level, cover = "warning" if np.mean(covers) < 0.9 else "note", f"{np.mean(covers):.0%} of their tiles"
        findings.say(level, f"{part.title}: pictures cover {cover} on average")
    _report_labels(part, labels, heights, len(numbers), findings)


def _known_codes(component: ComponentConfig | None) -> set[str]:
    label_set = set(LABEL_SETS[component.label_set].codes) if component else set()
    return label_set | STATEMENTS.keys() | SUPERCLASSES.keys()


def _report_labels(part: Part, labels: Counter[str], heights: list[float], n: int, findings: _Findings) -> None:
    findings.say("note", f"{part.title}: {len(part.source):,} records, {n:,} opened")
    index = getattr(part.source, "index", None)
    if index is not None and part.split == "train":
        for why, count in index.left_out.items():
            findings.say("note", f"{part.name}: {count:,} records left out: {why}")
        if index.unmapped:
            most = ", ".join(f"{label!r} {count:,}" for label, count in list(index.unmapped.items())[:8])
            n, times = index.n_unmapped
            findings.say("note", f"{part.name}: {n:,} labels are not mapped, {times:,} times: {most}")
    if heights:
        median = float(np.median(heights))
        if not PLAUSIBLE_R_MV[0] <= median <= PLAUSIBLE_R_MV[1]:
            low, high = PLAUSIBLE_R_MV
            text = f"the median R wave in lead II is {median:.2f} mV; plausible is {low} to {high}: wrong units?"
            findings.say("error", f"{part.title}: {text}")
    if part.component is None or not labels:
        return
    codes = LABEL_SETS[part.component.label_set].codes
    counts = ", ".join(f"{code} {labels[code]}" for code in codes if labels[code])
    findings.say("note", f"{part.title}: labels of {part.component.label_set}: {counts or 'none'}")
    if part.split == "train" and not any(labels[code] for code in codes):
        findings.say("error", f"{part.title}: no record has a label of {part.component.label_set}")


class _Budget:
    """Asks about records as training would, and measures the dialogs.

    Args:
        config: the recipe.
        tokenizer: of the model.
        model: whose logits and tiles count.
    """

    def __init__(self, config: RunConfig, tokenizer: Tokenizer, model: ModelConfig) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.n_vocabulary, self.vision = model.text.vocab_size, model.vision
        self.longest = 0

    def ask(self, record: EcgRecord | Conversation, component: ComponentConfig, findings: _Findings) -> None:
        """Every task once, or every dialog."""
        for example in self._examples(record, component, findings):
            dialog = encode_example(example, self.tokenizer)
            self._measure(dialog, f"task {example.task}", record.record_id, findings)
            if isinstance(example, Example) and (found := misread(example, LABEL_SETS[component.label_set])):
                findings.of_record(*found, record.record_id)

    def _examples(
        self, record: EcgRecord | Conversation, component: ComponentConfig, findings: _Findings
    ) -> Iterator[Example | Dialog]:
        if isinstance(record, Conversation):
            for dialog in record.dialogs:
                yield dialog
                if any(role == "assistant" and REFUSAL.match(text) for role, text in dialog.turns):
                    findings.of_record("warning", "an answer is a chatbot's refusal", record.record_id)
            return
        for task in sorted(set(component.tasks)):
            try:
                how = {"wording": component.wording, "report": component.report}
                yield build_example(record, task, np.random.default_rng(0), component.label_set, **how)
            except ValueError as error:
                findings.of_record("error", f"task {task} cannot be asked", str(error))

    def _measure(self, dialog: EncodedDialog, what: str, record: str, findings: _Findings) -> None:
        n, limit = len(dialog.tokens), self.config.data.max_tokens
        self.longest = max(self.longest, n)
        if n > limit:
            findings.of_record("error", f"{what}: longer than data.max_tokens={limit}", f"{record} ({n} tokens)")
        n_bos = int((dialog.tokens == self.tokenizer.special[BOS]).sum())
        if n_bos != 1:
            findings.of_record("error", f"{what}: {n_bos} tokens that begin a text instead of one", record)
        labels = dialog.labels[dialog.labels != NO_LABEL]
        if not len(labels):
            findings.of_record("error", f"{what}: no token carries loss", record)
        elif int(labels.max()) >= self.n_vocabulary:
            findings.of_record("error", f"{what}: a label is outside of the vocabulary of {self.n_vocabulary}", record)


def _leaks(parts: Sequence[Part], findings: _Findings) -> None:
    """Patients, records and signals that stand in two splits."""
    patient_of: dict[str, str | None] = {}
    for part in parts:
        names = getattr(part.source, "names", None)
        if names is not None:
            part.patients = dict(names())
        patient_of.update({record: patient for record, patient in part.patients.items() if patient})
    keys = []
    for part in parts:
        patients = {patient or patient_of.get(record) for record, patient in part.patients.items()} - {None}
        signals = part.hashes.keys()
        keys.append({"records": part.patients.keys(), "patients": patients, "opened signals or pictures": signals})
    for (a, of_a), (b, of_b) in combinations(zip(parts, keys, strict=True), 2):
        for what in of_a if a.split != b.split else ():
            if shared := of_a[what] & of_b[what]:
                named = sorted(a.hashes.get(str(name), str(name)) for name in shared)
                shown = ", ".join(named[:_SHOWN]) + (", ..." if len(named) > _SHOWN else "")
                findings.say("error", f"{len(named):,} {what} stand in {a.title} and in {b.title}: {shown}")


def _tile_waste(config: RunConfig, model: ModelConfig, findings: _Findings) -> None:
    """How a drawn page lands on the model's tiles."""
    style, vision = STYLES[config.data.page], model.vision
    (rows, columns), covered, scale = tile_cover(style.width, style.height, vision.tile_size, vision.max_tiles)
    page = f"pages of style {config.data.page} ({style.width} x {style.height} px)"
    tiles = f"{rows} x {columns} tiles of {vision.tile_size} px, at {style.px_per_mm * scale:.1f} px/mm"
    resized = "" if scale == 1 else f", resized {scale:.2f} times"
    findings.say(
        "warning" if covered < 0.9 or scale != 1 else "note", f"{page} cover {covered:.0%} of {tiles}{resized}"
    )


def examine(config: RunConfig, options: DoctorConfig | None = None) -> list[Finding]:
    """Look at a recipe's data. No weights are loaded.

    Returns:
        Findings, the errors first.

    Raises:
        FileNotFoundError: if the checkpoint's configuration or tokenizer is not there.
    """
    options, findings = options or DoctorConfig(), _Findings()
    model = model_config(config)
    tokenizer = load_tokenizer(config.tokenizer or resolve_model(config.model))
    budget = _Budget(config, tokenizer, model)
    _tile_waste(config, model, findings)
    parts = _open_parts(config, options, findings)
    for part in parts:
        _look_at(part, options.records, budget, findings)
    _leaks(parts, findings)
    findings.say("note", f"longest dialog: {budget.longest} tokens of data.max_tokens={config.data.max_tokens}")
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def report(findings: Sequence[Finding]) -> str:
    """Findings as lines, and whether training may start."""
    counts = Counter(finding.level for finding in findings)
    verdict = "do not start" if counts["error"] else "training may start"
    lines = [f"{finding.level:8}{finding.text}" for finding in findings]
    return "\n".join([*lines, f"{counts['error']} errors, {counts['warning']} warnings: {verdict}"])
