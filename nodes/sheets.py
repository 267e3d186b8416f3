"""Labelled sheets of pictures: one row a seed, a caption under the head of every panel."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

PANEL = 256  # pixels of a panel's shorter side, at least
LINE = 22
FONT = 15
WIDTH_OF_A_LETTER = 8.5


def sheet(seeds: Tensor, labels: Sequence[str], difference: bool) -> Tensor:
    """Pictures (seeds, panels, H, W, 3) under their labels; (H', W', 3) in 0…1.

    difference: a row behind every seed's with |picture - source|.
    """
    rows = [(seed, list(labels)) for seed in seeds]
    if difference:
        away = (seeds - seeds[:, :1]).abs()
        named = ["", *(f"difference: {label}" for label in labels[1:])]
        rows = [row for pair in zip(rows, ((d, named) for d in away), strict=True) for row in pair]
    enlarged = enlargement(seeds.shape[2:4])
    width = seeds.shape[3] * enlarged
    lines = max(len(wrapped(label, width)) for _, names in rows for label in names)
    panels = [
        panel(picture, label, enlarged, lines)
        for pictures, names in rows
        for picture, label in zip(pictures, names, strict=True)
    ]
    grid = make_grid(
        [rearrange(p, "h w c -> c h w") for p in panels], nrow=len(labels), pad_value=1
    )
    return rearrange(grid, "c h w -> h w c")


def enlargement(size: Sequence[int]) -> int:
    """How often a small picture is enlarged, so that its label can be read."""
    return math.ceil(PANEL / min(size))


def panel(picture: Tensor, label: str, enlarged: int, lines: int = 1) -> Tensor:
    """A picture (H, W, 3), enlarged, under its label of up to so many lines."""
    shown = repeat(picture, "h w c -> (h a) (w b) c", a=enlarged, b=enlarged)
    return torch.cat([caption(label, shown.shape[1], lines).to(shown), shown])


def wrapped(text: str, width: int) -> list[str]:
    """A label in lines that fit a width of pixels."""
    return textwrap.wrap(text, max(int(width / WIDTH_OF_A_LETTER), 8)) or [""]


def caption(text: str, width: int, lines: int) -> Tensor:
    """A white strip with a text, (lines * LINE, width, 3) in 0…1."""
    strip = Image.new("RGB", (width, LINE * lines), "white")
    font = ImageFont.load_default(size=FONT)
    draw = ImageDraw.Draw(strip)
    text = text.replace("→", "->")  # which Pillow's own font lacks
    for number, line in enumerate(wrapped(text, width)[:lines]):
        draw.text((4, LINE * number + LINE // 2), line, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.asarray(strip).astype(np.float32) / 255)
