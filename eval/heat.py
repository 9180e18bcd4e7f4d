"""Where on the page a model looks when it is asked about a label: weight per lead, and a picture of it.

Weights are those of the question's last token, after which "Yes" or "No" comes, in every cross-attention layer.

Shapes: L cross-attention layers, C labels, Y rows and X columns of page pixels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from eval.likelihood import YesNo, score_labels
from minimllama import ImageTransform, MiniMllama
from minimllama.attention_map import PageMap, to_page, watch
from train.ecg import LEADS, EcgRecord, Page
from train.ecg.page import Box
from train.ecg.paper_style import rows_of

CHEST = LEADS[6:]
STRIP, CHEST_LEADS, LIMB_LEADS = "rhythm strip", "V1-V6", "limb leads"


def lead_places(page: Page, record: EcgRecord) -> dict[str, list[Box]]:
    """Every box in which a lead stands, the longest first: a lead with a rhythm strip stands in two.

    `Page.lead_boxes` has the longest; the others have its height, around the middle of their own row.

    Args:
        page: as drawn, without distortions: the rows are where its style puts them.
        record: that it shows.
    """
    style, boxes = page.style, page.lead_boxes
    places = {lead: [boxes[lead]] for lead in LEADS if lead in boxes}
    if style.layout == "recorded":
        return places
    recorded = [lead for lead, mv in zip(LEADS, record.signal, strict=True) if np.isfinite(mv).any()]
    rhythm = style.rhythm if style.rhythm in recorded or not recorded else recorded[0]
    rows = rows_of(style.layout, style.order, rhythm)
    standing = [(i, k, lead) for i, row in enumerate(rows) for k, lead in enumerate(row)]
    pitch = (style.height - sum(style.printed_px)) / len(rows)
    full = style.seconds * style.px_per_second
    for lead, (found, *_) in places.items():
        own = sorted((len(rows[i]), i, k) for i, k, name in standing if name == lead)
        (cells, first, column), *others = own
        left = found[0] - column * full / cells
        for n, i, k in others:
            top, bottom = np.clip(np.array(found)[[1, 3]] + (i - first) * pitch, 0.0, float(style.height))
            x0 = left + k * full / n
            places[lead].append((x0, float(top), x0 + full / n, float(bottom)))
    return places


def areas_of(places: Mapping[str, Sequence[Box]]) -> dict[str, list[Box]]:
    """Boxes of each lead, and of groups of them: the strip at the bottom, the limb leads, V1 to V6."""
    areas = {lead: list(boxes) for lead, boxes in places.items()}
    strip = [boxes[0] for boxes in places.values() if len(boxes) > 1]
    groups = {
        STRIP: strip,
        LIMB_LEADS: [box for lead, boxes in places.items() if lead not in CHEST for box in boxes],
        CHEST_LEADS: [box for lead, boxes in places.items() if lead in CHEST for box in boxes],
    }
    return areas | {name: boxes for name, boxes in groups.items() if boxes}


def cover(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """How much of each pixel lies in one of the boxes: float32 [Y, X]. size: (width, height)."""
    out = np.zeros((size[1], size[0]), np.float32)
    for x0, y0, x1, y1 in boxes:
        across, down = (np.arange(n) for n in size)
        columns = np.clip(np.minimum(across + 1, x1) - np.maximum(across, x0), 0, 1)
        rows = np.clip(np.minimum(down + 1, y1) - np.maximum(down, y0), 0, 1)
        out = np.maximum(out, rows[:, None] * columns)
    return out


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of one area of a page.

    Attributes:
        weight: of all the attention, 0 to 1.
        density: its share of the weight that fell on the page, over its share of the page's area; 1 is what evenly
            spread attention has.
        area: its share of the page.
    """

    weight: float
    density: float
    area: float


def share_of(heat: np.ndarray, boxes: Sequence[Box]) -> Share:
    """Sum a map [Y, X] over boxes; where boxes of different leads overlap, both get the weight."""
    covered = cover(boxes, (heat.shape[1], heat.shape[0]))
    weight, area, whole = float((heat * covered).sum()), float(covered.mean()), float(heat.sum())
    return Share(weight=weight, density=weight / whole / area if whole and area else 0.0, area=area)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Log-odds of labels on one page, and where the model looked for each.

    Attributes:
        log_odds: float32 [C].
        maps: of every layer, the mean of its heads: page [L, C, Y, X], the rest [L, C].
        gates: tanh of each layer's gate, float32 [L].
    """

    log_odds: Tensor
    maps: PageMap
    gates: Tensor


@torch.no_grad()
def look_for_labels(
    model: MiniMllama, transform: ImageTransform, questions: YesNo, page: Image.Image, device: str = "cpu"
) -> Looked:
    """Ask a page's labels, and keep what the cross-attention layers did with the last token of each question."""
    with watch(model) as seen:
        log_odds = score_labels(model, questions, transform([[page]]).to(device))[0]
    each = [seen.weights(row, [len(suffix) - 1]).mean(2) for row, suffix in enumerate(questions.suffixes)]
    weights = torch.cat(each, dim=1).cpu()
    maps = to_page(weights, page.size, model.config.vision)
    return Looked(log_odds=log_odds.cpu(), maps=maps, gates=seen.gates.cpu())


def overlay(page: Image.Image, heat: np.ndarray, boxes: Sequence[Box] = ()) -> Image.Image:
    """A page with a map over it: the redder, the more weight, up to what one pixel in a hundred exceeds.

    The steps of the picture are the model's patches; nothing is smoothed. heat: [Y, X]. Boxes are outlined.
    """
    top = float(np.quantile(heat, 0.99)) or float(heat.max()) or math.inf
    strength = np.clip(heat / top, 0, 1)[..., None].astype(np.float32)
    warm = np.concatenate([np.full_like(strength, 235), 190 - 150 * strength, np.full_like(strength, 30)], axis=-1)
    ink = np.asarray(page.convert("RGB"), np.float32)
    mixed = ink * (1 - 0.6 * strength) + warm * 0.6 * strength
    mixed = np.minimum(mixed, ink + 90)  # the trace stays dark where it is hottest
    picture = Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for x0, y0, x1, y1 in boxes:
        draw.rectangle((x0, y0, x1 - 1, max(y1 - 1, y0)), outline=(30, 80, 200))
    return picture
