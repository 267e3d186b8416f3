"""Least squares by gradient steps of the length that the loss needs, within a trust region."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 0.9  # of the second moments, from one gradient to the next
DAMPING = 0.1  # of a direction, in units of the RMS of all second moments
TINY = 1e-30


class SecondMoments:
    """Directions that move a value the more, the smaller its gradients usually are.

        v <- 0.9 v + 0.1 g^2 (of gradients scaled to an RMS of 1),    d = g / (sqrt(v) + 0.1 rms)

    As in Adam (arXiv:1412.6980), with two differences. v outlives the steps of the sampler, so that
    it tells usual gradients and not this one's. And Adam adds 1e-8 to sqrt(v): a value without
    influence, whose gradient is rounding noise, then moves as far as any other; here it stays.
    Gradients are (B, …), in B problems that do not know of each other.
    """

    def __init__(self) -> None:
        self._moments: Tensor | None = None

    def direction(self, gradient: Tensor, new: Tensor) -> Tensor:
        """Of length 1, (B, …). new: of which problems the gradient is to be learnt from, (B,)."""
        squares = (gradient / per_row(rms(gradient).clamp_min(TINY), gradient)).square()
        moments = torch.zeros_like(squares) if self._moments is None else self._moments
        before = torch.where(per_row(rms(moments) > 0, moments), moments, squares)
        after = KEPT * before + (1 - KEPT) * squares
        self._moments = torch.where(per_row(new, after), after, moments)
        scale = self._moments.sqrt()
        direction = gradient / (scale + DAMPING * per_row(rms(scale), scale)).clamp_min(TINY)
        return direction / per_row(rms(direction).clamp_min(TINY), direction)


class TrustRegion:
    """How far to go along a direction d of length 1, by how the errors changed in the last move.

    The loss, mean(errors^2), is modelled as a parabola of the length t,

        loss(t) = loss - slope t + curvature t^2,    slope = <gradient, d>,    curvature = |J d|^2

    with J the Jacobian of the errors (Gauss-Newton). The move ends where the parabola is lowest,
    or at the radius: the Cauchy point (Nocedal and Wright, Numerical Optimization, section 4.1).
    |J d| is what the last move changed the errors by, over its length, so it costs no evaluation.
    Losses, slopes and lengths are (B,); lengths are root mean squares of all values.
    """

    def __init__(self, losses: Tensor) -> None:
        self._curvature = torch.zeros_like(losses)

    def learn(self, move: Tensor, change: Tensor) -> None:
        """The errors changed by ``change`` (B, P) in a move (B, …)."""
        length = rms(move)
        curvature = (rms(change) / length.clamp_min(TINY)).square()
        self._curvature = torch.where(length > 0, curvature, self._curvature)

    def length(self, losses: Tensor, slope: Tensor, radius: float) -> Tensor:
        # No loss is below 0: a flatter parabola than this one would be.
        flattest = slope.square() / (4 * losses).clamp_min(TINY)
        curvature = self._curvature.maximum(flattest)
        return (slope / (2 * curvature).clamp_min(TINY)).clamp(0, radius)


def rms(values: Tensor) -> Tensor:
    """The root mean square of every row: (B, …) to (B,)."""
    return values.flatten(1).square().mean(dim=1).sqrt()


def per_row(numbers: Tensor, values: Tensor) -> Tensor:
    """Numbers (B,) that broadcast over values (B, …)."""
    return numbers.reshape(-1, *[1] * (values.ndim - 1))
