"""What each of the host's samplers can do, by the names of its functions."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from comfy.samplers import KSAMPLER

_NOISE_TIMES_ZERO = {"sample_res_multistep"}  # takes a noise sampler, but always with eta 0
_STATE_IS_NOT_X = {
    "sample_unipc",
    "sample_unipc_bh2",
    "sample_sa_solver",
    "sample_sa_solver_pece",
    "dpm_fast_function",
    "dpm_adaptive_function",
}


def check_steps_visible(sampler_name: str, purpose: str) -> None:
    """ValueError for samplers whose state cannot be set from outside between steps.

    purpose: what wants to set it, such as "a local blend".
    """
    if sampler_name in _STATE_IS_NOT_X or steps_along_uncond(sampler_name):
        name = sampler_name.removeprefix("sample_").removesuffix("_function")
        raise ValueError(
            f"{purpose.capitalize()} cannot keep the source under the sampler "
            f"{name.replace('unipc', 'uni_pc')}, whose steps do not start from the picture that "
            "was set. Use euler, ddim, heun or dpmpp_2m."
        )


def steps_along_uncond(sampler_name: str) -> bool:
    """Whether it is a sampler of CFG++ (arXiv:2406.08070), by the host's names."""
    return sampler_name.endswith("_cfg_pp")


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
    if not (takes_noise_sampler(function) or function.__module__.startswith("comfy.")):
        logging.warning(
            "The sampler %s takes no noise_sampler: if it is stochastic, source and edit get "
            "different noise. Prefer a sampler of the host.",
            function.__name__,
        )


def check_deterministic(sampler: KSAMPLER) -> None:
    """ValueError for a sampler that adds noise, which would lead away from an inversion."""
    function = sampler.sampler_function
    noisy = takes_noise_sampler(function) and function.__name__ not in _NOISE_TIMES_ZERO
    if noisy and sampler.extra_options.get("eta") != 0:
        raise ValueError(
            f"The sampler {function.__name__.removeprefix('sample_')} adds noise at every step, "
            "but an inversion leads back to its picture without new noise. Use a deterministic "
            "sampler: euler, ddim, heun, dpmpp_2m or res_multistep."
        )


def check_row_wise(sampler_name: str) -> None:
    """ValueError for samplers that choose their steps from the whole batch."""
    if sampler_name == "dpm_adaptive_function":
        raise ValueError(
            "The sampler dpm_adaptive chooses its steps from source and edit together, so the "
            "source would not be the picture that it is alone. Use dpmpp_2m, euler or heun."
        )


def takes_noise_sampler(function: Callable) -> bool:
    """Whether the noise of a sampler function can be given to it."""
    parameters = inspect.signature(function).parameters
    return "noise_sampler" in parameters or function.__name__ == "dpm_adaptive_function"
