"""From a record to a batch: pages, questions, labels on answers only, images once."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from minimllama import ImageTransform, Tokenizer
from minimllama.chat import NO_LABEL
from tests.tools.tiny import EOT, IMAGE, PAD, TINY, with_text
from train.dataset import EcgDataset, Sample, collate, encode_example
from train.ecg import STYLES, build_example, draw_page, open_source
from train.mixture import ComponentConfig, Item, Mixture

TASKS = ("superclass", "yes_no", "rate")


def dataset(tokenizer: Tokenizer, page: str = "nano", n_questions: int = 3, **options: object) -> EcgDataset:
    components = [ComponentConfig(source="simulated", n=6, seed=3, tasks=TASKS, label_set="simulated")]
    transform = ImageTransform(TINY.vision.tile_size, TINY.vision.max_tiles)
    return EcgDataset(components, STYLES[page], transform, tokenizer, n_questions, 1024, **options)  # type: ignore[arg-type]


@pytest.fixture
def samples(tokenizer: Tokenizer) -> list[Sample]:
    """Three pages: two of two tiles, one of four."""
    wide, square, mixture = dataset(tokenizer), dataset(tokenizer, "square"), Mixture([6], [1.0], 1)
    return [wide[mixture.item(0)], square[mixture.item(1)], wide[mixture.item(2)]]


# equation


def test_a_sample_is_a_page_its_tiles_and_its_questions(tokenizer: Tokenizer) -> None:
    sample = dataset(tokenizer)[Item(0, 4, (1, 0, 2))]
    record = open_source("simulated", n=6, seed=3)[4]
    assert sample.record_id == record.record_id
    page = draw_page(record, STYLES["nano"])
    assert sample.page is not None
    assert sample.page.image.tobytes() == page.image.tobytes()
    tiles, ratio = ImageTransform(TINY.vision.tile_size).split(page.image)
    assert np.array_equal(sample.tiles, tiles)
    assert sample.aspect_ratio_id == ratio == 2  # one row, two columns
    assert [example.task for example in sample.examples] == [e.task for e in sample.examples if e.task in TASKS]
    assert len(sample.dialogs) == 3


def test_only_answers_carry_loss(tokenizer: Tokenizer) -> None:
    example = build_example(open_source("simulated", n=1)[0], "rate", np.random.default_rng(0))
    dialog = encode_example(example, tokenizer)
    targets = dialog.labels[dialog.labels != NO_LABEL].tolist()
    assert targets == [*tokenizer.encode(example.answer), EOT]
    assert int((dialog.tokens == IMAGE).sum()) == 1
    assert IMAGE not in targets
    first = int((dialog.labels != NO_LABEL).nonzero()[0])
    assert dialog.tokens[first + 1 : first + 1 + len(targets)].tolist() == targets  # a label is the next token


def test_a_batch_holds_each_page_once_and_one_row_per_question(samples: Sequence[Sample]) -> None:
    batch = collate(samples, TINY)
    assert batch.tiles.shape == (3, 4, 3, 12, 12)
    assert batch.n_tiles == [2, 4, 2]
    assert batch.tokens.shape == batch.labels.shape
    assert len(batch.tokens) == 9
    assert batch.tokens.shape[1] % 8 == 0
    assert batch.record_ids == [sample.record_id for sample in samples]
    dialogs = [dialog for sample in samples for dialog in sample.dialogs]
    for row, labels, dialog in zip(batch.tokens, batch.labels, dialogs, strict=True):
        n = len(dialog.tokens)
        assert torch.equal(row[:n], dialog.tokens)
        assert torch.equal(labels[:n], dialog.labels)
        assert (row[n:] == PAD).all()
        assert (labels[n:] == NO_LABEL).all()
    assert batch.n_answer_tokens == sum(int(dialog.answers.sum()) for dialog in dialogs)


# parity


def test_pixels_are_those_of_the_image_transform(samples: Sequence[Sample]) -> None:
    transform = ImageTransform(TINY.vision.tile_size, TINY.vision.max_tiles)
    pages: list[list[Image.Image]] = [[sample.page.image] for sample in samples if sample.page]
    ours, theirs = collate(samples, TINY).images(transform), transform(pages)
    assert torch.equal(ours.pixels, theirs.pixels)
    assert torch.equal(ours.aspect_ratio_ids, theirs.aspect_ratio_ids)
    assert torch.equal(ours.tile_mask, theirs.tile_mask)
    assert ours.n_tiles == theirs.n_tiles


# property


def test_everything_random_comes_from_the_items_seed(tokenizer: Tokenizer) -> None:
    def ask(seed: tuple[int, ...]) -> list[str]:
        return [e.question + e.answer for e in dataset(tokenizer, n_questions=8)[Item(0, 2, seed)].examples]

    torch.manual_seed(1)
    first = ask((1, 0, 5))
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 - the global state must not matter
    assert ask((1, 0, 5)) == first
    assert ask((1, 1, 5)) != first


def test_questions_about_a_page_differ_where_the_tasks_allow_it(tokenizer: Tokenizer) -> None:
    for tasks, different in ((("look", "lead", "yes_no"), 5), (("rate",), 1)):  # a task with one question repeats it
        component = ComponentConfig(source="simulated", n=6, seed=3, tasks=tasks)
        made = EcgDataset([component], STYLES["nano"], ImageTransform(12), tokenizer, 5, 1024)
        for index in range(6):
            examples = made[Item(0, index, (1, 0, index))].examples
            assert (len(examples), len({example.question for example in examples})) == (5, different)


def test_a_batch_on_a_device_is_the_same_batch(samples: Sequence[Sample]) -> None:
    batch = collate(samples, TINY)
    moved = batch.to("cpu")
    assert torch.equal(moved.tokens, batch.tokens)
    assert moved.n_tiles == batch.n_tiles


def test_samples_go_to_worker_processes_and_back(tokenizer: Tokenizer, tmp_path) -> None:
    made = dataset(tokenizer, cache=str(tmp_path / "pages"))
    item = Item(0, 1, (1, 0, 0))
    copied: EcgDataset = pickle.loads(pickle.dumps(made))
    assert np.array_equal(copied[item].tiles, made[item].tiles)


# refusal


def test_a_dialog_that_is_too_long_names_its_record_and_task(tokenizer: Tokenizer) -> None:
    made = dataset(tokenizer)
    made.max_tokens = 20
    with pytest.raises(ValueError, match=r"record sim-3-train-000000, task \w+: \d+ tokens, but data.max_tokens=20"):
        made[Item(0, 0, (1, 0, 0))]


def test_a_label_outside_of_the_vocabulary_is_refused(samples: Sequence[Sample]) -> None:
    answer = samples[0].dialogs[0]
    answer.tokens[answer.answers] = 310
    with pytest.raises(ValueError, match=r"label 31\d is outside of the vocabulary of 300"):
        collate(samples, with_text(TINY, vocab_size=300, n_extra_embeddings=28))


def test_an_unknown_source_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="source='ptb' is not one of"):
        EcgDataset([ComponentConfig(source="ptb")], STYLES["nano"], ImageTransform(12), tokenizer, 1, 99)
