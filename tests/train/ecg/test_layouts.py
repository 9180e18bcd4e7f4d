"""Layouts, Cabrera's order, speeds and gains, headers, records of any length and number of leads."""

import inspect
from dataclasses import replace

import numpy as np
import pytest

from tests.train.ecg.pixels import BARE, ink, only, record
from train.ecg import LEADS, STYLES, PaperStyle, draw_page, simulate_ecg
from train.ecg.page import _print_header, n_pages
from train.ecg.paper_style import CABRERA, LAYOUTS, describe_style, resolve_style, rows_of

# equation


def test_layouts_by_hand() -> None:
    assert LAYOUTS["4x3"] == (("I", "aVL", "V3"), ("II", "aVF", "V4"), ("III", "V1", "V5"), ("aVR", "V2", "V6"))
    assert LAYOUTS["3x4+3"][3:] == (("V1",), ("II",), ("V5",))
    assert LAYOUTS["6x2"][2] == ("III", "V3")
    assert rows_of("3x4+1", "cabrera", "V1") == (
        ("aVL", "II", "V1", "V4"),
        ("I", "aVF", "V2", "V5"),
        ("aVR", "III", "V3", "V6"),
        ("V1",),
    )


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "strip"])
@pytest.mark.parametrize("order", ["common", "cabrera"])
def test_a_page_shows_all_twelve_leads(layout: str, order: str) -> None:
    shown = [lead for row in rows_of(layout, order) for lead in row]
    assert set(shown) == set(LEADS)
    limb = [lead for lead in dict.fromkeys(shown) if lead in LEADS[:6]]
    assert set(limb) == set(CABRERA)


# property


def test_cabreras_avr_is_upside_down() -> None:
    step = np.where(np.arange(5000) < 2500, 0.0, 0.5)
    style = replace(BARE, layout="12x1")
    common = draw_page(only("aVR", step), style).lead_boxes["aVR"]
    turned = draw_page(only("aVR", step), replace(style, order="cabrera")).lead_boxes["aVR"]
    baseline = style.height * (np.array([LEADS.index("aVR"), CABRERA.index("aVR")]) + 0.5) / 12
    pen = style.trace_mm * style.px_per_mm / 2
    assert (common[1], common[3]) == pytest.approx((baseline[0] - 0.5 * style.px_per_mv - pen, baseline[0] + pen))
    assert (turned[1], turned[3]) == pytest.approx((baseline[1] - pen, baseline[1] + 0.5 * style.px_per_mv + pen))


@pytest.mark.parametrize("speed", [25.0, 50.0])
@pytest.mark.parametrize("gain", [5.0, 10.0, 20.0])
def test_speed_and_gain_scale_the_box_of_a_pulse(speed: float, gain: float) -> None:
    """1 mV from 1 s to 1.4 s."""
    t = np.arange(2500) / 500
    style = replace(BARE, layout="strip", seconds=5.0, mm_per_second=speed, mm_per_mv=gain, px_per_mm=4.0)
    page = draw_page(only("II", np.where((t >= 1) & (t < 1.4), 1.0, 0.0)), style)
    dark = ink(page)[: round(style.height / 2 - 2 * style.px_per_mm)]  # above the baseline
    columns, rows = np.flatnonzero(dark.sum(0) > 0.5), np.flatnonzero(dark.sum(1) > 0.5)
    pen = style.trace_mm * 4.0
    assert len(columns) == pytest.approx(0.4 * speed * 4.0 + pen, abs=1.5)
    assert style.height / 2 - rows[0] == pytest.approx(gain * 4.0 + pen / 2, abs=1.0)


@pytest.mark.parametrize("n_leads", range(1, 13))
def test_recorded_leads_get_one_row_each(n_leads: int) -> None:
    made = record()
    made.signal[n_leads:] = np.nan
    page = draw_page(made, replace(BARE, layout="recorded"))
    assert list(page.lead_boxes) == list(LEADS[:n_leads])
    rows = [(y0 + y1) / 2 for _, y0, _, y1 in page.lead_boxes.values()]
    assert rows == pytest.approx([BARE.height * (i + 0.5) / n_leads for i in range(n_leads)])


