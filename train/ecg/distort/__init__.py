"""Paper that looks real: a drawn page as it comes from a scanner, a telephone or a drawer.

Distortions happen in the order of DISTORTIONS, which is nature's: somebody writes on the sheet and bends it, then it
is laid askew, lit, photographed and compressed. Boxes and scale move with the pixels. Each distortion has a stream of
chance of its own, so leaving one out does not change the others.

To add one: a function in paper.py, camera.py (pixels) or moves.py (where they are), and one row here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from train.ecg.distort import camera, moves, paper
from train.ecg.page import Page, PaperStyle

Rng = np.random.Generator
Mark = Callable[[Image.Image, float, Rng, float], Image.Image]

LETTER_MM = 279.4  # length of the page that ecg-image-kit draws, as ECGInstruct's pictures

# name: what it does; moves are joined and resample the picture once
DISTORTIONS: dict[str, Mark | moves.Move] = {
    "handwriting": paper.handwriting,
    "stain": paper.stain,
    "fade": paper.fade,
    "creases": paper.creases,
    "folds": paper.folds,
    "wrinkles": paper.wrinkles,
    **moves.MOVES,
    "light": camera.light,
    "shadow": camera.shadow,
    "colour_cast": camera.colour_cast,
    "blur": camera.blur,
    "gaussian_noise": camera.gaussian_noise,
    "salt_and_pepper": camera.salt_and_pepper,
    "jpeg": camera.jpeg,
}


@dataclass(frozen=True)
class Preset:
    """A kind of picture.

    Attributes:
        steps: name of a distortion -> how likely it is, and its largest strength (drawn between 30 % of it and it).
        surfaces: colours on which the sheet may lie.
    """

    steps: dict[str, tuple[float, float]]
    surfaces: tuple[moves.Colour, ...] = ((255, 255, 255),)


_LIDS = ((255, 255, 255), (244, 244, 242), (226, 227, 229))
_DESKS = ((96, 74, 56), (142, 118, 92), (60, 62, 66), (176, 178, 180), (214, 212, 206), (36, 44, 58))
PRESETS: dict[str, Preset] = {
    "clean": Preset({}),
    "scan": Preset(
        {
            "handwriting": (0.12, 0.6),
            "stain": (0.05, 0.5),
            "fade": (0.2, 0.6),
            "creases": (0.1, 0.5),
            "folds": (0.12, 0.5),
            "tilt": (0.9, 0.15),
            "crop": (0.15, 0.4),
            "light": (0.25, 0.25),
            "colour_cast": (0.5, 0.4),
            "gaussian_noise": (0.5, 0.4),
            "salt_and_pepper": (0.08, 0.1),
            "jpeg": (0.85, 0.8),
        },
        _LIDS,
    ),
    "phone": Preset(
        {
            "handwriting": (0.15, 0.8),
            "stain": (0.1, 0.7),
            "fade": (0.15, 0.5),
            "creases": (0.25, 0.8),
            "folds": (0.35, 0.9),
            "wrinkles": (0.35, 0.9),
            "curl": (0.3, 0.7),
            "tilt": (0.9, 0.5),
            "quarter": (0.03, 1.0),
            "perspective": (0.95, 0.8),
            "crop": (0.3, 0.6),
            "light": (0.8, 0.9),
            "shadow": (0.5, 0.9),
            "colour_cast": (0.8, 0.8),
            "blur": (0.5, 0.5),
            "gaussian_noise": (0.6, 0.5),
            "jpeg": (0.95, 0.9),
        },
        _DESKS,
    ),
    # what the paper names, arXiv:2501.18670
    "paper": Preset(
        {
            "creases": (0.5, 1.0),
            "wrinkles": (0.5, 1.0),
            "tilt": (0.5, 0.7),
            "skew": (0.5, 0.6),
            "perspective": (0.5, 0.8),
            "gaussian_noise": (0.5, 0.9),
            "salt_and_pepper": (0.5, 0.6),
        },
    ),
}


def check_names(names: str | Iterable[str]) -> None:
    """Refuse what is neither a preset nor a distortion.

    Raises:
        ValueError: which lists what there is.
    """
    if isinstance(names, str):
        if names not in PRESETS and names not in DISTORTIONS:
            raise ValueError(f"distort={names!r} is not one of {', '.join((*PRESETS, *DISTORTIONS))}")
        return
    for name in names:
        if name not in DISTORTIONS:
            raise ValueError(f"distortion {name!r} is not one of {', '.join(DISTORTIONS)}")


def distort(page: Page, rng: Rng, names: str | Sequence[str] | None = None, *, strength: float | None = None) -> Page:
    """Make a clean page look real.

    Args:
        page: of `draw_page`, or distorted already.
        rng: where all chance comes from; one number is taken from it, however much is done.
        names: a preset ("clean", "scan", "phone", "paper"), or distortions, which are then all applied, in the order
            of DISTORTIONS; None for the preset "paper".
        strength: of the named distortions, 1 by default; for a preset, a factor of its strengths. 0 changes nothing;
            1 is as strong as a careful reader would still accept.

    Returns:
        A page of the same size (two of three quarter turns swap width and height). Its boxes are those around the
        moved leads, cut at the edges; a lead that is no longer on the page has none. Its px_per_mm is the scale in the
        middle of the old page. `distortions` says what was done.

    Raises:
        ValueError: if a name is unknown, or the strength is negative.
    """
    chosen = "paper" if names is None else names
    check_names(chosen)
    if strength is not None and strength < 0:
        raise ValueError(f"strength={strength} must not be negative")
    if chosen == "clean" or strength == 0:
        return page
    factor = 1.0 if strength is None else strength
    seed = int(rng.integers(2**63))
    steps, surface = _draw_steps(chosen, factor, np.random.default_rng([seed, len(DISTORTIONS)]))
    pending: list[moves.Map] = []
    for number, (name, function) in enumerate(DISTORTIONS.items()):
        if name not in steps:
            continue
        own = np.random.default_rng([seed, number])
        if name in moves.MOVES:
            size = pending[-1].size if pending else page.image.size
            pending.append(moves.MOVES[name](size, own, steps[name]))
            continue
        page, pending = _moved(page, pending, surface), []
        page = replace(page, image=function(page.image, page.px_per_mm, own, steps[name]))  # type: ignore[call-arg,arg-type]
    page = _moved(page, pending, surface)
    return replace(page, distortions=(*page.distortions, *((n, steps[n]) for n in DISTORTIONS if n in steps)))


def distort_picture(
    image: Image.Image, rng: Rng, names: str | Sequence[str] | None = None
) -> tuple[Image.Image, tuple[tuple[str, float], ...]]:
    """Make a picture look real that is no page of ours; returns it, and what was done.

    How many pixels a millimetre of it has is not known, so its longer side is taken for that of a letter page.
    """
    page = Page(image=image, px_per_mm=max(image.size) / LETTER_MM, lead_boxes={}, style=PaperStyle())
    made = distort(page, rng, names)
    return made.image, made.distortions


def _draw_steps(names: str | Sequence[str], factor: float, rng: Rng) -> tuple[dict[str, float], moves.Colour]:
    """Which distortions happen, how strong each is, and what the sheet lies on."""
    if isinstance(names, str) and names in PRESETS:
        preset = PRESETS[names]
        draws = rng.random((len(preset.steps), 2))
        steps = {
            name: float(factor * largest * (0.3 + 0.7 * share))
            for (name, (chance, largest)), (luck, share) in zip(preset.steps.items(), draws, strict=True)
            if luck < chance
        }
        return steps, preset.surfaces[rng.integers(len(preset.surfaces))]
    listed = [names] if isinstance(names, str) else names
    return dict.fromkeys(listed, factor), _DESKS[rng.integers(len(_DESKS))]


def _moved(page: Page, maps: Sequence[moves.Map], surface: moves.Colour) -> Page:
    """The page after some maps: pixels, boxes and scale."""
    if not maps:
        return page
    middle = np.array(page.image.size) / 2
    boxes = {lead: moves.move_box(box, maps) for lead, box in page.lead_boxes.items()}
    return replace(
        page,
        image=moves.move_image(page.image, maps, surface),
        px_per_mm=page.px_per_mm * moves.local_scale(middle, maps),
        lead_boxes={lead: box for lead, box in boxes.items() if box is not None},
    )
