"""Pages are calibrated: grid, pulse, time and voltage measured in pixels on the image."""

from dataclasses import replace

import numpy as np
import pytest

from tests.train.ecg.pixels import BARE, ink, line_centres, only, record, spikes
from train.ecg import LEADS, STYLES, draw_page, read_record
from train.ecg.page import LAYOUTS

FIXED = [name for name in STYLES if not STYLES[name].needs_generator]


@pytest.mark.parametrize("name", [name for name in FIXED if STYLES[name].px_per_mm > 3])
def test_grid_lines_stand_one_and_five_millimetres_apart(name: str) -> None:
    style = replace(STYLES[name], pulse=False, names=False, palette="grey")
    nothing = record()
    nothing.signal[:] = np.nan
    darkness = 255 - np.asarray(draw_page(nothing, style).image, float)[..., 0]
    for profile in (np.median(darkness, axis=0), np.median(darkness, axis=1)):
        fine = line_centres(profile, 0.5)[1:-1]  # the page's edges cut the outermost lines
        assert np.diff(fine).mean() == pytest.approx(style.px_per_mm, abs=0.01)
        strong = line_centres(profile, 0.55 * profile.max())[1:-1]
        assert np.diff(strong).mean() == pytest.approx(5 * style.px_per_mm, abs=0.02)
        assert np.abs(np.diff(strong) - 5 * style.px_per_mm).max() < 0.5


