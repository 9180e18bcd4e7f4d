"""Pages to predict from: a record's page is its own, shuffled leads all move, a blank page knows nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.pages import ABOUT, BLANK, PAGE_KINDS, SHUFFLED, about, page_of
from eval.predict import Predictor
from tests.eval.conftest import predict_config
from train.ecg import STYLES, EcgRecord, draw_page, simulate_ecg

NANO = STYLES["nano"]


def record(name: str = "a", seed: int = 0) -> EcgRecord:
    return simulate_ecg(["CLBBB"], np.random.default_rng(seed), hz=100, record_id=name)


def pixels(kind: str, one: EcgRecord) -> bytes:
    return page_of(one, NANO, kind).image.tobytes()


def test_a_clean_page_is_the_page_as_drawn() -> None:
    assert pixels("clean", record()) == draw_page(record(), NANO).image.tobytes()


@pytest.mark.parametrize("kind", ["phone", "jpeg", SHUFFLED, BLANK])
def test_a_page_is_the_same_every_time_and_not_the_clean_one(kind: str) -> None:
    assert pixels(kind, record()) == pixels(kind, record())
    assert pixels(kind, record()) != pixels("clean", record())


def test_chance_is_the_records_own() -> None:
    a, b = (page_of(record(name), STYLES["varied"], "clean") for name in "ab")
    assert a.image.tobytes() != b.image.tobytes()
    assert page_of(record("a"), STYLES["varied"], "jpeg").style == a.style  # the same paper, whatever happens to it


def test_shuffled_leads_all_move_and_none_is_lost() -> None:
    signal = np.repeat(np.arange(12, dtype=np.float32)[:, None], 200, axis=1) / 100
    for name in "abcde":
        flat = replace(record(name), signal=signal, hz=20)
        assert pixels(SHUFFLED, flat) != pixels("clean", flat)
    from eval.pages import _derangement

    for seed in range(20):
        order = _derangement(12, np.random.default_rng(seed))
        assert sorted(order) == list(range(12))
        assert (order != np.arange(12)).all()


def test_blank_pages_of_all_records_are_equal() -> None:
    assert pixels(BLANK, record("a", 1)) == pixels(BLANK, record("b", 2))


def test_what_is_known_of_a_record_is_what_its_source_says() -> None:
    meta = {"sex": "female", "age": 61, "device": "CS-12", "site": "2", "fold": 10, "static_noise": " , I-V1,  "}
    page = page_of(record(), NANO)
    known = about(replace(record(), meta=meta | {"validated_by_human": "True"}), page, "nano")
    assert known == {
        "sex": "female",
        "age": 61.0,
        "device": "CS-12",
        "site": "2",
        "quality": "disturbed",
        "validated": "by a human",
        "layout": "3x4+1",
        "page": "nano",
    }
    assert tuple(known) == ABOUT
    over = about(replace(record(), meta={"age_over_89": True, "age": None, "fold": 1}), page, "nano")
    assert (over["age"], over["quality"]) == (90.0, "undisturbed")
    assert about(replace(record(), meta={}), page, "nano") == {
        **dict.fromkeys(ABOUT),
        "layout": "3x4+1",
        "page": "nano",
    }


def test_an_age_of_nan_is_unknown_and_one_that_is_no_number_is_refused() -> None:
    page = page_of(record(), NANO)
    assert about(replace(record(), meta={"age": float("nan")}), page, "nano")["age"] is None
    assert about(replace(record(), meta={"age": "61"}), page, "nano")["age"] == 61.0
    with pytest.raises(ValueError, match="age='61Y' is no number of years"):
        about(replace(record(), meta={"age": "61Y"}), page, "nano")


def test_a_kind_that_there_is_not_is_refused_and_the_others_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"distort='fog' is not one of clean, scan, .*, shuffled_leads, blank_page"):
        predict_config(tmp_path, tmp_path / "p.jsonl", distort="fog")
    assert len(set(PAGE_KINDS)) == len(PAGE_KINDS)


def test_predictions_are_made_from_the_distorted_pages_in_any_batch(checkpoint: Path, tmp_path: Path) -> None:
    both = [record("a", 1), record("b", 2)]
    config = predict_config(checkpoint, tmp_path / "p.jsonl", texts=())
    clean, phone, blank = (
        Predictor.load(replace(config, distort=kind)).predict(both) for kind in ("clean", "phone", BLANK)
    )
    assert clean[0]["log_odds"] != phone[0]["log_odds"]
    assert blank[0]["log_odds"]["superclass"] == pytest.approx(blank[1]["log_odds"]["superclass"], abs=1e-4)  # float32
    (alone,) = Predictor.load(replace(config, distort="phone")).predict(both[1:])
    assert alone["log_odds"]["superclass"] == pytest.approx(phone[1]["log_odds"]["superclass"], abs=1e-4)
    assert clean[0]["about"]["page"] == "nano"
