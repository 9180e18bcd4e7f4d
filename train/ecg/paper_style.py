"""How a page looks: layouts, colours, speed, gain, and sizes that fit the model's tiles.

A layout is rows of leads; the leads of a row share its width and follow each other in time. Limb leads stand in
the common order (I, II, III, aVR, aVL, aVF) or in Cabrera's, which turns with the heart's axis and shows aVR upside
down (aVL, I, -aVR, II, aVF, III).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from train.ecg.carts import BOTTOM_MM, CART_PALETTES, CARTS, HEADERS, Colour
from train.ecg.signal import LEADS

BLACK: Colour = (20, 20, 20)
# name: (paper, minor lines, major lines, trace)
PALETTES: dict[str, tuple[Colour, Colour, Colour, Colour]] = {
    "pink": ((255, 250, 248), (253, 222, 222), (245, 178, 178), BLACK),
    "red": ((255, 255, 255), (255, 205, 200), (240, 120, 110), (0, 0, 40)),
    "brown": ((252, 248, 240), (240, 226, 208), (216, 186, 150), BLACK),
    "blue": ((250, 252, 255), (214, 228, 246), (150, 184, 228), (10, 10, 50)),
    "green": ((250, 255, 250), (214, 238, 214), (156, 208, 160), BLACK),
    "grey": ((255, 255, 255), (228, 228, 228), (186, 186, 186), (0, 0, 0)),
    "orange": ((255, 252, 245), (255, 226, 196), (244, 170, 110), BLACK),
    "monochrome": ((255, 255, 255), (206, 206, 206), (128, 128, 128), (0, 0, 0)),
}
RANDOM_PALETTES = tuple(PALETTES)  # from which "random" draws; the carts' own come with their labels and headers
PALETTES |= CART_PALETTES

Rows = tuple[tuple[str, ...], ...]
CABRERA = ("aVL", "I", "aVR", "II", "aVF", "III")  # aVR is drawn upside down, as -aVR
_CHEST = LEADS[6:]
RHYTHM = "rhythm"  # stands for the style's rhythm lead
# name: rows of the page from top to bottom; numbers are limb leads in the style's order
LAYOUT_ROWS: dict[str, tuple[tuple[int | str, ...], ...]] = {
    "3x4+1": ((0, 3, "V1", "V4"), (1, 4, "V2", "V5"), (2, 5, "V3", "V6"), (RHYTHM,)),
    "3x4+3": ((0, 3, "V1", "V4"), (1, 4, "V2", "V5"), (2, 5, "V3", "V6"), ("V1",), (RHYTHM,), ("V5",)),
    "3x4": ((0, 3, "V1", "V4"), (1, 4, "V2", "V5"), (2, 5, "V3", "V6")),
    "4x3": ((0, 4, "V3"), (1, 5, "V4"), (2, "V1", "V5"), (3, "V2", "V6")),
    "6x2+1": (*((i, lead) for i, lead in enumerate(_CHEST)), (RHYTHM,)),
    "6x2": tuple((i, lead) for i, lead in enumerate(_CHEST)),
    "12x1": (*((i,) for i in range(6)), *((lead,) for lead in _CHEST)),
    "strip": ((RHYTHM,),),
}
ORDERS: dict[str, tuple[str, ...]] = {"common": LEADS[:6], "cabrera": CABRERA}


def rows_of(layout: str, order: str = "common", rhythm: str = "II") -> Rows:
    """The leads of each row of a layout, from top to bottom."""
    limb = ORDERS[order]
    return tuple(
        tuple(limb[cell] if isinstance(cell, int) else rhythm if cell == RHYTHM else cell for cell in row)
        for row in LAYOUT_ROWS[layout]
    )


LAYOUTS: dict[str, Rows] = {name: rows_of(name) for name in LAYOUT_ROWS}  # in the common order


@dataclass(frozen=True, kw_only=True)
class PaperStyle:
    """How a page looks.

    Attributes:
        width, height: pixels.
        px_per_mm: scale of the paper.
        layout: of LAYOUTS, "random", or "recorded": one row for each lead that the record has.
        seconds: length of a full row.
        mm_per_second, mm_per_mv: speed and gain.
        palette: of PALETTES, or "random".
        trace_mm: width of the trace.
        minor_grid: draw the 1 mm lines (5 mm lines are always drawn unless grid is False).
        grid, pulse, names: draw the grid, the 1 mV calibration pulse, the names of the leads.
        jitter_mm: largest random shift of the origin, in both directions.
        order: of the limb leads, "common" or "cabrera".
        rhythm: lead of the rhythm strip; a record that lacks it shows the first lead that it has.
        header: print date, time, speed and gain as carts do. Never a name, a number of a patient, a measurement
            or a finding: they would answer the questions.
        separators: draw short strokes where one lead ends and the next begins.
        header_form: of HEADERS, how the header is arranged.
        label_mm, label_at: size of the leads' names, and whether they stand "above" or "below" the trace.
        cart: of CARTS, or "random": a cart's palette, labels, separators and header, which are then left out here.
    """

    width: int = 1120
    height: int = 1120
    px_per_mm: float = 4.2
    layout: str = "3x4+1"
    seconds: float = 10.0
    mm_per_second: float = 25.0
    mm_per_mv: float = 10.0
    palette: str = "pink"
    trace_mm: float = 0.35
    minor_grid: bool = True
    grid: bool = True
    pulse: bool = True
    names: bool = True
    jitter_mm: float = 0.0
    order: str = "common"
    rhythm: str = "II"
    header: bool = False
    separators: bool = False
    header_form: str = "plain"
    label_mm: float = 3.2
    label_at: str = "above"
    cart: str = ""

    def __post_init__(self) -> None:
        for name, accepted in (
            ("layout", (*LAYOUTS, "recorded", "random")),
            ("palette", (*PALETTES, "random")),
            ("order", tuple(ORDERS)),
            ("rhythm", LEADS),
            ("header_form", tuple(HEADERS)),
            ("label_at", ("above", "below")),
            ("cart", ("", *CARTS, "random")),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(f"page.{name}={getattr(self, name)!r} is not one of {', '.join(accepted)}")
        for name in ("height", "px_per_mm", "seconds", "mm_per_second", "mm_per_mv", "trace_mm", "label_mm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"page.{name}={getattr(self, name)} must be positive")
        if not 0 <= self.jitter_mm < float("inf"):
            raise ValueError(f"page.jitter_mm={self.jitter_mm} must not be negative")
        if self.header_form != "plain" and not self.header:
            raise ValueError(f"page.header_form={self.header_form!r} does nothing without page.header")
        if self.cart:
            self._check_cart()
        needed = self.seconds * self.px_per_second + self.pulse_mm * self.px_per_mm
        if self.width < needed:
            raise ValueError(f"page.width={self.width} px is too narrow for {self.seconds} s: at least {needed:.0f} px")

    def _check_cart(self) -> None:
        """What a cart decides must not be said as well."""
        decided = CARTS.get(self.cart, {})
        for name in next(iter(CARTS.values())):
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if value not in (default, decided.get(name, default)):
                raise ValueError(f"page.cart={self.cart!r} decides {name}; leave {name}={value!r} out")

    @property
    def px_per_second(self) -> float:
        """Pixels along the time axis."""
        return self.mm_per_second * self.px_per_mm

    @property
    def px_per_mv(self) -> float:
        """Pixels along the voltage axis."""
        return self.mm_per_mv * self.px_per_mm

    @property
    def pulse_mm(self) -> float:
        """Paper that the calibration pulse takes at the left of each row."""
        return 5.0 if self.pulse else 0.0

    @property
    def printed_px(self) -> tuple[float, float]:
        """Paper at the top and at the bottom that header and footer take from the traces."""
        if not self.header:
            return 0.0, 0.0
        return HEADERS[self.header_form].top_mm * self.px_per_mm, BOTTOM_MM * self.px_per_mm

    @property
    def needs_generator(self) -> bool:
        """Whether anything is left to chance."""
        return "random" in (self.palette, self.layout) or self.jitter_mm > 0 or self.header or bool(self.cart)


# Sized so that Llama's image transform uses the tiles fully and does not rescale (docs/data.md, page sizes).
STYLES: dict[str, PaperStyle] = {
    "square": PaperStyle(),  # 2 x 2 tiles of 560, 4.2 px/mm
    "square448": PaperStyle(width=896, height=896, px_per_mm=3.4),  # 2 x 2 tiles of 448
    "wide": PaperStyle(width=1120, height=560, px_per_mm=4.2),  # 1 x 2 tiles of 560
    "wide448": PaperStyle(width=896, height=448, px_per_mm=3.4),  # 1 x 2 tiles of 448
    "tile448": PaperStyle(width=448, height=448, px_per_mm=1.7, minor_grid=False),  # one tile, the paper's literal size
    "nano": PaperStyle(width=512, height=256, px_per_mm=2.0, trace_mm=1.4, minor_grid=False, names=False),
    "varied": PaperStyle(layout="random", palette="random", jitter_mm=1.5, header=True, separators=True),  # as square
    "varied448": PaperStyle(
        width=896, height=896, px_per_mm=3.4, layout="random", palette="random", jitter_mm=1.5, header=True
    ),
}

# a cart's look in the sizes of square and square448; "carts" draws one of them, and a layout, for each page
STYLES |= {name: replace(STYLES["square"], cart=name) for name in CARTS}
STYLES |= {f"{name}448": replace(STYLES["square448"], cart=name) for name in CARTS}
STYLES |= {
    name: replace(STYLES[size], cart="random", layout="random", jitter_mm=1.5)
    for name, size in (("carts", "square"), ("carts448", "square448"))
}

# fields that did not exist when the first pages were kept
_LATER = {"order", "rhythm", "header", "separators", "header_form", "label_mm", "label_at", "cart"}


def describe_style(style: PaperStyle) -> dict[str, Any]:
    """All that decides a page's pixels, as JSON types.

    Fields that came later are left out at their defaults, so that pages kept before them stay valid.
    """
    defaults = asdict(PaperStyle())
    return {k: v for k, v in asdict(style).items() if k not in _LATER or v != defaults[k]}


def resolve_style(style: PaperStyle, rng: np.random.Generator | None) -> PaperStyle:
    """Draw cart, palette and layout if the style leaves them to chance, and take over what a cart decides.

    Raises:
        ValueError: if it leaves something to chance and there is no generator.
    """
    drawn: dict[str, Any] = {}
    layouts = [name for name in LAYOUTS if name != "strip"]
    for name, table in (("cart", list(CARTS)), ("palette", list(RANDOM_PALETTES)), ("layout", layouts)):
        if getattr(style, name) == "random":
            if rng is None:
                raise ValueError(f"{name}='random' needs a generator")
            drawn[name] = str(rng.choice(table))
    drawn |= CARTS.get(drawn.get("cart", style.cart), {})
    return replace(style, **drawn) if drawn else style
