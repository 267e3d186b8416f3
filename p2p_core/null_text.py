"""Null-text inversion: unconditional embeddings that lead guided sampling back to a picture.

Mokady et al. 2022 (arXiv:2211.09794). Classifier-free guidance amplifies the errors of DDIM
inversion. So the inverted path is taken as the pivot, and at every step the embedding of the
unconditional prediction is optimised until the guided step ends on the pivot. Everything is in
sigma space, where it does not matter what the network predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .inversion import Denoise, ddim_step
from .trust_region import SecondMoments, TrustRegion, per_row

DenoiseUnder = Callable[[Tensor, float, Tensor], Tensor]
OnStep = Callable[[int, Tensor, Tensor, Tensor], None]

SLOWEST = 0.05  # share of the learning rate that is left late in a long schedule
LOOSER = 2e-5  # by which the loss that is good enough grows every step
STRIDE = 2  # of the paper's updates that one of ours stands for, at most


@dataclass(frozen=True)
class Settings:
    """How to optimise. cfg: the guidance of the run.

    inner_steps: how far the embedding may move at each step, counted in the paper's updates.
    learning_rate: the length of such an update, in units of the embedding's values. early_stop:
    the loss that is good enough at the first step.
    """

    cfg: float
    inner_steps: int = 10
    learning_rate: float = 1e-2
    early_stop: float = 1e-5

    @property
    def updates(self) -> int:
        """The most updates at each step."""
        return math.ceil(self.inner_steps / STRIDE)

    def radius(self, step: int) -> float:
        """The longest update of a step, RMS: all of them go as far as the paper's could.

        The paper's code lets the learning rate vanish at step 100.
        """
        rate = self.learning_rate * max(1 - step / 100, SLOWEST)
        return rate * self.inner_steps / max(self.updates, 1)

    def enough(self, step: int) -> float:
        """The loss at which a step's optimisation stops."""
        return self.early_stop + LOOSER * step


@dataclass(frozen=True, eq=False)
class NullEmbeddings:
    """What was found for a run of N steps.

    embeddings: (N, B, T, D). x: (B, C, h, w), the picture that the run ends with. losses: (N, B),
    how far every step misses its pivot. predictions, gradients: how often the network was run
    forward and backward, on B pictures each. failed_at: the step where a loss was no number; later
    steps were not optimised. None if there is no such step.
    """

    embeddings: Tensor
    x: Tensor
    losses: Tensor
    predictions: int
    gradients: int
    failed_at: int | None = None


def guided(cond: Tensor, uncond: Tensor, cfg: float) -> Tensor:
    """Classifier-free guidance. Ho and Salimans 2022 (arXiv:2207.12598)."""
    return uncond + cfg * (cond - uncond)


def optimize_null_text(
    cond: Denoise,
    uncond: DenoiseUnder,
    pivot: Tensor,
    sigmas: Sequence[float],
    embedding: Tensor,
    settings: Settings,
    on_step: OnStep | None = None,
) -> NullEmbeddings:
    """Algorithm 1 of the paper: for every step the embedding whose guided step meets the pivot.

    cond(x, sigma): the denoised latent under the prompt. uncond(x, sigma, embedding): under an
    embedding (B, T, D), differentiable. pivot: (N + 1, B, C, h, w), the inverted path. sigmas:
    N + 1 levels, descending to 0. embedding: where the first step begins; every later one begins
    with what the step before it found. on_step(done, x, denoised, losses): after every step.
    """
    x, found, search = pivot[0], [], _Search(settings)
    for index, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        with torch.no_grad():
            denoised = cond(x, sigma)
        step = _Step(uncond, x, denoised, sigma, sigma_next, pivot[index + 1], settings.cfg)
        best = search.best(step, index, embedding)
        found.append(best)
        x, embedding = best.x, best.embedding
        if on_step is not None:
            on_step(index + 1, x, denoised, best.losses)
    return NullEmbeddings(
        embeddings=torch.stack([best.embedding for best in found]),
        x=x,
        losses=torch.stack([best.losses for best in found]),
        predictions=search.predictions + len(found),
        gradients=search.gradients,
        failed_at=search.failed_at,
    )


