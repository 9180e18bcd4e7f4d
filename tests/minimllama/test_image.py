"""Pages to tiles, bit for bit like transformers' Pillow backend."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from minimllama import ImageBatch, ImageTransform
from minimllama.image import CLIP_MEAN, CLIP_STD, choose_grid, fit_size, open_picture, to_rgb
from tests.tools.golden import Reference
from tests.tools.tiny import picture

BLACK = [(0 - m) / s for m, s in zip(CLIP_MEAN, CLIP_STD, strict=True)]


def hf_processor(tile: int):
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    return MllamaImageProcessorPil(
        size={"height": tile, "width": tile}, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD), max_image_tiles=4
    )


def assert_same(batch: ImageBatch, theirs: dict) -> None:
    assert torch.equal(batch.pixels, theirs["pixel_values"])
    assert torch.equal(batch.aspect_ratio_ids, theirs["aspect_ratio_ids"])
    assert torch.equal(batch.tile_mask, theirs["aspect_ratio_mask"].bool())


# equation


@pytest.mark.parametrize(
    ("width", "height", "tile", "grid", "size"),
    [
        (2200, 1700, 448, (2, 2), (896, 692)),
        (2200, 1700, 560, (2, 2), (1120, 865)),
        (1700, 2200, 560, (2, 2), (865, 1120)),
        (1120, 560, 560, (1, 2), (1120, 560)),  # a page cut to the tiles: two full ones, not resized
        (1330, 680, 560, (2, 2), (1120, 572)),  # a little larger: four tiles, almost half of them empty
        (10, 10, 560, (1, 1), (560, 560)),  # enlarged to one tile at most
        (3000, 50, 28, (1, 4), (112, 1)),
        (2999, 7, 28, (1, 4), (112, 1)),  # a height of 0.26 pixels becomes 1
    ],
)
def test_grids_and_sizes_of_known_pages(width, height, tile, grid, size) -> None:
    assert choose_grid(width, height, tile, 4) == grid
    assert fit_size(width, height, grid, tile) == size


def test_a_picture_stands_top_left_on_normalised_black_and_tiles_go_row_by_row() -> None:
    white = Image.new("RGB", (12, 6), (255, 255, 255))
    pixels = ImageTransform(tile_size=4)([[white]]).pixels[0, 0]  # 12x6 becomes 8x4: two tiles
    bright = torch.tensor([(1 - m) / s for m, s in zip(CLIP_MEAN, CLIP_STD, strict=True)])
    torch.testing.assert_close(pixels[:2], bright.view(1, 3, 1, 1).expand(2, 3, 4, 4))
    assert not pixels[2:].any(), "unused tiles are exactly zero"
    tall = ImageTransform(tile_size=4)([[Image.new("RGB", (4, 7))]]).pixels[0, 0]
    torch.testing.assert_close(tall[1, :, 3, 3], torch.tensor(BLACK), atol=1e-6, rtol=0.0)  # padding is not zero


# parity


def test_random_pictures_equal_those_of_transformers_bit_for_bit() -> None:
    rng = np.random.default_rng(7)
    ours, theirs = ImageTransform(tile_size=28), hf_processor(28)
    for seed in range(60):
        width, height = (int(x) for x in np.exp(rng.uniform(0, 6.5, 2)).astype(int) + 1)
        image = picture(width, height, seed, mode=("RGB", "L", "RGBA")[seed % 3])
        assert_same(ours([[image]]), theirs([[image]], return_tensors="pt"))


def test_several_pictures_per_sample_equal_those_of_transformers() -> None:
    samples = [[picture(30, 20)], [picture(90, 20, 1), picture(20, 20, 2)], []]
    batch = ImageTransform(tile_size=28)(samples)
    theirs = hf_processor(28)(samples, return_tensors="pt")
    assert_same(batch, theirs)
    assert batch.n_tiles == [list(row) for row in theirs["num_tiles"]] == [[2], [4, 1], []]


def test_every_stored_case_is_equal_bit_for_bit(full_reference: Reference) -> None:
    path = full_reference.folder / "images.safetensors"
    tile = full_reference.model("meta").config.vision.tile_size
    transform, stored = ImageTransform(tile_size=tile), full_reference.file("images")
    with safe_open(path, "pt") as file:
        cases = json.loads(file.metadata()["cases"])
    assert len(cases) == 30

    def opened(name: str) -> Image.Image:
        return Image.fromarray(stored[name].numpy())

    for case in cases:
        name = f"img.{case['n']}"
        image = opened(f"{name}.pixels")
        assert (image.mode, image.size) == (case["mode"], (case["width"], case["height"]))
        batch = transform([[image]])
        fields = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        assert_same(batch, {field: stored[f"{name}.{field}"] for field in fields})
        assert batch.n_tiles == [stored[f"{name}.num_tiles"].tolist()]
        rows, columns = (stored[f"{name}.canvas_hw"] // tile).tolist()
        assert choose_grid(image.width, image.height, tile, 4) == (rows, columns)
        height, width = stored[f"{name}.resized_hw"].tolist()
        assert fit_size(image.width, image.height, (rows, columns), tile) == (width, height)
    first, second, third = (opened(f"nested.input.{i}.pixels") for i in range(3))
    nested = {field: stored[f"nested.{field}"] for field in fields}
    assert_same(transform([[first], [second, third], []]), nested)


@pytest.mark.parametrize("tile", [448, 560])
def test_an_ecg_page_is_equal_to_the_last_bit(shared: Path, tile: int) -> None:
    folder = shared / "parity" / "oracle_seed0"
    batch = ImageTransform(tile_size=tile)([[Image.open(folder / "ecg_page.png")]])
    with safe_open(folder / "ecg_page.safetensors", "pt") as file:
        digests = json.loads(file.metadata()["sha256"])
    pixels = batch.pixels[0, 0].numpy()
    assert hashlib.sha256(np.ascontiguousarray(pixels, "<f4").tobytes()).hexdigest() == digests[str(tile)]
    stored = load_file(folder / "ecg_page.safetensors")
    assert batch.n_tiles == [stored[f"page.{tile}.num_tiles"].tolist()]
    assert batch.aspect_ratio_ids.flatten().tolist() == stored[f"page.{tile}.aspect_ratio_id"].tolist()


# property


def test_grey_and_opaque_pictures_are_what_they_look_like_in_rgb() -> None:
    transform, grey = ImageTransform(tile_size=8), picture(13, 9, mode="L")
    opaque = grey.convert("RGBA")
    for image in (grey, opaque):
        assert torch.equal(transform([[image]]).pixels, transform([[grey.convert("RGB")]]).pixels)


def test_transparent_pixels_are_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    white = Image.new("RGB", (8, 8), (255, 255, 255))
    transform = ImageTransform(tile_size=8)
    assert torch.equal(transform([[clear]]).pixels, transform([[white]]).pixels)
    palette = Image.new("P", (8, 8), 0)
    palette.info["transparency"] = 0
    assert torch.equal(transform([[palette]]).pixels, transform([[white]]).pixels)


def test_a_colour_that_a_file_calls_transparent_is_white_as_in_transformers() -> None:
    image = picture(9, 7)
    image.info["transparency"] = image.getpixel((2, 1))
    assert to_rgb(image).getpixel((2, 1)) == (255, 255, 255)
    batch = ImageTransform(tile_size=28)([[image]])
    assert_same(batch, hf_processor(28)([[image]], return_tensors="pt"))


@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_of_sixteen_bits_the_upper_eight_are_kept(kind: str, tmp_path: Path) -> None:
    levels = np.arange(0, 65536, 1024).reshape(8, 8)
    Image.frombytes({"<u2": "I;16", ">u2": "I;16B"}[kind], (8, 8), levels.astype(kind).tobytes()).save(
        tmp_path / "a.tif"
    )
    assert np.array_equal(np.asarray(to_rgb(open_picture(tmp_path / "a.tif")))[..., 1], levels >> 8)


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    upright, exif = picture(6, 4), Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "photo.png")), np.asarray(upright))


def test_pack_of_split_equals_the_call() -> None:
    transform, image = ImageTransform(tile_size=8), picture(30, 20)
    assert torch.equal(transform.pack([[transform.split(image)]]).pixels, transform([[image]]).pixels)


def test_empty_slots_keep_their_first_tile_and_id_zero() -> None:
    batch = ImageTransform(tile_size=8)([[picture(8, 8), picture(16, 8)], [], [picture(8, 16)]])
    assert batch.aspect_ratio_ids.tolist() == [[1, 2], [0, 0], [5, 0]]
    assert batch.tile_mask.sum(-1).tolist() == [[1, 2], [1, 1], [2, 1]]
    assert len(batch) == 3


def test_moving_a_batch_keeps_everything_but_the_dtype_of_the_pixels() -> None:
    batch = ImageTransform(tile_size=8)([[picture(30, 20)]])
    moved = batch.to("cpu", torch.bfloat16)
    assert moved.pixels.dtype == torch.bfloat16
    assert torch.equal(moved.aspect_ratio_ids, batch.aspect_ratio_ids)
    assert batch.to("cpu").pixels.dtype == torch.float32


def test_the_written_configuration_is_read_back_and_means_the_same_to_transformers(tmp_path: Path) -> None:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    ours = ImageTransform(tile_size=28, max_tiles=4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(ours.config()))
    again, theirs = ImageTransform.from_folder(tmp_path), MllamaImageProcessorPil.from_pretrained(tmp_path)
    image = picture(50, 70)
    assert torch.equal(again([[image]]).pixels, ours([[image]]).pixels)
    assert_same(ours([[image]]), theirs([[image]], return_tensors="pt"))


# refusal


def test_the_processor_file_of_transformers_5_is_read_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json and no processor_config\.json in"):
        ImageTransform.from_folder(tmp_path)
    ours = ImageTransform(tile_size=28, max_tiles=3, mean=(0.1, 0.2, 0.3))
    fields = {"image_processor": ours.config(), "processor_class": "MllamaProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(fields))
    assert ImageTransform.from_folder(tmp_path).config() == ours.config()


def test_a_flat_list_is_not_taken_for_one_picture_per_sample() -> None:
    with pytest.raises(TypeError, match=r"images\[0\] must be a list of PIL images \(a list per sample\)"):
        ImageTransform(tile_size=8)([picture(9, 9)])


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode '{mode}' does not say which number is white"):
        to_rgb(Image.new(mode, (4, 4)))


def test_a_file_that_is_no_whole_picture_is_refused(tmp_path: Path) -> None:
    picture(40, 30).save(tmp_path / "page.png")
    whole = (tmp_path / "page.png").read_bytes()
    for content in (b"hello", whole[: len(whole) // 2]):
        (tmp_path / "page.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"page\.png is not a complete picture"):
            open_picture(tmp_path / "page.png")
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "other.png")


def test_a_batch_without_any_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample has an image"):
        ImageTransform(tile_size=8)([[], []])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resample": 3}, "resample=3 is not supported, only 2"),
        ({"do_normalize": False}, "do_normalize=False is not supported"),
        ({"size": {"height": 8, "width": 9}}, "tiles must be square"),
    ],
)
def test_a_configuration_that_asks_for_something_else_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    fields = {**ImageTransform(tile_size=8).config(), **change}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        ImageTransform.from_folder(tmp_path)


def test_batches_whose_parts_do_not_fit_are_refused() -> None:
    good = ImageTransform(tile_size=8)([[picture(30, 20)]])
    parts = {"pixels": good.pixels, "aspect_ratio_ids": good.aspect_ratio_ids, "tile_mask": good.tile_mask}
    for change, message in (
        ({"pixels": good.pixels[0]}, r"pixels must be \[B, I, K, 3, S, S\]"),
        ({"tile_mask": good.tile_mask[..., :3]}, r"tile_mask \[1, 1, 4\]"),
        ({"n_tiles": [[5]]}, r"n_tiles=\[\[5\]\] must hold 1 lists of at most 1 numbers from 1 to 4"),
        ({"n_tiles": [[1, 1]]}, "must hold 1 lists of at most 1 numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageBatch(**{**parts, "n_tiles": [[2]], **change})


def test_tiles_need_a_size() -> None:
    with pytest.raises(ValueError, match="tile_size=0 and max_tiles=4 must be positive"):
        ImageTransform(tile_size=0)
