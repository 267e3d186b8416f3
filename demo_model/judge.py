"""What a picture of the painted world shows, found without any learned part.

The background is the colour of the border, an object is what differs from it, its colour is
the palette entry (with or without the matching texture shade) that fits its pixels best, and
its shape the template that overlaps it best once both have the same centre and area.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage
from world import BACKGROUNDS, COLOURS, IMAGE_SIZE, RGB, SHAPES, shade, shape_mask

BORDER = 3  # pixels
CONTRAST = 38.0  # RGB distance from the background that makes a pixel part of an object
SMALLEST = 40  # pixels of an object
ENOUGH = 800  # pixels of an object that are looked at for its colour
BOX = 48  # side of the shape templates
FILLED = 0.25  # share of a template that its shape fills
TEXTURE_PENALTY = 7.0  # RGB distance by which two shades must fit better than one colour


@dataclass(frozen=True)
class Found:
    """One object in a picture; mask is (H, W) bool, centre and radius are in pixels."""

    shape: str
    colour: str
    texture: str | None
    mask: np.ndarray
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Verdict:
    """A whole picture; shape, colour, texture and mask are those of the largest object."""

    background: str
    objects: tuple[Found, ...]  # from left to right

    @property
    def main(self) -> Found | None:
        """The largest object, or None in an empty picture."""
        return max(self.objects, key=lambda found: int(found.mask.sum()), default=None)

    @property
    def shape(self) -> str | None:
        """Shape of the largest object."""
        return self.main.shape if self.main else None

    @property
    def colour(self) -> str | None:
        """Colour of the largest object."""
        return self.main.colour if self.main else None

    @property
    def texture(self) -> str | None:
        """'striped' or None."""
        return self.main.texture if self.main else None

    @property
    def textured(self) -> bool:
        """True when the largest object is striped."""
        return self.texture is not None

    @property
    def mask(self) -> np.ndarray | None:
        """(H, W) bool of the largest object."""
        return self.main.mask if self.main else None


def nearest_name(rgb: np.ndarray, palette: dict[str, RGB]) -> str:
    """The palette's name for one colour (3,)."""
    return min(palette, key=lambda name: float(np.linalg.norm(rgb - np.array(palette[name]))))


def background_colour(image: np.ndarray) -> np.ndarray:
    """Median colour of the border of (H, W, 3): (3,)."""
    inside = np.zeros(image.shape[:2], bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    return np.median(image[~inside], axis=0)


def normalised(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) moved and scaled to a common centre of mass and area: (BOX, BOX) in [0, 1].

    Area and centre of mass hardly change when a sharp tip is lost, a bounding box does.
    """
    rows, columns = np.where(mask)
    step = np.sqrt(len(rows) / (FILLED * BOX * BOX))
    left, top = columns.mean() + 0.5 - step * BOX / 2, rows.mean() + 0.5 - step * BOX / 2
    picture = Image.fromarray(mask.astype(np.uint8) * 255).transform(
        (BOX, BOX),
        Image.Transform.AFFINE,
        (step, 0, left, 0, step, top),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(picture, float) / 255


@cache
def templates() -> dict[str, np.ndarray]:
    """Every shape, normalised."""
    middle = IMAGE_SIZE / 2
    masks = {shape: shape_mask(shape, middle, middle, 0.4 * IMAGE_SIZE) for shape in SHAPES}
    return {shape: normalised(np.asarray(mask) > 127) for shape, mask in masks.items()}


def name_shape(mask: np.ndarray) -> str:
    """The shape whose template overlaps a mask (H, W) best."""
    box = normalised(mask)

    def overlap(shape: str) -> float:
        template = templates()[shape]
        return np.minimum(box, template).sum() / np.maximum(box, template).sum()

    return max(SHAPES, key=overlap)


def shades(rgb: RGB) -> list[np.ndarray]:
    """What stripes on a slightly lighter or darker rgb may look like: each (3,)."""
    near = {shade((rgb[0] + d, rgb[1] + d, rgb[2] + d)) for d in (-4, 4)}
    return [np.array(tint) for tint in near]


def name_paint(pixels: np.ndarray) -> tuple[str, np.ndarray | None]:
    """Colour of an object's pixels (N, 3), and which are stripes: (N,) bool or None."""
    best: tuple[float, str, np.ndarray | None] = (np.inf, "", None)
    for name, rgb in COLOURS.items():
        plain = np.linalg.norm(pixels - np.array(rgb), axis=1)
        tinted = np.min([np.linalg.norm(pixels - tint, axis=1) for tint in shades(rgb)], axis=0)
        is_tint = tinted < plain
        best = min(best, (float(plain.mean()), name, None), key=lambda entry: entry[0])
        if 0.08 < is_tint.mean() < 0.8:
            error = float(np.minimum(plain, tinted).mean()) + TEXTURE_PENALTY
            best = min(best, (error, name, is_tint), key=lambda entry: entry[0])
    return best[1], best[2]


def describe_object(image: np.ndarray, mask: np.ndarray) -> Found:
    """image: (H, W, 3) float; mask: (H, W) bool."""
    core = ndimage.binary_erosion(mask, iterations=2)
    if core.sum() < SMALLEST:
        core = mask
    core_rows, core_columns = (places[:: 1 + core.sum() // ENOUGH] for places in np.where(core))
    colour, is_tint = name_paint(image[core_rows, core_columns])
    rows, columns = np.where(mask)
    return Found(
        shape=name_shape(mask),
        colour=colour,
        texture=None if is_tint is None else "striped",
        mask=mask,
        x=float(columns.min() + columns.max() + 1) / 2,
        y=float(rows.min() + rows.max() + 1) / 2,
        radius=float(max(np.ptp(rows), np.ptp(columns)) + 1) / 2,
    )


def judge(image: np.ndarray) -> Verdict:
    """Say what a picture (H, W, 3) uint8 shows."""
    pixels = image.astype(float)
    border = background_colour(pixels)
    differs = np.linalg.norm(pixels - border, axis=2) > CONTRAST
    labels, count = ndimage.label(differs, np.ones((3, 3)))
    masks = [labels == index for index in range(1, count + 1)]
    masks = [mask for mask in masks if mask.sum() >= SMALLEST]
    objects = sorted((describe_object(pixels, mask) for mask in masks), key=lambda found: found.x)
    return Verdict(nearest_name(border, BACKGROUNDS), tuple(objects))
