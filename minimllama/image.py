"""Pages to tiles: choose a grid, resize, pad, split, normalise. Pillow and torch only.

Source: llama-models, multimodal/image_transform.py, and transformers' MllamaImageProcessorPil, which agree
bit for bit on everything but transparency (composited on white, as transformers does). The arithmetic is
float64 where theirs is.

Shapes: B samples, I image slots, K tile slots, S tile side in pixels, N images.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from minimllama.config import aspect_ratios

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """The images of B samples, with empty slots where a sample has fewer than the largest number.

    Attributes:
        pixels: float [B, I, K, 3, S, S], normalised; 0 in unused tile slots and unused image slots.
        aspect_ratio_ids: int64 [B, I], 0 for an unused image slot.
        tile_mask: bool [B, I, K], True for tiles in use; tile 0 is True even in an empty slot.
        n_tiles: tiles of each real image, one list per sample.
    """

    pixels: Tensor
    aspect_ratio_ids: Tensor
    tile_mask: Tensor
    n_tiles: list[list[int]]

    def __post_init__(self) -> None:
        if self.pixels.dim() != 6 or self.pixels.shape[3] != 3:
            raise ValueError(f"pixels must be [B, I, K, 3, S, S], got {list(self.pixels.shape)}")
        b, i, k = self.pixels.shape[:3]
        if self.aspect_ratio_ids.shape != (b, i) or self.tile_mask.shape != (b, i, k):
            raise ValueError(
                f"pixels {list(self.pixels.shape)} need aspect_ratio_ids [{b}, {i}] and tile_mask [{b}, {i}, {k}], "
                f"got {list(self.aspect_ratio_ids.shape)} and {list(self.tile_mask.shape)}"
            )
        if len(self.n_tiles) != b or any(len(row) > i or not all(1 <= n <= k for n in row) for row in self.n_tiles):
            raise ValueError(f"n_tiles={self.n_tiles} must hold {b} lists of at most {i} numbers from 1 to {k}")

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.n_tiles)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "ImageBatch":
        """The same batch on another device, and its pixels in another dtype if one is given."""
        return replace(
            self,
            pixels=self.pixels.to(device, dtype or self.pixels.dtype, non_blocking=True),
            aspect_ratio_ids=self.aspect_ratio_ids.to(device, non_blocking=True),
            tile_mask=self.tile_mask.to(device, non_blocking=True),
        )


def choose_grid(width: int, height: int, tile: int, max_tiles: int) -> tuple[int, int]:
    """The (rows, columns) of tiles on which an image appears best.

    Among grids that need no shrinking the smallest enlargement, otherwise the least shrinking; ties go to
    fewer tiles. llama-models, image_transform.py, get_max_res_without_distortion and select_best_resolution.
    """
    grids = aspect_ratios(max_tiles)
    scales = [min(rows * tile / height, columns * tile / width) for rows, columns in grids]
    enlarging = [scale for scale in scales if scale >= 1]
    best = min(enlarging) if enlarging else max(scales)
    return min((grid for grid, scale in zip(grids, scales, strict=True) if scale == best), key=lambda g: g[0] * g[1])


def fit_size(width: int, height: int, grid: tuple[int, int], tile: int) -> tuple[int, int]:
    """Size (width, height) of the image inside its canvas: aspect kept, enlarged to at most one tile side.

    The products are rounded to float64 before the floor; exact integers would differ for about one size in
    10,000.
    """
    target_height = min(max(height, tile), grid[0] * tile)
    target_width = min(max(width, tile), grid[1] * tile)
    scale_height, scale_width = target_height / height, target_width / width
    if scale_width < scale_height:
        return target_width, max(min(int(height * scale_width), target_height), 1)
    return max(min(int(width * scale_height), target_width), 1), target_height


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency composited on white, and the upper eight bits of sixteen.

    Raises:
        ValueError: if the picture's numbers have no known range, as in modes "I" and "F"; Pillow would cut them off.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"a picture of mode {image.mode!r} does not say which number is white; save it in 8 or 16 bits"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def open_picture(path: str | Path) -> Image.Image:
    """A picture from a file, turned upright as its EXIF says, and read to its end.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is not a picture, or incomplete.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (FileNotFoundError, PermissionError):  # their own words say it
        raise
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a complete picture: {error}") from error