def negative_prompt_inversion(
    cond: Denoise,
    pivot: Tensor,
    sigmas: Sequence[float],
    prompt: Tensor,
    on_step: OnStep | None = None,
) -> NullEmbeddings:
    """The prompt's own embedding (B, T, D) as the null embedding of every step.

    Miyake et al. 2023 (arXiv:2305.16807). Both predictions are then one, whatever the guidance, so
    that sampling runs along the inverted path. Arguments as for ``optimize_null_text``.
    """
    x, losses = pivot[0], []
    for index, (sigma, sigma_next) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        with torch.no_grad():
            denoised = cond(x, sigma)
        x = ddim_step(x, denoised, sigma, sigma_next)
        losses.append(_errors(x, pivot[index + 1], sigma_next).square().mean(dim=1))
        if on_step is not None:
            on_step(index + 1, x, denoised, losses[-1])
    steps = len(losses)
    return NullEmbeddings(prompt.expand(steps, *prompt.shape), x, torch.stack(losses), steps, 0)


def _errors(x: Tensor, pivot: Tensor, sigma: float) -> Tensor:
    """x - pivot, (B, C * h * w), at the scale in which the paper measures its loss.

    There, noisy latents keep their variance: sqrt(a) x_0 + sqrt(1 - a) eps = x / sqrt(1 + sigma^2),
    with a = 1 / (1 + sigma^2).
    """
    return (x - pivot).flatten(1) / math.sqrt(1 + sigma**2)


class _Step(NamedTuple):
    """A guided step from x at sigma, which should end on the pivot at sigma_next."""

    uncond: DenoiseUnder
    x: Tensor
    cond: Tensor
    sigma: float
    sigma_next: float
    pivot: Tensor
    cfg: float

    def take(self, embedding: Tensor) -> Tensor:
        """Where the step ends under a null embedding, (B, C, h, w)."""
        denoised = guided(self.cond, self.uncond(self.x, self.sigma, embedding), self.cfg)
        return ddim_step(self.x, denoised, self.sigma, self.sigma_next)


class _Point(NamedTuple):
    """A null embedding (B, T, D), where its step ends (B, C, h, w), errors (B, P), losses (B,)."""

    embedding: Tensor
    x: Tensor
    errors: Tensor
    losses: Tensor

    def detach(self) -> _Point:
        return _Point(*(part.detach() for part in self))

    def replaced(self, where: Tensor, other: _Point) -> _Point:
        """The other's values for the pictures ``where`` says, (B,) bool."""
        pairs = zip(other, self, strict=True)
        return _Point(*(torch.where(per_row(where, new), new, old) for new, old in pairs))


class _Search:
    """The optimisation of a run, step by step, and what it cost."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.moments = settings, SecondMoments()
        self.predictions = self.gradients = 0
        self.failed_at: int | None = None

    def best(self, step: _Step, index: int, embedding: Tensor) -> _Point:
        """The best embedding met within the allowed updates, for every picture of its own.

        The loss is looked at before an update, and the last prediction is the step's own, so that
        a step that needs k updates costs k + 1 predictions. An update that made the loss larger is
        taken back and made again, shorter, from the same gradient.
        """
        radius, enough = self.settings.radius(index), self.settings.enough(index)
        updates = self.settings.updates if self.failed_at is None else 0
        point = self._predict(step, index, embedding, updates > 0)
        best, region = point.detach(), TrustRegion(point.losses.detach())
        better = torch.ones_like(best.losses, dtype=torch.bool)
        slope, direction = torch.zeros_like(best.losses), torch.zeros_like(embedding)
        for left in reversed(range(updates)):
            going = best.losses >= enough
            if self.failed_at is not None or not going.any():
                break
            if (better & going).any():
                gradient = self._gradient(point)
                new = self.moments.direction(gradient, better & going)
                direction = torch.where(per_row(better, new), new, direction)
                slope = torch.where(better, (gradient * new).flatten(1).sum(dim=1), slope)
            length = torch.where(going, region.length(best.losses, slope, radius), 0)
            move = -per_row(length, direction) * direction
            point = self._predict(step, index, best.embedding + move, left > 0)
            region.learn(move, point.errors.detach() - best.errors)
            better = point.losses.detach() < best.losses
            best = best.replaced(better, point.detach())
        return best

    def _predict(self, step: _Step, index: int, embedding: Tensor, differentiate: bool) -> _Point:
        embedding = embedding.detach().requires_grad_(differentiate)
        x = step.take(embedding)
        errors = _errors(x, step.pivot, step.sigma_next)
        losses = errors.square().mean(dim=1)
        self.predictions += 1
        if not losses.isfinite().all() and self.failed_at is None:
            self.failed_at = index
        return _Point(embedding, x, errors, losses)

    def _gradient(self, point: _Point) -> Tensor:
        """Of the losses by the embedding."""
        self.gradients += 1
        # The sum, for the sake of networks in fp16: the mean's gradient would be too small.
        [gradient] = torch.autograd.grad(point.errors.square().sum(), point.embedding)
        return gradient / point.errors.shape[1]
