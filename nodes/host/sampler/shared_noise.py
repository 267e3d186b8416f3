"""One stream of sampler noise for all rows of a group.

A stochastic sampler draws different noise for every row of a batch, which would tear source and
edit apart. It is given a noise sampler that draws for the source rows alone, in the way the sampler
itself does, so the source keeps the picture that its seed gives without any edit.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import comfy.k_diffusion.sampling as k_diffusion
import torch
from comfy.samplers import KSAMPLER
from einops import repeat
from torch import Tensor

from .abilities import takes_noise_sampler

NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def with_shared_noise(sampler: KSAMPLER, group: int) -> KSAMPLER:
    """A copy of the host's sampler in which every ``group`` consecutive rows share their noise."""
    shared = copy.copy(sampler)
    shared.sampler_function = _sharing(sampler, group)
    return shared


def _sharing(sampler: KSAMPLER, group: int) -> Callable:
    function = sampler.sampler_function

    @functools.wraps(function)
    def sample(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict, **options: Any) -> Tensor:
        source = x[::group]
        if sampler.inpaint_options.get("random", False):
            model.noise = _for_groups(_inpaint_noise(source, extra_args), group)
        if takes_noise_sampler(function):
            draw = options.get("noise_sampler") or _default_noise(
                function.__name__, source, sigmas, extra_args
            )
            options["noise_sampler"] = _repeating(draw, group, len(x))
        return function(model, x, sigmas, extra_args=extra_args, **options)

    return sample


def _repeating(draw: NoiseSampler, group: int, rows: int) -> NoiseSampler:
    """Noise for all rows from noise for the source rows, or from the source's share of all rows."""

    def shared(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        noise = draw(sigma, sigma_next)
        source = noise[::group] if len(noise) == rows else noise
        return _for_groups(source, group)

    return shared


def _for_groups(noise: Tensor, group: int) -> Tensor:
    """The noise of every source for its whole group of rows."""
    return repeat(noise, "seed ... -> (seed group) ...", group=group)


def _inpaint_noise(source: Tensor, extra_args: dict) -> Tensor:
    """The noise around an inpainting mask as the host draws it for samplers that ask for it."""
    generator = torch.manual_seed(extra_args.get("seed", 41) + 1)
    return torch.randn(source.shape, generator=generator, device="cpu").to(source)


def _default_noise(name: str, x: Tensor, sigmas: Tensor, extra_args: dict) -> NoiseSampler:
    """The noise the named sampler would draw by itself for the rows ``x``."""
    seed = extra_args.get("seed")
    if name.startswith("sample_dpmpp_") and "_sde" in name:
        low, high = sigmas[sigmas > 0].min(), sigmas.max()
        on_cpu = not name.endswith("_gpu")
        return k_diffusion.BrownianTreeNoiseSampler(x, low, high, seed=seed, cpu=on_cpu)
    return k_diffusion.default_noise_sampler(x, seed=seed)
