"""Null-text optimisation against a network that is linear in the embedding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from p2p_core.inversion import ddim_step
from p2p_core.null_text import (
    NullEmbeddings,
    Settings,
    guided,
    negative_prompt_inversion,
    optimize_null_text,
)

SIGMAS = [8.0, 4.0, 2.0, 1.0, 0.5, 0.0]
ROWS, TOKENS, WIDTH = 2, 3, 4
PIXELS = (2, 2, 2)


class Linear:
    """A network whose denoised latent is x / 2 plus a matrix times the embedding."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(8, TOKENS * WIDTH, generator=generator, dtype=torch.float64)
        self.prompt = self.random(ROWS, TOKENS, WIDTH)
        self.start = self.random(ROWS, *PIXELS) * SIGMAS[0]
        self.calls: list[tuple[int, bool]] = []

    @staticmethod
    def random(*shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(math.prod(shape))
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uncond(self, x: Tensor, sigma: float, embedding: Tensor) -> Tensor:
        self.calls.append((len(x), embedding.requires_grad))
        return x / 2 + (embedding.flatten(1) @ self.matrix.T).unflatten(1, PIXELS)

    def cond(self, x: Tensor, sigma: float) -> Tensor:
        return self.uncond(x, sigma, self.prompt)

    def path(self, nulls: Tensor, cfg: float) -> Tensor:
        """Where guided sampling goes under null embeddings (N, B, T, D)."""
        states = [self.start]
        for null, sigma, sigma_next in zip(nulls, SIGMAS[:-1], SIGMAS[1:], strict=True):
            x = states[-1]
            denoised = guided(self.cond(x, sigma), self.uncond(x, sigma, null), cfg)
            states.append(ddim_step(x, denoised, sigma, sigma_next))
        self.calls.clear()
        return torch.stack(states)


def solve(network: Linear, pivot: Tensor, **changes: float) -> NullEmbeddings:
    settings = Settings(**{"cfg": 7.5, "inner_steps": 300, **changes})  # type: ignore[arg-type]
    zeros = torch.zeros(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    return optimize_null_text(network.cond, network.uncond, pivot, SIGMAS, zeros, settings)


def reachable(network: Linear) -> Tensor:
    """A path that some null embeddings lead along."""
    nulls = network.random(len(SIGMAS) - 1, ROWS, TOKENS, WIDTH)
    return network.path(0.1 * nulls, 7.5)


def test_it_finds_embeddings_that_lead_along_the_pivot() -> None:
    network = Linear()
    pivot = reachable(network)
    found = solve(network, pivot, early_stop=1e-5)
    before = solve(network, pivot, inner_steps=0)
    assert (found.losses < 1e-3 * before.losses).all()
    torch.testing.assert_close(network.path(found.embeddings, 7.5)[-1], found.x)


def test_what_no_embedding_changes_moves_none() -> None:
    """Half of the picture's error is out of reach; the embedding moves for the other half alone."""
    network = Linear()
    network.matrix[4:] = 0
    pivot = network.path(torch.zeros(5, ROWS, TOKENS, WIDTH, dtype=torch.float64), 7.5)
    pivot[1].view(ROWS, 8)[:, 4:] += 1.0
    found = solve(network, pivot)
    assert torch.equal(found.embeddings[0], torch.zeros_like(found.embeddings[0]))
    assert found.losses[0].allclose(torch.tensor(0.5 / 17, dtype=torch.float64))
    pivot[1].view(ROWS, 8)[:, :4] += 1.0
    found = solve(network, pivot)
    assert found.embeddings[0].abs().max() > 0
    assert (found.losses[0] < 0.53 / 17).all()


def test_it_moves_no_farther_than_the_papers_updates_could() -> None:
    network = Linear()
    pivot = network.path(network.random(5, ROWS, TOKENS, WIDTH), 7.5)
    for inner_steps in (1, 4, 10):
        settings = Settings(7.5, inner_steps=inner_steps)
        assert settings.updates * settings.radius(7) == pytest.approx(inner_steps * 0.93e-2)
        found = solve(network, pivot, inner_steps=inner_steps)
        before = torch.cat([torch.zeros_like(found.embeddings[:1]), found.embeddings[:-1]])
        moved = (found.embeddings - before).square().mean(dim=(2, 3)).sqrt()
        longest = torch.tensor([settings.updates * settings.radius(step) for step in range(5)])
        assert (moved <= longest[:, None] * 1.0001).all()
        # Where the pivot is far it uses most of that; gradients of different steps add up to less.
        assert moved.max() > 0.5 * longest[0]


def test_rounding_stays_rounding() -> None:
    """Values without influence have gradients of rounding noise alone, and must not go by it."""
    network = Linear()
    network.matrix[:, 4:] = 0
    pivot = network.path(network.random(5, ROWS, TOKENS, WIDTH), 7.5)
    exact = solve(network, pivot, inner_steps=10).embeddings
    network.matrix += 1e-7 * torch.randn(network.matrix.shape, dtype=torch.float64)
    rounded = solve(network, pivot, inner_steps=10).embeddings
    assert (rounded - exact).norm() < 1e-5 * exact.norm()


def test_no_prediction_is_wasted() -> None:
    network = Linear()
    pivot = reachable(network)
    found = solve(network, pivot, inner_steps=10)
    assert len(network.calls) == found.predictions
    # At every step one under the prompt, one before the first update and one after each.
    assert found.predictions <= (2 + 5) * 5
    assert found.gradients <= 5 * 5
    network.calls.clear()
    again = optimize_null_text(
        network.cond, network.uncond, network.path(found.embeddings, 7.5), SIGMAS,
        found.embeddings[0], Settings(7.5, inner_steps=0),
    )  # fmt: skip
    assert (again.predictions, again.gradients) == (10, 0)


def test_a_step_that_ends_on_the_pivot_needs_no_gradient() -> None:
    network = Linear()
    pivot = network.path(torch.zeros(5, ROWS, TOKENS, WIDTH, dtype=torch.float64), 7.5)
    found = solve(network, pivot)
    assert (found.predictions, found.gradients) == (10, 0)
    assert torch.equal(found.embeddings, torch.zeros_like(found.embeddings))


def test_an_update_that_overshoots_is_made_again_without_a_gradient() -> None:
    """The first one hopes for a loss of 0, but most of the error is out of reach."""
    network = Linear()
    network.matrix[4:] = 0
    pivot = network.path(torch.zeros(5, ROWS, TOKENS, WIDTH, dtype=torch.float64), 7.5)
    pivot[1].view(ROWS, 8)[:, :4] += 6.0
    pivot[1].view(ROWS, 8)[:, 4:] += 10.0
    before = solve(network, pivot, inner_steps=0)
    found = solve(network, pivot, inner_steps=10, learning_rate=1.0)
    assert (found.losses[0] < 0.9 * before.losses[0]).all()
    # Otherwise every update would have a gradient of its own.
    assert found.gradients < found.predictions - 2 * 5


def test_pictures_do_not_know_of_each_other() -> None:
    """The first one is near enough to its pivot before the other."""
    network = Linear()
    pivot = reachable(network)
    both = solve(network, pivot, inner_steps=10, early_stop=0.05)
    assert not both.embeddings[0, 0].any()
    assert both.embeddings[0, 1].any()
    for row in range(ROWS):
        alone = Linear()
        alone.prompt = network.prompt[row : row + 1]
        zeros = torch.zeros(1, TOKENS, WIDTH, dtype=torch.float64)
        single = optimize_null_text(
            alone.cond, alone.uncond, pivot[:, row : row + 1], SIGMAS, zeros,
            Settings(7.5, early_stop=0.05),
        )  # fmt: skip
        torch.testing.assert_close(single.embeddings[:, 0], both.embeddings[:, row])


def test_the_loss_is_measured_as_in_the_paper() -> None:
    """Of latents that keep their variance: divided by sqrt(1 + sigma^2)."""
    network = Linear()
    zeros = torch.zeros(5, ROWS, TOKENS, WIDTH, dtype=torch.float64)
    pivot = network.path(zeros, 7.5)
    pivot[1] += 1.0
    found = solve(network, pivot, inner_steps=0)
    torch.testing.assert_close(found.losses[0], torch.full((2,), 1 / 17, dtype=torch.float64))


def test_a_loss_that_is_no_number_stops_it() -> None:
    network = Linear()
    pivot = reachable(network)
    pivot[3] = torch.nan
    found = solve(network, pivot)
    assert found.failed_at == 2
    assert found.embeddings.isfinite().all()
    for step in (2, 3, 4):
        assert torch.equal(found.embeddings[step], found.embeddings[1])
    assert found.x.isfinite().all()


def test_learning_rate_and_threshold_follow_the_paper() -> None:
    settings = Settings(7.5)
    assert settings.updates == 5
    assert [5 * settings.radius(step) for step in (0, 50)] == pytest.approx([10e-2, 5e-2])
    assert settings.radius(100) == settings.radius(999) > 0
    assert [settings.enough(step) for step in (0, 10)] == pytest.approx([1e-5, 21e-5])


def test_negative_prompt_inversion_is_sampling_without_guidance() -> None:
    network = Linear()
    pivot = network.path(network.prompt.expand(5, -1, -1, -1), 7.5)
    found = negative_prompt_inversion(network.cond, pivot, SIGMAS, network.prompt)
    torch.testing.assert_close(found.x, pivot[-1])
    assert (found.predictions, found.gradients) == (5, 0)
    assert found.losses.max() < 1e-12
