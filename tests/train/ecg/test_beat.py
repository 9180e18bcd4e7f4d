"""Gaussians, plateaus and vectors, where a few numbers can be checked by hand."""

import math

import numpy as np
import pytest

from train.ecg.beat import TEMPLATE_MS, TO_LEADS, Beat, Plateau, Wave, measure_beat, normal_beat
from train.ecg.signal import LEADS, derive_limb_leads

NO_CHEST = (0.0,) * 6


def single(limb: tuple[float, float], widths: tuple[float, float] = (10.0, 10.0), at: float = 0.0) -> Beat:
    return Beat({"r": Wave(at=at, widths=widths, limb=limb, chest=NO_CHEST)})


def leads(beat: Beat, at_ms: float) -> dict[str, float]:
    return dict(zip(LEADS, (TO_LEADS @ beat.draw(np.array([at_ms])))[:, 0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0, {"I": 1, "II": 0.5, "III": -0.5, "aVF": 0}),
        (60, {"I": 0.5, "II": 1, "III": 0.5, "aVL": 0}),
        (90, {"I": 0, "aVF": math.sqrt(3) / 2, "II": math.sqrt(3) / 2, "III": math.sqrt(3) / 2}),
        (-150, {"aVR": math.sqrt(3) / 2, "III": 0}),
    ],
)
def test_a_vector_points_at_its_lead_in_the_hexaxial_system(angle: float, expected: dict[str, float]) -> None:
    seen = leads(single((1.0, angle)), 0.0)
    assert {name: seen[name] for name in expected} == pytest.approx(expected, abs=1e-6)  # float32 matrix


def test_the_matrix_gives_einthovens_and_goldbergers_leads() -> None:
    channels = np.random.default_rng(1).standard_normal((8, 5))
    named = {"I": channels[0], "II": channels[1], **{f"V{i + 1}": channels[2 + i] for i in range(6)}}
    derive_limb_leads(named)
    assert np.allclose(TO_LEADS @ channels, np.stack([named[name] for name in LEADS]), atol=1e-6)


def test_a_wave_has_its_own_width_on_each_side() -> None:
    beat = single((1.0, 0), widths=(10.0, 20.0), at=5.0)
    assert [leads(beat, at)["I"] for at in (5.0, -5.0, 25.0)] == pytest.approx([1.0, math.exp(-0.5), math.exp(-0.5)])


def test_the_st_segment_stands_between_the_qrs_and_the_t_wave() -> None:
    beat = Beat({"t": Wave(at=265, widths=(52, 34), limb=(0.0, 0), chest=NO_CHEST)}, Plateau(start=45, limb=(0.2, 0)))
    end = 265 - 1.2 * 52  # half of its height at both edges; 0.2 / (1 + exp(-(202.6 - 110) / 25)) in between
    assert [round(leads(beat, at)["I"], 3) for at in (0.0, 45.0, 110.0, end)] == [0.0, 0.1, 0.195, 0.1]


def test_changing_a_wave_keeps_what_is_not_named() -> None:
    wave = Wave(at=1.0, widths=(2.0, 3.0), limb=(0.5, 30), chest=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    changed = wave.change(widths=4.0, chest=(None, 9.0, None, None, None, None))
    assert (changed.at, changed.widths, changed.limb) == (1.0, (4.0, 4.0), (0.5, 30))
    assert changed.chest == (1.0, 9.0, 3.0, 4.0, 5.0, 6.0)


def test_measuring_one_gaussian_by_hand() -> None:
    seen = measure_beat(single((1.0, 0), widths=(10.0, 10.0)))
    reach = 10 * math.sqrt(2 * math.log(1 / 0.030))  # where 1 mV in lead I has fallen to 30 microvolts: 26.5 ms
    assert (seen["qrs_on"], seen["qrs_off"]) == (-math.floor(reach), math.floor(reach))
    assert seen["axis"] == pytest.approx(0, abs=1e-4)
    assert seen["p_on"] is seen["t_off"] is None
    assert seen["r"][LEADS.index("I")] == pytest.approx(1.0)  # type: ignore[index]
    assert seen["s"][LEADS.index("aVR")] == pytest.approx(-0.75)  # type: ignore[index]


@pytest.mark.parametrize("axis", [-80, -20, 35, 60, 100, 170])
def test_the_axis_of_one_vector_is_its_angle(axis: float) -> None:
    assert measure_beat(single((1.2, axis)))["axis"] == pytest.approx(axis, abs=1e-3)


def test_a_normal_beat_is_drawn_wave_by_wave() -> None:
    beat = normal_beat(50)
    parts = sum(beat.draw(TEMPLATE_MS, (name,), with_st=False) for name in beat.waves)
    assert np.allclose(parts, beat.draw(TEMPLATE_MS), atol=1e-12)


def test_a_spike_lasts_two_milliseconds() -> None:
    beat = normal_beat(50)
    plain = beat.draw(TEMPLATE_MS)
    beat.spike = np.full(8, 2.0)
    added = beat.draw(TEMPLATE_MS) - plain
    assert TEMPLATE_MS[added[0] > 0].tolist() == [-63.0, -62.0, -61.0]
    assert np.unique(added[:, added[0] > 0].round(9)).tolist() == [2.0]


def test_a_copy_changes_alone() -> None:
    beat = normal_beat(50)
    copy = beat.copy()
    copy.waves["r"] = copy.waves["r"].change(at=7.0)
    assert beat.waves["r"].at == 0.0