class ImageTransform:
    """PIL images -> ImageBatch.

    Args:
        tile_size: side of a tile in pixels.
        max_tiles: tile slots per image.
        mean, std: per channel, of values in [0, 1].
    """

    def __init__(
        self,
        tile_size: int = 448,
        max_tiles: int = 4,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        if tile_size < 1 or max_tiles < 1:
            raise ValueError(f"tile_size={tile_size} and max_tiles={max_tiles} must be positive")
        self.tile_size, self.max_tiles = tile_size, max_tiles
        self.mean, self.std = tuple(mean), tuple(std)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "ImageTransform":
        """Read preprocessor_config.json of a Hugging Face folder, or transformers 5's processor_config.json.

        Raises:
            FileNotFoundError: if neither is there.
            ValueError: if the file asks for another filter or leaves a step out.
        """
        path = Path(folder) / "preprocessor_config.json"
        if path.is_file():
            fields = json.loads(path.read_text())
        elif (joint := Path(folder) / "processor_config.json").is_file():
            path, fields = joint, json.loads(joint.read_text())["image_processor"]
        else:
            raise FileNotFoundError(f"no preprocessor_config.json and no processor_config.json in {folder}")
        accepted = {
            "resample": 2,
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_pad": True,
        }
        for name, value in accepted.items():
            if fields.get(name, value) != value:
                raise ValueError(f"{path}: {name}={fields[name]!r} is not supported, only {value!r}")
        size = fields["size"]
        if size["height"] != size["width"]:
            raise ValueError(f"{path}: tiles must be square, got {size}")
        return cls(size["height"], fields["max_image_tiles"], fields["image_mean"], fields["image_std"])

    def config(self) -> dict[str, object]:
        """The content of preprocessor_config.json."""
        return {
            "image_processor_type": "MllamaImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_pad": True,
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": self.tile_size, "width": self.tile_size},
            "max_image_tiles": self.max_tiles,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def split(self, image: Image.Image) -> tuple[np.ndarray, int]:
        """One image -> uint8 tiles [n, 3, S, S], row by row, and its aspect ratio id."""
        image, tile = to_rgb(image), self.tile_size
        rows, columns = grid = choose_grid(image.width, image.height, tile, self.max_tiles)
        width, height = fit_size(image.width, image.height, grid, tile)
        canvas = np.zeros((rows * tile, columns * tile, 3), np.uint8)
        canvas[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        tiles = canvas.reshape(rows, tile, columns, tile, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, tile, tile)
        return tiles, aspect_ratios(self.max_tiles).index(grid) + 1

    def normalise(self, tiles: Tensor) -> Tensor:
        """uint8 [..., 3, S, S] -> float32 of the same shape: (value / 255 - mean) / std."""
        # float32 throughout; for all 256 levels that is the same as transformers' way over float64. A scalar divisor
        # would be turned into a factor on accelerators, and round differently.
        numbers = ((255.0,), self.mean, self.std)
        most, mean, std = (torch.tensor(x, dtype=torch.float32, device=tiles.device).view(-1, 1, 1) for x in numbers)
        return tiles.float().div_(most).sub_(mean).div_(std)

    def __call__(self, images: Sequence[Sequence[Image.Image]]) -> ImageBatch:
        """One list of PIL images per sample (it may be empty) -> ImageBatch.

        Raises:
            TypeError: if a sample is not a list, so that a flat list is never taken for one sample per image.
            ValueError: if no sample has an image.
        """
        for index, sample in enumerate(images):
            if not isinstance(sample, Sequence) or not all(isinstance(image, Image.Image) for image in sample):
                raise TypeError(f"images[{index}] must be a list of PIL images (a list per sample), got {sample!r}")
        return self.pack([[self.split(image) for image in sample] for sample in images])

    def pack(self, samples: Sequence[Sequence[tuple[np.ndarray, int]]]) -> ImageBatch:
        """The results of `split`, one list per sample -> ImageBatch."""
        slots = max(map(len, samples), default=0)
        if slots == 0:
            raise ValueError("no sample has an image: call the model without images instead")
        shape = (len(samples), slots, self.max_tiles)
        pixels = torch.zeros(*shape, 3, self.tile_size, self.tile_size)
        ids = torch.zeros(shape[:2], dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[:, :, 0] = True
        for b, sample in enumerate(samples):
            for i, (tiles, ratio_id) in enumerate(sample):
                pixels[b, i, : len(tiles)] = self.normalise(torch.from_numpy(tiles))
                ids[b, i] = ratio_id
                mask[b, i, : len(tiles)] = True
        n_tiles = [[len(tiles) for tiles, _ in sample] for sample in samples]
        return ImageBatch(pixels=pixels, aspect_ratio_ids=ids, tile_mask=mask, n_tiles=n_tiles)
