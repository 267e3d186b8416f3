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

DenoiseUnder = Callable[[Tensor, float, Tensor], Tensor]
OnStep = Callable[[int, Tensor, Tensor, Tensor], None]

# Adam's epsilon, as a share of a step's first gradient (RMS). The usual 1e-8 moves values without
# influence as far as all others, to where rounding points.
EPSILON = 0.3
TINY = 1e-30
SLOWEST = 0.05  # share of the learning rate that is left late in a long schedule
LOOSER = 2e-5  # by which the loss that is good enough grows every step
# The paper's code updates once more after the loss was good enough, which about halves it. Here the
# loss is looked at before an update, and has to be that small.
SHARE = 0.5
# Fewer updates than the paper's are made, at more than its rate; of both, more towards the end. The
# first steps decide what an edit paints, and should stay near the prompt; the last ones bring the
# picture back.
FIRST_UPDATES, LAST_UPDATES = 0.35, 0.8  # at the first and the last step, as a share of the paper's
FIRST_RATE, LAST_RATE = 2.5, 5.0


@dataclass(frozen=True)
class Settings:
    """How to optimise. cfg: the guidance of the run.

    inner_steps, learning_rate: of the paper's algorithm; ours makes 0.35 of the updates at the
    first step and 0.8 at the last, at 2.5 to 5 times the rate. early_stop: the loss that is good
    enough at the first step.
    """

    cfg: float
    inner_steps: int = 10
    learning_rate: float = 1e-2
    early_stop: float = 1e-5

    def updates(self, step: int, steps: int) -> int:
        """The most updates at a step of so many."""
        share = _between(FIRST_UPDATES, LAST_UPDATES, step, steps)
        return min(self.inner_steps, max(1, round(share * self.inner_steps)))

    def rate(self, step: int, steps: int) -> float:
        """Adam's learning rate at a step of so many. The paper's vanishes at step 100."""
        faster = _between(FIRST_RATE, LAST_RATE, step, steps)
        return faster * self.learning_rate * max(1 - step / 100, SLOWEST)

    def enough(self, step: int) -> float:
        """The loss at which a step's optimisation stops."""
        return SHARE * (self.early_stop + LOOSER * step)


def _between(first: float, last: float, step: int, steps: int) -> float:
    """From the first step's value to the last step's, evenly."""
    return first + (last - first) * step / max(steps - 1, 1)


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
    x, found, search = pivot[0], [], _Search(settings, len(sigmas) - 1)
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


class _Try(NamedTuple):
    """A null embedding (B, T, D), where its step ends (B, C, h, w), and the losses (B,)."""

    embedding: Tensor
    x: Tensor
    losses: Tensor

    def minimum(self, other: _Try) -> _Try:
        """For every picture the one with the smaller loss; a loss that is no number never wins."""
        better = other.losses < self.losses
        pairs = zip(other, self, strict=True)
        return _Try(*(torch.where(_like(better, new), new, old) for new, old in pairs))


class _Search:
    """The optimisation of a run, step by step, and what it cost."""

    def __init__(self, settings: Settings, steps: int) -> None:
        self.settings, self.steps = settings, steps
        self.predictions = self.gradients = 0
        self.failed_at: int | None = None

    def best(self, step: _Step, index: int, embedding: Tensor) -> _Try:
        """The best embedding met within the allowed updates of Adam (Kingma and Ba 2015,
        arXiv:1412.6980), for every picture of its own.

        The loss is looked at before an update, and the last prediction is the step's own, so that
        a step that needs k updates costs k + 1 predictions and k gradients.
        """
        enough = self.settings.enough(index)
        updates = self.settings.updates(index, self.steps) if self.failed_at is None else 0
        null, best = embedding.clone(), None
        adam = torch.optim.Adam([null], lr=self.settings.rate(index, self.steps), eps=EPSILON)
        first = None
        for left in range(updates, -1, -1):
            x = step.take(null.requires_grad_(left > 0))
            losses = _errors(x, step.pivot, step.sigma_next).square().mean(dim=1)
            self.predictions += 1
            tried = _Try(null.detach().clone(), x.detach(), losses.detach())
            best = tried if best is None else best.minimum(tried)
            if not losses.isfinite().all() and self.failed_at is None:
                self.failed_at = index
            if left == 0 or self.failed_at is not None or bool((best.losses < enough).all()):
                break
            [gradient] = torch.autograd.grad(losses.sum(), null)
            self.gradients += 1
            first = gradient if first is None else first
            rms = first.square().mean(dim=(1, 2), keepdim=True).sqrt()
            null.grad = gradient / rms.clamp_min(TINY)
            adam.step()
            with torch.no_grad():  # a picture that is good enough stays as it is
                null.copy_(torch.where(_like(best.losses < enough, null), best.embedding, null))
        assert best is not None
        return best


def _like(mask: Tensor, values: Tensor) -> Tensor:
    """A mask (B,) that broadcasts over values (B, …)."""
    return mask.reshape(-1, *[1] * (values.ndim - 1))
