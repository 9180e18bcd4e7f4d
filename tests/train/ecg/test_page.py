"""Pages fill the tiles they were made for; boxes, gaps, layouts, chance; their scale is in test_page_scale.py."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from minimllama.image import ImageTransform, choose_grid, fit_size
from tests.train.ecg.pixels import BARE, ink, only, record
from train.ecg import LEADS, STYLES, PaperStyle, draw_page, simulate_ecg
from train.ecg.carts import CARTS
from train.ecg.page import LAYOUTS, PALETTES, Page
from train.ecg.paper_style import RANDOM_PALETTES, resolve_style

TILES = {"square": 560, "square448": 448, "wide": 560, "wide448": 448, "tile448": 448, "nano": 256}
TILES |= {"varied": 560, "varied448": 448}
TILES |= {f"{name}{size}": int(size or 560) for name in (*CARTS, "carts") for size in ("", "448")}


# parity with the model's image transform


@pytest.mark.parametrize("name", STYLES)
def test_a_page_fills_the_tiles_it_was_made_for_and_is_not_rescaled(name: str) -> None:
    style, tile = STYLES[name], TILES[name]
    grid = choose_grid(style.width, style.height, tile, 4)
    assert (grid[0] * tile, grid[1] * tile) == (style.height, style.width)
    assert fit_size(style.width, style.height, grid, tile) == (style.width, style.height)
    page = draw_page(simulate_ecg([], np.random.default_rng(0), hz=250), style, np.random.default_rng(0))
    tiles, _ = ImageTransform(tile).split(page.image)
    joined = tiles.reshape(*grid, 3, tile, tile).transpose(0, 3, 1, 4, 2).reshape(style.height, style.width, 3)
    assert np.array_equal(joined, np.asarray(page.image))


def test_every_style_has_its_tile_size_above() -> None:
    assert TILES.keys() == STYLES.keys()


# property


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_shows_its_leads_in_boxes_that_do_not_share_time_and_row(layout: str) -> None:
    page = draw_page(simulate_ecg(["SBRAD"], np.random.default_rng(0), hz=250), replace(BARE, layout=layout))
    assert set(page.lead_boxes) == {lead for row in LAYOUTS[layout] for lead in row}
    strips = {lead for leads in LAYOUTS[layout] if len(leads) == 1 for lead in leads}  # their box is the longer row
    for leads in LAYOUTS[layout]:
        boxes = [page.lead_boxes[lead] for lead in leads if lead not in strips]
        assert all(a[2] <= b[0] + 1e-6 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("layout", ["3x4+1", "6x2", "12x1"])
@pytest.mark.parametrize("lead", ["I", "II", "aVR", "V2", "V6"])
def test_a_box_holds_its_trace_and_nothing_more(layout: str, lead: str) -> None:
    beats = simulate_ecg(["LVH"], np.random.default_rng(2), hz=250).signal[LEADS.index(lead)]
    layout = layout.removesuffix("+1") if lead != "II" else layout
    page = draw_page(only(lead, beats, 250), replace(BARE, layout=layout))
    dark = ink(page) > 0.01
    if lead == "II" and layout == "3x4+1":
        dark[: BARE.height * 3 // 4] = False  # the box is that of the rhythm strip
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    x0, y0, x1, y1 = page.lead_boxes[lead]
    assert rows[0] == pytest.approx(y0, abs=1)  # rounded outwards to whole pixels
    assert rows[-1] + 1 == pytest.approx(y1, abs=1)
    assert x0 - 1 <= columns[0] <= x0 + 1
    assert x1 - 1 <= columns[-1] + 1 <= x1 + 1


def test_the_rhythm_strip_is_the_box_of_lead_ii() -> None:
    page = draw_page(record(), STYLES["square"])
    x0, y0, x1, _ = page.lead_boxes["II"]
    assert x1 - x0 == pytest.approx(10 * page.style.px_per_second)
    assert y0 > 0.75 * page.image.height


def test_missing_samples_and_the_end_of_a_record_are_gaps() -> None:
    style = replace(BARE, layout="strip")
    values = np.zeros(4000)  # 8 of the 10 seconds
    values[1000:1500] = np.nan  # from 2 s to 3 s
    page = draw_page(only("II", values), style)
    has_ink = ink(page).sum(0) > 0.5
    x0 = page.lead_boxes["II"][0]
    seconds = (np.arange(style.width) + 0.5 - x0) / style.px_per_second
    edge = 2 / style.px_per_second  # half of the pen, and a pixel
    assert not has_ink[(seconds > 2 + edge) & (seconds < 3 - edge)].any()
    assert not has_ink[seconds > 8 + edge].any()
    assert has_ink[(seconds > edge) & (seconds < 2 - edge)].all()
    assert has_ink[(seconds > 3 + edge) & (seconds < 8 - edge)].all()


def test_a_trace_does_not_turn_towards_zero_at_a_gap() -> None:
    values = np.ones(1000)  # at 100 samples a second half of one is wide enough to be seen
    values[600:700] = np.nan
    level = only("II", values, hz=100.0)
    rows = np.flatnonzero(ink(draw_page(level, replace(BARE, layout="strip"))).max(1) > 0.1)
    assert np.ptp(rows) <= BARE.trace_mm * BARE.px_per_mm + 1


def test_a_lead_without_samples_has_no_ink_and_an_empty_box() -> None:
    made = record()
    made.signal[LEADS.index("V1")] = np.nan
    page = draw_page(made, replace(BARE, layout="12x1"))
    _, y0, _, y1 = page.lead_boxes["V1"]
    assert y0 == y1
    assert ink(page)[round(y0) - 5 : round(y0) + 5].max() < 0.01


def test_a_trace_that_leaves_the_page_is_cut_at_its_edge() -> None:
    page = draw_page(only("II", np.full(5000, 40.0)), replace(BARE, layout="strip"))
    assert ink(page).max() < 0.01
    _, y0, _, y1 = page.lead_boxes["II"]
    assert 0 <= y0 <= BARE.height
    assert 0 <= y1 <= BARE.height


def test_the_same_record_style_and_seed_give_the_same_bytes() -> None:
    style = replace(STYLES["wide"], palette="random", jitter_mm=2.0)
    ecg = simulate_ecg(["AFIB"], np.random.default_rng(1), hz=250)

    def draw(seed: int) -> Page:
        return draw_page(ecg, style, np.random.default_rng(seed))

    first, again = draw(3), draw(3)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.lead_boxes, first.style) == (again.lead_boxes, again.style)
    assert first.image.tobytes() != draw(4).image.tobytes()
    palettes = [resolve_style(style, np.random.default_rng(seed)).palette for seed in range(40)]
    assert set(palettes) == set(RANDOM_PALETTES)
    assert first.style.palette == palettes[3]


def test_a_style_without_chance_needs_no_generator_and_uses_none() -> None:
    ecg = simulate_ecg([], np.random.default_rng(1), hz=250)
    rng = np.random.default_rng(5)
    state = rng.bit_generator.state
    assert draw_page(ecg, STYLES["nano"], rng).image.tobytes() == draw_page(ecg, STYLES["nano"]).image.tobytes()
    assert rng.bit_generator.state == state


def test_jitter_moves_grid_traces_and_boxes_together() -> None:
    style = replace(STYLES["wide"], jitter_mm=3.0)
    ecg = simulate_ecg(["SBRAD"], np.random.default_rng(1), hz=250)
    still, moved = draw_page(ecg, replace(style, jitter_mm=0.0)), draw_page(ecg, style, np.random.default_rng(8))
    shifts = np.array([np.subtract(moved.lead_boxes[lead], box) for lead, box in still.lead_boxes.items()])
    assert np.ptp(shifts[:, 0::2]) < 1e-6
    assert np.ptp(shifts[:, 1::2]) < 0.1  # where a lead ends inside of a column
    dx, dy = shifts[0, :2]
    assert 0 < abs(dx) <= 3 * style.px_per_mm
    assert 0 < abs(dy) <= 3 * style.px_per_mm


def test_names_are_drawn_at_the_beginning_of_their_leads() -> None:
    flat = record()
    named = ink(draw_page(flat, replace(BARE, names=True)))
    bare = draw_page(flat, BARE)
    added = np.argwhere(named - ink(bare) > 0.3)
    for lead, (x0, y0, _, _) in bare.lead_boxes.items():
        near = added[(np.abs(added[:, 1] - x0) < 60) & (added[:, 0] < y0) & (added[:, 0] > y0 - 80)]
        assert len(near) > 5, lead


@pytest.mark.parametrize("name", PALETTES)
def test_a_trace_stands_out_from_every_palettes_grid(name: str) -> None:
    paper, minor, major, trace = (np.array(colour, float) for colour in PALETTES[name])
    assert paper.mean() >= minor.mean() > major.mean() > trace.mean()
    assert (major - trace).max() > 80  # in the channel that tells red from black


# refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "2x6"}, "page.layout='2x6' is not one of 3x4"),
        ({"palette": "mauve"}, "page.palette='mauve' is not one of pink"),
        ({"px_per_mm": 0.0}, r"page.px_per_mm=0.0 must be positive"),
        ({"px_per_mm": math.nan}, "page.px_per_mm=nan must be positive"),
        ({"height": 0}, "page.height=0 must be positive"),
        ({"jitter_mm": -1.0}, "page.jitter_mm=-1.0 must not be negative"),
        ({"width": 400}, "page.width=400 px is too narrow for 10.0 s: at least 1071 px"),
    ],
)
def test_an_impossible_style_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaperStyle(**fields)


@pytest.mark.parametrize("fields", [{"palette": "random"}, {"jitter_mm": 1.0}])
def test_chance_needs_a_generator(fields: dict) -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        draw_page(record(), PaperStyle(**fields))
