"""benchmarks/data.py on small pages: rates are measured with real workers, the estimate follows from them."""

import pytest

from benchmarks.data import Options, Rate, measure_all, needed_workers, page

SMALL = Options(page="nano", distort=("clean", "jpeg"), batches=1, workers=2)


@pytest.fixture(scope="module")
def rates() -> list[Rate]:
    return list(measure_all(SMALL))


def test_every_preset_is_measured_with_one_worker_to_the_most(rates: list[Rate]) -> None:
    assert [(rate.distort, rate.workers) for rate in rates] == [("clean", 1), ("clean", 2), ("jpeg", 1), ("jpeg", 2)]
    for rate in rates:
        assert rate.images_per_second > 0
        assert rate.page_seconds > 0  # of workers that have ended, so they are counted


def test_the_estimate_follows_from_processor_seconds_and_not_from_the_clock() -> None:
    slow = Rate(distort="clean", workers=2, images_per_second=1.0, page_seconds=0.1, load=9.0)
    assert needed_workers(slow) == 2  # 16 x 0.1 s, rounded up
    assert needed_workers(Rate(**{**vars(slow), "images_per_second": 99.0})) == 2


def test_the_page_says_what_is_measured_and_what_is_estimated(rates: list[Rate]) -> None:
    measured, estimated = page(rates, SMALL).split("Estimated, not measured")
    assert measured.count("\n| clean |") == measured.count("\n| jpeg |") == 2
    assert estimated.count("\n| clean |") == estimated.count("\n| jpeg |") == 1
    assert f"| {needed_workers(rates[-1])} |" in estimated
