"""The places of the picture book, painted with Pillow at twice the final size.

Everything that the words do not name (horizon, hills, clouds, sun, trees, flakes, furniture) is
drawn from the scene's own random numbers, so that it says nothing about the words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from book.sprites import scaled_sprite

SIDE = 256  # pixels while painting
RGB = tuple[int, int, int]


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def gradient(top: RGB, bottom: RGB, end: float = 1.0) -> Image.Image:
    """A sky: from `top` to `bottom`, which is reached at the share `end` of the height."""
    share = np.clip(np.linspace(0, 1 / end, SIDE), 0, 1)[:, None, None]
    column = np.array(top) + share * (np.array(bottom) - np.array(top))
    return Image.fromarray(np.broadcast_to(column.round().astype(np.uint8), (SIDE, SIDE, 3)).copy())


def hill(draw: ImageDraw.ImageDraw, rng: Random, colour: RGB, y: float, rise: float) -> None:
    """Ground from a wavy line at height y down."""
    phase, period = rng.uniform(0, 2 * math.pi), rng.uniform(150, 330)
    line = [(x, y + rise * math.sin(2 * math.pi * x / period + phase)) for x in range(-8, 265, 8)]
    draw.polygon([*line, (SIDE + 8, SIDE), (-8, SIDE)], fill=colour)


def cloud(draw: ImageDraw.ImageDraw, rng: Random, colour: RGB, low: float) -> None:
    """One cloud somewhere above `low`."""
    x, y, r = rng.uniform(0, SIDE), rng.uniform(20, low), rng.uniform(10, 18)
    for dx, dy, k in ((-1.3, 0.15, 0.75), (0, -0.3, 1.0), (1.2, 0.1, 0.8)):
        cx, cy, cr = x + dx * r, y + dy * r, k * r
        draw.ellipse((cx - cr, cy - cr, cx + cr, cy + cr), fill=colour)
    draw.rounded_rectangle((x - 2 * r, y, x + 1.95 * r, y + 0.9 * r), 0.45 * r, fill=colour)


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: RGB) -> None:
    """A filled circle."""
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def plant(
    image: Image.Image, rng: Random, name: str, ground: float, low: float, high: float
) -> None:
    """A tree of the background, its foot near the horizon, at a random place."""
    tree = scaled_sprite(name, round(rng.uniform(low, high) / 4) * 4)
    x = round(rng.uniform(-0.3, 1) * SIDE * 0.9)
    image.paste(tree, (x, round(ground - tree.height + rng.uniform(4, 12))), tree)


def day_sky(rng: Random, horizon: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Blue, with a sun or not, and up to three clouds."""
    image = gradient((104, 186, 250), (214, 238, 255), horizon / SIDE)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        disc(draw, rng.uniform(20, 236), rng.uniform(24, 60), rng.uniform(16, 22), (255, 222, 74))
    for _ in range(rng.randint(0, 3)):
        cloud(draw, rng, (255, 255, 255), 0.55 * horizon)
    return image, draw


def grass(rng: Random, horizon: float, autumn: bool) -> Image.Image:
    """A meadow; in autumn ochre, with orange trees and falling leaves."""
    image, draw = day_sky(rng, horizon)
    if autumn:
        image = gradient((236, 214, 178), (252, 240, 216), horizon / SIDE)
        draw = ImageDraw.Draw(image)
    far, near = ((222, 160, 62), (204, 128, 44)) if autumn else ((160, 222, 104), (104, 194, 74))
    if rng.random() < 0.7:
        hill(draw, rng, far, horizon - rng.uniform(6, 20), rng.uniform(5, 16))
    for _ in range(rng.randint(1, 3) if autumn else rng.choice((0, 0, 1, 2))):
        plant(image, rng, "autumn tree" if autumn else "tree", horizon, 56, 96)
    hill(draw, rng, near, horizon, rng.uniform(1, 6))
    dots = ((176, 60, 30), (236, 120, 30)) if autumn else ((255, 255, 255), (255, 224, 90))
    for _ in range(rng.randint(6, 12) if autumn else rng.randint(0, 6)):
        y = rng.uniform(20 if autumn else horizon + 14, SIDE - 6)
        disc(draw, rng.uniform(4, 252), y, rng.uniform(3.5, 5), rng.choice(dots))
    return image


