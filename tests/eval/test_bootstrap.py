"""The bootstrap against repeating every drawn record and asking scikit-learn, and how patients are drawn."""

import numpy as np
import pytest

from eval.bootstrap import bootstrap_intervals, draw_patients, mean_interval, percentile_interval, weighted_ranking
from eval.metrics import label_metrics, to_probability


def case(seed: int, n: int = 40, n_labels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, predictions and scores with many ties; every label has both outcomes."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, n_labels)) < [0.5, 0.2, 0.1][:n_labels]
    y[0], y[1] = True, False
    scores = np.round(y + rng.normal(0, 1, y.shape), int(rng.integers(0, 3)))
    return y, scores > 0.5, scores


def repeated(draws: np.ndarray, d: int) -> np.ndarray:
    return np.repeat(np.arange(len(draws)), draws[:, d])


# equation


@pytest.mark.parametrize("seed", range(4))
def test_every_draw_has_the_metrics_of_its_repeated_records(seed: int) -> None:
    y, p, s = case(seed)
    draws = draw_patients(y, [str(i) for i in range(len(y))], 20, np.random.default_rng(seed))
    assert draws.complete
    import eval.bootstrap as module

    means_p, label_p = module._draws_of_predictions(y, p, draws.weights)
    means_s, label_s = module._draws_of_scores(y, s, to_probability(s), draws.weights)
    for d in range(20):
        rows = repeated(draws.weights, d)
        wanted = label_metrics(y[rows], p[rows], s[rows])
        for name, values in (means_p | means_s).items():
            expected = np.nan if wanted[name] is None else wanted[name]
            if name.endswith("_10"):
                continue  # which labels have ten positives is decided once, on the records
            assert values[d] == pytest.approx(expected, abs=1e-9, nan_ok=True), name
        for name, values in (label_p | label_s).items():
            for i in range(3):
                expected = wanted["per_label"][str(i)][name]
                assert values[i, d] == pytest.approx(np.nan if expected is None else expected, abs=1e-9, nan_ok=True)


def test_ranking_in_chunks_is_ranking_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    y, _, s = case(5, n=50)
    weights = np.random.default_rng(0).integers(0, 3, (50, 7))
    whole = weighted_ranking(y, s, weights)
    monkeypatch.setattr("eval.bootstrap.CHUNK", 150)
    for got, wanted in zip(weighted_ranking(y, s, weights), whole, strict=True):
        assert got == pytest.approx(wanted, abs=1e-12)


def test_an_interval_holds_the_middle_of_the_draws() -> None:
    assert percentile_interval(np.arange(1001.0)) == pytest.approx([25, 975])
    assert percentile_interval(np.array([np.nan, np.nan, 1.0])) is None


def test_the_interval_of_a_mean_is_about_two_standard_errors_either_side() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    low, high = mean_interval(values.tolist(), [str(i) for i in range(400)], n_draws=2000) or [0, 0]
    width = 2 * 1.96 * values.std() / 20
    assert high - low == pytest.approx(width, rel=0.1)  # the quantiles of 2000 draws are uncertain by some percent


# property


def test_records_of_a_patient_are_drawn_together_so_intervals_are_wider() -> None:
    y, p, s = case(1, n=60)
    once = bootstrap_intervals(y, p, s, [str(i) for i in range(60)], "abc", n_draws=400)
    twice = [np.concatenate([x, x]) for x in (y, p, s)]
    together = bootstrap_intervals(*twice, [str(i) for i in range(60)] * 2, "abc", n_draws=400)
    apart = bootstrap_intervals(*twice, [str(i) for i in range(120)], "abc", n_draws=400)

    def width(result: dict) -> float:
        low, high = result["means"]["hamming"]
        return high - low

    assert (once["n_patients"], together["n_patients"], apart["n_patients"]) == (60, 60, 120)
    for name in ("macro_auc", "macro_ap", "micro_auc", "hamming", "brier"):
        assert together["means"][name] == pytest.approx(once["means"][name]), name  # copies add nothing
    assert width(apart) < 0.85 * width(together)  # 1 / sqrt(2) if copies passed for new patients


def test_every_draw_keeps_both_outcomes_of_every_label() -> None:
    y = np.zeros((30, 4), bool)
    y[0, 0] = y[:2, 1] = y[:29, 2] = True  # one positive, two, one negative; label 3 has none at all
    draws = draw_patients(y, [str(i) for i in range(30)], 200, np.random.default_rng(0))
    assert draws.complete
    assert (y[:, :3].T @ draws.weights > 0).all()
    assert (~y[:, :3].T @ draws.weights > 0).all()
    assert (draws.weights.sum(0) == 30).all()


def test_where_no_draw_can_keep_every_label_it_is_said_and_labels_are_missing_from_draws() -> None:
    y = np.eye(12, dtype=bool)  # one positive each: only the records themselves would do
    result = bootstrap_intervals(y, y, y.astype(float), [str(i) for i in range(12)], list("abcdefghijkl"), n_draws=50)
    assert not result["complete"]
    assert result["means"]["macro_auc"] == [1.0, 1.0]
    assert result["means"]["macro_auc_10"] is None


def test_the_same_seed_gives_the_same_bounds_and_another_one_others() -> None:
    y, p, s = case(2)
    patients = [str(i) for i in range(len(y))]
    first, again, other = (
        bootstrap_intervals(y, p, s, patients, "abc", n_draws=50, seed=seed)["means"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_bounds_lie_around_what_was_measured() -> None:
    y, p, s = case(6, n=200)
    measured = label_metrics(y, p, s)
    result = bootstrap_intervals(y, p, s, [str(i) for i in range(200)], "abc", n_draws=300)
    for name in ("macro_auc", "macro_ap", "micro_auc", "micro_ap", "macro_f1", "hamming", "brier"):
        low, high = result["means"][name]
        assert low < measured[name] < high


# refusal


def test_patients_and_draws_must_fit() -> None:
    with pytest.raises(ValueError, match="2 records need as many patients, got 1"):
        draw_patients(np.zeros((2, 1), bool), ["a"], 5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="n_draws=0"):
        draw_patients(np.zeros((1, 1), bool), ["a"], 0, np.random.default_rng(0))
