"""What the techniques of this pack share when the host samples.

A technique puts two things into a graph: a clone of the model, which carries one OUTER_SAMPLE
wrapper, and conditionings with a mark. When the model is sampled, the wrapper makes the state of
the run, hooks it into the guider's own copy of the options, and takes everything back at the end.
Nothing is patched on the model itself.

A marked conditioning also brings a guard into the run, whatever the model. So it can say that it is
sampled by a model which is not its own, and would be an ordinary prompt there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from comfy.hooks import HookGroup, TransformerOptionsHook
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor


@dataclass(frozen=True)
class Technique:
    """One kind of run. key: of its wrappers. mark: on its conditionings. node: who makes both.

    output: which outputs of the node carry the mark.
    """

    key: str
    mark: str
    node: str
    output: str


CONTROL = Technique("p2p", "p2p_control", "AttentionController", "positive")
NULL_TEXT = Technique("p2p_null_text", "p2p_null_text", "P2P Null-Text Optimize", "negative")
INSTRUCT = Technique("p2p_instruct", "p2p_instruct", "IP2PConditioning", "positive")
WEIGHTS = Technique("p2p_weights", "p2p_weights", "P2P Prompt Weights", "positive")
OWN_KEYS = frozenset(technique.key for technique in (CONTROL, NULL_TEXT, INSTRUCT, WEIGHTS))

Conds = Mapping[str, list[dict]]


@dataclass(frozen=True, eq=False)
class Sampling:
    """What the host is about to sample.

    guider: the host's, whose conds and model_options are copies made for this run. noise:
    (B, C, …). sigmas: N + 1 levels. sampler: the host's. denoise_mask: where there is one.
    latent_image: what is sampled from, as LATENT, (B, C, …). seed: of the sampler's own noise.
    """

    guider: Any
    noise: Tensor
    sigmas: list[float]
    sampler: Any
    denoise_mask: Tensor | None
    latent_image: Tensor
    seed: int | None


class Run(Protocol):
    """All state of a technique in one run: made when sampling starts, gone when it ends."""

    def wrappers(self) -> Mapping[str, Callable]:
        """What hooks into the run, by the host's kinds of wrappers."""
        ...

    def controlled(self, sampler: Any) -> Any:
        """The sampler to run: the given one, or a copy that is watched or given noise."""
        ...

    def finish(self, samples: Tensor) -> Tensor:
        """The run's result; ValueError if what was promised did not happen."""
        ...

    def close(self) -> None:
        """Take back what the guider keeps, also after an error or a cancel."""
        ...


Begin = Callable[[Sampling], Run | None]


def with_run(
    model: Any, technique: Technique, tag: str, begin: Begin, beside_others: bool = False
) -> Any:
    """A clone of the model that calls ``begin`` whenever it is sampled; it replaces an earlier one.

    tag: of the conditionings that belong to it. begin: checks the wiring (ValueError) and makes the
    run's state, or None where there is nothing to do. beside_others: runs of the same technique
    stay, each with conditionings of its own.
    """
    patched = model.clone()
    if not beside_others:
        patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, technique.key)
    wrapper = _OuterSample(technique, tag, begin)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, technique.key, wrapper)
    return patched


def has_run(model: Any, technique: Technique) -> bool:
    """Whether the model comes from a node of this technique."""
    return bool(model.get_wrappers(WrappersMP.OUTER_SAMPLE, technique.key))


class _OuterSample:
    """The OUTER_SAMPLE wrapper, the host's interface."""

    def __init__(self, technique: Technique, tag: str, begin: Begin) -> None:
        self.technique, self.tag, self.begin = technique, tag, begin

    def __call__(
        self,
        executor: Callable,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        guider = executor.class_obj
        seed = args[2] if len(args) > 2 else kwargs.get("seed")
        levels = sigmas.tolist()
        sampling = Sampling(guider, noise, levels, sampler, denoise_mask, latent_image, seed)
        run = self.begin(sampling)
        if run is None:
            return executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)
        for kind, wrapper in run.wrappers().items():
            options = guider.model_options
            add_wrapper_with_key(kind, self.technique.key, wrapper, options, is_model_options=True)
        try:
            watched = run.controlled(sampler)
            samples = executor(noise, latent_image, watched, sigmas, denoise_mask, *args, **kwargs)
        finally:
            run.close()
        return run.finish(samples)


