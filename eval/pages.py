"""The page that a model is shown: as drawn, distorted, with its leads shuffled, or without any trace.

All chance comes from the record's id, so a page depends neither on its batch nor on who else is asked.
"""

import math
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from train.ecg import DISTORTIONS, PRESETS, EcgRecord, Page, PaperStyle, distort, draw_page

SHUFFLED, BLANK = "shuffled_leads", "blank_page"
PAGE_KINDS = (*PRESETS, *DISTORTIONS, SHUFFLED, BLANK)
ABOUT = ("sex", "age", "device", "site", "quality", "validated", "layout", "page")
_NOISE = ("baseline_drift", "static_noise", "burst_noise", "electrodes_problems")  # columns of PTB-XL


def check_page_kind(kind: str) -> None:
    """Refuse what is not of PAGE_KINDS.

    Raises:
        ValueError: which lists them.
    """
    if kind not in PAGE_KINDS:
        raise ValueError(f"distort={kind!r} is not one of {', '.join(PAGE_KINDS)}")


def own_chance(record: EcgRecord, kind: str) -> np.random.Generator:
    """What decides how this record's page becomes one of this kind; each call starts anew."""
    return np.random.default_rng([zlib.crc32(record.record_id.encode()), PAGE_KINDS.index(kind)])


def page_of(record: EcgRecord, style: PaperStyle, kind: str = "clean") -> Page:
    """Draw the page of a record.

    Args:
        record: to draw.
        style: of the paper.
        kind: of PAGE_KINDS. "shuffled_leads" gives every lead the trace of another one and keeps the names where they
            were; "blank_page" is paper without a trace, with everything else that the style prints.
    """
    rng = own_chance(record, kind)
    if kind == SHUFFLED:
        record = replace(record, signal=record.signal[_derangement(len(record.signal), rng)])
    if kind == BLANK:
        record = replace(record, signal=np.full_like(record.signal, np.nan))
    paper = np.random.default_rng(zlib.crc32(record.record_id.encode()))  # the same one, whatever happens to it
    page = draw_page(record, style, paper)
    return page if kind in (SHUFFLED, BLANK) else distort(page, rng, kind)


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """An order in which nothing stays in its place: one random cycle. Sattolo's algorithm."""
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(rng.integers(i))
        order[[i, j]] = order[[j, i]]
    return order


def _years(record: EcgRecord) -> float | None:
    """The age that a record states; None if it states none, or NaN, which is how tables write that."""
    stated = record.meta.get("age")
    try:
        years = math.nan if stated is None else float(stated)
    except (TypeError, ValueError) as error:
        raise ValueError(f"record {record.record_id}: age={stated!r} is no number of years") from error
    return None if math.isnan(years) else years


def about(record: EcgRecord, page: Page, page_name: str) -> dict[str, Any]:
    """What is known of a record besides its truth, for subgroups; None for what its source does not say.

    `age` is in years, 90 for "over 89". `quality` is "disturbed" where the source notes drift, noise or bad electrodes,
    "undisturbed" where it keeps such notes and has none. `page` is the style's name and `layout` what was drawn.

    Raises:
        ValueError: if the age is no number.
    """
    meta = record.meta
    age = 90.0 if meta.get("age_over_89") else _years(record)
    values = {
        "sex": meta.get("sex"),
        "age": age,
        "device": meta.get("device"),
        "site": meta.get("site"),
        "quality": meta.get("quality") or _quality(meta),
        "validated": {"true": "by a human", "false": "by nobody"}.get(str(meta.get("validated_by_human")).lower()),
        "layout": page.style.layout,
        "page": page_name,
    }
    return {name: values[name] for name in ABOUT}


def _quality(meta: Any) -> str | None:
    if "strat_fold" not in meta and "fold" not in meta:  # only PTB-XL keeps such notes
        return None
    return "disturbed" if any(str(meta.get(column) or "").strip() for column in _NOISE) else "undisturbed"


def kind_in_words(kind: str) -> str:
    """As a heading: "shuffled_leads" -> "shuffled leads"."""
    return kind.replace("_", " ")