@pytest.mark.parametrize("name", FIXED)
def test_the_pulse_is_ten_millimetres_high_and_five_long(name: str) -> None:
    style = replace(STYLES[name], grid=False, names=False, palette="grey")
    nothing = record()
    nothing.signal[:] = np.nan
    page = draw_page(nothing, style)
    row = ink(page)[: style.height // len(LAYOUTS[style.layout])]
    columns, highest = np.flatnonzero(row.sum(0) > 0.1), row.max(1)
    rows = np.flatnonzero(highest > 0.01)
    top, foot = rows[0] + 1 - highest[rows[0]], rows[-1] + highest[rows[-1]]  # edges inside of their pixels
    assert foot - top == pytest.approx((10 + style.trace_mm) * style.px_per_mm, abs=0.1)
    assert len(columns) == pytest.approx(5 * style.px_per_mm, abs=style.trace_mm * style.px_per_mm + 1)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("hz", [100, 500])
def test_beats_are_where_25_mm_per_second_put_them(name: str, hz: float) -> None:
    style = replace(STYLES[name], grid=False, pulse=False, names=False, layout="strip", palette="grey")
    times = np.array([0.7, 1.5, 2.36, 3.0, 4.5, 6.2, 8.8])
    dark = ink(draw_page(only("II", spikes(times, hz, 10, 1.0), hz), style))
    upper = dark[: round(style.height / 2 - 3 * style.px_per_mm)].sum(0)  # above 3 mm only the spikes have ink
    centres = line_centres(upper, 0.05)
    assert len(centres) == len(times)
    assert np.abs(np.diff(centres) - np.diff(times) * 25 * style.px_per_mm).max() < 0.5  # pixels


@pytest.mark.parametrize(("speed", "gain"), [(25.0, 10.0), (12.5, 5.0), (25.0, 20.0)])
def test_voltage_and_time_follow_speed_and_gain(speed: float, gain: float) -> None:
    style = replace(BARE, layout="strip", mm_per_second=speed, mm_per_mv=gain, px_per_mm=4.0)
    step = np.where(np.arange(5000) < 2000, 0.0, 0.8)
    dark = ink(draw_page(only("II", step), style))
    rows = np.arange(style.height) + 0.5
    left, right = style.width / 2 - 4.9 * speed * 4, style.width / 2 + 4.9 * speed * 4
    low, high = ((dark[:, round(x)] * rows).sum() / dark[:, round(x)].sum() for x in (left, right))
    assert low - high == pytest.approx(0.8 * gain * 4.0, abs=0.02)
    jump = np.flatnonzero(dark.sum(0) > 5)
    assert (jump.mean() + 0.5) - (style.width / 2 - 5 * speed * 4) == pytest.approx(4.0 * speed * 4, abs=0.5)


@pytest.mark.parametrize("level", [0.0, 0.013, -0.21])
def test_a_flat_line_covers_of_each_pixel_what_its_pen_covers(level: float) -> None:
    page = draw_page(only("II", np.full(5000, level)), replace(BARE, layout="strip"))
    x0, _, x1, _ = page.lead_boxes["II"]
    centre, half = BARE.height / 2 - level * BARE.px_per_mv, BARE.trace_mm * BARE.px_per_mm / 2
    edges = np.clip(np.arange(BARE.height + 1), centre - half, centre + half)
    inside = ink(page)[:, int(x0) + 3 : int(x1) - 3]
    assert np.abs(inside - np.diff(edges)[:, None]).max() < 0.5 / 255 + 1e-3  # colours are whole numbers


@pytest.mark.parametrize("name", ["square", "nano"])
@pytest.mark.parametrize("hz", [100, 250, 500])
def test_a_peak_is_drawn_up_to_its_tip(name: str, hz: float) -> None:
    """Narrow peaks at every position within a pixel: the box ends half a pen beyond the highest sample."""
    style = replace(STYLES[name], grid=False, pulse=False, names=False, layout="strip")
    for shift in range(7):
        values = np.zeros(round(10 * hz))
        values[round(hz) + shift] = 1.2
        page = draw_page(only("II", values, hz), style)
        height = style.height / 2 - page.lead_boxes["II"][1] - style.trace_mm * style.px_per_mm / 2
        assert height / style.px_per_mm == pytest.approx(12.0, abs=1e-3)  # millimetres


def test_leads_of_a_row_follow_each_other_in_time() -> None:
    """A spike at 6 s stands in the third column only, 1 s after its beginning."""
    t = np.arange(5000) / 500
    beat = np.where(np.abs(t - 6.0) < 0.004, 2.0, 0.0)
    made = record(**{name: beat for name in LEADS if name != "II"})
    page = draw_page(made, replace(BARE, layout="3x4"))
    dark = ink(page)
    shown = []
    for lead in LEADS:
        x0, y0, x1, y1 = page.lead_boxes[lead]
        if y1 - y0 > 1.5 * page.style.px_per_mv:
            tall = dark[round(y0) : round(y1), round(x0) : round(x1)].sum(0)
            shown.append((lead, (int(tall.argmax()) + 0.5) / page.style.px_per_second))
    assert [lead for lead, _ in shown] == ["V1", "V2", "V3"]
    assert [at for _, at in shown] == pytest.approx([1.0] * 3, abs=0.01)


@pytest.mark.parametrize("name", ["00001_lr", "s0010_500"])
def test_a_real_record_is_drawn_with_its_peaks_in_place(shared, name: str) -> None:
    folder = {"00001_lr": "ptbxl_00001_lr", "s0010_500": "ptbdb_s0010_re"}[name]
    if not (shared / "data").is_dir():
        pytest.skip("no real records beside the reference files")
    real = read_record(shared / "data" / folder / name)
    page = draw_page(real, replace(BARE, layout="12x1"))
    dark = ink(page)
    for row, lead in enumerate(LEADS):
        x0, y0, x1, y1 = page.lead_boxes[lead]
        values = real.signal[LEADS.index(lead)]
        baseline = page.style.height * (row + 0.5) / 12
        pen = page.style.trace_mm * page.style.px_per_mm / 2
        assert baseline - y0 == pytest.approx(values.max() * page.style.px_per_mv + pen, abs=1e-3)
        assert y1 - baseline == pytest.approx(-values.min() * page.style.px_per_mv + pen, abs=1e-3)
        assert dark[round(y0) : round(y1), round(x0) : round(x1)].any(0).all()
