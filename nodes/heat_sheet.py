"""Labelled sheets of heat maps: where a word looks in the pictures whose prompt has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..p2p_core.pictures import enlarged, normalised, overlay
from .sheets import Panel, grid_of


def word_sheet(
    word: str,
    maps: Mapping[int, Tensor],
    labels: Sequence[str],
    size: tuple[int, int],
    images: Tensor | None,
) -> Tensor:
    """One sheet for one word, (H, W, 3): for every seed a line of the pictures that have it.

    maps: row -> (h, w). labels: what each member of a group is, [source, edit …]. images: the
    decoded pictures (rows, *size, 3) to lay the maps over.
    """
    group = len(labels)
    panels = [
        Panel(heat_picture(values, size, images, row), f"{word}: {labels[row % group]}")
        for row, values in maps.items()
    ]
    seeds = len({row // group for row in maps})
    return grid_of(panels, columns=len(panels) // seeds)


def heat_picture(values: Tensor, size: tuple[int, int], images: Tensor | None, row: int) -> Tensor:
    """A map (h, w) as a picture (*size, 3), over its row of the images if there are any."""
    heat = enlarged(normalised(values[None]), size)
    if images is None:
        return overlay(heat, None)[0]
    return overlay(heat.to(images.device), images[row : row + 1])[0]


def stacked(sheets: Sequence[Tensor]) -> Tensor:
    """Sheets (H, W, 3) of several sizes as one batch, with white margins."""
    height, width = (max(sheet.shape[axis] for sheet in sheets) for axis in (0, 1))
    padded = [
        F.pad(sheet, (0, 0, 0, width - sheet.shape[1], 0, height - sheet.shape[0]), value=1.0)
        for sheet in sheets
    ]
    return torch.stack(padded)
