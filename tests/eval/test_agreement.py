"""How far attention and occlusion agree: ranks as scipy has them, means by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from eval.agreement import agreement, agreement_text, between_labels, rank_correlation


def test_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 12):
        a, b = rng.integers(0, 5, n).astype(float).tolist(), rng.normal(size=n).tolist()
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b)[0])
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None


def test_agreement_by_hand() -> None:
    def case(attention: list[float], occlusion: list[float]) -> dict:
        values = [
            {"attention": a, "occlusion": o, "density": -a, "area": 0.1}
            for a, o in zip(attention, occlusion, strict=True)
        ]
        leads = dict(zip(("I", "II", "V1"), values, strict=True))
        scores = {"log_odds": 1.5, "occlusion_of_everything": -2.0}
        return {"id": "p", "label": "A", "leads": leads, "areas": {"strip": values[1]}, **scores}

    cases = [case([0.1, 0.2, 0.3], [0.0, -1.0, 2.0]), case([0.3, 0.2, 0.1], [0.0, -1.0, 2.0])]
    found = agreement(cases)["A"]
    assert found["everything_wiped"] == -0.5
    assert between_labels(cases) == {"attention": pytest.approx(-1.0), "occlusion": pytest.approx(1.0)}
    assert between_labels(cases[:1]) == {"attention": None, "occlusion": None}
    assert found["n"] == 2
    assert found["rho_attention"] == {"mean": 0.0, "standard_error": pytest.approx(1.0), "n": 2}  # rho 1 and -1
    assert found["rho_area"] == {"mean": None, "standard_error": None, "n": 0}
    assert found["same_first_lead"] == 0.5
    assert found["means"]["strip"]["occlusion"] == -1.0
    assert found["means"]["strip"]["abs_occlusion"] == 1.0
    assert agreement([]) == {}


def test_the_table_shows_what_exists() -> None:
    result = {
        "n": 3,
        "everything_wiped": 0.5,
        "rho_attention": {"mean": 0.25, "standard_error": 0.125, "n": 3},
        "rho_area": {"mean": None, "standard_error": None, "n": 0},
        "means": {"V1-V6": {"attention": 0.5, "occlusion": -1.25}},
    }
    assert agreement_text({"AFIB": result}).splitlines()[2].split() == [
        *("AFIB", "3", "+0.5", "0.25", "+-", "0.12", "-", "-", "-", "0.50", "-1.2", "-", "-")
    ]
