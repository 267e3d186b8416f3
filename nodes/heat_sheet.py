"""Labelled sheets of heat maps, one panel for every picture of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from einops import repeat
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from ..p2p_core.pictures import enlarged, normalised, overlay

PANEL = 256
CAPTION = 24


def word_sheet(
    word: str,
    maps: Mapping[int, Tensor],
    rows: int,
    group: int,
    size: tuple[int, int],
    images: Tensor | None,
) -> Tensor:
    """One sheet for one word, (H, W, 3): a line of panels [source, edit …] for every seed.

    maps: row -> (h, w); rows without one say that their prompt lacks the word. images: the decoded
    pictures (rows, *size, 3) to lay the maps over.
    """
    panels = [
        _panel(word, row % group, maps.get(row), size, None if images is None else images[row])
        for row in range(rows)
    ]
    return make_grid([panel.permute(2, 0, 1) for panel in panels], nrow=group).permute(1, 2, 0)


def _panel(
    word: str, member: int, values: Tensor | None, size: tuple[int, int], image: Tensor | None
) -> Tensor:
    who = "source" if member == 0 else f"edit {member}"
    label = f"{who}: {word}" if values is not None else f"{who}: not in the prompt"
    heat = torch.zeros(1, *size) if values is None else enlarged(normalised(values[None]), size)
    if image is not None:
        heat = heat.to(image.device)
    picture = overlay(heat, None if image is None else image[None])[0]
    factor = math.ceil(PANEL / min(size))
    picture = repeat(picture, "h w c -> (h a) (w b) c", a=factor, b=factor)
    return torch.cat([_caption(label, picture.shape[1]).to(picture.device), picture])


def _caption(text: str, width: int) -> Tensor:
    strip = Image.new("RGB", (width, CAPTION), "white")
    font = ImageFont.load_default(size=CAPTION * 2 // 3)
    ImageDraw.Draw(strip).text((4, CAPTION // 2), text, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.asarray(strip).astype(np.float32) / 255)
