"""Distortions that move pixels: tilt, turns, shear, perspective, crop, curl. Points and pixels move by one map.

A map takes points of the page before to points after, and back. Maps of several distortions are joined, so that the
picture is resampled once. Coordinates are continuous: pixel (0, 0) covers the square from (0, 0) to (1, 1).

Shapes: P points, [P, 2] of (x, y) pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from PIL import Image

from train.ecg.distort.paper import shade

Colour = tuple[int, int, int]
Size = tuple[int, int]
Points = np.ndarray
Rng = np.random.Generator


@dataclass(frozen=True)
class Homography:
    """A projective map.

    Attributes:
        matrix: [3, 3], homogeneous coordinates before -> after.
        size: width and height after.
    """

    matrix: np.ndarray
    size: Size

    def forward(self, points: Points) -> Points:
        """Before -> after."""
        return _project(self.matrix, points)

    def backward(self, points: Points) -> Points:
        """After -> before."""
        return _project(np.linalg.inv(self.matrix), points)


@dataclass(frozen=True)
class Curl:
    """Paper that bends up toward its left or right edge: columns move down and closer to each other.

    Attributes:
        edges: x before, at some columns.
        moved: x after, at the same columns.
        drop: how far each of these columns moves down, pixels.
        brightness: of the paper at the same columns, up to 1.
        size: width and height.
    """

    edges: np.ndarray
    moved: np.ndarray
    drop: np.ndarray
    brightness: np.ndarray
    size: Size

    def forward(self, points: Points) -> Points:
        """Before -> after."""
        x, y = points.T
        return np.stack([np.interp(x, self.edges, self.moved), y + np.interp(x, self.edges, self.drop)], axis=1)

    def backward(self, points: Points) -> Points:
        """After -> before; beyond the bent edge there is no paper, so points go on at the same pace."""
        x, y = points.T
        old = (
            np.interp(x, self.moved, self.edges) + np.minimum(x - self.moved[0], 0) + np.maximum(x - self.moved[-1], 0)
        )
        return np.stack([old, y - np.interp(old, self.edges, self.drop)], axis=1)


Map = Homography | Curl


def _project(matrix: np.ndarray, points: Points) -> Points:
    out = points @ matrix[:, :2].T + matrix[:, 2]
    return out[:, :2] / out[:, 2:]


def _about_centre(linear: np.ndarray, size: Size, after: Size | None = None) -> Homography:
    """A linear map [2, 2] that keeps the centre in the middle."""
    after = after or size
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = np.array(after) / 2 - linear @ (np.array(size) / 2)
    return Homography(matrix, after)


def _turned(degrees: float, size: Size, rng: Rng) -> Homography:
    """Turned about the centre, and made smaller by a random part of what keeps all corners inside."""
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    width, height = size
    fit = min(width / (width * abs(cos) + height * abs(sin)), height / (width * abs(sin) + height * abs(cos)))
    scale = 1 - rng.uniform(0.8, 1) * (1 - fit)
    return _about_centre(scale * np.array([[cos, -sin], [sin, cos]]), size)


def tilt(size: Size, rng: Rng, strength: float) -> Map:
    """Turned by up to 15 degrees."""
    return _turned(rng.uniform(-15, 15) * strength, size, rng)


def rotate(size: Size, rng: Rng, strength: float) -> Map:
    """Turned by any angle, up to 180 degrees."""
    return _turned(rng.uniform(-180, 180) * strength, size, rng)


def quarter(size: Size, rng: Rng, strength: float) -> Map:
    """Turned by 90, 180 or 270 degrees, whatever the strength; a page that is not square changes its format."""
    turns = int(rng.integers(1, 4))
    linear = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
    return _about_centre(linear, size, (size[1], size[0]) if turns % 2 else size)


def skew(size: Size, rng: Rng, strength: float) -> Map:
    """Sheared: upright lines lean by up to 12 degrees, level ones by up to 3; all corners stay inside."""
    across, down = np.tan(np.radians(rng.uniform(-1, 1, 2) * (12, 3) * strength))
    linear = np.array([[1.0, across], [down, 1.0]])
    width, height = size
    reach = np.abs(linear) @ np.array([width, height])
    return _about_centre(linear * min(width / reach[0], height / reach[1]), size)


def perspective(size: Size, rng: Rng, strength: float) -> Map:
    """Seen from an angle: each corner moves inwards by up to an eighth of the page."""
    inwards = rng.uniform(0, 0.125, (4, 2)) * strength
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    moved = np.where(corners == 0, inwards, 1 - inwards)
    return Homography(_from_corners(corners * size, moved * size), size)


def _from_corners(before: Points, after: Points) -> np.ndarray:
    """The homography [3, 3] that takes four points to four points."""
    rows = []
    for (x, y), (u, v) in zip(before, after, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), after.ravel()), 1.0).reshape(3, 3)


def crop(size: Size, rng: Rng, strength: float) -> Map:
    """Cut at every edge by up to 6 % and enlarged to the old size, the same in both directions."""
    kept = 1 - rng.uniform(0, 0.12) * strength
    free = (1 - kept) * np.array(size)
    corner = rng.uniform(0, 1, 2) * free
    matrix = np.diag([1 / kept, 1 / kept, 1.0])
    matrix[:2, 2] = -corner / kept
    return Homography(matrix, size)


def curl(size: Size, rng: Rng, strength: float) -> Map:
    """The left or right third or half of the paper bends up."""
    width, height = size
    edges = np.linspace(0, width, 41)
    share = rng.uniform(0.3, 0.6)
    bent = np.clip((edges / width - (1 - share)) / share, 0, 1) ** 2  # 0 where flat, 1 at the edge
    drop = rng.choice([-1, 1]) * rng.uniform(0.3, 1) * 0.07 * strength * height * bent
    pace = 1 - 0.3 * strength * np.sqrt(bent)
    moved = np.concatenate([[0], np.cumsum(np.diff(edges) * (pace[1:] + pace[:-1]) / 2)])
    brightness = 1 - rng.uniform(0.1, 0.45) * strength * bent
    if rng.random() < 0.5:  # the left edge
        drop, moved, brightness = drop[::-1].copy(), width - moved[::-1], brightness[::-1].copy()
    return Curl(edges, moved, drop, brightness, size)


Move = Callable[[Size, Rng, float], Map]
MOVES: dict[str, Move] = {move.__name__: move for move in (curl, tilt, rotate, quarter, skew, perspective, crop)}


def move_points(points: Points, maps: Sequence[Map]) -> Points:
    """Points of the page before -> points after all maps."""
    for one in maps:
        points = one.forward(points)
    return points


def local_scale(point: Points, maps: Sequence[Map]) -> float:
    """How much larger things are at a point (before) after the maps: square root of the change of area."""
    step = 0.5
    around = point + step * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
    right, left, below, above = move_points(around, maps)
    return float(np.sqrt(abs(np.linalg.det(np.stack([right - left, below - above])))))


def move_box(box: tuple[float, ...], maps: Sequence[Map]) -> tuple[float, float, float, float] | None:
    """The upright box around a moved box, cut at the page's edges; None if nothing of it is left on the page.

    A box without height (a lead without ink) stays a box.
    """
    x0, y0, x1, y1 = box
    along = np.linspace(0, 1, 17)
    x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
    fixed = [np.full(17, value) for value in (x0, y0, x1, y1)]
    sides = [(x, fixed[1]), (x, fixed[3]), (fixed[0], y), (fixed[2], y)]
    moved = move_points(np.concatenate([np.stack(side, axis=1) for side in sides]), maps)
    width, height = maps[-1].size
    low, high = moved.min(0), moved.max(0)
    if low[0] >= width or low[1] >= height or high[0] <= 0 or high[1] <= 0:
        return None
    (a, b), (c, d) = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    return float(a), float(b), float(c), float(d)


def move_image(image: Image.Image, maps: Sequence[Map], surface: Colour) -> Image.Image:
    """Resample a picture once for all maps, bilinear; where there is no page, the surface that it lies on shows."""
    size = maps[-1].size
    for one in maps:
        if isinstance(one, Curl):
            image = shade(image, one.brightness[None])
    if all(isinstance(one, Homography) for one in maps):
        matrix = reduce(lambda joined, one: one.matrix @ joined, maps, np.eye(3))  # type: ignore[union-attr]
        if (turn := _as_quarter_turn(matrix)) is not None:
            return image.transpose(turn)
        inverse = np.linalg.inv(matrix)
        inverse /= inverse[2, 2]
        is_affine = np.abs(inverse[2, :2]).max() < 1e-12
        method = Image.Transform.AFFINE if is_affine else Image.Transform.PERSPECTIVE
        numbers = inverse.ravel()[: 6 if is_affine else 8].tolist()
    else:
        method, numbers = Image.Transform.MESH, _mesh(size, maps)
    return image.transform(size, method, numbers, Image.Resampling.BILINEAR, fillcolor=surface)


_TURNS = {  # the linear part of exact turns, as Pillow calls them
    (0, -1, 1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_90,
}


def _as_quarter_turn(matrix: np.ndarray) -> Image.Transpose | None:
    linear = np.rint(matrix[:2, :2])
    if np.abs(matrix[:2, :2] - linear).max() > 1e-9 or np.abs(matrix[2] - (0, 0, 1)).max() > 1e-12:
        return None
    a, b, c, d = (int(v) for v in linear.ravel())
    return _TURNS.get((a, b, c, d))


def _mesh(size: Size, maps: Sequence[Map], cells: int = 40) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """For Pillow: boxes after, and the four corners (from the upper left one, downwards) that each comes from."""
    xs, ys = (np.unique(np.linspace(0, n, cells + 1).astype(int)) for n in size)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(float)
    for one in maps[::-1]:
        grid = one.backward(grid)
    at = grid.reshape(len(ys), len(xs), 2)
    return [
        (
            (int(xs[i]), int(ys[j]), int(xs[i + 1]), int(ys[j + 1])),
            (*at[j, i], *at[j + 1, i], *at[j + 1, i + 1], *at[j, i + 1]),
        )
        for j in range(len(ys) - 1)
        for i in range(len(xs) - 1)
    ]
