"""Looks of carts: each differs from the others in what it says about itself, measured on the page."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.train.ecg.pixels import ink, record
from train.ecg import STYLES, Page, draw_page, simulate_ecg
from train.ecg.carts import BOTTOM_MM, CART_PALETTES, CARTS, HEADERS, draw_date
from train.ecg.ink import text_mask
from train.ecg.paper_style import PaperStyle, resolve_style


def drawn(name: str, seed: int = 3, **changes: object) -> Page:
    """A page of 896 px without any trace."""
    nothing = record()
    nothing.signal[:] = np.nan
    return draw_page(nothing, replace(STYLES[f"{name}448"], **changes), np.random.default_rng(seed))  # type: ignore[arg-type]


def stands(dark: np.ndarray, text: str, size_px: float, x: float, y: float) -> bool:
    """Whether a text has its upper left corner at this pixel of an `ink`, and nothing else is there."""
    mask, (top, left) = text_mask(text, round(size_px)), (round(y), round(x))
    shown = dark[top : top + mask.shape[0], left : left + mask.shape[1]]
    return shown.shape == mask.shape and np.abs(shown - mask).max() < 0.01  # colours are whole numbers


# equation


def test_times_of_day_on_a_clock_of_twelve_hours() -> None:
    draws = [draw_date(np.random.default_rng(seed)) for seed in range(300)]
    named = {d["hour"]: (d["hour12"], d["half"]) for d in draws}
    assert (named[0], named[11], named[12], named[23]) == ((12, "AM"), (11, "AM"), (12, "PM"), (11, "PM"))


# property


@pytest.mark.parametrize("name", CARTS)
def test_paper_grid_and_ink_have_the_colours_of_the_look(name: str) -> None:
    """The lines of a grid of 20 px/mm are wider than a pixel, so their colours stand on the page."""
    small = replace(STYLES[name], width=500, height=500, seconds=0.6, px_per_mm=20.0, layout="strip")
    page = draw_page(simulate_ecg([], np.random.default_rng(1), hz=250), small, np.random.default_rng(1))
    pixels = np.asarray(page.image)
    for colour in CART_PALETTES[name]:
        assert (pixels == colour).all(-1).any(), colour


@pytest.mark.parametrize("name", CARTS)
def test_labels_have_the_size_and_the_side_of_the_look(name: str) -> None:
    page = drawn(name, grid=False)
    dark, size = ink(page), CARTS[name]["label_mm"] * page.px_per_mm
    for lead in ("aVR", "V1", "V6"):
        x0, baseline, _, _ = page.lead_boxes[lead]
        beside = x0 + page.px_per_mm * page.style.separators
        found = [y for y in range(-70, 70) if stands(dark, lead, size, beside, baseline + y)]
        assert found, lead
        assert (found[0] < 0) == (CARTS[name]["label_at"] == "above")
    assert len({look["label_mm"] for look in CARTS.values()}) == len(CARTS)


@pytest.mark.parametrize("name", CARTS)
def test_date_and_footer_stand_as_the_look_arranges_them(name: str) -> None:
    page, form = drawn(name, grid=False, layout="strip"), HEADERS[name]
    dark = ink(page)
    date, mm = form.date.format(**draw_date(np.random.default_rng(3))), page.px_per_mm
    printed = [(x, y * mm, text.format(date=date)) for x, y, text in form.lines]
    printed += [(x, page.style.height - 6 * mm, text.format(speed=25.0, gain=10.0)) for x, text in form.footer]
    for x, y, text in printed:
        assert stands(dark, text, 3.0 * mm, x * mm if x >= 0 else page.style.width + x * mm, y), text


def test_no_two_looks_print_the_same_around_the_traces() -> None:
    pages = {name: ink(drawn(name, grid=False, layout="strip", names=False)) for name in CARTS}
    for a, b in itertools.combinations(CARTS, 2):
        band = round(BOTTOM_MM * STYLES[f"{a}448"].px_per_mm)
        assert not np.array_equal(pages[a][-band:] > 0.5, pages[b][-band:] > 0.5)
    assert len({form.date for form in HEADERS.values()}) == len(HEADERS)


@pytest.mark.parametrize("name", CARTS)
def test_strokes_between_leads_stand_where_the_look_has_them(name: str) -> None:
    page = drawn(name, grid=False, names=False, pulse=False)
    x0, baseline, _, _ = page.lead_boxes["V2"]
    rows = slice(round(baseline - 9 * page.px_per_mm), round(baseline - 6 * page.px_per_mm))
    across = ink(page)[rows, round(x0) - 2 : round(x0) + 3].sum(1)  # a stroke of one pixel
    assert (across.mean() > 0.5) == CARTS[name]["separators"]


@pytest.mark.parametrize("name", CARTS)
@pytest.mark.parametrize("layout", ["3x4+1", "12x1"])
def test_what_is_printed_around_leaves_the_traces_their_rows(name: str, layout: str) -> None:
    page, form = drawn(name, layout=layout), HEADERS[name]
    baselines = [box[1] / page.px_per_mm for box in page.lead_boxes.values()]
    assert min(baselines) > form.top_mm
    assert max(baselines) < page.style.height / page.px_per_mm - BOTTOM_MM


def test_a_page_of_any_cart_says_which_it_was() -> None:
    looks = [resolve_style(STYLES["carts"], np.random.default_rng(seed)) for seed in range(60)]
    assert {look.cart for look in looks} == CARTS.keys()
    assert {look.layout for look in looks} >= {"3x4+1", "6x2", "12x1"}
    for look in looks:
        assert {field: getattr(look, field) for field in CARTS[look.cart]} == CARTS[look.cart]
        assert resolve_style(look, None) == look


# refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cart": "acme"}, r"page.cart='acme' is not one of , ge, philips"),
        ({"cart": "ge", "palette": "blue"}, r"page.cart='ge' decides palette; leave palette='blue' out"),
        ({"cart": "random", "label_mm": 5.0}, r"page.cart='random' decides label_mm; leave label_mm=5.0 out"),
        ({"header_form": "ge"}, r"page.header_form='ge' does nothing without page.header"),
        ({"label_at": "left"}, r"page.label_at='left' is not one of above, below"),
        ({"label_mm": 0.0}, r"page.label_mm=0.0 must be positive"),
    ],
)
def test_looks_that_do_not_fit_together_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaperStyle(**fields)


def test_a_look_prints_a_date_so_it_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="chance needs a generator"):
        draw_page(record(), STYLES["ge"])