def beach(rng: Random, horizon: float, _autumn: bool) -> Image.Image:
    """Sea and sand."""
    image, draw = day_sky(rng, horizon - 30)
    draw.rectangle((0, horizon - rng.uniform(26, 44), SIDE, SIDE), fill=(34, 142, 212))
    draw.rectangle((0, horizon - 12, SIDE, SIDE), fill=(52, 184, 222))
    hill(draw, rng, (255, 255, 255), horizon - 3, 4)
    hill(draw, rng, (240, 216, 152), horizon + 2, 4)
    if rng.random() < 0.4:
        plant(image, rng, "palm", horizon + 10, 90, 130)
    return image


def snow(rng: Random, horizon: float, _autumn: bool) -> Image.Image:
    """Winter: firs and flakes."""
    image = gradient((160, 180, 206), (222, 230, 240), horizon / SIDE)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 3)):
        plant(image, rng, "fir", horizon, 56, 100)
    hill(draw, rng, (246, 249, 253), horizon, rng.uniform(1, 6))
    for _ in range(rng.randint(4, 14)):
        x, y = rng.uniform(4, 252), rng.uniform(4, horizon - 8)
        disc(draw, x, y, rng.uniform(3, 4.5), (255, 255, 255))
    return image


def night(rng: Random, horizon: float, _autumn: bool) -> Image.Image:
    """Stars, mostly a moon."""
    image = gradient((18, 20, 66), (60, 58, 130), horizon / SIDE)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(3, 10)):
        disc(
            draw,
            rng.uniform(4, 252),
            rng.uniform(4, horizon - 16),
            rng.uniform(2.5, 4),
            (255, 250, 214),
        )
    if rng.random() < 0.7:
        x, y, r = rng.uniform(28, 228), rng.uniform(28, 60), rng.uniform(16, 22)
        disc(draw, x, y, r, (255, 240, 180))
        if rng.random() < 0.6:
            disc(draw, x + 0.5 * r, y - 0.25 * r, 0.85 * r, (26, 28, 76))
    if rng.random() < 0.6:
        hill(draw, rng, (38, 62, 96), horizon - rng.uniform(6, 18), rng.uniform(5, 14))
    hill(draw, rng, (28, 70, 74), horizon, rng.uniform(1, 6))
    return image


def sunset(rng: Random, horizon: float, _autumn: bool) -> Image.Image:
    """A low sun in a purple and orange sky."""
    image = gradient((122, 54, 140), (255, 158, 92), horizon / SIDE)
    draw = ImageDraw.Draw(image)
    disc(
        draw,
        rng.uniform(30, 226),
        horizon - rng.uniform(0, 30),
        rng.uniform(26, 38),
        (255, 226, 130),
    )
    for _ in range(rng.randint(0, 2)):
        cloud(draw, rng, (236, 110, 120), 0.6 * horizon)
    if rng.random() < 0.6:
        hill(draw, rng, (156, 66, 112), horizon - rng.uniform(4, 16), rng.uniform(5, 14))
    hill(draw, rng, (112, 50, 92), horizon, rng.uniform(1, 6))
    return image


def water(rng: Random, horizon: float, _autumn: bool) -> Image.Image:
    """Below the sea: sand, weeds and bubbles."""
    image = gradient((70, 206, 236), (20, 104, 182), 0.9)
    draw = ImageDraw.Draw(image)
    hill(draw, rng, (226, 210, 150), min(horizon + 44, 226), rng.uniform(2, 6))
    for _ in range(rng.randint(0, 4)):
        x, top, wide = rng.uniform(6, 250), rng.uniform(130, 190), rng.uniform(4, 7)
        points = [(x + 6 * math.sin(0.11 * y), y) for y in range(round(top), 250, 8)]
        draw.line(points, fill=(26, 150, 96), width=round(2 * wide), joint="curve")
    for _ in range(rng.randint(3, 9)):
        disc(draw, rng.uniform(6, 250), rng.uniform(6, 190), rng.uniform(3, 7), (172, 234, 250))
    return image


