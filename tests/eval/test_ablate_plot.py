"""The plot of an ablation is well-formed, and points lie where their numbers say."""

import xml.etree.ElementTree as ET

import pytest

from eval.ablate_plot import plot_svg, points_of

SVG = "{http://www.w3.org/2000/svg}"


def row(auc: float, n_trained: int | None) -> dict:
    part = {"mean": auc, "min": auc - 0.05, "max": auc + 0.02, "interval": None}
    costs = {"seconds": {"mean": 10 * auc}, "peak_memory_bytes": {"mean": auc * 2**30}}
    return {"n_seeds": 2, "n_trained": n_trained, "protocols": {"statements": {"auc": part}}, **costs}


def result(**rows: dict) -> dict:
    return {"name": "a < b", "rows": {"untuned": row(0.5, 0), **rows}}


def test_three_panels_and_a_legend_hold_every_variant() -> None:
    root = ET.fromstring(plot_svg(result(small=row(0.6, 1000), large=row(0.8, 100_000))))
    dots = root.findall(f"{SVG}circle")
    assert len(dots) == 3 * 2 + 2
    small, large = dots[0], dots[1]
    assert float(small.attrib["cx"]) < float(large.attrib["cx"])  # more parameters to the right
    assert float(small.attrib["cy"]) > float(large.attrib["cy"])  # better higher up
    assert {text.text for text in root.iter(f"{SVG}text")} >= {"small", "large", "trained parameters"}


def test_what_is_not_known_or_not_done_is_left_out() -> None:
    rows = result(known=row(0.6, 1000), unknown=row(0.7, None), failed={"n_seeds": 0, "n_trained": 5})
    assert [p.name for p in points_of(rows, "n_trained", "statements")] == ["known"]
    assert [p.name for p in points_of(rows, "seconds", "statements")] == ["known", "unknown"]
    with pytest.raises(ValueError, match="no variant is done"):
        plot_svg(result(failed={"n_seeds": 0, "n_trained": 5}))
