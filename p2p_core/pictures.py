"""Attention maps as pictures: heat maps over the images that they explain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def normalised(maps: Tensor) -> Tensor:
    """Maps (B, h, w) scaled to 0…1 by their own maximum; the strength of negative ones counts."""
    maps = maps.abs()
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at image size (B, H, W), smooth."""
    return F.interpolate(maps[:, None], size=size, mode="bicubic")[:, 0].clamp(0, 1)


def heat(values: Tensor) -> Tensor:
    """Colours from black over red and yellow to white for values 0…1: (…,) -> (…, 3)."""
    return torch.stack([(3 * values - channel).clamp(0, 1) for channel in range(3)], dim=-1)


def overlay(values: Tensor, images: Tensor | None) -> Tensor:
    """Heat maps (B, H, W), over greyed images (B, H, W, 3) if given; (B, H, W, 3) in 0…1."""
    if images is None:
        return heat(values)
    grey = images.mean(dim=-1, keepdim=True).expand_as(images) * 0.6
    weight = values[..., None]
    return grey * (1 - weight) + heat(values) * weight
