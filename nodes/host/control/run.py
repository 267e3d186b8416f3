"""One sampling run under attention control, from its wiring to its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....p2p_core.schedule import step_index
from ..batch import BatchRows, ModelInputs, RowLabels, may_leave_out, model_inputs
from ..families.unet import Layer
from ..inversion.path import Pinning
from ..runs import CONTROL, Sampling, entries, has_run, with_run
from ..sampler.abilities import (
    check_deterministic,
    check_row_wise,
    check_sampler,
    check_steps_visible,
)
from ..sampler.shared_noise import with_shared_noise
from ..sampler.steps import OnStep, with_steps
from .batch_wide import by_member, check_batch_wide
from .blending import Blending
from .calls import Calls
from .checks import check_conditionings, check_noise
from .maps import MapCollector
from .plan import ControlPlan
from .unet import UNetControl, missed_layers


def with_control(model: Any, plan: ControlPlan, kind: type[ControlRun]) -> Any:
    """A clone of the model that carries out the plan whenever it is sampled, by a run of this kind.

    Raises ValueError if the model is under control already.
    """
    if has_run(model, CONTROL):
        raise ValueError(
            "This model already comes from an AttentionController. Give every controller the "
            "unpatched model; to make several edits of one picture wire them to edit, edit_2, …"
        )
    return with_run(model, CONTROL, plan.tag, partial(_begin, plan, kind))


def _begin(plan: ControlPlan, kind: type[ControlRun], sampling: Sampling) -> ControlRun:
    found = check_conditionings(sampling.guider.conds, plan)
    check_noise(sampling.noise, plan.group)
    check_batch_wide(sampling.guider)
    by_member(sampling.guider.model_options, plan.group)
    return kind(plan, sampling, found)


class ControlRun:
    """All state of one sampling run, see ``runs.Run``. found: our conditionings and their names."""

    def __init__(
        self, plan: ControlPlan, sampling: Sampling, found: Sequence[tuple[str, dict]]
    ) -> None:
        noise, sigmas = sampling.noise, sampling.sigmas
        self.plan, self.sigmas, self.steps = plan, sigmas, len(sigmas) - 1
        self.size = (noise.shape[-2], noise.shape[-1])
        self.labels = RowLabels(sampling)
        self.calls = Calls(plan.edits, max(self.steps, 1), plan.lengths[0])
        self.limit = plan.self_attention_limit(self.size)
        self.pinning = _pinning(plan, sampling)
        self.clean = self.pinning.clean(noise) if self.pinning is not None else None
        self.maps, self.blending = self._maps_and_blending(len(noise))
        self.ours: Set[int] = frozenset()
        self.names = {name for name, _ in found}
        self.marked = [entry for _, entry in found]
        self.reached: set[Layer] = set()
        self.evaluated = self.acted = False

    def _maps_and_blending(self, rows: int) -> tuple[MapCollector | None, Blending | None]:
        plan = self.plan
        store = plan.map_store(rows, self.size, max(self.steps, 1))
        if store is None:
            return None, None
        maps = MapCollector(store, plan.family.map_layers(self.size), rows, plan.columns)
        if not plan.blends:
            return maps, None
        blending = Blending(plan.edits, store, self.steps)
        blending.check_regions(rows // plan.group)
        return maps, blending

    def wrappers(self) -> Mapping[str, Callable]:
        return {
            WrappersMP.SAMPLER_SAMPLE: self._sampler_sample,
            WrappersMP.APPLY_MODEL: self.apply_model,
        }

    def close(self) -> None:
        """The guider's options are a copy made for this run: nothing stays."""

    def controlled(self, sampler: Any) -> Any:
        """A copy of the sampler with shared noise and, if asked for, pinned rows and blends."""
        check_sampler(sampler)
        name = sampler.sampler_function.__name__
        if self.pinning is not None:
            check_deterministic(sampler)
        acting = [part.on_step for part in (self.pinning, self.blending) if part is not None]
        if acting:
            check_steps_visible(name, "a local blend" if self.pinning is None else "an inversion")
            on_call = self.pinning.on_call if self.pinning is not None else None
            shown = self.pinning.shown if self.pinning is not None else None
            sampler = with_steps(sampler, partial(_in_turn, acting), on_call, shown)
        if self.plan.edits:
            check_row_wise(name)
        return with_shared_noise(sampler, self.plan.group)

    def _sampler_sample(self, executor: Callable, guider: Any, *args: Any) -> Tensor:
        """SAMPLER_SAMPLE wrapper: the host has prepared the conditionings, label their rows.

        For a positive with an area the host gives the negative an entry of the same area that keeps
        our mark but holds the negative prompt: it is not ours.
        """
        conds = guider.conds
        self.ours = frozenset(
            number
            for number, (name, entry) in enumerate(entries(conds))
            if name in self.names and entry.get(CONTROL.mark) == self.plan.tag
        )
        self.label(conds)
        return executor(guider, *args)

    def label(self, conds: Mapping[str, list[dict]]) -> None:
        """Give the rows of all conditionings their labels."""
        lengths = self.plan.lengths * (self.labels.rows // self.plan.group)
        self.labels.label(conds, dict.fromkeys(self.ours, lengths))

    def apply_model(self, executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The APPLY_MODEL wrapper: edits our rows of this call, and leaves out those of no use."""
        inputs = model_inputs(*args, **kwargs)
        rows = self.labels.read(inputs)
        if rows is None:
            return inputs.evaluate(executor)
        self.evaluated |= bool(len(rows.of(self.ours)))
        if not self._may_leave_out(inputs):
            return self._evaluate(executor, inputs, rows)
        assert self.clean is not None
        latent_rows = rows.labels[:, 1]
        out = self.clean.to(inputs.x)[(latent_rows // self.plan.group).to(inputs.x.device)]
        looked_at = self.ours if self._source_is_looked_at(inputs) else ()
        needed = rows.of(looked_at, or_where=latent_rows % self.plan.group != 0)
        if len(needed):
            part = inputs.only(needed)
            out[needed.to(out.device)] = self._evaluate(executor, part, rows[needed])
        return out

    def _may_leave_out(self, inputs: ModelInputs) -> bool:
        """Whether source rows need no evaluation for themselves: where they end is known."""
        whole = inputs.x.shape[-2:] == self.size
        return self.clean is not None and whole and may_leave_out(inputs)

    def _source_is_looked_at(self, inputs: ModelInputs) -> bool:
        """Whether edits or maps need the source's attention in this call."""
        return self.maps is not None or self.calls.couples(self._step(inputs))

    def _step(self, inputs: ModelInputs) -> int:
        """The step of the run that a model call belongs to."""
        return step_index(float(inputs.options["sigmas"].max()), self.sigmas)

    def _evaluate(self, executor: Callable, inputs: ModelInputs, rows: BatchRows) -> Tensor:
        text = inputs.c_crossattn
        if text is None or not len(rows.of(self.ours)):
            return inputs.evaluate(executor)
        call = self.calls.call(self._step(inputs), rows, self.ours, inputs.x.device)
        shortened = inputs._replace(c_crossattn=text[:, : call.columns])
        maps = self.map_collector(inputs)
        if call.idle and maps is None:
            return shortened.evaluate(executor)
        patches = UNetControl(call, self.plan.family.layers, self.limit, maps)
        patches.install(inputs.options)
        self.acted = True
        out = shortened.evaluate(executor)
        patches.check()
        self.reached |= patches.reached
        return out

    def map_collector(self, inputs: ModelInputs) -> MapCollector | None:
        """Who collects maps: nobody once only a part of the picture was evaluated."""
        if self.maps is None or inputs.x.shape[-2:] == self.size:
            return self.maps
        if self.blending is not None:
            limited = any("area" in entry for entry in self.marked)
            cause = (
                "the controller's positive was limited to an area. Remove the area or the blend."
                if limited
                else "another node evaluates it in tiles. Remove that node or the blend."
            )
            raise ValueError(
                f"A local blend needs a prompt that covers the whole picture, but {cause}"
            )
        self.maps = None  # a record of parts of the picture would mislead
        return None

    def finish(self, samples: Tensor) -> Tensor:
        """See that the edit arrived, and leave the record; returns the run's result."""
        if self.steps < 1:
            return samples
        self._check_evaluated()
        self._check_reached()
        if self.pinning is not None:
            samples = self.pinning.exact(samples)
        if self.plan.record is not None and self.maps is not None:
            masks = self.blending.masks if self.blending is not None else {}
            self.plan.record.keep(samples, self.maps.store, masks)
        return samples

    def _check_evaluated(self) -> None:
        """ValueError if our prompts were in no model call: nothing else would tell."""
        if not self.evaluated:
            raise ValueError(
                "The edited prompt was never evaluated in this run, so nothing was edited. Remove "
                "what limits the controller's positive to other steps, or sample those steps."
            )

    def _check_reached(self) -> None:
        """ValueError if the edit did not act where it should."""
        layers = self.plan.family.layers
        missed = [layer for layer in layers if layer not in self.reached]
        if missed and self.acted and self.calls.ever_edits():
            raise missed_layers(missed, len(layers), "cross-attention")


def _in_turn(acting: Sequence[OnStep], step: int, x: Tensor) -> None:
    for act in acting:
        act(step, x)


def _pinning(plan: ControlPlan, sampling: Sampling) -> Pinning | None:
    """What keeps the source rows on the plan's inversion, if it has one."""
    if plan.inversion is None or len(sampling.sigmas) < 2:
        return None
    if sampling.denoise_mask is not None:
        raise ValueError(
            "An inversion cannot be sampled through a noise mask. Remove the mask from the latent, "
            "and give it to P2P Local Blend Mask to confine the edit."
        )
    model = sampling.guider.model_patcher.model
    return Pinning(plan.inversion, model, sampling.sigmas, sampling.noise, plan.group)
