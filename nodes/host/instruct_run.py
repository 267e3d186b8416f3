"""One sampling run of an InstructPix2Pix model, under both guidance scales.

The model carries a single OUTER_SAMPLE wrapper. For the run it adds a third conditioning to the
guider's two: the negative without the picture. The host prepares it like any other (areas,
ControlNets, hooks), and evaluates it in one batch with the others where memory allows. The three
predictions become an ordinary pair (cond, uncond) before anything else sees them, so guidance
itself stays the host's, and patches of it by other packs work as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import comfy.samplers
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...p2p_core.guidance import cfg_pair, cfg_pp_pair
from .instruct_wiring import KEY, InstructPlan, check_latent, not_reached, takes_part
from .steps import steps_along_uncond

EVALUATE = "sampler_calc_cond_batch_function"
PAIR_UP = "sampler_pre_cfg_function"


def with_instruct(model: Any, plan: InstructPlan) -> Any:
    """A clone of the model that samples under the plan; it replaces an earlier one."""
    patched = model.clone()
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _OuterSample(plan))
    return patched


def without_image(values: dict) -> dict:
    """A conditioning's values without the picture; the model then sees zeros in its place."""
    return {name: value for name, value in values.items() if name != "concat_latent_image"}


class _OuterSample:
    """The OUTER_SAMPLE wrapper: checks the wiring and guides the run."""

    def __init__(self, plan: InstructPlan) -> None:
        self.plan = plan

    def __call__(
        self,
        executor: Callable,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        guider = executor.class_obj
        check_latent(noise, self.plan)
        if takes_part(guider, self.plan):
            function = getattr(sampler, "sampler_function", None)
            along_uncond = steps_along_uncond(getattr(function, "__name__", ""))
            _Run(self.plan, guider, along_uncond).install()
        try:
            return executor(noise, latent_image, sampler, *args, **kwargs)
        finally:
            guider.conds.pop(KEY, None)


class _Run:
    """All state of one run; it hangs on the guider's own copy of the model options."""

    def __init__(self, plan: InstructPlan, guider: Any, along_uncond: bool) -> None:
        self.plan = plan
        self.guider = guider
        self.along_uncond = along_uncond
        self.previous: Callable | None = guider.model_options.get(EVALUATE)
        self.paired = False

    def install(self) -> None:
        """Add the third conditioning, and what evaluates it and makes it felt."""
        guider, options = self.guider, self.guider.model_options
        guider.conds[KEY] = [
            {**without_image(entry), "uuid": uuid4(), "prompt_type": "negative"}
            for entry in guider.conds["negative"]
        ]
        options[EVALUATE] = self.evaluate
        options[PAIR_UP] = [self.pair_up, *options.get(PAIR_UP, [])]
        add_wrapper_with_key(
            WrappersMP.PREDICT_NOISE, KEY, self.check_paired, options, is_model_options=True
        )

    def evaluate(self, args: dict) -> list[Tensor]:
        """Instead of the host's two evaluations: [e(I, T), e(I, ∅), e(∅, ∅)], denoised.

        At s_T = 1 the host leaves the negative out, but with s_I != 1 all three count.
        """
        cond, uncond = args["conds"]
        if uncond is None:
            uncond = self.guider.conds["negative"]
        third = self.guider.conds[KEY]
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
        WrappersMP.APPLY_MODEL, KEY, _third_as_uncond, options, is_model_options=True
    )
    conds_: Any = conds  # the host allows None, its annotation does not
    return comfy.samplers.calc_cond_batch(model, conds_, x, sigma, options)


def _third_as_uncond(
    executor: Callable,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict | None = None,
    **kwargs: Any,
) -> Tensor:
    """APPLY_MODEL wrapper: show other packs' patches the third chunk as a second uncond.

    They tell chunks by number, 0 (cond) or 1 (uncond), often as an index of a pair, where 2 is out
    of range. -1 picks the uncond too, while 1 still finds the chunk that is the negative's.
    """
    options = dict(transformer_options or {})
    numbers = options.get("cond_or_uncond", ())
    options["cond_or_uncond"] = [-1 if number == 2 else number for number in numbers]
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
