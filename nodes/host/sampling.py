"""One sampling run under control: check the wiring, hook in, and see that the hooks were reached.

The model carries a single OUTER_SAMPLE wrapper that holds the frozen plan. All state of a run is
made when sampling starts, put on the run's own copy of the model options, and gone with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import KSAMPLER
from torch import Tensor

from .attention import AttentionControl
from .blending import Blending
from .noise import check_deterministic, check_sampler, with_shared_noise
from .pinning import Pinning
from .plan import ControlPlan
from .steps import OnStep, check_steps_visible, with_steps

KEY = "p2p"
TAG = "p2p_control"

Chunk = tuple[str, UUID]


def with_control(model: Any, plan: ControlPlan) -> Any:
    """A clone of the model that carries out the plan whenever it is sampled.

    Raises ValueError if the model is under control already.
    """
    if model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        raise ValueError(
            "This model already comes from an AttentionController. Give every controller the "
            "unpatched model; to make several edits of one picture wire them to edit, edit_2, …"
        )
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _OuterSample(plan))
    return patched


def tagged(conditioning: Sequence[list], tag: str) -> list[list]:
    """The conditioning, marked so that a run finds its chunks again."""
    return [[cross, {**values, TAG: tag}] for cross, values in conditioning]


class _OuterSample:
    """The OUTER_SAMPLE wrapper: makes a run's state, checks the wiring, verifies the effect."""

    def __init__(self, plan: ControlPlan) -> None:
        self.plan = plan

    def __call__(
        self,
        executor: Callable,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        plan, guider = self.plan, executor.class_obj
        chunks = _tagged_chunks(guider.conds, plan)
        _check_rows(noise, plan.group)
        pinning = _pinning(plan, guider, noise, sigmas.tolist(), args, kwargs)
        run = _Run(plan, noise, sigmas.tolist(), frozenset(uuid for _, uuid in chunks), pinning)
        self._hook(guider, WrappersMP.APPLY_MODEL, run.attention.apply_model)
        self._hook(guider, WrappersMP.SAMPLER_SAMPLE, partial(_separate_copies, chunks))
        samples = executor(noise, latent_image, run.controlled(sampler), sigmas, *args, **kwargs)
        return run.finish(samples)

    @staticmethod
    def _hook(guider: Any, kind: str, wrapper: Callable) -> None:
        """Wrap something for this run only: the guider's options are a copy made for it."""
        add_wrapper_with_key(kind, KEY, wrapper, guider.model_options, is_model_options=True)


class _Run:
    """All state of one sampling run."""

    def __init__(
        self,
        plan: ControlPlan,
        noise: Tensor,
        sigmas: list[float],
        chunks: Set[UUID],
        pinning: Pinning | None,
    ) -> None:
        self.plan = plan
        self.steps = len(sigmas) - 1
        size = (noise.shape[-2], noise.shape[-1])
        self.store = plan.map_store(len(noise), size, max(self.steps, 1))
        self.pinning = pinning
        clean = pinning.clean(noise) if pinning is not None else None
        self.attention = AttentionControl(plan, sigmas, size, chunks, self.store, clean)
        self.blending: Blending | None = None
        if self.store is not None and plan.blends:
            self.blending = Blending(plan.edits, self.store, self.steps)
            self.blending.check_regions(len(noise) // plan.group)

    def controlled(self, sampler: Any) -> KSAMPLER:
        """A copy of the sampler with shared noise and, if asked for, pinned rows and blends."""
        check_sampler(sampler)
        if self.pinning is not None:
            check_deterministic(sampler)
        acting = [part.on_step for part in (self.pinning, self.blending) if part is not None]
        if acting:
            purpose = "a local blend" if self.pinning is None else "an inversion"
            check_steps_visible(sampler.sampler_function.__name__, purpose)
            on_call = self.pinning.on_call if self.pinning is not None else None
            sampler = with_steps(sampler, partial(_in_turn, acting), on_call)
        return with_shared_noise(sampler, self.plan.group)

    def finish(self, samples: Tensor) -> Tensor:
        """See that the edit arrived, and leave the record; returns the run's result."""
        if self.steps < 1:
            return samples
        self.attention.check_reached()
        if self.pinning is not None:
            samples = self.pinning.exact(samples)
        if self.plan.record is not None and self.attention.maps is not None:
            masks = self.blending.masks if self.blending is not None else {}
            self.plan.record.keep(samples, self.attention.maps, masks)
        return samples


def _in_turn(acting: Sequence[OnStep], step: int, x: Tensor) -> None:
    for act in acting:
        act(step, x)


def _pinning(
    plan: ControlPlan, guider: Any, noise: Tensor, sigmas: list[float], args: tuple, kwargs: dict
) -> Pinning | None:
    """What keeps the source rows on the plan's inversion, if it has one."""
    if plan.inversion is None or len(sigmas) < 2:
        return None
    denoise_mask = args[0] if args else kwargs.get("denoise_mask")
    if denoise_mask is not None:
        raise ValueError(
            "An inversion cannot be sampled through a noise mask. Remove the mask from the latent, "
            "and give it to P2P Local Blend Mask to confine the edit."
        )
    return Pinning(plan.inversion, guider.model_patcher.model, sigmas, len(noise), plan.group)


def _tagged_chunks(conds: dict[str, list[dict]], plan: ControlPlan) -> set[Chunk]:
    """Where our conditioning stands in the guider: (its name there, the chunk's uuid).

    Raises ValueError when it is missing, was changed, or stands in the negative.
    """
    found = {
        (name, entry["uuid"])
        for name, entries in conds.items()
        for entry in entries
        if entry.get(TAG) == plan.tag
    }
    if not found:
        raise ValueError(
            "The sampler's positive does not come from the AttentionController that made its "
            "model. Wire the controller's positive output to the sampler, beside its model and "
            "latent outputs."
        )
    if any(name == "negative" for name, _ in found):
        raise ValueError(
            "The AttentionController's positive is wired to the sampler's negative. Wire it to "
            "positive, and an ordinary CLIPTextEncode to negative."
        )
    for entry in (entry for entries in conds.values() for entry in entries):
        if entry.get(TAG) == plan.tag:
            _check_shape(entry["cross_attn"], plan)
    return found


def _check_shape(cross_attn: Tensor, plan: ControlPlan) -> None:
    expected, got = (plan.group, plan.tokens), tuple(cross_attn.shape[:2])
    if got != expected:
        raise ValueError(
            f"The AttentionController's positive was changed on its way to the sampler: it should "
            f"hold {expected[0]} prompts of {expected[1]} tokens, but holds {got[0]} of {got[1]}. "
            "Do not average or concatenate it with others; change the prompts of the edit instead."
        )


def _check_rows(noise: Tensor, group: int) -> None:
    rows = noise.shape[0]
    if rows % group:
        raise ValueError(
            f"The sampler got a latent batch of {rows}, but the edit needs {group} rows for every "
            "picture (the source and its edits). Wire the AttentionController's latent output to "
            "the sampler."
        )
    source = noise[::group].repeat_interleave(group, dim=0)
    if not torch.equal(source, noise):
        raise ValueError(
            "Source and edit would start from different noise. Wire the AttentionController's "
            "latent output (it carries the batch_index) to the sampler and to its noise."
        )


def _separate_copies(chunks: set[Chunk], executor: Callable, guider: Any, *args: Any) -> Tensor:
    """SAMPLER_SAMPLE wrapper: rename the chunks that the host copied from ours.

    For a positive with an area, the host gives the negative an entry of the same area that keeps
    our tag and uuid but holds the negative prompt: it must not be edited.
    """
    for name, entries in guider.conds.items():
        for entry in entries:
            if TAG in entry and (name, entry["uuid"]) not in chunks:
                entry["uuid"] = uuid4()
    return executor(guider, *args)
