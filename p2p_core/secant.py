"""Gradient descent that learns from its own steps, for errors that change almost linearly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

REMEMBERED = 8  # points
RIDGE, TINY = 1e-6, 1e-30


class SecantDescent:
    """Least squares by gradient steps from the best mixture of the points that were tried.

    Where the errors change linearly, those of a mixture of points are the mixture of their errors.
    So the mixture with the smallest errors is known without evaluating it (Anderson 1965,
    doi:10.1145/321296.321305), and from there one gradient step leads to a direction not tried
    yet: Polyak's (1987), of the length at which a straight way down would end at zero,

        p - min(|errors|^2 / |g|^2, rate sqrt(n) / |g|) g,

    and of at most the learning rate, RMS. Values without influence stay where they are: Adam would
    move them as far as the others, away from the prompt.
    """

    def __init__(self) -> None:
        self._tried: list[tuple[Tensor, Tensor, Tensor]] = []

    def next(self, point: Tensor, errors: Tensor, gradient: Tensor, rate: float) -> Tensor:
        """The point to try next. point, gradient: (B, …), gradient of errors^2; errors: (B, P)."""
        self._tried = [*self._tried, (point, errors, gradient)][-REMEMBERED:]
        points, all_errors, gradients = (
            torch.stack(part, dim=1) for part in zip(*self._tried, strict=True)
        )
        weights = smallest_mixture(all_errors)
        start, slope, left = (
            torch.einsum("bk,bk...->b...", weights, part)
            for part in (points, gradients, all_errors)
        )
        steepness = slope.flatten(1).norm(dim=1).clamp_min(TINY)
        polyak = left.square().sum(dim=1) / steepness.square()
        longest = rate * math.sqrt(slope[0].numel()) / steepness
        return start - polyak.minimum(longest).reshape(-1, *[1] * (start.ndim - 1)) * slope


def smallest_mixture(errors: Tensor) -> Tensor:
    """Weights w, (B, K), with sum 1, that make |sum_k w_k errors_k| small; errors: (B, K, P)."""
    last, changes = errors[:, -1:], errors[:, :-1] - errors[:, -1:]
    gram = changes @ changes.mT
    scale = gram.diagonal(dim1=1, dim2=2).sum(dim=1).clamp_min(TINY)
    ridge = RIDGE * scale[:, None, None] * torch.eye(gram.shape[1]).to(gram)
    free = torch.linalg.solve(gram + ridge, -changes @ last.mT).squeeze(2)
    return torch.cat([free, 1 - free.sum(dim=1, keepdim=True)], dim=1)
