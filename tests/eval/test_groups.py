"""Subgroups, and the same records on other pages."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from eval.groups import age_band, change_of, group_rows, groups_of, macro_auc_draws


def lines(n: int) -> list[dict]:
    return [
        {"patient_id": f"p{i}", "about": {"sex": "female" if i % 3 else "male", "age": 20.0 + i, "device": None}}
        for i in range(n)
    ]


def test_groups_follow_the_fields_that_records_carry() -> None:
    found = groups_of([*lines(5), {"patient_id": "x"}])
    assert list(found) == ["sex", "age band"]
    assert found["sex"] == {"female": [1, 2, 4], "male": [0, 3], "unknown": [5]}
    assert groups_of([{"patient_id": "x"}]) == {}


@pytest.mark.parametrize(("age", "band"), [(17.9, "under 18"), (18, "18 to 39"), (80, "80 and over"), (None, None)])
def test_age_bands_begin_with_their_first_year(age: float | None, band: str | None) -> None:
    assert age_band(age) == band


def test_a_group_has_the_auc_of_its_records_and_a_small_one_no_number() -> None:
    rng = np.random.default_rng(5)
    y, s = rng.random((31, 3)) < 0.5, rng.normal(size=(31, 3))
    rows = group_rows(lines(31), y, s, np.zeros(3), ("a", "b", "c"), smallest=12, n_draws=40)
    by = {(row.field, row.group): row for row in rows}
    female = [i for i in range(31) if i % 3]
    row = by["sex", "female"]
    assert row.n == len(female)
    assert row.auc == pytest.approx(roc_auc_score(y[female], s[female], average="macro"))
    assert row.interval is not None
    assert row.auc is not None
    assert row.interval[0] <= row.auc <= row.interval[1]
    small = by["sex", "male"]
    assert (small.is_small, small.auc, small.interval) == (True, None, None)
    assert by["", "all records"].n == 31


def test_drawing_every_record_once_gives_the_macro_auc() -> None:
    rng = np.random.default_rng(6)
    y, s = rng.random((23, 4)) < 0.4, rng.normal(size=(23, 4))
    y[:, 3] = False  # undefined, left out
    value = macro_auc_draws(y, s, np.ones((23, 2), int))
    assert value == pytest.approx([roc_auc_score(y[:, :3], s[:, :3], average="macro")] * 2)


def test_a_change_is_paired_and_none_where_nothing_changed() -> None:
    rng = np.random.default_rng(7)
    y, s = rng.random((40, 2)) < 0.5, rng.normal(size=(40, 2))
    same = change_of(y, s, s, [str(i) for i in range(40)], n_draws=30)
    assert (same.difference, same.difference_interval) == (0.0, [0.0, 0.0])
    good = np.where(y, 1.0, -1.0)
    worse = change_of(y, good, -good, [str(i) for i in range(40)], n_draws=30)
    assert (worse.auc, worse.difference) == (0.0, -1.0)