def marked(
    conditioning: Sequence[list],
    technique: Technique,
    tag: str,
    mark: Any = None,
    free: Callable[[Conds], bool] | None = None,
) -> list[list]:
    """The conditioning, marked so that a run finds it again, and guarded against other models.

    mark: what the technique wants to read there, the tag if None. free: tells by a guider's
    conditionings whether it does without the technique's model.
    """
    wrapper = partial(_guard, technique, tag, free)
    wrappers = {WrappersMP.OUTER_SAMPLE: {f"{technique.key}_guard": [wrapper]}}
    guard = _Guard({"wrappers": wrappers})
    mark = tag if mark is None else mark
    return [
        [cross, {**values, technique.mark: mark, "hooks": _with_guard(values.get("hooks"), guard)}]
        for cross, values in conditioning
    ]


def marked_entries(conds: Conds, technique: Technique, tag: str) -> list[tuple[str, dict]]:
    """The conditionings of a guider with our tag, and the name that each stands under."""
    return [(name, c) for name, c in entries(conds) if c.get(technique.mark) == tag]


def entries(conds: Conds) -> Iterator[tuple[str, dict]]:
    """All conditionings of a guider with their names, always in one order."""
    for name, listed in conds.items():
        for entry in listed:
            yield name, entry


def own_hooks(hooks: Any) -> Any:
    """A conditioning's hooks that other nodes put there; None if there are none."""
    others = [hook for hook in hooks.hooks if not isinstance(hook, _Guard)] if hooks else []
    return _group(others) if others else None


class _Guard(TransformerOptionsHook):
    """Brings an OUTER_SAMPLE wrapper into the run of every model."""


def _with_guard(hooks: HookGroup | None, guard: _Guard) -> HookGroup:
    others = [] if hooks is None else hooks.hooks
    return _group([*(hook.clone() for hook in others), guard])


def _group(hooks: Sequence[Any]) -> HookGroup:
    group = HookGroup()
    for hook in hooks:
        group.add(hook)
    return group


def _guard(
    technique: Technique,
    tag: str,
    free: Callable[[Conds], bool] | None,
    executor: Callable,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """OUTER_SAMPLE wrapper of a marked conditioning: is the model the one that it was made with?"""
    guider = executor.class_obj
    _take_out_guards(guider.conds)
    wrappers = guider.model_options["transformer_options"]["wrappers"][WrappersMP.OUTER_SAMPLE]
    runs = wrappers.get(technique.key, ())
    own_model = any(getattr(run, "tag", None) == tag for run in runs)
    if not (own_model or (free is not None and free(guider.conds))):
        other = f"another {technique.node}" if runs else f"no {technique.node}"
        raise ValueError(
            f"The sampler's {technique.output} comes from {technique.node}, but its model comes "
            f"from {other}, where it would act like any other prompt. Wire the model output of the "
            f"same {technique.node} to the sampler, and merge models or add LoRAs before that node."
        )
    return executor(*args, **kwargs)


def _take_out_guards(conds: Conds) -> None:
    """Without them, conditionings of the same hooks share a batch as ever.

    The host compares groups of hooks by identity.
    """
    groups: dict[frozenset, Any] = {}
    for _, entry in entries(conds):
        if (hooks := entry.pop("hooks", None)) is not None:
            others = own_hooks(hooks)
            if others is not None:
                same = groups.setdefault(frozenset(others.hooks), others)
                entry["hooks"] = same
