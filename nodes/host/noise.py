"""One stream of sampler noise for all rows of a group.

A stochastic sampler draws different noise for every row of a batch, which would tear source and
edit apart. It is given a noise sampler that draws for the source rows alone, in the way the sampler
itself does, so the source keeps the picture that its seed gives without any edit.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import comfy.k_diffusion.sampling as k_diffusion
import torch
from comfy.samplers import KSAMPLER
from torch import Tensor

NoiseSampler = Callable[[Tensor, Tensor], Tensor]

_NOISE_TIMES_ZERO = {"sample_res_multistep"}  # takes a noise sampler, but always with eta 0


def check_sampler(sampler: Any) -> None:
    """ValueError for a sampler whose noise cannot be shared; a warning where that is unknown."""
    if not isinstance(sampler, KSAMPLER):
        raise ValueError(
            f"The sampler {type(sampler).__name__} does not run on the host's sampler interface, "
            "so source and edit cannot be given the same noise. Use KSampler or a KSamplerSelect."
        )
    if sampler.extra_options.get("s_churn", 0) > 0:
        raise ValueError(
            f"s_churn is {sampler.extra_options['s_churn']:g}, which would add different noise to "
            "source and edit. Set s_churn to 0, or use an ancestral or SDE sampler."
        )
    function = sampler.sampler_function
    if not (_takes_noise_sampler(function) or function.__module__.startswith("comfy.")):
        logging.warning(
            "The sampler %s takes no noise_sampler: if it is stochastic, source and edit get "
            "different noise. Prefer a sampler of the host.",
            function.__name__,
        )


def check_deterministic(sampler: KSAMPLER) -> None:
    """ValueError for a sampler that adds noise, which would lead away from an inversion."""
    function = sampler.sampler_function
    noisy = _takes_noise_sampler(function) and function.__name__ not in _NOISE_TIMES_ZERO
    if noisy and sampler.extra_options.get("eta") != 0:
        raise ValueError(
            f"The sampler {function.__name__.removeprefix('sample_')} adds noise at every step, "
            "but an inversion leads back to its picture without new noise. Use a deterministic "
            "sampler: euler, ddim, heun, dpmpp_2m or res_multistep."
        )


def with_shared_noise(sampler: KSAMPLER, group: int) -> KSAMPLER:
    """A copy of the host's sampler in which every ``group`` consecutive rows share their noise."""
    shared = copy.copy(sampler)
    shared.sampler_function = _sharing(sampler, group)
    return shared


def _takes_noise_sampler(function: Callable) -> bool:
    parameters = inspect.signature(function).parameters
    return "noise_sampler" in parameters or function.__name__ == "dpm_adaptive_function"


def _sharing(sampler: KSAMPLER, group: int) -> Callable:
    function = sampler.sampler_function

    @functools.wraps(function)
    def sample(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict, **options: Any) -> Tensor:
        source = x[::group]
        if sampler.inpaint_options.get("random", False):
            model.noise = _inpaint_noise(source, extra_args).repeat_interleave(group, dim=0)
        if _takes_noise_sampler(function):
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
        return source.repeat_interleave(group, dim=0)

    return shared


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