def room(rng: Random, horizon: float, _autumn: bool) -> Image.Image:
    """A wall of any pale colour, a floor, mostly a window."""
    walls = ((250, 226, 176), (216, 206, 240), (206, 234, 206), (250, 210, 214), (200, 226, 244))
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(walls))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, horizon, SIDE, SIDE), fill=(176, 118, 72))
    draw.rectangle((0, horizon - 5, SIDE, horizon + 4), fill=(255, 252, 244))
    if rng.random() < 0.7:
        x, y, w = rng.uniform(8, 176), rng.uniform(12, 40), rng.uniform(54, 74)
        draw.rectangle((x, y, x + w, y + w), fill=(255, 255, 255))
        for i in (0, 1):
            for j in (0, 1):
                a, b, c = x + 6 + i * (w - 6) / 2, y + 6 + j * (w - 6) / 2, w / 2 - 9
                draw.rectangle((a, b, a + c, b + c), fill=(142, 208, 250))
    if rng.random() < 0.4:
        x, y = rng.uniform(60, 196), rng.uniform(horizon + 24, 236)
        draw.ellipse(
            (x - 78, y - 16, x + 78, y + 16), fill=rng.choice(((226, 92, 92), (86, 132, 206)))
        )
    return image


def city(rng: Random, horizon: float, autumn: bool) -> Image.Image:
    """Houses in a row, a pavement."""
    image, draw = day_sky(rng, horizon)
    if autumn:
        image = gradient((236, 214, 178), (252, 240, 216), horizon / SIDE)
        draw = ImageDraw.Draw(image)
    x, walls = (
        -rng.uniform(0, 30),
        ((214, 110, 92), (120, 138, 174), (226, 176, 104), (158, 146, 178)),
    )
    last = None
    while x < SIDE:
        wide, high = rng.uniform(44, 74), rng.uniform(60, 128)
        last = rng.choice([wall for wall in walls if wall != last])
        draw.rectangle((x, horizon - high, x + wide, horizon), fill=last)
        for wx in np.arange(x + 9, x + wide - 14, 18):
            for wy in np.arange(horizon - high + 10, horizon - 14, 24):
                draw.rectangle((wx, wy, wx + 9, wy + 12), fill=(255, 238, 180))
        x += wide
    if autumn:
        for _ in range(rng.randint(1, 3)):
            plant(image, rng, "autumn tree", horizon, 60, 96)
    draw.rectangle((0, horizon, SIDE, SIDE), fill=(146, 150, 158))
    draw.rectangle((0, horizon, SIDE, horizon + 8), fill=(206, 208, 212))
    if autumn:
        for _ in range(rng.randint(6, 12)):
            colour = rng.choice(((176, 60, 30), (236, 120, 30)))
            disc(draw, rng.uniform(4, 252), rng.uniform(20, 250), rng.uniform(3.5, 5), colour)
    return image


PLACES: dict[str, Callable[[Random, float, bool], Image.Image]] = {
    "grass": grass,
    "beach": beach,
    "snow": snow,
    "night": night,
    "sunset": sunset,
    "water": water,
    "room": room,
    "city": city,
}


PAPER = (250.0, 247.0, 240.0)


def pencil(picture: np.ndarray) -> np.ndarray:
    """A pencil drawing of a picture (H, W, 3): pale grey, soft dark outlines."""
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    padded = np.pad(picture.astype(np.float32), ((0, 1), (0, 1), (0, 0)), mode="edge")
    edge = np.abs(padded[1:, :-1] - picture) + np.abs(padded[:-1, 1:] - picture)
    ink = np.clip(edge.max(-1) / 90, 0, 1)
    padded = np.pad(ink, 1, mode="edge")
    rows, columns = ink.shape
    soft = sum(padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)) / 5
    tone = (0.62 + 0.38 * grey / 255) * (1 - 0.6 * np.clip(soft, 0, 1))
    return (tone[..., None] * np.array(PAPER)).round().astype(np.uint8)
