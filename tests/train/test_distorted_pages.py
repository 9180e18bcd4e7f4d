"""Training on pages that look real, asked in other words: from the recipe to the sample, and across a resumed run."""

from pathlib import Path

import numpy as np
import pytest

from minimllama import ImageTransform, Tokenizer
from tests.tools.tiny import TINY
from train.config import DataConfig
from train.dataset import EcgDataset
from train.ecg import STYLES, distort, draw_page
from train.mixture import ComponentConfig, Item
from train.recipe_changes import _changes


def dataset(tokenizer: Tokenizer, distort: str = "clean", cache: str = "", **component: str) -> EcgDataset:
    components = [ComponentConfig(source="simulated", n=5, seed=3, tasks=("rhythm", "statements"), **component)]
    transform = ImageTransform(TINY.vision.tile_size, TINY.vision.max_tiles)
    return EcgDataset(components, STYLES["nano"], transform, tokenizer, 2, 1024, distort=distort, cache=cache)


def test_a_page_is_drawn_then_distorted_from_the_items_seed(tokenizer: Tokenizer) -> None:
    made, item = dataset(tokenizer, "scan"), Item(0, 2, (1, 0, 4))
    rng = np.random.default_rng(item.seed)
    expected = distort(draw_page(made.sources[0][2], STYLES["nano"], rng), rng, "scan")
    page = made[item].page
    assert page is not None
    assert page.image.tobytes() == expected.image.tobytes()
    assert page.distortions == expected.distortions
    assert page.image.tobytes() != made[Item(0, 2, (1, 1, 4))].page.image.tobytes()  # the next epoch


def test_clean_pages_are_those_of_before(tokenizer: Tokenizer) -> None:
    made = dataset(tokenizer)
    page = made[Item(0, 2, (1, 0, 4))].page
    assert page.image.tobytes() == draw_page(made.sources[0][2], STYLES["nano"]).image.tobytes()


def test_kept_pages_of_another_distortion_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    dataset(tokenizer, "scan", str(tmp_path))
    with pytest.raises(ValueError, match="name another file"):
        dataset(tokenizer, "phone", str(tmp_path))


def test_wording_and_report_reach_the_questions(tokenizer: Tokenizer) -> None:
    def questions(wording: str) -> set[str]:
        made = dataset(tokenizer, wording=wording)
        return {e.question for i in range(12) for e in made[Item(0, i % 5, (1, 0, i))].examples}

    assert questions("fixed") == {"What is the rhythm of this ECG?", "List all findings of this ECG."}
    assert len(questions("varied")) > 4


def test_what_does_not_exist_is_refused_when_the_recipe_is_read() -> None:
    component = ComponentConfig(source="simulated", n=1)
    with pytest.raises(ValueError, match="distort='fax' is not one of clean, scan"):
        DataConfig(components=(component,), distort="fax")
    with pytest.raises(ValueError, match="wording='free' is not one of fixed, varied"):
        ComponentConfig(source="simulated", n=1, wording="free")
    with pytest.raises(ValueError, match="report='mine' is not one of any, given, statements"):
        ComponentConfig(source="simulated", n=1, report="mine")


def test_a_run_from_before_these_settings_goes_on_with_what_it_did() -> None:
    before = '[data]\npage = "nano"\n[[data.components]]\nsource = "simulated"\n'
    same = before.replace('"nano"\n', '"nano"\ndistort = "clean"\n') + 'wording = "fixed"\nreport = "any"\n'
    same += "distort_pictures = false\n"
    other = same.replace("clean", "scan").replace("fixed", "varied")
    assert _changes(before, same) == []
    assert _changes(before, other) == [
        "data.distort (clean then, scan now)",
        "data.components.0.wording (fixed then, varied now)",
    ]
