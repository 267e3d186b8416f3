"""Labelled sheets of pictures: one row a seed, a caption over every panel."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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


class Panel(NamedTuple):
    """A picture (H, W, 3) in 0…1 and what stands over it; None: the place stays white."""

    picture: Tensor | None
    label: str = ""


Row = list[Panel]


def sheet(
    seeds: Tensor,
    labels: Sequence[str],
    difference: bool,
    heat: Mapping[str, Mapping[int, Tensor]],
) -> Tensor:
    """Pictures (seeds, panels, H, W, 3) under their labels; (H', W', 3) in 0…1.

    difference: a row behind every seed's with |picture - source|. heat: a row for each of these
    words, with the pictures (H, W, 3) of the rows that have it.
    """
    rows: list[Row] = []
    for seed, pictures in enumerate(seeds):
        rows.append([Panel(*pair) for pair in zip(pictures, labels, strict=True)])
        if difference:
            away = (pictures - pictures[:1]).abs()
            named = [f"difference: {label}" for label in labels]
            rows.append([Panel(None), *map(Panel, away[1:], named[1:])])
        first = seed * len(labels)
        for word, maps in heat.items():
            found = [maps.get(first + member) for member in range(len(labels))]
            rows.append([Panel(p, "" if p is None else f"where {word!r} looks") for p in found])
    return grid_of([panel for row in rows for panel in row], columns=len(labels))


def grid_of(panels: Sequence[Panel], columns: int) -> Tensor:
    """Panels of one size side by side, (H', W', 3): each under its label, in as many lines."""
    [first, *_] = [panel.picture for panel in panels if panel.picture is not None]
    enlarged, white = enlargement(first.shape[:2]), torch.ones_like(first)
    lines = max(len(wrapped(panel.label, first.shape[1] * enlarged)) for panel in panels)
    drawn = [
        _drawn(white if picture is None else picture, label, enlarged, lines)
        for picture, label in panels
    ]
    grid = make_grid([rearrange(p, "h w c -> c h w") for p in drawn], nrow=columns, pad_value=1)
    return rearrange(grid, "c h w -> h w c")


def enlargement(size: Sequence[int]) -> int:
    """How often a small picture is enlarged, so that its label can be read."""
    return math.ceil(PANEL / min(size))


def _drawn(picture: Tensor, label: str, enlarged: int, lines: int) -> Tensor:
    """A picture (H, W, 3), enlarged, under its label of up to so many lines."""
    shown = repeat(picture, "h w c -> (h a) (w b) c", a=enlarged, b=enlarged)
    return torch.cat([caption(label, shown.shape[1], lines).to(shown), shown])


def wrapped(text: str, width: int) -> list[str]:
    """A label in lines that fit a width of pixels; its own line ends stay."""
    letters = max(int(width / WIDTH_OF_A_LETTER), 8)
    return [line for part in text.split("\n") for line in textwrap.wrap(part, letters) or [""]]


def caption(text: str, width: int, lines: int) -> Tensor:
    """A white strip with a text, (lines * LINE, width, 3) in 0…1."""
    strip = Image.new("RGB", (width, LINE * lines), "white")
    font = ImageFont.load_default(size=FONT)
    draw = ImageDraw.Draw(strip)
    text = text.replace("→", "->")  # which Pillow's own font lacks
    for number, line in enumerate(wrapped(text, width)[:lines]):
        draw.text((4, LINE * number + LINE // 2), line, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.asarray(strip).astype(np.float32) / 255)
