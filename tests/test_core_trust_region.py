"""Gradient steps within a trust region, on errors that are linear in the point."""

from __future__ import annotations

import torch
from torch import Tensor

from p2p_core.trust_region import SecondMoments, TrustRegion, rms

ROWS, VALUES, ERRORS = 3, 6, 20


def problem() -> tuple[Tensor, Tensor]:
    """Jacobians (B, P, n) and errors (B, P)."""
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(ROWS, ERRORS, VALUES, generator=generator, dtype=torch.float64)
    return jacobian, torch.randn(ROWS, ERRORS, generator=generator, dtype=torch.float64)


def gradient_of(jacobian: Tensor, errors: Tensor) -> Tensor:
    """Of mean(errors^2)."""
    return 2 * torch.einsum("bpn,bp->bn", jacobian, errors) / ERRORS


def losses_of(errors: Tensor) -> Tensor:
    return errors.square().mean(dim=1)


def test_after_one_move_it_goes_to_the_lowest_point_of_the_line() -> None:
    jacobian, errors = problem()
    gradient, losses = gradient_of(jacobian, errors), losses_of(errors)
    direction = SecondMoments().direction(gradient, losses > 0)
    slope = (gradient * direction).sum(dim=1)
    region = TrustRegion(losses)
    first = region.length(losses, slope, 0.01)
    torch.testing.assert_close(first, torch.full_like(first, 0.01))  # the radius
    move = -first[:, None] * direction
    region.learn(move, torch.einsum("bpn,bn->bp", jacobian, move))
    move = -region.length(losses, slope, 100.0)[:, None] * direction
    after = errors + torch.einsum("bpn,bn->bp", jacobian, move)
    along = torch.einsum("bn,bn->b", gradient_of(jacobian, after), direction)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-9)


def test_the_first_move_is_no_longer_than_to_a_loss_of_zero() -> None:
    """On a parabola that touches 0 it ends there, at 2 loss / slope."""
    losses, slope = torch.tensor([9.0]), torch.tensor([6.0])
    torch.testing.assert_close(
        TrustRegion(losses).length(losses, slope, 100.0), torch.tensor([3.0])
    )


def test_without_a_gradient_nothing_moves() -> None:
    zeros, losses = torch.zeros(2, 3), torch.tensor([1.0, 0.0])
    region = TrustRegion(losses)
    for _ in range(2):
        assert torch.equal(SecondMoments().direction(zeros, losses > 0), zeros)
        assert torch.equal(region.length(losses, zeros[:, 0], 1.0), torch.zeros(2))
        region.learn(zeros, torch.zeros(2, 5))


def test_values_move_alike_but_not_those_of_rounding() -> None:
    gradient = torch.tensor([[4.0, -1.0, 1.0, 1e-6, -1e-6, 0.0]])
    direction = SecondMoments().direction(gradient, torch.tensor([True]))
    torch.testing.assert_close(rms(direction), torch.ones(1))
    assert torch.equal(direction.sign(), gradient.sign())
    assert direction[0, :3].abs().max() < 1.3 * direction[0, :3].abs().min()
    assert direction[0, 3:].abs().max() < 1e-4
    scaled = SecondMoments().direction(1e-6 * gradient, torch.tensor([True]))
    torch.testing.assert_close(scaled, direction)


def test_usual_gradients_are_remembered() -> None:
    """A value whose gradient was large moves less for the same gradient; if it was to be learnt."""
    large, equal = torch.tensor([[10.0, 1.0], [10.0, 1.0]]), torch.ones(2, 2)
    moments = SecondMoments()
    moments.direction(equal, torch.tensor([True, True]))
    moments.direction(large, torch.tensor([True, False]))
    learnt, other = moments.direction(equal, torch.tensor([True, True]))
    assert learnt[0] < 0.95 * learnt[1]
    torch.testing.assert_close(other[0], other[1])
