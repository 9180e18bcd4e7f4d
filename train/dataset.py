"""From records to tensors: draw the page, split it into tiles, tokenise its questions, pad the batch.

Images stand once in a batch; questions refer to them. Pixels stay uint8 until the model's device.

Shapes: B pages, K tile slots, S tile side, R questions, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minimllama import ImageBatch, ImageTransform, Message, ModelConfig, Tokenizer, encode_dialog
from minimllama.chat import NO_LABEL, EncodedDialog, pad_rows
from minimllama.console import Progress as ProgressLine
from minimllama.image import choose_grid, fit_size
from minimllama.visibility import Sight, see
from train.ecg import EcgRecord, Example, Page, PaperStyle, build_example, distort, draw_page, open_source
from train.ecg.distort import distort_picture
from train.ecg.paper_style import describe_style
from train.ecg.sources import Conversation, Dialog, EcgSource
from train.mixture import PICTURES, ComponentConfig, Item
from train.page_cache import PageCache

TRIES = 4  # per question, to find one that was not asked about the same page; then it is asked again
PAD_MULTIPLE = 8  # token lengths are rounded up to this


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One page and its questions.

    Attributes:
        record_id: which record.
        page: as drawn, or the picture that the data set has; None if its tiles came from the cache.
        tiles: uint8 [n, 3, S, S].
        aspect_ratio_id: of the page.
        examples: the questions in words.
        dialogs: the questions as ids.
    """

    record_id: str
    page: Page | Conversation | None
    tiles: np.ndarray
    aspect_ratio_id: int
    examples: list[Example] | list[Dialog]
    dialogs: list[EncodedDialog]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one forward pass needs.

    Attributes:
        tiles: uint8 [B, K, 3, S, S].
        aspect_ratio_ids: int64 [B].
        n_tiles: tiles in use of each page; 0 for questions without one.
        tokens, labels: int64 [R, T]; labels are already shifted, -100 where nothing is learned.
        sight: who sees what.
        record_ids: of the pages.
    """

    tiles: Tensor
    aspect_ratio_ids: Tensor
    n_tiles: list[int]
    tokens: Tensor
    labels: Tensor
    sight: Sight
    record_ids: list[str]

    @property
    def n_answer_tokens(self) -> int:
        """Tokens that carry loss; counted where the labels are, so before moving to an accelerator."""
        return int((self.labels != NO_LABEL).sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return replace(
            self,
            tiles=self.tiles.to(device, non_blocking=True),
            aspect_ratio_ids=self.aspect_ratio_ids.to(device, non_blocking=True),
            tokens=self.tokens.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            sight=self.sight.to(device),
        )

    def images(self, transform: ImageTransform, *, always: bool = False) -> ImageBatch:
        """The pages as the model takes them, on the batch's device.

        Args:
            transform: that made the tiles.
            always: a batch without any page gets a blank tile that no token sees, so that every block runs: ranks that
                compute together must all run the same blocks.
        """
        n_tiles = [max(n, int(always and not any(self.n_tiles))) for n in self.n_tiles]
        slots = torch.arange(self.tiles.shape[1], device=self.tiles.device)
        used = slots < torch.tensor(self.n_tiles, device=self.tiles.device)[:, None]  # [B, K]
        pixels = transform.normalise(self.tiles) * used[:, :, None, None, None]  # [B, K, 3, S, S]
        return ImageBatch(
            pixels=pixels.unsqueeze(1),
            aspect_ratio_ids=self.aspect_ratio_ids.unsqueeze(1),
            tile_mask=used.unsqueeze(1),
            n_tiles=[[n] if n else [] for n in n_tiles],
        )


def encode_example(example: Example | Dialog, tokenizer: Tokenizer) -> EncodedDialog:
    """A question with an image and its answer, or a whole dialog whose first question has the image."""
    ours = isinstance(example, Example)
    turns = (("user", example.question), ("assistant", example.answer)) if ours else example.turns
    first = next(i for i, (role, _) in enumerate(turns) if role == "user")
    messages = [Message(role=role, text=text, n_images=int(i == first)) for i, (role, text) in enumerate(turns)]
    return encode_dialog(messages, tokenizer)


class EcgDataset(torch.utils.data.Dataset[Sample]):
    """Items of a mixture as samples; everything random comes from the item's seed.

    Args:
        components: data sets and their tasks.
        style: of the pages.
        transform: to tiles.
        tokenizer: for the questions.
        questions_per_image: how many questions share a page; of a picture with more dialogs, other ones are drawn in
            every epoch.
        max_tokens: longest dialog allowed.
        split: of the sources.
        cache: a folder: each record's page is drawn once, from (seed, component, index), and kept there; only the
            questions differ from epoch to epoch. Without it every item draws its page from its own seed. Pictures
            that a data set has are read from it, not from the cache.
        seed: of the cached pages.
        distort: what happens to pages once they are drawn, and to pictures of components that say distort_pictures;
            see `train.ecg.distort`.

    Raises:
        ValueError: if a component's source does not exist, or the cache holds other pages.
    """

    def __init__(
        self,
        components: Sequence[ComponentConfig],
        style: PaperStyle,
        transform: ImageTransform,
        tokenizer: Tokenizer,
        questions_per_image: int,
        max_tokens: int,
        split: str = "train",
        cache: str = "",
        seed: int = 0,
        distort: str = "clean",
    ) -> None:
        self.components, self.style, self.transform, self.tokenizer = components, style, transform, tokenizer
        self.questions_per_image, self.max_tokens, self.seed = questions_per_image, max_tokens, seed
        self.distort = distort
        self.sources: list[EcgSource] = [open_component(component, split) for component in components]
        self.caches: list[PageCache | None] = []
        for number, component in enumerate(components if cache else ()):
            if component.source == PICTURES:
                self.caches.append(None)
                continue
            options = [component.options] if component.options else []
            description = {
                "source": [component.source, component.root, component.n, component.seed, split, *options],
                "page": describe_style(style),
                "tiles": [transform.tile_size, transform.max_tiles],
                "seed": [seed, number],
            }
            if distort != "clean":
                description["distort"] = distort
            self.caches.append(PageCache(Path(cache) / f"{split}-{number}.sqlite", description))

    def draw(self, item: Item) -> tuple[EcgRecord | Conversation, Page | Conversation]:
        """The record of an item, and its page; a conversation is its own page, maybe distorted."""
        seed = [self.seed, item.component, item.index] if self.caches else item.seed
        record = self.sources[item.component][item.index]
        if isinstance(record, Conversation):
            return record, self._picture(record, item)
        rng = np.random.default_rng(seed)
        return record, distort(draw_page(record, self.style, rng), rng, self.distort)

    def _picture(self, picture: Conversation, item: Item) -> Conversation:
        """A published picture, distorted in the size in which the model sees it if its component asks for that."""
        if not self.components[item.component].distort_pictures:
            return picture
        (width, height), tile = picture.image.size, self.transform.tile_size
        size = fit_size(width, height, choose_grid(width, height, tile, self.transform.max_tiles), tile)
        fitted = picture.image.resize(size, Image.Resampling.BILINEAR)
        image, done = distort_picture(fitted, np.random.default_rng(item.seed), self.distort)
        return replace(picture, image=image, meta={**picture.meta, "distortions": done})

    def _tiles(self, item: Item) -> tuple[EcgRecord | Conversation, Page | Conversation | None, np.ndarray, int]:
        """The record, its page (None if it came from the cache), its tiles and their aspect ratio id."""
        cache = self.caches[item.component] if self.caches else None
        kept = cache and cache.read(item.index)
        if kept is not None:
            tiles, ratio_id, record = kept
            return record, None, tiles, ratio_id
        record, page = self.draw(item)
        tiles, ratio_id = self.transform.split(page.image)
        if cache is not None and isinstance(record, EcgRecord):
            cache.write(item.index, tiles, ratio_id, record)
        return record, page, tiles, ratio_id

    def _ask(
        self, record: EcgRecord | Conversation, component: ComponentConfig, rng: np.random.Generator
    ) -> list[Example] | list[Dialog]:
        """Questions about a record: different ones if its tasks allow, or some of the dialogs that it has."""
        if isinstance(record, Conversation):
            chosen = rng.permutation(len(record.dialogs))[: self.questions_per_image]
            return [record.dialogs[i] for i in sorted(chosen.tolist())]
        asked: dict[str, Example] = {}
        spare: list[Example] = []
        for _ in range(TRIES * self.questions_per_image):
            task = str(rng.choice(component.tasks))
            how = {"wording": component.wording, "report": component.report}
            example = build_example(record, task, rng, component.label_set, **how)
            if example.question in asked:
                spare.append(example)
            asked.setdefault(example.question, example)
            if len(asked) == self.questions_per_image:
                break
        return [*asked.values(), *spare][: self.questions_per_image]

    def __getitem__(self, item: Item) -> Sample:  # type: ignore[override]
        """Draw and ask.

        Raises:
            ValueError: if a dialog is longer than max_tokens; it names the record and the task.
        """
        rng = np.random.default_rng((*item.seed, 1))  # apart from the page's, which a cache may have drawn long ago
        component = self.components[item.component]
        record, page, tiles, ratio_id = self._tiles(item)
        examples = self._ask(record, component, rng)
        dialogs = [encode_example(example, self.tokenizer) for example in examples]
        for example, dialog in zip(examples, dialogs, strict=True):
            if len(dialog.tokens) > self.max_tokens:
                raise ValueError(
                    f"record {record.record_id}, task {example.task}: {len(dialog.tokens)} tokens, "
                    f"but data.max_tokens={self.max_tokens}"
                )
        return Sample(
            record_id=record.record_id,
            page=page,
            tiles=tiles,
            aspect_ratio_id=ratio_id,
            examples=examples,
            dialogs=dialogs,
        )


def open_component(component: ComponentConfig, split: str) -> EcgSource:
    """The source of a component; while its index is made, the terminal says how far it is."""
    line = ProgressLine()

    def show(what: str, done: int, total: int | None) -> None:
        share = f"{done:,} of {total:,}" if total else f"{done:,}"
        line.show(f"{what}: {share}", last=done == total)

    return open_source(component.source, component.root or None, split, progress=show, **component.source_options)


def collate(samples: Sequence[Sample], config: ModelConfig, *, leak: bool = False) -> Batch:
    """Stack pages, pad questions, and work out who sees what.

    Args:
        samples: at least one.
        config: of the model: tile slots, padding id.
        leak: of the model's semantics.
    """
    slots, side = config.vision.max_tiles, config.vision.tile_size
    tiles = np.zeros((len(samples), slots, 3, side, side), np.uint8)
    for page, sample in zip(tiles, samples, strict=True):
        page[: len(sample.tiles)] = sample.tiles
    dialogs = [dialog for sample in samples for dialog in sample.dialogs]
    sample_of_row = [i for i, sample in enumerate(samples) for _ in sample.dialogs]
    tokens = pad_rows([dialog.tokens for dialog in dialogs], config.text.pad_id, PAD_MULTIPLE)  # [R, T]
    labels = pad_rows([dialog.labels for dialog in dialogs], NO_LABEL, PAD_MULTIPLE)  # [R, T]
    if int(labels.max()) >= config.text.vocab_size:
        raise ValueError(f"label {int(labels.max())} is outside of the vocabulary of {config.text.vocab_size}")
    n_tiles = [len(sample.tiles) for sample in samples]
    return Batch(
        tiles=torch.from_numpy(tiles),
        aspect_ratio_ids=torch.tensor([sample.aspect_ratio_id for sample in samples]),
        n_tiles=n_tiles,
        tokens=tokens,
        labels=labels,
        sight=see(
            tokens, [[n] if n else [] for n in n_tiles], config, n_slots=1, sample_of_row=sample_of_row, leak=leak
        ),
        record_ids=[sample.record_id for sample in samples],
    )
