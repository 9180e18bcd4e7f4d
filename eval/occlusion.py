"""What happens to a label's log-odds when a lead is wiped from the page: an intervention, beside what attention says.

The wiped area gets the paper that was there before anything was drawn, grid and names of the leads included: the page
drawn again without ink. Where that is not at hand, for a photograph or a data set of pictures, it gets the page's
median colour, which wipes the grid too.

Shapes: A areas, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.likelihood import YesNo, score_labels
from eval.pages import BLANK, page_of
from minimllama import ImageTransform, MiniMllama
from train.ecg import EcgRecord, PaperStyle
from train.ecg.page import Box

REDRAWN, MEDIAN = "the paper drawn again, with its grid", "the page's median colour"


def empty_paper(record: EcgRecord, style: PaperStyle) -> Image.Image | None:
    """What `eval.pages.page_of` draws of a record, without its traces; None for rows that depend on its samples."""
    return None if style.layout == "recorded" else page_of(record, style, BLANK).image


def wipe(page: Image.Image, boxes: Sequence[Box], paper: Image.Image | None, margin: float = 0.0) -> Image.Image:
    """A copy with boxes replaced by paper.

    Args:
        page: to copy.
        boxes: in its pixels; what other leads drew inside them goes too.
        paper: of the same size, or None for the page's median colour.
        margin: pixels around each box, half a pen's width.
    """
    out = page.copy()
    median = tuple(int(v) for v in np.median(np.asarray(page.convert("RGB")).reshape(-1, 3), axis=0))
    for x0, y0, x1, y1 in boxes:
        left, top = (max(int(np.floor(v - margin)), 0) for v in (x0, y0))
        right, bottom = min(int(np.ceil(x1 + margin)), page.width), min(int(np.ceil(y1 + margin)), page.height)
        area = (left, top, max(right, left), max(bottom, top))
        if paper is not None:
            out.paste(paper.crop(area), area)
        else:
            out.paste(median, area)
    return out


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """What wiping does.

    Attributes:
        before: log-odds of the page as it is, float32 [C].
        changes: log-odds with an area wiped minus those before, float32 [A, C]; negative where the area spoke for
            the label.
        areas: their names, in order.
        fill: what the areas were filled with.
    """

    before: Tensor
    changes: Tensor
    areas: tuple[str, ...]
    fill: str


@torch.no_grad()
def occlude(
    model: MiniMllama,
    transform: ImageTransform,
    questions: YesNo,
    page: Image.Image,
    areas: Mapping[str, Sequence[Box]],
    *,
    paper: Image.Image | None = None,
    margin: float = 0.0,
    device: str = "cpu",
) -> Occlusion:
    """Score a page and its wiped copies, all of them in one batch.

    Raises:
        ValueError: if there is no area.
    """
    if not areas:
        raise ValueError("no area to wipe")
    pages = [page, *(wipe(page, boxes, paper, margin) for boxes in areas.values())]
    scores = score_labels(model, questions, transform([[one] for one in pages]).to(device)).cpu()  # [A + 1, C]
    return Occlusion(
        before=scores[0],
        changes=scores[1:] - scores[0],
        areas=tuple(areas),
        fill=MEDIAN if paper is None else REDRAWN,
    )
