"""One sampling run of a prompt with weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....p2p_core.attention import as_rows
from ....p2p_core.schedule import step_index
from ..batch import ModelInputs, RowLabels, model_inputs
from ..blocks import check_blocks
from ..families.inputs import Inputs
from ..families.layouts import layout_of
from ..families.unet import unet_family
from ..runs import WEIGHTS, Sampling, entries, marked_entries, with_run
from .joint import JointWeights, Spot
from .plan import WeightPlan
from .unet import UNetWeights


def with_weights(model: Any, plan: WeightPlan) -> Any:
    """A clone of the model that weighs the plan's words whenever it is sampled."""
    return with_run(model, WEIGHTS, plan.tag, partial(_begin, plan), beside_others=True)


def _begin(plan: WeightPlan, sampling: Sampling) -> WeightRun:
    found = marked_entries(sampling.guider.conds, WEIGHTS, plan.tag)
    names = {name for name, entry in found if _holds(plan, entry)}
    if not found:
        raise ValueError(
            "The sampler gets no prompt from the P2P Prompt Weights that made its model. Wire that "
            "node's positive output to the sampler, beside its model output."
        )
    if not names:
        raise ValueError(
            "The positive of P2P Prompt Weights was changed on its way to the sampler, so its "
            "words cannot be found in it. Combine or concatenate it with others, do not average it."
        )
    return WeightRun(plan, sampling, names)


def _holds(plan: WeightPlan, entry: dict) -> bool:
    """Whether a conditioning still begins with the plan's encoding."""
    text = entry.get("cross_attn")
    return text is not None and any(_begins_with(text[0], own) for own in plan.encodings)


def _begins_with(text: Tensor, encoding: Tensor) -> bool:
    part = text[: len(encoding)]
    return part.shape == encoding.shape and torch.equal(part.to(encoding), encoding)


class WeightRun:
    """All state of one sampling run, see ``runs.Run``. names: where our conditionings stand."""

    def __init__(self, plan: WeightPlan, sampling: Sampling, names: Set[str]) -> None:
        self.plan, self.names, self.sigmas = plan, names, sampling.sigmas
        self.steps = len(sampling.sigmas) - 1
        self.labels = RowLabels(sampling)
        self.ours: Mapping[int, Tensor] = {}
        self.layers: Sequence | None = None
        self.spots: dict[Hashable, Spot] = {}
        self.evaluated = False
        self.reached: set[int] = set()
        patcher = sampling.guider.model_patcher
        if isinstance(patcher.get_model_object("diffusion_model"), UNetModel):
            self.layers = list(unet_family(patcher).layers)
            check_blocks(plan.blocks, len(self.layers))

    def wrappers(self) -> Mapping[str, Callable]:
        return {
            WrappersMP.SAMPLER_SAMPLE: self._sampler_sample,
            WrappersMP.APPLY_MODEL: self.apply_model,
        }

    def controlled(self, sampler: Any) -> Any:
        return sampler

    def close(self) -> None:
        """The guider's options are a copy made for this run: nothing stays."""

    def _sampler_sample(self, executor: Callable, guider: Any, *args: Any) -> Tensor:
        """SAMPLER_SAMPLE wrapper: the host has prepared the conditionings, label their rows.

        Copies that the host or a node made of ours for the negative hold another text.
        """
        conds, tag = guider.conds, self.plan.tag
        self.ours = {
            number: entry["cross_attn"][0]
            for number, (name, entry) in enumerate(entries(conds))
            if name in self.names and entry.get(WEIGHTS.mark) == tag and _holds(self.plan, entry)
        }
        self.labels.label(conds)
        return executor(guider, *args)

    def apply_model(self, executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The APPLY_MODEL wrapper: weighs the words in our rows of this call."""
        inputs = model_inputs(*args, **kwargs)
        rows = self.labels.read(inputs)
        ours = torch.empty(0) if rows is None else rows.of(self.ours)
        text = inputs.c_crossattn
        nothing = not inputs.x.numel()  # an area that lies beside the picture
        if rows is None or text is None or not len(ours) or nothing:
            return inputs.evaluate(executor)
        self.evaluated = True
        step = step_index(float(inputs.options["sigmas"].max()), self.sigmas)
        if not self.plan.window.holds(step, self.steps):
            return inputs.evaluate(executor)
        patches = []
        for number in rows.labels[ours, 0].unique().tolist():
            patches.append(self._patches(executor.class_obj, inputs, rows.of([number]), number))
            patches[-1].install(inputs.options)
        out = inputs.evaluate(executor)
        for own in patches:
            own.check()
        self.reached = self.reached.union(*(own.reached for own in patches))
        return out

    def _patches(
        self, model: Any, inputs: ModelInputs, rows: Tensor, number: int
    ) -> UNetWeights | JointWeights:
        """What acts on the rows of one of our conditionings."""
        if self.layers is None:
            return self._joint(model, inputs, rows, self.ours[number])
        columns = len(self.ours[number])
        places = as_rows(rows.tolist(), inputs.x.device)
        count = len(inputs.x)
        return UNetWeights(self.plan, self.layers, places, count, columns, self.spots)

    def _joint(self, model: Any, inputs: ModelInputs, ours: Tensor, own: Tensor) -> JointWeights:
        """What acts in a transformer, from what a probe finds out about it."""
        text = inputs.c_crossattn
        assert text is not None
        given = Inputs(inputs.x, inputs.t, inputs.c_concat, text, inputs.more)
        layout = layout_of(model, given, inputs.options)
        check_blocks(self.plan.blocks, len(layout.reading))
        offset = 0 if self.plan.remade else _offset(own, text[int(ours[0])])
        size = (inputs.x.shape[-2], inputs.x.shape[-1])
        rows = as_rows(ours.tolist(), inputs.x.device)
        return JointWeights(self.plan, layout, rows, len(inputs.x), size, offset, self.spots)

    def finish(self, samples: Tensor) -> Tensor:
        """The run's result; ValueError if the weights did not act: nothing else would tell."""
        due = any(self.plan.window.holds(step, self.steps) for step in range(self.steps))
        if due and not self.evaluated:
            raise ValueError(
                "The prompt of P2P Prompt Weights was never evaluated in this run. Remove what "
                "limits it to other steps, or sample those steps; an area must lie inside the "
                "picture."
            )
        blocks = [] if self.layers is None else range(len(self.layers))
        missed = [number for number in blocks if self.plan.acts_in(number)]
        missed = [number for number in missed if number not in self.reached]
        if self.evaluated and due and (missed or not self.reached):
            raise ValueError(
                "The weights of P2P Prompt Weights did not reach the model's attention"
                f"{f' in blocks {missed}' if missed else ''}, so the picture is not what was asked "
                "for. Another node computes these blocks in its own way: remove it or bypass it."
            )
        return samples


def _offset(own: Tensor, text: Tensor) -> int:
    """Where a conditioning stands in the text that the network reads, (T, D): the host may pad it.

    Raises ValueError if it is not in it.
    """
    own = own.to(text)
    for offset in (0, len(text) - len(own)):
        if offset >= 0 and torch.equal(text[offset : offset + len(own)], own):
            return offset
    raise ValueError(
        "This model remakes the prompt's encoding before it reads it, so its words cannot be "
        "followed. Nothing was weighted; use weights that its text encoder reads, if it reads any."
    )
