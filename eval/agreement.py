"""How far attention and occlusion agree about the leads, over many pages: both are cheap to show and easy to believe.

Cases are those of explain.json (eval.explain).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from eval.heat import CHEST_LEADS, LIMB_LEADS, STRIP
from eval.tables import format_table

Case = dict[str, Any]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties in the middle: float [n] -> float [n]."""
    below = (values[:, None] > values).sum(1)
    return below + ((values[:, None] == values).sum(1) - 1) / 2


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho; None if one of them is the same everywhere."""
    x, y = (ranks(np.asarray(values, float)) for values in (a, b))
    if not x.std() or not y.std():
        return None
    return float(np.corrcoef(x, y)[0, 1])


def agreement(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """For each label, over its cases: how a lead's attention and the size of its occlusion go together.

    Returns:
        Per label the number of cases, the mean over cases of Spearman's rho over the leads and its standard error, for
        attention, for its density, and for the mere area of a lead's boxes (which needs no model); how often the lead
        with the most attention is the one whose loss changes most; the log-odds of a page on which everything is wiped;
        and the means over cases of every area.
    """
    found = {}
    for label in dict.fromkeys(case["label"] for case in cases):
        own = [case for case in cases if case["label"] == label]
        result: dict[str, Any] = {"n": len(own)}
        for name in ("attention", "density", "area"):
            pairs = [_columns(case, name) for case in own]
            rhos = [rho for looked, moved in pairs if (rho := rank_correlation(looked, moved)) is not None]
            error = float(np.std(rhos, ddof=1) / len(rhos) ** 0.5) if len(rhos) > 1 else None
            mean = float(np.mean(rhos)) if rhos else None
            result[f"rho_{name}"] = {"mean": mean, "standard_error": error, "n": len(rhos)}
        tops = [np.argmax(looked) == np.argmax(moved) for looked, moved in (_columns(c, "attention") for c in own)]
        result["same_first_lead"] = float(np.mean(tops))
        blank = [case["log_odds"] + case["occlusion_of_everything"] for case in own]
        result["everything_wiped"] = float(np.mean(blank))
        areas = [area for area in own[0]["areas"] if all(area in case["areas"] for case in own)]
        result["means"] = {area: _means([case["areas"][area] for case in own]) for area in areas}
        found[label] = result
    return found


def between_labels(cases: Sequence[Case]) -> dict[str, float | None]:
    """How alike two labels of one page are: mean of Spearman's rho over the leads, for attention and size of occlusion.

    Near 1 for attention: the map shows the page, and hardly what was asked.
    """
    pages: dict[str, list[Case]] = {}
    for case in cases:
        pages.setdefault(case["id"], []).append(case)
    found: dict[str, float | None] = {}
    for place, name in enumerate(("attention", "occlusion")):
        rhos = []
        for own in pages.values():
            values = [_columns(case, "attention")[place] for case in own]
            rhos += [rank_correlation(a, b) for a, b in combinations(values, 2)]
        known = [rho for rho in rhos if rho is not None]
        found[name] = float(np.mean(known)) if known else None
    return found


def _means(values: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of an area, over cases."""
    sizes = float(np.mean([abs(value["occlusion"]) for value in values]))
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]} | {"abs_occlusion": sizes}


def _columns(case: Case, name: str) -> tuple[list[float], list[float]]:
    """(attention, density or area, absolute occlusion) of a case's leads."""
    leads = case["leads"].values()
    return [lead[name] for lead in leads], [abs(lead["occlusion"]) for lead in leads]


def agreement_text(found: dict[str, dict[str, Any]]) -> str:
    """A table of `agreement`: rho with its standard error, and attention and signed occlusion of groups of leads."""
    names = (LIMB_LEADS, CHEST_LEADS, STRIP)
    headings = [
        "label",
        "pages",
        "blank",
        "rho",
        "rho of area",
        *(f"{name} {what}" for name in names for what in ("att", "occ")),
    ]
    lines = []
    for label, result in found.items():
        blank = f"{result['everything_wiped']:+.1f}"
        cells = [label, str(result["n"]), blank, _with_error(result["rho_attention"]), _with_error(result["rho_area"])]
        for name in names:
            means = result["means"].get(name)
            cells += ["-", "-"] if means is None else [f"{means['attention']:.2f}", f"{means['occlusion']:+.1f}"]
        lines.append(cells)
    return format_table(headings, lines)


def _with_error(rho: dict[str, Any]) -> str:
    if rho["mean"] is None:
        return "-"
    return f"{rho['mean']:.2f}" + (f" +- {rho['standard_error']:.2f}" if rho["standard_error"] is not None else "")
