"""Distortions of light, lens and file: uneven light, shadow, colour cast, blur, noise, JPEG.

Each takes the picture, its scale, a generator and a strength above 0, and returns a picture of the same size.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

from train.ecg.distort.paper import shade, smooth_noise

Rng = np.random.Generator


def light(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Brighter on one side, darker toward the corners; the darkest place loses up to 55 %."""
    n = 48
    axis = np.linspace(-1, 1, n)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * axis[None] + np.sin(angle) * axis[:, None]) / np.sqrt(2)  # from -1 to 1
    corners = (axis[None] ** 2 + axis[:, None] ** 2) / 2
    loss = rng.uniform(0.15, 0.35) * (1 - slope) / 2 + rng.uniform(0.05, 0.2) * corners
    return shade(image, 1 - strength * loss)


def shadow(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """The soft shadow of a hand, a telephone or a shelf: a dark side or a dark shape, up to 50 % darker."""
    n = 96
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n))
    angle = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(0.15, 0.85, 2)
    u = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    v = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
    if rng.random() < 0.5:
        dark = u + 0.08 * (smooth_noise(rng, n, n, 3) - 0.5) > rng.uniform(0, 0.25)
    else:
        dark = (np.abs(u) < rng.uniform(0.1, 0.25)) & (v > rng.uniform(-0.3, 0))
    soft = gaussian_filter(dark.astype(np.float32), rng.uniform(1.5, 6), mode="nearest")
    return shade(image, 1 - rng.uniform(0.25, 0.5) * strength * soft)


def colour_cast(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Warm or cold light and a curve: each channel scaled by up to 20 %, gamma between 0.75 and 1.35."""
    warm = rng.uniform(-1, 1)
    gains = 1 - strength * np.maximum([-warm * 0.20, 0.04 * abs(warm), warm * 0.22], 0) * rng.uniform(0.7, 1.3, 3)
    gamma = np.exp(strength * rng.uniform(-0.29, 0.30))
    level = np.arange(256) / 255
    table = np.rint(255 * np.clip(gains[:, None] * level[None] ** gamma, 0, 1)).astype(int)
    return image.point(table.ravel().tolist())


def blur(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Out of focus: a Gaussian of 0.15 to 0.35 mm standard deviation."""
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.15, 0.35) * strength * px_per_mm))


@lru_cache(maxsize=1)
def _normal_table() -> np.ndarray:
    """256 equally likely values of a standard normal variable."""
    return ndtri((np.arange(256) + 0.5) / 256).astype(np.float32)


def gaussian_noise(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Noise of brightness, standard deviation 8 to 28 of 255.

    Drawn from 256 equally likely levels, which is ten times as fast as exact normal numbers and ends at 2.9
    standard deviations.
    """
    width, height = image.size
    table = np.clip(128 + rng.uniform(8, 28) * strength * _normal_table(), 0, 255).round().astype(np.uint8)
    grain = Image.fromarray(table[rng.integers(0, 256, (height, width), dtype=np.uint8)])
    return ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), 1, -128)


def salt_and_pepper(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Single pixels turned white or black: 0.2 to 2 % of them."""
    pixels = np.asarray(image).copy()
    n = image.width * image.height
    at = rng.integers(0, n, round(rng.uniform(0.002, 0.02) * strength * n))
    pixels.reshape(-1, 3)[at] = np.where(rng.random((len(at), 1)) < 0.5, 0, 255)
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, px_per_mm: float, rng: Rng, strength: float) -> Image.Image:
    """Saved and opened again, quality 90 down to 12."""
    quality = round(90 - rng.uniform(0.3, 1) * 78 * min(strength, 1))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")
