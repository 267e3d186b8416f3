"""Local blend: keep the source's picture outside the words' region.

The region is where the words' attention is high. After a step, the edited latent is set to the
source's outside of it:

    x_t <- mask ⊙ x_t + (1 - mask) ⊙ x_t(source)

Hertz et al. 2022 (arXiv:2208.01626), section 3.2 "local editing"; order of operations and defaults
as in the authors' code: pool, resize, normalise, threshold, union of source and edit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .maps import MapStore
from .schedule import Window


@dataclass(frozen=True, eq=False)
class WordRegion:
    """Columns of the words that mark a region, in the source and in the target prompt."""

    source: tuple[int, ...]
    target: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.source or self.target)


@dataclass(frozen=True, eq=False)
class LocalBlend:
    """Where and when an edit is confined.

    words, subtract: what marks the region, and what is taken out of it. threshold: share of the
    strongest attention that counts as inside. start_blend: share of the steps before the first
    blend. region: (1 or groups, H, W) mask by hand, instead of the words or intersected with them.
    """

    words: WordRegion
    subtract: WordRegion
    threshold: float
    start_blend: float
    region: Tensor | None = None

    def active(self, step: int, steps: int) -> bool:
        """Whether the latent is blended after this step."""
        return Window(self.start_blend, math.inf).holds(step, steps)


def threshold_mask(maps: Tensor, size: tuple[int, int], threshold: float, pool: bool) -> Tensor:
    """Pool (3x3 maximum), resize (nearest), normalise by the maximum, threshold.

    maps: (B, h, w) attention to a region's words; its strength counts, so that words with a
    negative scale mark their region too. Returns (B, H, W) bool.
    """
    maps = maps.abs()[:, None]
    if pool:
        maps = F.max_pool2d(maps, kernel_size=3, stride=1, padding=1)
    maps = F.interpolate(maps, size=size)[:, 0]
    return maps / maps.amax(dim=(1, 2), keepdim=True) > threshold


class RegionReader:
    """Turns the stored maps of one edit's rows into masks of the latent's size.

    source, edited: the rows of the edit's source and of the edit, one each per group.
    """

    def __init__(
        self, store: MapStore, source: Sequence[int], edited: Sequence[int], size: tuple[int, int]
    ) -> None:
        self.store = store
        self.source = source
        self.edited = edited
        self.size = size

    def words(self, words: WordRegion, threshold: float, pool: bool) -> Tensor:
        """Union of the source prompt's and the target prompt's mask, (groups, H, W) bool."""
        sides = ((self.source, words.source), (self.edited, words.target))
        masks = [
            threshold_mask(self.store.words(rows, columns), self.size, threshold, pool)
            for rows, columns in sides
            if columns
        ]
        return torch.stack(masks).any(dim=0)

    def mask(self, blend: LocalBlend) -> Tensor:
        """Where the edit may show: words, minus subtracted words, within the mask by hand."""
        mask = torch.ones(len(self.edited), *self.size, dtype=torch.bool)
        if blend.region is not None:
            mask = resize_region(blend.region, self.size).expand_as(mask)
        if blend.words:
            words = self.words(blend.words, blend.threshold, pool=True)
            mask = mask.to(words.device) & words
        if blend.subtract:
            words = self.words(blend.subtract, blend.threshold, pool=False)
            mask = mask.to(words.device) & ~words
        return mask


def resize_region(region: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (B, H', W') in 0…1 as bool of another size: inside where at least half covered."""
    return F.interpolate(region[:, None].float(), size=size, mode="area")[:, 0] >= 0.5


def blend(x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """x inside the mask, source outside, bit for bit.

    x, source: (E, C, …, h, w); mask: (E, h, w).
    """
    fitting = mask.reshape(len(mask), *[1] * (x.ndim - 3), *mask.shape[-2:])
    return torch.where(fitting, x, source)
