"""`python -m train.ecg render`: a data set as pictures and dialogs on disk, in ECGInstruct's layout.

A shard is a .tar of PNG files, a .json with one array of items, and a .manifest.jsonl with one line per picture from
which `redraw` makes it again, bit for bit. A shard is there as a whole or not at all, so a stopped run goes on where it
stopped. What stands in a shard depends on the settings alone, not on who renders it.
"""

import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from train.ecg.distort import check_names, distort
from train.ecg.instruct import REPORTS, TASKS, Example, build_example
from train.ecg.labels import LABEL_SETS
from train.ecg.page import Page, draw_page
from train.ecg.paper_style import STYLES, PaperStyle
from train.ecg.record import EcgRecord
from train.ecg.sources import SPLITS, EcgSource, open_source
from train.ecg.wording import WORDINGS

SETTINGS = "render.json"
_QUESTIONS = 1  # the stream of random numbers for the questions; pages have their own


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What is drawn and asked; stands in the folder as render.json.

    Attributes:
        source: of SOURCES; not conversations, which are pictures already.
        root: its folder.
        split: "train", "validate" or "test".
        options: of the source.
        shards: into how many parts the records are cut.
        style: of STYLES.
        distort: a preset or a distortion; "clean" leaves the drawing as it is.
        tasks: of TASKS.
        label_set: of LABEL_SETS.
        questions: dialogs per picture; each draws one of the tasks.
        wording, report: of the questions; see `build_example`.
        seed: of all that is random.
    """

    source: str
    root: str = ""
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    shards: int = 1
    style: str = "square"
    distort: str = "clean"
    tasks: tuple[str, ...] = ("report",)
    label_set: str = "statements"
    questions: int = 1
    wording: str = "varied"
    report: str = "any"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source == "conversations":
            raise ValueError("source='conversations' has pictures already; there is nothing to render")
        for name, value, accepted in (
            *(("tasks", task, TASKS) for task in self.tasks),
            ("style", self.style, STYLES),
            ("label_set", self.label_set, LABEL_SETS),
            ("wording", self.wording, WORDINGS),
            ("report", self.report, REPORTS),
        ):
            if value not in accepted:
                raise ValueError(f"{name}={value!r} is not one of {', '.join(accepted)}")
        check_names(self.distort)
        if min(self.shards, self.questions) < 1 or not self.tasks:
            raise ValueError("shards and questions must be positive, and tasks name at least one task")

    def open(self) -> EcgSource[EcgRecord]:
        """The records."""
        return open_source(self.source, self.root or None, self.split, **self.options)


def seed_of(rendering: Rendering, index: int) -> list[int]:
    """Of record `index`'s page."""
    return [rendering.seed, SPLITS.index(rendering.split), index]


def draw(record: EcgRecord, style: PaperStyle, distortion: str, seed: list[int]) -> Page:
    """A page, as all that is random in it is drawn from its seed."""
    rng = np.random.default_rng(seed)
    return distort(draw_page(record, style, rng), rng, distortion)


def pixel_hash(image: Image.Image) -> str:
    """Of a picture's size and pixels."""
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def redraw(line: Mapping[str, Any], root: str | Path | None = None) -> Image.Image:
    """The picture of a manifest line, drawn anew.

    Args:
        line: as read from the manifest.
        root: where the records are now, if not where they were.

    Raises:
        ValueError: if the pixels are not the same: the record, or the program, has changed.
    """
    source = line["source"]
    records = open_source(source["name"], root or source["root"] or None, source["split"], **source["options"])
    page = draw(records[line["index"]], PaperStyle(**line["style"]), line["distort"], line["seed"])
    if pixel_hash(page.image) != line["pixels"]:
        raise ValueError(f"{line['image']}: the redrawn picture differs; the record or the program has changed")
    return page.image


@dataclass(frozen=True)
class _Rendered:
    image: str
    page: Page
    examples: list[Example]
    record: EcgRecord
    names: tuple[str, str | None]  # (record, patient), unique over all data sets


def _render(rendering: Rendering, source: EcgSource[EcgRecord], index: int) -> _Rendered:
    record, seed = source[index], seed_of(rendering, index)
    page = draw(record, STYLES[rendering.style], rendering.distort, seed)
    rng = np.random.default_rng([*seed, _QUESTIONS])
    tasks = rng.choice(rendering.tasks, rendering.questions)
    how = {"wording": rendering.wording, "report": rendering.report}
    examples = [build_example(record, str(task), rng, rendering.label_set, **how) for task in tasks]
    own = getattr(source, "index", None)
    unique = own.record(rendering.split, index)[0] if own else f"{rendering.source}:{record.record_id}"
    stem = record.record_id if rendering.source == "ptbxl" else unique.split(":", 1)[1]  # 00001_hr says more than 1
    name = f"{rendering.source}/{stem}-0.png"  # -0: the first ten seconds, as ecg-image-kit counts
    patient = record.patient_id and f"{rendering.source}:{record.patient_id}"
    return _Rendered(name, page, examples, record, (unique, patient))


