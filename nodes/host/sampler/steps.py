"""A sampler's own latent, seen at the first model call of every step.

A sampler hands its state x to the model; what a node could reach behind that is often a copy. So
the sampler function is given a stand-in for the model that sees x itself and forwards everything.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from comfy.samplers import KSAMPLER
from torch import Tensor

OnStep = Callable[[int, Tensor], None]
OnCall = Callable[[float, Tensor], None]

_ONE_CALL_A_STEP = {
    "sample_euler",
    "sample_euler_ancestral",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2m_sde_gpu",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_3m_sde_gpu",
    "sample_ddpm",
    "sample_lcm",
    "sample_res_multistep",
    "sample_res_multistep_ancestral",
}
_SECOND_STAGE_AT_NEXT_LEVEL = {
    "sample_heun",
    "sample_heunpp2",
    "sample_exp_heun_2_x0",
    "sample_exp_heun_2_x0_sde",
}


class StepProxy:
    """Forwards to the model, and calls ``on_step(i, x)`` before the first call of step i.

    Before every further call of a step it calls ``on_call(sigma, x)``, if it is given.

    A call is a step's first one when the noise level is the step's own, except that Heun-type
    samplers visit that level once more, for the second stage of the step before. Where a sampler
    makes one call a step that needs no look at the level, for which a GPU would have to be waited.
    """

    def __init__(
        self,
        model: Any,
        sigmas: Sequence[float],
        sampler_name: str,
        options: dict,
        on_step: OnStep,
        on_call: OnCall | None = None,
    ) -> None:
        self._model = model
        self._sigmas = sigmas
        self._on_step = on_step
        self._on_call = on_call
        self._step = self._visits = 0
        seeds_2 = sampler_name == "sample_seeds_2" and options.get("r", 0.5) == 1
        self._one_call = sampler_name in _ONE_CALL_A_STEP
        self._extra_visits = int(seeds_2 or sampler_name in _SECOND_STAGE_AT_NEXT_LEVEL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        if self._one_call:
            self._on_step(self._step, x)
            return self._model(x, sigma, **kwargs)
        at = float(sigma.max())
        if self._begins_step(at):
            self._on_step(self._step, x)
        elif self._on_call is not None:
            self._on_call(at, x)
        return self._model(x, sigma, **kwargs)

    def _begins_step(self, sigma: float) -> bool:
        level = self._sigmas[min(self._step, len(self._sigmas) - 1)]
        if abs(sigma - level) > 1e-5 * level:
            return False
        self._visits += 1
        return self._visits == 1 + (self._extra_visits if self._step else 0)

    def step_evaluated(self, step: int) -> None:
        """To be called with every callback of the sampler, which follows a step's first call."""
        self._step, self._visits = step + 1, 0


def with_steps(
    sampler: KSAMPLER,
    on_step: OnStep,
    on_call: OnCall | None = None,
    shown: Callable[[Tensor], Tensor] | None = None,
) -> KSAMPLER:
    """A copy of the sampler that calls ``on_step(i, x)`` at the start of step i, and at the end.

    on_call(sigma, x) is called before the further model calls of a step. x is the sampler's own
    latent and may be changed in place. At the end i is the number of steps and x the result. shown
    gives the denoised prediction as previews should show it.
    """
    function = sampler.sampler_function

    @functools.wraps(function)
    def sample(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: dict,
        callback: Callable | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        proxy = StepProxy(model, sigmas.tolist(), function.__name__, options, on_step, on_call)

        def evaluated(info: dict) -> None:
            proxy.step_evaluated(info["i"])
            if callback is not None:
                callback({**info, "denoised": shown(info["denoised"])} if shown else info)

        samples = function(proxy, x, sigmas, extra_args=extra_args, callback=evaluated, **options)
        on_step(len(sigmas) - 1, samples)
        return samples

    watched = copy.copy(sampler)
    watched.sampler_function = sample
    return watched
