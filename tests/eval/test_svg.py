"""Charts as SVG: well-formed, in scale, and nothing from outside."""

import xml.etree.ElementTree as ElementTree

import pytest

from eval.svg import COLOURS, Line, line_chart, small_chart


def points(svg: str) -> list[list[tuple[float, float]]]:
    """The coordinates of every curve."""
    curves = [e.attrib["points"].split() for e in ElementTree.fromstring(svg).iter() if e.tag == "polyline"]
    return [[tuple(float(v) for v in pair.split(",")) for pair in curve] for curve in curves]  # type: ignore[misc]


def chart(lines: list[Line], **options: object) -> str:
    return line_chart(lines, title="t", x_label="x", y_label="y", **options)  # type: ignore[arg-type]


def test_points_are_placed_linearly_between_the_limits() -> None:
    line = Line(name="a", x=[0.0, 0.5, 1.0], y=[0.0, 0.25, 1.0])
    (curve,) = points(chart([line], size=(340, 300), limits=(0, 1, 0, 1)))
    left, right = curve[0][0], curve[2][0]
    bottom, top = curve[0][1], curve[2][1]
    assert left < right <= 340
    assert 0 < top < bottom < 300
    assert curve[1] == pytest.approx(((left + right) / 2, bottom + (top - bottom) / 4), abs=0.06)  # one decimal


def test_without_limits_the_data_fill_the_chart_and_a_flat_line_is_no_division_by_zero() -> None:
    (curve,) = points(chart([Line(name="a", x=[3, 3], y=[7, 7])]))
    assert len(curve) == 2


def test_every_line_has_a_curve_a_legend_and_its_colour() -> None:
    lines = [Line(name=f"line {i}", x=[0, 1], y=[0, i]) for i in range(len(COLOURS) + 1)]
    svg = chart(lines)
    assert len(points(svg)) == len(lines)
    assert all(f"line {i}</text>" in svg for i in range(len(lines)))
    colours = [e.attrib["stroke"] for e in ElementTree.fromstring(svg).iter() if e.tag == "polyline"]
    assert colours == [*COLOURS, COLOURS[0]]


def test_names_are_text_not_markup() -> None:
    line = Line(name="<script>alert('&')</script>", x=[0, 1], y=[0, 1])
    svg = line_chart([line], title='a "b" <c>', x_label="<x>", y_label="&y")
    texts = [e.text for e in ElementTree.fromstring(svg).iter() if e.tag == "text"]
    assert "<script>alert('&')</script>" in texts
    assert {'a "b" <c>', "<x>", "&y"} <= set(texts)


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="chart 't' has no points"):
        chart([])
    with pytest.raises(ValueError, match="chart 't' has no points"):
        chart([Line(name="a", x=[], y=[])])


def test_a_small_chart_is_the_unit_square_with_names_in_their_colours() -> None:
    lines = [
        Line(name="0.91", x=[0, 1], y=[0, 1], colour=COLOURS[1]),
        Line(name="", x=[0, 1], y=[1, 1], is_dashed=True),
    ]
    svg = small_chart(lines, title="A", subtitle="<b>", x_label="x", y_label="y")
    (x0, y0), (x1, y1) = points(svg)[0]
    assert x0 < x1
    assert y1 < y0
    assert [y for _, y in points(svg)[1]] == [y1, y1]
    spans = [e for e in ElementTree.fromstring(svg).iter() if e.tag == "tspan"]
    assert [(e.text, e.attrib["style"]) for e in spans] == [("0.91", f"fill:{COLOURS[1]}")]
    assert svg.count("stroke-dasharray") == 1
    with pytest.raises(ValueError, match="chart 't' has no points"):
        small_chart([], title="t", subtitle="", x_label="x", y_label="y")
