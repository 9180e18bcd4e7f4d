"""Which records a suite opens, and which page fits a model."""

from pathlib import Path

import pytest

from eval.suites import SUITES, page_for
from minimllama import PRESETS
from minimllama.config import VisionConfig
from minimllama.image import choose_grid
from train.ecg import LABEL_SETS, SOURCES, STYLES, TASKS, open_source, write_record


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_names_a_source_label_sets_and_tasks_that_exist(name: str) -> None:
    suite = SUITES[name]
    assert suite.name == name
    assert suite.source in SOURCES
    assert suite.label_sets == {"superclass": LABEL_SETS["superclass"], "statements": LABEL_SETS[suite.statements]}
    assert set(suite.texts) <= TASKS.keys()
    assert suite.synthetic == (suite.source == "simulated")


def test_simulated_patients_are_numbered_by_seed_and_split() -> None:
    suite = SUITES["simulated"]
    assert len(suite.open(None, "test", None, None)) == suite.n
    ours = suite.open(None, "validate", 3, 9)
    assert ours[2].signal.tobytes() == open_source("simulated", None, "validate", n=3, seed=9)[2].signal.tobytes()
    assert suite.open(None, "test", 3, 0)[1].record_id == "sim-0-test-000001"  # 0 is a seed like any other


def test_a_folder_of_records_is_a_suite(tmp_path: Path) -> None:
    record = open_source("simulated", n=1)[0]
    object.__setattr__(record, "split", "test")
    write_record(record, tmp_path)
    assert SUITES["wfdb"].open(str(tmp_path), "test", None, None)[0].record_id == record.record_id


@pytest.mark.parametrize(("side", "style"), [(560, "square"), (448, "square448"), (256, "nano")])
def test_the_page_fills_whole_tiles_without_being_rescaled(side: int, style: str) -> None:
    assert page_for(VisionConfig(tile_size=side, patch_size=side // 4)) == style
    page = STYLES[style]
    rows, columns = choose_grid(page.width, page.height, side, 4)
    assert (page.width, page.height) == (columns * side, rows * side)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_page(name: str) -> None:
    assert page_for(PRESETS[name].vision) in STYLES


def test_other_tiles_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="no page style for tiles of 100 px; name one of square"):
        page_for(VisionConfig(tile_size=100, patch_size=50))


def test_a_folders_records_cannot_be_counted_or_seeded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n and seed do not apply"):
        SUITES["wfdb"].open(str(tmp_path), "test", 5, None)
