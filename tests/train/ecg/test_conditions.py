"""Every condition meets its textbook criterion in the signal that is drawn, and contradictions are not drawn."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.train.ecg.simulated import as_drawn
from train.ecg import LEADS, EcgRecord, simulate_ecg
from train.ecg.conditions import CONDITIONS, check_conditions, compatible, draw_conditions

SEEDS = range(3)
LIMB, CHEST = LEADS[:6], LEADS[6:]
INFERIOR, PRECORDIAL = ("II", "aVF", "III"), ("V1", "V2", "V3", "V4", "V5", "V6")
Measured = dict[str, Any]


def height(m: Measured, name: str) -> float:
    """Of the QRS, mV."""
    return m["r"][name] - min(m["q"][name], m["s"][name])


def contiguous(values: dict[str, float], test: Callable[[float], bool], leads: tuple[str, ...]) -> bool:
    """Whether two neighbours among the leads pass."""
    return any(test(values[a]) and test(values[b]) for a, b in itertools.pairwise(leads))


def is_normal(m: Measured) -> bool:
    intervals = 120 <= m["pr"] <= 200 and m["p_width"] <= 120 and m["qrs"] < 110 and m["qtc"] < 450
    return 60 <= m["heart_rate"] <= 100 and m["regular"] and intervals and -30 <= m["axis"] <= 90


def is_sinus(m: Measured) -> bool:
    return m["p_before_qrs"] and not m["undulates"] and m["n_early"] == 0


def has_st_elevation(m: Measured) -> bool:
    """0.1 mV in two contiguous leads, 0.2 in V2 and V3."""
    over = {name: value - (0.2 if name in ("V2", "V3") else 0.1) for name, value in m["st"].items()}
    return contiguous(over, lambda mv: mv >= 0, PRECORDIAL) or contiguous(over, lambda mv: mv >= 0, INFERIOR)


# What a textbook asks for, measured. Chou's Electrocardiography; AHA/ACCF/HRS 2009.
CRITERIA: dict[str, Callable[[Measured], bool]] = {
    "NORM": is_normal,
    "SBRAD": lambda m: m["heart_rate"] < 60 and is_sinus(m),
    "STACH": lambda m: m["heart_rate"] > 100 and is_sinus(m) and m["regular"],
    "SARRH": lambda m: m["rr_variation"] > 120 and is_sinus(m) and m["qrs"] < 110,
    "AFIB": lambda m: m["rr_spread"] > 0.1 and m["undulates"] and not m["p_before_qrs"],
    # at 150 a minute, of two flutter waves for each beat one hides in the QRS: seen is the rate
    "AFLT": lambda m: (
        m["rr_spread"] < 0.02
        and min(abs(m["heart_rate"] - v) for v in (75, 100, 150)) < 1
        and (m["undulates"] and abs(m["atrial_rate"] - 300) < 20 if m["heart_rate"] < 140 else not m["n_early"])
    ),
    "SVTAC": lambda m: 155 < m["heart_rate"] < 200 and m["regular"] and not m["p_before_qrs"] and m["qrs"] < 120,
    "3AVB": lambda m: m["heart_rate"] < 45 and m["regular"] and not m["p_before_qrs"] and 80 < m["atrial_rate"] < 95,
    "PVC": lambda m: m["n_wide_early"] == m["n_early"] == 2 and m["qrs"] < 110 and m["p_before_qrs"],
    "BIGU": lambda m: abs(2 * m["n_wide_early"] - m["n_beats"]) <= 1 and m["qrs"] < 110,
    "PAC": lambda m: 1 <= m["n_early"] <= 2 and m["n_wide_early"] == 0 and m["qrs"] < 110 and m["p_before_qrs"],
    "PACE": lambda m: (
        m["spike"]
        and m["qrs"] >= 120
        and not m["p_before_qrs"]
        and min(abs(m["heart_rate"] - 60), abs(m["heart_rate"] - 70)) < 0.5
    ),
    "1AVB": lambda m: m["pr"] > 200,
    "LAO/LAE": lambda m: m["p_width"] > 120,
    "RAO/RAE": lambda m: m["p"]["II"] >= 0.25,
    # no septal Q, and V1 a QS or rS complex: deep, with next to nothing above the line
    "CLBBB": lambda m: (
        m["qrs"] >= 120 and min(m["q"]["I"], m["q"]["V6"]) > -0.04 and m["s"]["V1"] < -0.8 and m["r"]["V1"] < 0.1
    ),
    "CRBBB": lambda m: m["qrs"] >= 120 and m["r_prime"]["V1"] > 0.15 and m["s"]["I"] < -0.1 and m["s"]["V6"] < -0.1,
    "IRBBB": lambda m: 100 <= m["qrs"] <= 119 and m["r_prime"]["V1"] > 0.15,
    "LAFB": lambda m: m["axis"] < -45 and m["qrs"] < 120 and m["r"]["aVL"] > 0.3 and m["s"]["III"] < -0.3,
    "LPFB": lambda m: m["axis"] > 90 and m["qrs"] < 120 and m["r"]["V1"] < -m["s"]["V1"],
    "LVH": lambda m: -m["s"]["V1"] + max(m["r"]["V5"], m["r"]["V6"]) > 3.5,
    "RVH": lambda m: m["axis"] > 90 and m["r"]["V1"] > -m["s"]["V1"],
    "ASMI": lambda m: has_st_elevation(m) and min(m["st"]["V2"], m["st"]["V3"]) >= 0.2 and m["st"]["III"] < 0,
    "INJIN": lambda m: (
        has_st_elevation(m)
        and min(m["st"][name] for name in INFERIOR) >= 0.1
        and m["st"]["III"] > m["st"]["II"]
        and m["st"]["aVL"] <= -0.05
    ),
    "IMI": lambda m: contiguous(m["q_width"], lambda ms: ms >= 30, INFERIOR) and not has_st_elevation(m),
    "LVOLT": lambda m: max(height(m, n) for n in LIMB) < 0.5 and max(height(m, n) for n in CHEST) < 1.0,
    "WPW": lambda m: m["pr"] < 120 and m["qrs"] > 100 and m["slur"] >= 38,
    "STD_": lambda m: contiguous(m["st"], lambda mv: mv <= -0.1, PRECORDIAL) and m["st"]["aVR"] > 0.05,
    "INVT": lambda m: contiguous(m["t"], lambda mv: mv <= -0.1, PRECORDIAL[1:]),
    "LNGQT": lambda m: m["qtc"] > 470,
}


# equation


@pytest.mark.parametrize("name", ["NORM", *CONDITIONS])
def test_a_condition_meets_its_criterion_in_the_signal(name: str) -> None:
    assert [seed for seed in SEEDS if not CRITERIA[name](as_drawn(name, seed)[1])] == []


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_normal_heart_does_not_meet_it(name: str) -> None:
    assert [seed for seed in SEEDS if CRITERIA[name](as_drawn("NORM", seed)[1])] == []


def test_a_left_axis_and_a_right_axis_are_measured_as_such() -> None:
    for seed in SEEDS:
        assert as_drawn("LAFB", seed)[1]["axis"] < -30
        assert as_drawn("LPFB", seed)[1]["axis"] > 90
        assert -30 < as_drawn("NORM", seed)[1]["axis"] < 90


def test_every_condition_has_a_criterion_here() -> None:
    assert CRITERIA.keys() == {"NORM", *CONDITIONS}
    assert len(CONDITIONS) >= 20


# property


def test_random_patients_have_one_to_three_conditions_that_go_together_and_meet_what_can_be_read_off() -> None:
    """The truth of 200 drawn patients; single conditions are measured by signal.measure above."""
    seen: set[str] = set()
    for seed in range(200):
        rng = np.random.default_rng([11, seed])
        names = draw_conditions(rng)
        assert 1 <= len(names) <= 3
        assert check_conditions(names) is not None
        seen |= set(names)
        record = simulate_ecg(names, rng, hz=100, seconds=10)
        assert np.isfinite(record.signal).all()
        assert np.abs(record.signal).max() < 8
        wrong = [name for name in names if not _truth_fits(name, record)]
        assert wrong == [], (seed, names)
    assert seen == {"NORM", *CONDITIONS}


def _truth_fits(name: str, record: EcgRecord) -> bool:
    t = record.truth
    qrs_height = {n: t["r"][n] - min(t["q"][n], t["s"][n]) for n in LEADS}
    checks: dict[str, Callable[[], bool]] = {
        "SBRAD": lambda: t["heart_rate"] < 60,
        "STACH": lambda: t["heart_rate"] > 100,
        "SARRH": lambda: t["rr_variation"] > 120,
        "1AVB": lambda: t["pr"] > 200,
        "WPW": lambda: t["pr"] < 120 and t["qrs"] >= 110,
        "LAO/LAE": lambda: t["p_width"] > 120,
        "RAO/RAE": lambda: t["p"]["II"] >= 0.25,
        "CLBBB": lambda: t["qrs"] >= 120,
        "CRBBB": lambda: t["qrs"] >= 120,
        "IRBBB": lambda: 100 <= t["qrs"] <= 119,
        "LAFB": lambda: t["axis"] < -45,
        "LPFB": lambda: t["axis"] > 90,
        "LVH": lambda: -t["s"]["V1"] + max(t["r"]["V5"], t["r"]["V6"]) > 3.5,
        "LVOLT": lambda: max(qrs_height[n] for n in LIMB) < 0.5 and max(qrs_height[n] for n in CHEST) < 1.0,
        "ASMI": lambda: t["st"]["V2"] >= 0.2 and t["st"]["V3"] >= 0.2,
        "INJIN": lambda: min(t["st"][n] for n in INFERIOR) >= 0.1,
        "STD_": lambda: t["st"]["V4"] <= -0.1 and t["st"]["V5"] <= -0.1,
        "LNGQT": lambda: t["qtc"] > 470,
        "AFIB": lambda: not t["regular"] and t["p"] is None and t["pr"] is None,
        "PACE": lambda: t["spike"] and t["qrs"] >= 120,
    }
    return checks.get(name, lambda: True)()


# refusal


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["AFIBB"], "unknown conditions AFIBB; accepted: NORM, SBRAD"),
        (["LVH", "LVH"], "named twice: LVH, LVH"),
        (["NORM", "AFIB"], "NORM does not go with AFIB"),
        (["CLBBB", "CRBBB"], "CLBBB and CRBBB cannot be drawn in one record"),
        (["AFIB", "1AVB"], "cannot be drawn"),
        (["WPW", "1AVB"], "cannot be drawn"),
        (["LVOLT", "LAO/LAE"], "cannot be drawn"),
        (["PACE", "LNGQT"], "cannot be drawn"),
    ],
)
def test_what_cannot_be_drawn_is_refused(names: list[str], message: str) -> None:
    rng = np.random.default_rng(0)
    if "NORM" in names:
        with pytest.raises(ValueError, match=message):
            check_conditions(names)
        return
    with pytest.raises(ValueError, match=message):
        simulate_ecg(names, rng)


@pytest.mark.parametrize("a", CONDITIONS)
def test_whether_two_conditions_go_together_does_not_depend_on_their_order(a: str) -> None:
    assert [b for b in CONDITIONS if a != b and compatible(a, b) != compatible(b, a)] == []
