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
    settings = Settings(**{"cfg": 7.5, "inner_steps": 100, **changes})  # type: ignore[arg-type]
    zeros = torch.zeros(ROWS, TOKENS, WIDTH, dtype=torch.float64)
    return optimize_null_text(network.cond, network.uncond, pivot, SIGMAS, zeros, settings)


def reachable(network: Linear) -> Tensor:
    """A path that some null embeddings lead along."""
    nulls = network.random(len(SIGMAS) - 1, ROWS, TOKENS, WIDTH)
    return network.path(0.1 * nulls, 7.5)


def test_it_finds_embeddings_that_lead_along_the_pivot() -> None:
    network = Linear()
    pivot = reachable(network)
    found = solve(network, pivot, inner_steps=4000, learning_rate=2e-3)
    enough = torch.tensor([1e-5 + 2e-5 * step for step in range(5)], dtype=torch.float64)
    assert (found.losses < enough[:, None]).all()
    torch.testing.assert_close(found.x, pivot[-1], rtol=0, atol=0.05)
    torch.testing.assert_close(network.path(found.embeddings, 7.5)[-1], found.x)


def test_without_a_way_to_the_pivot_it_comes_as_near_as_can_be() -> None:
    """Two values of the embedding for eight of the picture: the least squares are known."""
    network = Linear()
    network.matrix[:, 2:] = 0
    pivot = network.path(network.random(5, ROWS, TOKENS, WIDTH), 7.5)
    pivot[1] += network.random(*pivot[1].shape)
    found = solve(network, pivot, inner_steps=1000, learning_rate=5e-3, early_stop=0.0)
    zeros = torch.zeros(5, ROWS, TOKENS, WIDTH, dtype=torch.float64)
    missing = (pivot[1] - network.path(zeros, 7.5)[1]).flatten(1)
    columns = network.matrix[:, :2]
    rest = missing - missing @ torch.linalg.pinv(columns).T @ columns.T
    least = rest.square().mean(dim=1) / (1 + SIGMAS[1] ** 2)
    torch.testing.assert_close(found.losses[0], least, rtol=1e-3, atol=0)


def test_no_prediction_is_wasted() -> None:
    network = Linear()
    pivot = reachable(network)
    found = solve(network, pivot, inner_steps=3)
    assert len(network.calls) == found.predictions
    # Of every step one under the prompt, and one more than it needed updates.
    assert found.predictions == found.gradients + 2 * 5
    assert found.gradients <= 1 + 1 + 2 + 2 + 2, "fewer than the paper's 3, at first above all"
    network.calls.clear()
    again = optimize_null_text(
        network.cond, network.uncond, network.path(found.embeddings, 7.5), SIGMAS,
        found.embeddings[0], Settings(7.5, inner_steps=0),
    )  # fmt: skip
    assert (again.predictions, again.gradients) == (10, 0)


def test_pictures_do_not_know_of_each_other() -> None:
    network = Linear()
    pivot = reachable(network)
    both = solve(network, pivot, inner_steps=4)
    for row in range(ROWS):
        alone = Linear()
        alone.prompt = network.prompt[row : row + 1]
        zeros = torch.zeros(1, TOKENS, WIDTH, dtype=torch.float64)
        single = optimize_null_text(
            alone.cond, alone.uncond, pivot[:, row : row + 1], SIGMAS, zeros,
            Settings(7.5, inner_steps=4),
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


def test_more_updates_and_a_higher_rate_late_and_half_the_papers_threshold() -> None:
    settings = Settings(7.5)
    updates = [settings.updates(step, 20) for step in range(20)]
    assert updates == sorted(updates)
    assert (updates[0], updates[-1], sum(updates)) == (4, 8, 116)
    assert [Settings(7.5, inner_steps=count).updates(0, 1) for count in (0, 1, 10)] == [0, 1, 4]
    assert [settings.rate(step, 51) for step in (0, 50)] == pytest.approx([2.5e-2, 2.5e-2])
    assert settings.rate(999, 1000) == pytest.approx(0.25e-2)
    assert [settings.enough(step) for step in (0, 10)] == pytest.approx([0.5e-5, 10.5e-5])


def test_negative_prompt_inversion_is_sampling_without_guidance() -> None:
    network = Linear()
    pivot = network.path(network.prompt.expand(5, -1, -1, -1), 7.5)
    found = negative_prompt_inversion(network.cond, pivot, SIGMAS, network.prompt)
    torch.testing.assert_close(found.x, pivot[-1])
    assert (found.predictions, found.gradients) == (5, 0)
    assert found.losses.max() < 1e-12
