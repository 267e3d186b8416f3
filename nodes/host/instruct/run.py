"""One sampling run of an InstructPix2Pix model, under both guidance scales.

The model carries a single OUTER_SAMPLE wrapper. For the run it adds a third conditioning to the
guider's two: the negative without the picture. The host prepares it like any other (areas,
ControlNets, hooks), and evaluates it in one batch with the others where memory allows. The three
predictions become an ordinary pair (cond, uncond) before anything else sees them, so guidance
itself stays the host's, and patches of it by other packs work as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import comfy.samplers
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ....p2p_core.guidance import cfg_pair, cfg_pp_pair
from ..batch import model_inputs
from ..runs import INSTRUCT, Sampling, with_run
from ..sampler.abilities import steps_along_uncond
from .wiring import InstructPlan, check_latent, not_reached, takes_part

EVALUATE = "sampler_calc_cond_batch_function"
PAIR_UP = "sampler_pre_cfg_function"
THIRD = "p2p_instruct"  # a name among the guider's conditionings


def with_instruct(model: Any, plan: InstructPlan) -> Any:
    """A clone of the model that samples under the plan; it replaces an earlier one."""
    return with_run(model, INSTRUCT, plan.tag, partial(_begin, plan))


def _begin(plan: InstructPlan, sampling: Sampling) -> InstructRun | None:
    check_latent(sampling.noise, plan)
    return InstructRun(plan, sampling) if takes_part(sampling.guider, plan) else None


def without_image(values: dict) -> dict:
    """A conditioning's values without the picture; the model then sees zeros in its place."""
    return {name: value for name, value in values.items() if name != "concat_latent_image"}


class InstructRun:
    """All state of one run, see ``runs.Run``; it adds a third conditioning to the guider's two."""

    def __init__(self, plan: InstructPlan, sampling: Sampling) -> None:
        self.plan, self.guider = plan, sampling.guider
        function = getattr(sampling.sampler, "sampler_function", None)
        self.along_uncond = steps_along_uncond(getattr(function, "__name__", ""))
        self.previous: Callable | None = self.guider.model_options.get(EVALUATE)
        self.paired = False

    def wrappers(self) -> Mapping[str, Callable]:
        """Also adds the conditioning, and what evaluates it and makes it felt."""
        guider, options = self.guider, self.guider.model_options
        guider.conds[THIRD] = [
            {**without_image(entry), "uuid": uuid4(), "prompt_type": "negative"}
            for entry in guider.conds["negative"]
        ]
        options[EVALUATE] = self.evaluate
        options[PAIR_UP] = [self.pair_up, *options.get(PAIR_UP, [])]
        return {WrappersMP.PREDICT_NOISE: self.check_paired}

    def controlled(self, sampler: Any) -> Any:
        return sampler

    def close(self) -> None:
        """Take the third conditioning out again."""
        self.guider.conds.pop(THIRD, None)

    def finish(self, samples: Tensor) -> Tensor:
        return samples

    def evaluate(self, args: dict) -> list[Tensor]:
        """Instead of the host's two evaluations: [e(I, T), e(I, ∅), e(∅, ∅)], denoised.

        At s_T = 1 the host leaves the negative out, but with s_I != 1 all three count.
        """
        cond, uncond = args["conds"]
        if uncond is None:
            uncond = self.guider.conds["negative"]
        third = self.guider.conds[THIRD]
        inputs = args["model"], args["input"], args["sigma"], args["model_options"]
        if self.previous is None:
            return _evaluated([cond, uncond, third], *inputs)
        pair = self.previous({**args, "conds": [cond, uncond]})
        return [*pair[:2], _evaluated([None, None, third], *inputs)[2]]

    def pair_up(self, args: dict) -> list[Tensor]:
        """The first pre-CFG function: three predictions become what ordinary guidance needs."""
        predictions = args["conds_out"]
        if len(predictions) != 3:
            raise not_reached(self.guider)
        text, image, uncond = predictions
        self.paired = True
        text_cfg = args["cond_scale"]
        pair = cfg_pp_pair if self.along_uncond and text_cfg != 0.0 else cfg_pair
        return list(pair(uncond, image, text, self.plan.image_cfg, text_cfg))

    def check_paired(self, executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """PREDICT_NOISE wrapper: without effect, image_cfg would be ignored without a word."""
        denoised = executor(*args, **kwargs)
        if not self.paired:
            raise not_reached(self.guider)
        return denoised


def _evaluated(
    conds: list[list[dict] | None], model: Any, x: Tensor, sigma: Tensor, options: dict
) -> list[Tensor]:
    options = create_model_options_clone(options)
    add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, INSTRUCT.key, _third_as_uncond, options, is_model_options=True
    )
    conds_: Any = conds  # the host allows None, its annotation does not
    return comfy.samplers.calc_cond_batch(model, conds_, x, sigma, options)


def _third_as_uncond(executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
    """APPLY_MODEL wrapper: show other packs' patches the third chunk as a second uncond.

    They tell chunks by number, 0 (cond) or 1 (uncond), often as an index of a pair, where 2 is out
    of range. -1 picks the uncond too, while 1 still finds the chunk that is the negative's.
    """
    inputs = model_inputs(*args, **kwargs)
    numbers = inputs.options.get("cond_or_uncond", ())
    inputs.options["cond_or_uncond"] = [-1 if number == 2 else number for number in numbers]
    return inputs.evaluate(executor)
