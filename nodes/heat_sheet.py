"""Labelled sheets of heat maps, one panel for every picture of a run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor
from torchvision.utils import make_grid

from ..p2p_core.pictures import enlarged, normalised, overlay
from .sheets import enlargement, panel


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
    grid = make_grid([rearrange(made, "h w c -> c h w") for made in panels], nrow=group)
    return rearrange(grid, "c h w -> h w c")


def _panel(
    word: str, member: int, values: Tensor | None, size: tuple[int, int], image: Tensor | None
) -> Tensor:
    who = "source" if member == 0 else f"edit {member}"
    label = f"{who}: {word}" if values is not None else f"{who}: not in the prompt"
    heat = torch.zeros(1, *size) if values is None else enlarged(normalised(values[None]), size)
    if image is not None:
        heat = heat.to(image.device)
    picture = overlay(heat, None if image is None else image[None])[0]
    return panel(picture, label, enlargement(size))
