"""Metrics against scikit-learn on random data, by hand where a label defines nothing, and against PULSE's cases."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from eval.metrics import best_f1_thresholds, expected_calibration_error, label_metrics, to_probability


def random_case(seed: int, n: int = 60, n_labels: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, predictions, and scores with ties; every label has both outcomes."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, n_labels)) < rng.uniform(0.1, 0.6, n_labels)
    y[0], y[1] = True, False
    scores = np.round(y + rng.normal(0, 1.2, y.shape), 1)
    return y, scores > 0.6, scores


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    return [value]


# parity with scikit-learn

SAME = {"rel": 0, "abs": 1e-12}


@pytest.mark.parametrize("seed", range(5))
def test_means_of_predictions_are_scikit_learns(seed: int) -> None:
    y, p, _ = random_case(seed)
    m = label_metrics(y, p)
    assert m["macro_f1"] == pytest.approx(sk.f1_score(y, p, average="macro", zero_division=0), **SAME)
    assert m["hamming"] == pytest.approx(sk.hamming_loss(y, p), **SAME)
    balanced = [sk.balanced_accuracy_score(y[:, i], p[:, i]) for i in range(5)]
    assert m["balanced_accuracy"] == pytest.approx(np.mean(balanced), **SAME)
    assert m["balanced_accuracy"] == pytest.approx(sk.roc_auc_score(y, p), **SAME)  # "AUC" of hard labels


@pytest.mark.parametrize("seed", range(5))
def test_means_of_scores_are_scikit_learns(seed: int) -> None:
    y, _, s = random_case(seed)
    m = label_metrics(y, scores=s)
    probability = 1 / (1 + np.exp(-s))
    assert m["macro_auc"] == pytest.approx(sk.roc_auc_score(y, s, average="macro"), **SAME)
    assert m["micro_auc"] == pytest.approx(sk.roc_auc_score(y, s, average="micro"), **SAME)
    assert m["macro_ap"] == pytest.approx(sk.average_precision_score(y, s, average="macro"), **SAME)
    briers = [sk.brier_score_loss(y[:, i], probability[:, i]) for i in range(5)]
    assert m["brier"] == pytest.approx(np.mean(briers), **SAME)


@pytest.mark.parametrize("seed", range(3))
def test_every_number_of_every_label_is_scikit_learns(seed: int) -> None:
    y, p, s = random_case(seed)
    names = ["a", "b", "c", "d", "e"]
    m = label_metrics(y, p, s, names)
    assert list(m["per_label"]) == names
    for i, name in enumerate(names):
        row, truth, said = m["per_label"][name], y[:, i], p[:, i]
        assert (row["n_pos"], row["n_neg"]) == (truth.sum(), (~truth).sum())
        reference = {
            "auc": sk.roc_auc_score(truth, s[:, i]),
            "ap": sk.average_precision_score(truth, s[:, i]),
            "f1": sk.f1_score(truth, said),
            "sensitivity": sk.recall_score(truth, said),
            "specificity": sk.recall_score(~truth, ~said),
            "ppv": sk.precision_score(truth, said),
            "npv": sk.precision_score(~truth, ~said),
        }
        assert {key: row[key] for key in reference} == pytest.approx(reference, **SAME)


def test_pulses_cases_over_the_whole_label_space(shared: Path) -> None:
    path = shared / "parity" / "pulse_eval_cases.json"
    if not path.is_file():
        pytest.skip(f"no reference cases at {path}")
    cases = [case for case in json.loads(path.read_text())["cases"] if case["kind"] == "label_sets"]
    assert len(cases) > 10
    for case in cases:
        space, wanted = case["sklearn"]["label_space"], case["sklearn"]
        y, p = ([[code in row for code in space] for row in case[key]] for key in ("y_true", "y_pred"))
        m = label_metrics(y, p, names=space)
        assert m["macro_f1"] == pytest.approx(wanted["macro_f1_all"], abs=1e-11), case["id"]
        assert m["hamming"] == pytest.approx(wanted["hamming_all"], abs=1e-11)
        assert m["balanced_accuracy"] == pytest.approx(wanted["macro_auc_hard_defined"], abs=1e-11)
        assert len(space) - m["n_undefined"] == wanted["n_auc_classes"]
        for name, numbers in wanted["per_class"].items():
            assert m["per_label"][name]["f1"] == pytest.approx(numbers["f1"], abs=1e-11)


# equation: what a label does not define


def test_labels_without_both_outcomes_are_left_out_and_counted() -> None:
    # label 0: both outcomes; label 1: no positive; label 2: positive everywhere
    y = [[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]]
    s = [[0.9, 0.8, 0.1], [0.2, 0.1, 0.2], [0.6, 0.3, 0.3], [0.7, 0.2, 0.4]]
    m = label_metrics(y, np.array(s) > 0.5, s)
    assert m["n_undefined"] == 2
    assert m["macro_auc"] == m["per_label"]["0"]["auc"] == 0.75
    assert m["macro_ap"] == m["per_label"]["0"]["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert (m["per_label"]["1"]["auc"], m["per_label"]["2"]["auc"], m["per_label"]["1"]["ap"]) == (None, None, None)
    assert m["balanced_accuracy"] == 0.75
    f1 = [4 / 5, 0.0, 0.0]  # no positive and one false alarm; positive everywhere and never predicted
    assert m["macro_f1"] == pytest.approx(np.mean(f1))
    assert m["per_label"]["1"]["sensitivity"] is None
    assert m["per_label"]["2"]["specificity"] is None
    assert m["per_label"]["2"]["ppv"] is None
    assert m["hamming"] == pytest.approx((1 + 1 + 4) / 12)


@pytest.mark.parametrize("value", [0, 1])
def test_when_nothing_is_defined_means_are_none_and_nothing_is_nan(value: int) -> None:
    y, s = np.full((3, 2), value), np.random.default_rng(0).random((3, 2))
    m = label_metrics(y, y, s)
    assert (m["macro_auc"], m["micro_auc"], m["macro_ap"], m["balanced_accuracy"], m["n_undefined"]) == (None,) * 4 + (
        2,
    )
    assert m["macro_f1"] == float(value)  # 0 where undefined, 1 where everything is found
    assert not [v for v in leaves(m) if isinstance(v, float) and math.isnan(v)]


def test_one_record_and_one_label_are_enough() -> None:
    m = label_metrics([[1]], [[1]], [[0.7]])
    assert (m["n"], m["n_labels"], m["macro_f1"], m["hamming"], m["brier"]) == (1, 1, 1.0, 0.0, pytest.approx(0.09))


def test_labels_with_ten_positives_have_a_mean_of_their_own() -> None:
    y = np.zeros((30, 2), bool)
    y[:10, 0], y[:9, 1] = True, True
    s = np.random.default_rng(1).random((30, 2))
    m = label_metrics(y, scores=s)
    assert m["macro_auc_10"] == m["per_label"]["0"]["auc"] != m["macro_auc"]
    y[0, 0] = False
    assert label_metrics(y, scores=s)["macro_auc_10"] is None


def test_calibration_error_by_hand() -> None:
    # bins of 1/2: two records at 0.25 of which one is positive, two at 0.75 of which both are
    y, probability = np.array([0, 1, 1, 1], bool), np.array([0.25, 0.25, 0.75, 0.75])
    assert expected_calibration_error(y, probability, n_bins=2) == pytest.approx((0.5 * 0.25) + (0.5 * 0.25))
    assert expected_calibration_error(np.array([1, 0], bool), np.array([1.0, 0.0])) == 0.0


def test_scores_are_probabilities_or_log_odds() -> None:
    inside = np.array([[0.0, 1.0, 0.3]])
    assert np.array_equal(to_probability(inside), inside)
    assert to_probability(np.array([[0.0, 2.0, -900.0]]))[0] == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 0.0])


def test_perfect_and_inverted_scores() -> None:
    y, _, _ = random_case(3)
    perfect, inverted = label_metrics(y, y, y.astype(float)), label_metrics(y, ~y, -y.astype(float))
    assert [perfect[k] for k in ("macro_f1", "hamming", "macro_auc", "macro_ap", "brier", "ece")] == [1, 0, 1, 1, 0, 0]
    assert [inverted[k] for k in ("macro_f1", "hamming", "balanced_accuracy", "macro_auc")] == [0, 1, 0, 0]


# property


def test_the_order_of_records_and_of_labels_does_not_matter() -> None:
    y, p, s = random_case(7)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(y)), rng.permutation(5)
    names = list("abcde")
    m = label_metrics(y, p, s, names)
    moved = label_metrics(
        y[rows][:, columns], p[rows][:, columns], s[rows][:, columns], [list("abcde")[i] for i in columns]
    )
    for key, value in m.items():
        if key == "per_label":
            assert all(moved[key][name] == pytest.approx(row) for name, row in value.items())
        else:
            assert moved[key] == pytest.approx(value, abs=1e-12)


def test_auc_depends_on_ranks_only() -> None:
    y, _, s = random_case(8)
    assert label_metrics(y, scores=s)["macro_auc"] == pytest.approx(
        label_metrics(y, scores=s**3)["macro_auc"], abs=1e-12
    )


def test_lists_integers_and_booleans_are_the_same_truth() -> None:
    y, p, s = random_case(9)
    assert label_metrics(y.astype(int).tolist(), p.astype(float), s.tolist()) == label_metrics(y, p, s)


def test_only_what_was_given_is_measured() -> None:
    y, p, s = random_case(1)
    assert not {"macro_auc", "brier"} & label_metrics(y, p).keys()
    assert not {"macro_f1", "hamming"} & label_metrics(y, scores=s).keys()
    assert label_metrics(y, p)["per_label"]["0"]["auc"] is None


def test_thresholds_stand_beside_what_they_decided_and_the_result_is_json() -> None:
    y, p, s = random_case(1)
    thresholds = np.array([0.5, -1.0, 2.0, 0.25, np.inf])
    m = label_metrics(y, p, s, thresholds=thresholds)
    assert [m["per_label"][str(i)]["threshold"] for i in range(5)] == [0.5, -1.0, 2.0, 0.25, None]
    assert json.loads(json.dumps(m, allow_nan=False)) == m


# thresholds


def brute_force(y: np.ndarray, s: np.ndarray) -> float:
    """The smallest of all scores with the largest F1, by trying each."""
    best = max(sk.f1_score(y, s >= t) for t in s)
    return min(t for t in s if sk.f1_score(y, s >= t) == best)


@pytest.mark.parametrize("seed", range(12))
def test_thresholds_are_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 25))
    y = rng.random((n, 3)) < rng.uniform(0.1, 0.9)
    y[rng.integers(n)] = True
    s = np.round(rng.normal(size=(n, 3)), int(rng.integers(0, 3)))  # ties
    assert best_f1_thresholds(y, s).tolist() == [brute_force(y[:, i], s[:, i]) for i in range(3)]


@pytest.mark.parametrize(
    ("y", "s", "threshold"),
    [
        ([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1], 0.7),  # F1 of 2/3, 1/2, 4/5, 2/3
        ([1, 0, 0, 1], [0.9, 0.5, 0.5, 0.2], 0.2),  # 2/3 at 0.9 and at 0.2: of equal F1 the smallest score
        ([1, 1], [0.3, 0.3], 0.3),
        ([0, 0], [0.3, 0.4], math.inf),
    ],
)
def test_thresholds_by_hand(y: list[int], s: list[float], threshold: float) -> None:
    assert best_f1_thresholds(np.array(y)[:, None], np.array(s)[:, None]).tolist() == [threshold]


def test_a_threshold_of_infinity_predicts_nothing() -> None:
    assert not (np.array([[1e300]]) >= best_f1_thresholds([[0]], [[1e300]])).any()


# refusal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2]], [[1, 0]]), "y_true must hold 0 and 1 only"),
        (([[1, 0]], [[1, 0.5]]), "y_pred must hold 0 and 1 only"),
        (([1, 0], [1, 0]), r"y_true must be \[records, labels\], got \[2\]"),
        (([[1, 0]], [[1, 0, 1]]), r"y_pred must be \[records, labels\] = \[1, 2\], got \[1, 3\]"),
        (([[1, 0]], None, [[math.nan, 0.0]]), "scores must be finite"),
        (([[1, 0]], None, [[math.inf, 0.0]]), "scores must be finite"),
        (([[1, 0]],), "nothing to measure"),
        (([[1, 0]], [[1, 0]], None, ["a"]), "names must be 2 different labels, got 1"),
        (([[1, 0]], [[1, 0]], None, ["a", "a"]), "names must be 2 different labels"),
        ((np.zeros((0, 3)), np.zeros((0, 3))), "no records or no labels"),
        ((np.zeros((3, 0)), np.zeros((3, 0))), "no records or no labels"),
    ],
)
def test_what_is_not_a_truth_or_a_score_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_metrics(*arguments)


def test_thresholds_of_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="scores_val must be finite"):
        best_f1_thresholds([[1]], [[math.nan]])
