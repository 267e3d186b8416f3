"""How far an edit's layout is from its source's: self-similarity, whatever the colours are.

A picture's structure is taken as how like its places are to each other, S_ij = cos(k_i, k_j), which
does not tell what the places look like. Tumanyan et al. 2022 (Splice, arXiv:2201.00424), eq. 3.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ORIENTATIONS = 8
GRID = 16  # cells along a side, as a ViT with patches of 14 has at 224 px
FLAT = 0.02  # gradient (of brightness a pixel) below which a cell counts as without structure
BRIGHTNESS = (0.299, 0.587, 0.114)  # ITU-R BT.601


def structure_distance(keys: Tensor, others: Tensor) -> Tensor:
    """Mean squared difference of two pictures' self-similarity, (B,); 0 for equal layouts.

    keys, others: (B, T, D), what a network has for the T places of a picture. With the keys of the
    last layer of DINO (ViT-B/8) it is the structure distance of PIE-Bench (arXiv:2310.01506), which
    reports it times 1000; other networks give other figures.
    """
    return (self_similarity(keys) - self_similarity(others)).square().mean(dim=(1, 2))


def self_similarity(keys: Tensor) -> Tensor:
    """S_ij = cos(k_i, k_j): (B, T, D) -> (B, T, T)."""
    unit = F.normalize(keys.float(), dim=-1)
    return unit @ unit.transpose(1, 2)


def plain_structure_distance(picture: Tensor, other: Tensor) -> Tensor:
    """The structure distance of pictures (B, H, W, 3) without any network, (B,).

    It compares where edges run and how, with histograms of gradients in place of DINO's keys. It
    ranks edits of one source; it is not the figure that papers report.
    """
    return structure_distance(edge_histograms(picture), edge_histograms(other))


def edge_histograms(pictures: Tensor) -> Tensor:
    """How edges run in each of 16x16 cells: (B, H, W, 3) -> (B, 256, 9).

    Histograms of gradient orientations without sign, votes shared between the two nearest bins and
    weighted by strength (Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177), and a last entry, equal
    for all cells, that makes flat cells like each other.
    """
    weights = torch.tensor(BRIGHTNESS, device=pictures.device)
    brightness = (pictures[..., :3].float() * weights).sum(dim=-1)[:, None]
    padded = F.pad(brightness, (1, 1, 1, 1), mode="replicate")
    dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    angle = torch.atan2(dy, dx) % math.pi / math.pi * ORIENTATIONS
    bins = torch.arange(ORIENTATIONS, device=pictures.device).reshape(1, -1, 1, 1)
    away = (angle - bins).abs()
    votes = (1 - torch.minimum(away, ORIENTATIONS - away)).clamp_min(0) * torch.hypot(dx, dy)
    cells = F.adaptive_avg_pool2d(votes, GRID).flatten(2).transpose(1, 2)
    return torch.cat([cells, torch.full_like(cells[..., :1], FLAT)], dim=-1)