def test_a_rhythm_strip_gives_way_to_a_lead_that_was_recorded() -> None:
    page = draw_page(only("V5", np.zeros(5000)), replace(BARE, layout="strip"))
    assert set(page.lead_boxes) == {"V5"}
    assert set(draw_page(record(), replace(BARE, layout="strip", rhythm="V1")).lead_boxes) == {"V1"}


@pytest.mark.parametrize(("seconds", "pages"), [(0.5, 1), (10.0, 1), (10.5, 2), (60.0, 6)])
def test_a_record_of_any_length_fills_its_pages(seconds: float, pages: int) -> None:
    style = replace(BARE, layout="strip")
    made = only("II", np.full(round(seconds * 100), 0.2), 100)
    assert n_pages(made, style) == pages
    drawn = [draw_page(made, style, start=10.0 * i) for i in range(pages)]
    inked = sum((ink(page).sum(0) > 0.5).sum() for page in drawn) / style.px_per_second
    assert inked == pytest.approx(seconds, abs=0.03 * pages)  # half a pen at each end


def test_a_header_is_chance_and_truth_and_nothing_about_the_patient() -> None:
    """Whatever it prints comes from the style and the generator: the function does not get the record."""
    assert list(inspect.signature(_print_header).parameters) == ["ink", "rng"]
    style = replace(BARE, header=True)
    a, b = (simulate_ecg([name], np.random.default_rng(1), hz=250) for name in ("NORM", "LVH"))
    band = round(7 * style.px_per_mm)
    pages = [ink(draw_page(one, style, np.random.default_rng(4))) for one in (a, b)]
    for edge in (slice(0, band), slice(-band, None)):
        assert np.array_equal(pages[0][edge], pages[1][edge])
        assert pages[0][edge].max() > 0.9
    other = ink(draw_page(a, style, np.random.default_rng(5)))
    assert not np.array_equal(other[:band], pages[0][:band])
    assert np.array_equal(other[-band:], pages[0][-band:])  # speed and gain


def test_a_varied_style_draws_every_layout_and_says_which() -> None:
    ecg = simulate_ecg([], np.random.default_rng(1), hz=100)
    styles = [resolve_style(STYLES["varied448"], np.random.default_rng(seed)) for seed in range(40)]
    assert {style.layout for style in styles} == LAYOUTS.keys() - {"strip"}
    assert draw_page(ecg, STYLES["varied448"], np.random.default_rng(7)).style == styles[7]


def test_a_style_is_described_without_later_settings_at_their_defaults() -> None:
    assert {"order", "rhythm", "header", "separators"}.isdisjoint(describe_style(STYLES["nano"]))
    assert describe_style(replace(STYLES["nano"], order="cabrera"))["order"] == "cabrera"


# refusal


def test_what_cannot_be_drawn_is_refused() -> None:
    empty = only("II", np.full(100, np.nan))
    with pytest.raises(ValueError, match="record drawn has no sample"):
        draw_page(empty, replace(BARE, layout="recorded"))
    with pytest.raises(ValueError, match="start=11 s lies outside of record drawn of 10 s"):
        draw_page(record(), BARE, start=11)
    with pytest.raises(ValueError, match="start=10 s lies outside of record drawn of 10 s"):
        draw_page(record(), BARE, start=10)
    with pytest.raises(ValueError, match=r"page\.width=1120 px is too narrow"):
        PaperStyle(mm_per_second=50.0)
    with pytest.raises(ValueError, match=r"page\.order='clockwise' is not one of common, cabrera"):
        PaperStyle(order="clockwise")
    with pytest.raises(ValueError, match="needs a generator"):
        draw_page(record(), replace(BARE, header=True))
