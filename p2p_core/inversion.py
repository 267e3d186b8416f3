"""Inversion: the noisy latents that lead a sampler back to a given picture.

Everything is in sigma space, x = x_0 + sigma · eps, where a deterministic DDIM step is an Euler
step of the probability-flow ODE. It does not matter there what the network predicts (eps or v).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .fingerprint import Fingerprint

Denoise = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, Tensor, Tensor], None]

NEARLY_CLEAN = 1e-4  # the level at which a network is asked about a picture without noise


@dataclass(frozen=True, eq=False)
class Inversion:
    """P2P_INVERSION: pictures, and a noisy latent of each for every noise level of a run.

    latent: (B, C, h, w), the pictures as LATENT. start: the noisiest latents, likewise as LATENT.
    sigmas: (N + 1,), descending to 0. offsets: (N + 1, B, C, h, w); with z the latent in the
    model's own scale, the state at sigmas[i] is z + offsets[i], and offsets[N] = 0.
    method: "ddim" or "noise". prompt: the text encoding it was made under, (1 or B, T, D), and
    model: the model's fingerprint; None where the inversion depends on neither.
    residual: largest relative error of a step run backwards, if it was measured. text: the source
    prompt's words, if the inversion was told them; files do not keep them.
    """

    latent: Tensor
    start: Tensor
    sigmas: Tensor
    offsets: Tensor
    method: str
    prompt: Tensor | None = None
    model: Fingerprint | None = None
    residual: float | None = None
    text: str | None = None

    @property
    def steps(self) -> int:
        """N, the steps of a run on this schedule."""
        return len(self.sigmas) - 1

    def find(self, sigmas: Sequence[float], tolerance: float = 1e-3) -> int | None:
        """At which of the inversion's levels a run on ``sigmas`` begins; None if it does not fit.

        A run over part of the schedule fits. tolerance: relative, of a single level.
        """
        own = self.sigmas.tolist()
        for first in range(len(own) - len(sigmas) + 1):
            part = zip(own[first:], sigmas, strict=False)
            if all(abs(a - b) <= tolerance * max(a, NEARLY_CLEAN) for a, b in part):
                return first
        return None

    def offset_at(self, sigma: float) -> Tensor:
        """The offset at any level of the run, (B, C, h, w).

        A DDIM step is a straight line in sigma, so between two levels it lies on theirs.
        """
        own = self.sigmas.tolist()
        at = max(sum(level >= sigma for level in own[:-1]) - 1, 0)
        share = (own[at] - sigma) / (own[at] - own[at + 1])
        return torch.lerp(self.offsets[at], self.offsets[at + 1], min(max(share, 0.0), 1.0))


def ddim_step(x: Tensor, denoised: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """One deterministic DDIM step, forward or backward in noise.

    x, denoised: (B, C, h, w); sigma > 0. Song et al. 2021 (arXiv:2010.02502), eq. 13, with
    sigma = sqrt((1 - alpha) / alpha).
    """
    return x + (sigma_next - sigma) * (x - denoised) / sigma


def ddim_invert(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    fixed_point_iterations: int = 0,
    on_step: OnStep | None = None,
) -> tuple[Tensor, float | None]:
    """Run DDIM backwards from a clean latent: its states at all noise levels, and the residual.

    denoise(x, sigma): the model's denoised latent under the source prompt, without guidance.
    x: (B, C, h, w), in the model's scale. sigmas: N + 1 levels, descending to 0, as they will be
    sampled. Returns (N + 1, B, C, h, w) in the order of sigmas.

    A sampler goes from x_i to x_{i+1} along eps(x_i, sigma_i), which is not known when coming from
    x_{i+1}. DDIM inversion takes eps(x_{i+1}, sigma_{i+1}) instead (Dhariwal and Nichol 2021,
    arXiv:2105.05233, section F). A fixed-point iteration takes the direction at the x_i found so
    far (AIDI, arXiv:2309.04907). On the way it sees how far that x_i misses x_{i+1} when sampled,
    relative to |x_{i+1}|: the residual is the last such error, at its worst over the steps, and
    None without iterations. on_step(done, x, denoised): called after every step.
    """
    states, residual = [x], None
    low = sigmas[-1]
    for done, high in enumerate(reversed(sigmas[:-1]), start=1):
        asked = max(low, NEARLY_CLEAN)
        denoised = denoise(x, asked)
        guess = ddim_step(x, denoised, asked, high)
        errors = []
        for _ in range(fixed_point_iterations):
            denoised = denoise(guess, high)
            step = (high - low) * (guess - denoised) / high
            errors.append(float((guess - step - x).norm() / x.norm().clamp_min(1e-12)))
            guess = x + step
        if errors:
            residual = max(errors[-1], residual or 0.0)
        x, low = guess, high
        states.append(x)
        if on_step is not None:
            on_step(done, x, denoised)
    return torch.stack(states[::-1]), residual


def noise_offsets(noise: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The picture under one fixed noise at all levels: sigma_i · noise, (N + 1, B, C, h, w).

    Prompt-to-Prompt (arXiv:2208.01626), figure 12: a mask brings back the rest of the picture.
    """
    return torch.stack([sigma * noise for sigma in sigmas])
