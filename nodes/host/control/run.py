"""One sampling run under attention control, from its wiring to its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....p2p_core.kept import KeptCall, taken
from ....p2p_core.schedule import step_index
from ..batch import BatchRows, ModelInputs, RowLabels, may_leave_out, model_inputs
from ..families.unet import Layer, UNetFamily
from ..inversion.path import Pinning
from ..kept.identity import identity
from ..kept.keeping import Keeping, Recorder
from ..kept.sizes import call_sizes_of, unet_windows
from ..runs import CONTROL, Sampling, entries, has_run, with_run
from ..sampler.abilities import (
    check_deterministic,
    check_row_wise,
    check_sampler,
    check_steps_visible,
)
from ..sampler.shared_noise import with_shared_noise
from ..sampler.steps import with_steps
from .batch_wide import by_member, check_batch_wide
from .blending import Blending
from .calls import Calls
from .checks import check_conditionings, check_noise
from .control_nets import hints_by_picture
from .maps import MapCollector
from .modes import source_window
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
    check_batch_wide(sampling.guider, kind.caches)
    run = kind(plan, sampling, found)
    by_member(sampling.guider.model_options, plan.group)
    return run


class ControlRun:
    """All state of one sampling run, see ``runs.Run``. found: our conditionings and their names.

    caches: whether a cache may leave calls out; it decides so for source and edits together.
    """

    caches = False

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
        self.keeping = _keeping(plan, sampling, found, self.limit)
        self.clean = _clean(self.pinning, self.keeping, noise)
        self.maps, self.blending = self._maps_and_blending(len(noise))
        self.ours: Set[int] = frozenset()
        self.names = {name for name, _ in found}
        self.marked = [entry for _, entry in found]
        self.reached: set[Layer] = set()
        self.evaluated = self.acted = False
        self.step = 0

    def _maps_and_blending(self, rows: int) -> tuple[MapCollector | None, Blending | None]:
        plan = self.plan
        keeps = self.keeping is not None and self.keeping.followed is None
        if not plan.reads_maps and not keeps:
            return None, None
        store = plan.map_store(rows, self.size, max(self.steps, 1))
        layers = plan.family.map_layers(self.size)
        maps = MapCollector(store, layers, rows, plan.columns)
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
        if self.pinning is not None or self.blending is not None:
            check_steps_visible(name, "a local blend" if self.pinning is None else "an inversion")
        path = self.pinning if self.pinning is not None else self.keeping
        shown = path.shown if path is not None else None
        sampler = with_steps(sampler, self._on_step, self._on_call, shown)
        if self.plan.edits:
            check_row_wise(name)
        return with_shared_noise(sampler, self.plan.group)

    def _on_step(self, step: int, x: Tensor) -> None:
        """Before a step's first model call, and at the end. x: the sampler's own latent."""
        self.step = step
        if self.pinning is not None:
            self.pinning.on_step(step, x)
        if self.keeping is not None:
            (self.keeping.on_call if step < self.steps else self.keeping.on_end)(x)
        if self.blending is not None:
            self.blending.on_step(step, x)

    def _on_call(self, sigma: float, x: Tensor) -> None:
        """Before the step's further calls."""
        self.step = step_index(sigma, self.sigmas)
        if self.pinning is not None:
            self.pinning.on_call(sigma, x)
        if self.keeping is not None:
            self.keeping.on_call(x)

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
        with hints_by_picture(conds, self.plan.group):
            return executor(guider, *args)

    def label(self, conds: Mapping[str, list[dict]]) -> None:
        """Give the rows of all conditionings their labels."""
        lengths = self.plan.lengths * (self.labels.rows // self.plan.group)
        self.labels.label(conds, dict.fromkeys(self.ours, lengths))

    def apply_model(self, executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """The APPLY_MODEL wrapper: edits our rows of this call, and leaves out those of no use."""
        inputs = model_inputs(*args, **kwargs)
        rows = self.labels.read(inputs)
        if rows is None or not inputs.x.numel():  # an area that lies beside the picture
            return inputs.evaluate(executor)
        self.evaluated |= bool(len(rows.of(self.ours)))
        # Others' patches may count rows, or see only a part of the picture.
        alone = inputs.x.shape[-2:] == self.size and may_leave_out(inputs)
        if self.clean is None or not alone:
            return self._evaluate(executor, inputs, rows, alone)
        latent_rows = rows.labels[:, 1]
        clean = taken(self.clean, inputs.x.device).to(inputs.x.dtype)
        out = clean[(latent_rows // self.plan.group).to(inputs.x.device)]
        looked_at = self.looked_at()
        kept = self._kept(looked_at)
        sources = self.ours if kept is None and looked_at else ()
        needed = rows.of(sources, or_where=latent_rows % self.plan.group != 0)
        if len(needed):
            part = inputs.only(needed)
            found = self._evaluate(executor, part, rows[needed], alone, kept)
            out[needed.to(out.device)] = found
        return out

    def looked_at(self) -> Set[str]:
        """What edits and maps need of the source's attention at this step: KeptCall's fields."""
        cross, tokens = self.calls.wants(self.step)
        wanted = {"cross": cross, "tokens": tokens, "maps": self.maps is not None}
        return {name for name, needed in wanted.items() if needed}

    def _kept(self, looked_at: Set[str]) -> KeptCall | None:
        """The sources of this model call, if what is looked at was kept of them."""
        if self.keeping is None or len(self.ours) != 1:
            return None
        return self.keeping.instead(looked_at)

    def recorder(self, alone: bool) -> Recorder | None:
        """Who keeps this model call's attention, if anyone."""
        if self.keeping is None:
            return None
        return self.keeping.recorder(self.step, alone and len(self.ours) == 1)

    def _evaluate(
        self, executor: Callable, inputs: ModelInputs, rows: BatchRows, alone: bool,
        kept: KeptCall | None = None,
    ) -> Tensor:  # fmt: skip
        """A model call with its edits. alone: whether nobody else looks at its rows."""
        text = inputs.c_crossattn
        if text is None or not len(rows.of(self.ours)):
            return inputs.evaluate(executor)
        group, device = self.plan.group, inputs.x.device
        call = self.calls.call(self.step, rows, self.ours, device, kept is not None)
        shortened = inputs._replace(c_crossattn=text[:, : call.columns])
        maps = self.map_collector(inputs)
        if call.idle and maps is None:
            return shortened.evaluate(executor)
        recorder = self.recorder(alone)
        layers = self.plan.family.layers
        patches = UNetControl(call, layers, self.limit, maps, kept, recorder)
        patches.install(inputs.options)
        self.acted = True
        out = shortened.evaluate(executor)
        patches.check()
        self.reached |= patches.reached.keys()
        found = maps.finish(call) if maps is not None else None
        if found is not None and recorder is not None:
            sources = [i for i, row in enumerate(call.latent_rows) if row % group == 0]
            recorder.maps(found[sources][..., : call.source_columns])
        if maps is not None and kept is not None and kept.maps is not None:
            maps.add_kept(call, taken(kept.maps, device), group)
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
        if self.keeping is not None:
            self.keeping.finish()
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
                "what limits the controller's positive to other steps, or sample those steps; an "
                "area must lie inside the picture."
            )

    def _check_reached(self) -> None:
        """ValueError if the edit did not act where it should."""
        layers = self.plan.family.layers
        missed = [layer for layer in layers if layer not in self.reached]
        if missed and self.acted and self.calls.ever_edits():
            raise missed_layers(missed, len(layers), "cross-attention")


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


def _keeping(
    plan: ControlPlan, sampling: Sampling, found: Sequence[tuple[str, dict]], limit: int
) -> Keeping | None:
    """The run's part in the plan's kept source, if it has one."""
    if plan.kept is None or len(sampling.sigmas) < 2:
        return None
    check_sampler(sampling.sampler)
    ours = [entry for _, entry in found]
    columns = plan.text_shape[1] if plan.texts else plan.lengths[0]
    steps, pinned = len(sampling.sigmas) - 1, plan.inversion is not None
    if isinstance(plan.family, UNetFamily):
        windows = unet_windows(plan.kept)
        shape = sampling.noise[:: plan.group].shape
        model = sampling.guider.model_patcher
        sizes = call_sizes_of(model, plan.family, shape, limit, columns).attention
    else:
        window = source_window(plan.mode, plan.kept.cross_window, plan.kept.self_window, steps)
        windows, sizes = {"joint": window}, None  # known once the network's layout is
    values = identity(sampling, columns, plan.group, ours, limit, plan.inversion)
    if plan.kept.full:
        values["the blocks"] = plan.blocks
    return Keeping(plan.kept, values, windows, sizes, plan.group, steps, pinned)


def _clean(pinning: Pinning | None, keeping: Keeping | None, noise: Tensor) -> Tensor | None:
    """Where the sources end, (seeds, C, h, w) in the model's scale; None if not known yet."""
    if pinning is not None:
        return pinning.clean(noise)
    return keeping.final if keeping is not None else None
