"""LPIPS: how different pictures look to a classifier's features.

Zhang et al. 2018 (arXiv:1801.03924), version 0.1. The network comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .metrics import masked_mean

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in -1…1
Features = Callable[[Tensor], Sequence[Tensor]]


def lpips(
    features: Features, weights: Sequence[Tensor], picture: Tensor, other: Tensor,
    mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Σ_l mean over places of w_l · (ŷ_l - ŷ'_l)², (B,); arXiv:1801.03924, eq. 1.

    features: of a batch (B, 3, H, W), one map (B, C_l, h_l, w_l) a layer, made unit length over
    channels here. weights: w_l, (C_l,) each. picture, other: (B, H, W, 3) in 0…1. mask: (B, H, W)
    or (1, H, W), how much a place's distance counts; features look beyond it.
    """
    total = torch.zeros(len(picture), device=picture.device)
    layers = zip(features(_scaled(picture)), features(_scaled(other)), weights, strict=True)
    for one, two, weight in layers:
        squares = (_unit(one) - _unit(two)).square()
        away = torch.einsum("b c h w, c -> b h w", squares, weight.to(squares))
        total = total + masked_mean(away, None if mask is None else _at_size_of(mask, away))
    return total


def _scaled(pictures: Tensor) -> Tensor:
    shift, scale = (torch.tensor(values, device=pictures.device) for values in (SHIFT, SCALE))
    return ((pictures[..., :3].float() * 2 - 1 - shift) / scale).movedim(-1, 1)


def _unit(maps: Tensor) -> Tensor:
    return F.normalize(maps, dim=1, eps=1e-10)


def _at_size_of(mask: Tensor, values: Tensor) -> Tensor:
    return F.interpolate(mask[:, None].float(), size=values.shape[1:], mode="area")[:, 0]