def _items(rendering: Rendering, made: _Rendered) -> Iterator[dict[str, Any]]:
    for number, example in enumerate(made.examples):
        yield {
            "id": f"{made.image.removesuffix('.png')}-{number}",
            "image": made.image,
            "split": rendering.split,
            "record": made.names[0],
            "patient": made.names[1],
            "task": example.task,
            "conversations": [
                {"from": "human", "value": f"<image>\n{example.question}"},
                {"from": "gpt", "value": example.answer},
            ],
        }


def _manifest_line(rendering: Rendering, made: _Rendered, index: int, shard: str) -> dict[str, Any]:
    page = made.page
    named = {"name": rendering.source, "root": rendering.root, "split": rendering.split, "options": rendering.options}
    return {
        "image": made.image,
        "shard": shard,
        "source": named,
        "index": index,
        "record_id": made.record.record_id,
        "style": asdict(STYLES[rendering.style]),
        "distort": rendering.distort,
        "seed": seed_of(rendering, index),
        "drawn": asdict(page.style),
        "distortions": page.distortions,
        "px_per_mm": page.px_per_mm,
        "lead_boxes": page.lead_boxes,
        "pixels": pixel_hash(page.image),
    }


def shard_name(rendering: Rendering, shard: int) -> str:
    """Without a suffix."""
    return f"shard-{shard:05d}-of-{rendering.shards:05d}"


def render_shard(rendering: Rendering, out: Path, shard: int, source: EcgSource[EcgRecord] | None = None) -> int:
    """Write one shard, unless it is there.

    Returns:
        Number of pictures that were drawn.
    """
    name = shard_name(rendering, shard)
    if (out / f"{name}.tar").exists():
        return 0
    source = source if source is not None else rendering.open()
    first, stop = (len(source) * k // rendering.shards for k in (shard, shard + 1))
    unfinished = {suffix: out / f"{name}.{suffix}.part" for suffix in ("json", "manifest.jsonl", "tar")}
    items: list[dict[str, Any]] = []
    with tarfile.open(unfinished["tar"], "w") as tar, unfinished["manifest.jsonl"].open("w") as manifest:
        for index in range(first, stop):
            made = _render(rendering, source, index)
            stored = io.BytesIO()
            made.page.image.save(stored, "PNG", compress_level=3)
            member = tarfile.TarInfo(made.image)  # without time and owner: the same bytes every time
            member.size = stored.tell()
            stored.seek(0)
            tar.addfile(member, stored)
            manifest.write(json.dumps(_manifest_line(rendering, made, index, f"{name}.tar")) + "\n")
            items += _items(rendering, made)
    unfinished["json"].write_text(json.dumps(items, indent=1))
    for suffix, path in unfinished.items():  # the .tar comes last: it says that the shard is whole
        path.rename(out / f"{name}.{suffix}")
    return stop - first


def prepare_folder(rendering: Rendering, out: Path) -> None:
    """Make the folder, or check that it belongs to the same rendering.

    Raises:
        FileExistsError: if it holds another one.
    """
    out.mkdir(parents=True, exist_ok=True)
    settings, path = json.dumps(asdict(rendering), indent=1), out / SETTINGS
    if path.exists():
        if json.loads(path.read_text()) != json.loads(settings):
            raise FileExistsError(f"{path} has other settings; name another folder")
        return
    unfinished = out / f"{SETTINGS}.{platform.node()}.{os.getpid()}"
    unfinished.write_text(settings)
    unfinished.rename(path)  # whole or not there: other machines and processes may be reading it


def render(
    rendering: Rendering, out: Path, part: tuple[int, int] = (0, 1), workers: int = 1
) -> Iterator[tuple[int, int, int]]:
    """Render the shards of one part of the work.

    Args:
        rendering: what.
        out: where.
        part: (i, n): of n machines or processes this is number i, and takes shards i, i + n, ...
        workers: processes.

    Yields:
        (shards done, shards of this part, pictures drawn in the last one).

    Raises:
        FileExistsError: if the folder holds another rendering.
        ValueError, FileNotFoundError: if a record cannot be opened or asked about; it is named.
    """
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"part {part[0]}/{part[1]}: the first number must lie in [0, {part[1]})")
    prepare_folder(rendering, out)
    source = rendering.open()  # makes the index before the workers need it
    mine = range(part[0], rendering.shards, part[1])
    if workers <= 1:
        for done, shard in enumerate(mine, 1):
            yield done, len(mine), render_shard(rendering, out, shard, source)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        drawn = pool.map(render_shard, [rendering] * len(mine), [out] * len(mine), mine)
        for done, n in enumerate(drawn, 1):
            yield done, len(mine), n
