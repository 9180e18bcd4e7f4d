"""Sizes of the two towers, as frozen dataclasses that refuse contradictions."""

from dataclasses import dataclass


def aspect_ratios(max_tiles: int) -> list[tuple[int, int]]:
    """All (rows, columns) grids of at most `max_tiles` tiles; the grid at index i has aspect ratio id i + 1.

    Id 0 means "no image in this slot". llama-models, multimodal/image_transform.py,
    find_supported_resolutions.
    """
    sides = range(1, max_tiles + 1)
    return [(rows, columns) for rows in sides for columns in sides if rows * columns <= max_tiles]


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision tower: a ViT over all tiles of an image, taps, and a gated global encoder.

    `drop_unused_tiles` leaves the tile slots that an image does not use out of it. Published weights were trained with
    them: real tokens attend to them (docs/quirks.md, "padding is seen").
    """

    width: int = 1280
    n_heads: int = 16
    mlp_width: int = 5120
    n_local_layers: int = 32
    n_global_layers: int = 8
    taps: tuple[int, ...] = (3, 7, 15, 23, 30)  # local layers whose state joins the features
    tile_size: int = 448  # pixels
    patch_size: int = 14  # pixels
    max_tiles: int = 4
    norm_eps: float = 1e-5
    drop_unused_tiles: bool = False

    def __post_init__(self) -> None:
        if self.tile_size % self.patch_size:
            raise ValueError(f"vision.tile_size={self.tile_size} is not a multiple of patch_size={self.patch_size}")
        if self.width % self.n_heads:
            raise ValueError(f"vision.width={self.width} is not a multiple of n_heads={self.n_heads}")
        inside = all(0 <= i < self.n_local_layers for i in self.taps)
        if not self.taps or not inside or list(self.taps) != sorted(set(self.taps)):
            raise ValueError(
                f"vision.taps={self.taps} must be one or more rising numbers in [0, {self.n_local_layers})"
            )

    @property
    def n_patches(self) -> int:
        """Patches per tile."""
        return (self.tile_size // self.patch_size) ** 2

    @property
    def tokens_per_tile(self) -> int:
        """Patches and one class token."""
        return self.n_patches + 1

    @property
    def padding_per_tile(self) -> int:
        """Zero tokens that round a tile's tokens up to a multiple of 8."""
        return -self.tokens_per_tile % 8

    @property
    def n_features(self) -> int:
        """Features per vision token: the last state and every tap."""
        return self.width * (1 + len(self.taps))


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary angles with Llama 3.1's stretching of long wavelengths."""

    theta: float = 500000.0
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text model: Llama 3.1 layers with cross-attention layers in between."""

    width: int = 4096
    mlp_width: int = 14336
    n_layers: int = 40  # self- and cross-attention layers together
    n_heads: int = 32
    n_kv_heads: int = 8
    cross_layers: tuple[int, ...] = (3, 8, 13, 18, 23, 28, 33, 38)
    vocab_size: int = 128256
    n_extra_embeddings: int = 8  # embedded, never predicted; the first one is the image token
    max_positions: int = 131072
    norm_eps: float = 1e-5
    rope: RopeConfig = RopeConfig()
    bos_id: int = 128000
    eos_ids: tuple[int, ...] = (128001,)
    pad_id: int = 128004

    def __post_init__(self) -> None:
        if self.width % self.n_heads or self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"text.n_heads={self.n_heads} must divide width={self.width} and be a multiple of {self.n_kv_heads}"
            )
        if any(not 0 <= i < self.n_layers for i in self.cross_layers):
            raise ValueError(f"text.cross_layers={self.cross_layers} must lie in [0, {self.n_layers})")

    @property
    def head_width(self) -> int:
        """Features per attention head."""
        return self.width // self.n_heads
