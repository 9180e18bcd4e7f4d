"""Wiping: what was drawn is gone, the paper is the paper, and a batch of wiped pages is each of them alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.heat import areas_of, lead_places
from eval.likelihood import ask_yes_no, score_labels
from eval.occlusion import MEDIAN, REDRAWN, empty_paper, occlude, wipe
from eval.pages import page_of
from eval.predict import Predictor
from tests.eval.conftest import predict_config
from train.ecg import LABEL_SETS, LEADS, STYLES, EcgRecord, PaperStyle, draw_page, simulate_ecg


@pytest.fixture(scope="module")
def predictor(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(predict_config(checkpoint, tmp_path_factory.mktemp("unused") / "p.jsonl"))


@pytest.fixture(scope="module")
def record() -> EcgRecord:
    return simulate_ecg(["LVH"], np.random.default_rng(8), hz=100)


@pytest.mark.parametrize(
    "style",
    [STYLES["nano"], replace(STYLES["varied448"], layout="6x2"), PaperStyle(layout="3x4+1", separators=True)],
    ids=["nano", "varied", "separators"],
)
def test_wiping_every_lead_leaves_the_empty_paper(style: PaperStyle, record: EcgRecord) -> None:
    page, paper = page_of(record, style), empty_paper(record, style)
    assert paper is not None
    pen = page.style.trace_mm * page.px_per_mm / 2
    boxes = [box for places in lead_places(page, record).values() for box in places]
    bare = wipe(page.image, boxes, paper, pen)
    assert (np.asarray(page.image) != np.asarray(paper)).any()
    assert (np.asarray(bare) == np.asarray(paper)).all()


def test_wiping_a_lead_equals_drawing_the_page_without_it_where_no_other_lead_stands(record: EcgRecord) -> None:
    """V6 of a page with one row per lead, small enough not to reach its neighbours."""
    style = PaperStyle(layout="12x1", mm_per_mv=2.0)
    signal = record.signal.copy()
    signal[LEADS.index("V6")] = np.nan
    page, without = (
        draw_page(one, style) for one in (record, EcgRecord(signal=signal, hz=record.hz, record_id="without V6"))
    )
    pen = style.trace_mm * style.px_per_mm / 2
    wiped = wipe(page.image, lead_places(page, record)["V6"], empty_paper(record, style), pen)
    assert (np.asarray(wiped) == np.asarray(without.image)).all()


def test_without_paper_a_box_gets_the_median_colour() -> None:
    page = Image.new("RGB", (20, 10), (200, 190, 180))
    page.paste((0, 0, 0), (2, 2, 6, 4))
    wiped = np.asarray(wipe(page, [(2.2, 2.0, 5.5, 3.9)], None))
    assert (wiped == (200, 190, 180)).all()
    assert (np.asarray(page)[2, 2] == 0).all()  # the page itself is left alone


def test_a_box_beyond_the_page_is_cut_off() -> None:
    page = Image.new("RGB", (20, 10), (200, 190, 180))
    assert (np.asarray(wipe(page, [(-5, -5, 50, 50), (30, 30, 40, 40)], None)) == (200, 190, 180)).all()


def test_changes_are_those_of_each_wiped_page_alone(predictor: Predictor, record: EcgRecord) -> None:
    questions = ask_yes_no(LABEL_SETS["superclass"], predictor.tokenizer)
    page, paper = draw_page(record, STYLES["nano"]), empty_paper(record, STYLES["nano"])
    areas = areas_of(lead_places(page, record))
    found = occlude(predictor.model, predictor.transform, questions, page.image, areas, paper=paper, margin=1.4)
    assert (found.areas, found.fill) == (tuple(areas), REDRAWN)

    def alone(image: Image.Image) -> torch.Tensor:
        return score_labels(predictor.model, questions, predictor.transform([[image]]))[0]

    torch.testing.assert_close(found.before, alone(page.image), atol=1e-4, rtol=0.0)
    for i, name in enumerate(areas):
        change = alone(wipe(page.image, areas[name], paper, 1.4)) - alone(page.image)
        torch.testing.assert_close(found.changes[i], change, atol=2e-4, rtol=0.0)
    assert found.changes.abs().max(1).values.min() > 1e-3  # every area matters to something


def test_wiping_what_is_empty_changes_nothing(predictor: Predictor, record: EcgRecord) -> None:
    questions = ask_yes_no(LABEL_SETS["superclass"], predictor.tokenizer)
    paper = empty_paper(record, STYLES["nano"])
    assert paper is not None
    whole = {"everything": [(0.0, 0.0, 512.0, 256.0)]}
    found = occlude(predictor.model, predictor.transform, questions, paper, whole, paper=paper)
    assert float(found.changes.abs().max()) < 1e-4
    plain = occlude(predictor.model, predictor.transform, questions, paper, whole)
    assert plain.fill == MEDIAN
    assert float(plain.changes.abs().max()) > 1e-3  # the grid went


def test_a_layout_that_follows_the_samples_has_no_empty_paper(record: EcgRecord) -> None:
    assert empty_paper(record, PaperStyle(layout="recorded")) is None


def test_nothing_to_wipe_is_refused(predictor: Predictor) -> None:
    questions = ask_yes_no(LABEL_SETS["superclass"], predictor.tokenizer)
    with pytest.raises(ValueError, match="no area to wipe"):
        occlude(predictor.model, predictor.transform, questions, Image.new("RGB", (512, 256)), {})
