"""Boxes of leads, sums over them, pictures; and that the map of a label is that of its question's last token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.heat import CHEST_LEADS, LIMB_LEADS, STRIP, areas_of, cover, lead_places, look_for_labels, overlay, share_of
from eval.likelihood import ask_yes_no, score_labels
from eval.predict import Predictor
from minimllama.attention_map import attention_of, to_page
from tests.eval.conftest import predict_config
from train.ecg import LABEL_SETS, LEADS, STYLES, EcgRecord, PaperStyle, draw_page, simulate_ecg


@pytest.fixture(scope="module")
def predictor(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(predict_config(checkpoint, tmp_path_factory.mktemp("unused") / "p.jsonl"))


def only(record: EcgRecord, lead: str) -> EcgRecord:
    """The same record with one lead's samples; the others are flat, so that the layout stays."""
    signal = np.zeros_like(record.signal)
    signal[LEADS.index(lead)] = record.signal[LEADS.index(lead)]
    return EcgRecord(signal=signal, hz=record.hz, record_id="only")


# equation


def test_shares_by_hand() -> None:
    """A page of 4 x 2 pixels; half of a pixel counts half."""
    heat = np.array([[0.1, 0.2, 0.0, 0.0], [0.3, 0.0, 0.0, 0.0]], np.float32)  # 0.4 fell elsewhere
    share = share_of(heat, [(0.0, 0.0, 1.5, 1.0)])
    assert share.weight == pytest.approx(0.1 + 0.5 * 0.2)
    assert share.area == pytest.approx(1.5 / 8)
    assert share.density == pytest.approx((0.2 / 0.6) / (1.5 / 8))


def test_boxes_of_one_lead_that_overlap_count_once() -> None:
    assert cover([(0, 0, 2, 1), (1, 0, 3, 1)], (4, 1)).tolist() == [[1, 1, 1, 0]]


# property


@pytest.mark.parametrize(
    "style",
    [
        STYLES["nano"],
        PaperStyle(layout="3x4+3", order="cabrera", jitter_mm=3.0),
        PaperStyle(layout="6x2+1", header=True, rhythm="V5", width=1200),
        PaperStyle(layout="12x1"),
    ],
    ids=["nano", "three strips", "header", "one row each"],
)
@pytest.mark.parametrize("lead", ["II", "V1", "V5", "aVR"])
def test_everything_that_a_lead_draws_is_in_its_places(style: PaperStyle, lead: str) -> None:
    record = simulate_ecg(["NORM"], np.random.default_rng(3), hz=100)
    nothing = EcgRecord(signal=np.zeros_like(record.signal), hz=record.hz, record_id="flat")
    drawn, flat = (draw_page(one, style, np.random.default_rng(0)) for one in (only(record, lead), nothing))
    places = lead_places(drawn, record)
    differs = np.asarray(drawn.image) != np.asarray(flat.image)
    pen = int(np.ceil(style.trace_mm * style.px_per_mm))
    boxes = [(x0 - pen, y0 - pen, x1 + pen, y1 + pen) for x0, y0, x1, y1 in places[lead]]
    assert differs.any()
    assert not (differs.any(-1) & (cover(boxes, drawn.image.size) == 0)).any()
    for box in places[lead]:  # and none of them is empty
        assert (differs.any(-1) & (cover([box], drawn.image.size) > 0)).any()


def test_a_lead_with_a_strip_stands_in_two_places() -> None:
    record = simulate_ecg(["NORM"], np.random.default_rng(3), hz=100)
    places = lead_places(draw_page(record, STYLES["nano"]), record)
    assert {lead: len(boxes) for lead, boxes in places.items()} == {lead: 1 + (lead == "II") for lead in LEADS}
    areas = areas_of(places)
    assert list(areas) == [*LEADS, STRIP, LIMB_LEADS, CHEST_LEADS]
    assert areas[STRIP] == [places["II"][0]]
    assert (len(areas[LIMB_LEADS]), len(areas[CHEST_LEADS])) == (7, 6)


def test_a_missing_rhythm_lead_gives_its_strip_to_another() -> None:
    record = simulate_ecg(["NORM"], np.random.default_rng(3), hz=100)
    signal = record.signal.copy()
    signal[:2] = np.nan
    part = EcgRecord(signal=signal, hz=record.hz, record_id="part")
    places = lead_places(draw_page(part, STYLES["nano"]), part)
    assert {lead for lead, boxes in places.items() if len(boxes) == 2} == {"III"}


@torch.no_grad()
def test_the_map_of_a_label_is_that_of_its_whole_question(predictor: Predictor) -> None:
    questions = ask_yes_no(LABEL_SETS["superclass"], predictor.tokenizer)
    record = simulate_ecg(["CLBBB"], np.random.default_rng(4), hz=100)
    page = draw_page(record, STYLES["nano"]).image
    looked = look_for_labels(predictor.model, predictor.transform, questions, page)
    images = predictor.transform([[page]])
    torch.testing.assert_close(looked.log_odds, score_labels(predictor.model, questions, images)[0])
    vision = predictor.model.config.vision
    for c, suffix in enumerate(questions.suffixes):
        tokens = torch.cat([questions.prompt, suffix])
        weights = attention_of(predictor.model, tokens, images, [len(tokens) - 1]).mean(2)[:, 0]
        wanted = to_page(weights, page.size, vision)
        torch.testing.assert_close(looked.maps.page[:, c], wanted.page, atol=1e-7, rtol=1e-3)
        torch.testing.assert_close(looked.maps.class_tokens[:, c], wanted.class_tokens, atol=1e-5, rtol=0.0)
    parts = looked.maps.page.sum((-2, -1)) + looked.maps.class_tokens + looked.maps.padding
    torch.testing.assert_close(parts, torch.ones_like(parts))


def test_a_picture_is_red_where_the_weight_is_and_as_it_was_elsewhere() -> None:
    page = Image.new("RGB", (40, 30), (250, 250, 250))
    heat = np.zeros((30, 40), np.float32)
    heat[10:20, 5:15] = 0.01
    before = np.asarray(page).copy()
    shown = np.asarray(overlay(page, heat, [(20, 2, 30, 8)]), int)
    assert (shown[15, 10] == shown[11, 6]).all()
    assert shown[15, 10, 0] > shown[15, 10, 1] + 80
    assert (shown[25, 35] == 250).all()
    assert shown[2, 25].tolist() == shown[7, 20].tolist() == [30, 80, 200]
    assert (np.asarray(page) == before).all()
    assert (np.asarray(overlay(page, np.zeros_like(heat))) == before).all()
