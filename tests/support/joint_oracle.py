"""Edits on transformers written down plainly, with every attention map in full.

An independent statement of what the nodes must compute; it shares no code with the pack. It knows
where text and image stand from the source of the host's family, replaces every attention of the
network by a softmax that it edits, and evaluates the prompts one by one, the source first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor


@dataclass
class Where:
    """Positions in a joint call, of one prompt: text in the order of its columns, image, others."""

    text: list[int]
    image: list[int]
    others: list[int]


@dataclass
class Plan:
    """What an edit asks at a step. qk: bool. Or S (T_s, T_t), w (T_t,) and beta. scale: (T_t,)."""

    qk: bool = False
    scale: Tensor | None = None
    mapping: Tensor | None = None
    weight: Tensor | None = None
    beta: float = 0.0


# (call index, q, k, prompt) -> Where of a joint or cross call, or None for a call without text
Places = Callable[[int, Tensor, Tensor, int], Where | None]


class Explicit:
    """Attention of one prompt after the other in one step; remembers the source's."""

    def __init__(self, places: Places, step: Callable[[int, int], Plan | None], edit: bool) -> None:
        self.places, self.plan, self.edit = places, step, edit
        self.prompt = self.step = self.index = 0
        self.source: dict[int, tuple] = {}

    def __call__(
        self, func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, *rest: Any,
        skip_reshape: bool = False, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        index, self.index = self.index, self.index + 1
        q, k, v = (split(x, heads, skip_reshape) for x in (q, k, v))
        if k.shape[1] != q.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            mask = mask if mask.ndim > 2 else mask[None]
            mask = mask if mask.ndim > 3 else mask[:, None]
            scores = scores.masked_fill(~mask, -1e30) if mask.dtype == torch.bool else scores + mask
        maps = scores.softmax(-1)
        plan = self.plan(self.step, self.prompt) if self.edit else None
        where = self.places(index, q, k, self.prompt)
        if self.edit and self.prompt == 0:
            self.source[index] = q, k, maps, where
        elif plan is not None:
            maps, v = self.edited(index, q, k, v, maps, where, plan)
        return (maps @ v).transpose(1, 2).flatten(2)

    def edited(
        self, index: int, q: Tensor, k: Tensor, v: Tensor, maps: Tensor, where: Where | None,
        plan: Plan,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        source_q, source_k, source_maps, there = self.source[index]
        if where is None or there is None:
            return maps, v
        image_only = not where.text
        if plan.mapping is None or image_only:
            if plan.qk or (image_only and plan.beta):
                q, k = q.clone(), k.clone()
                queries = where.image if where.image else list(range(q.shape[2]))
                their = there.image if there.image else list(range(q.shape[2]))
                q[:, :, queries] = source_q[:, :, their]
                if where.image:
                    k[:, :, where.image] = source_k[:, :, there.image]
                maps = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
            if plan.scale is not None and where.text:
                v = v.clone()
                v[:, :, where.text] = v[:, :, where.text] * plan.scale[:, None]
            return maps, v
        cross = not where.image
        queries = list(range(q.shape[2])) if cross else where.image
        their = list(range(source_q.shape[2])) if cross else there.image
        old, own = source_maps[:, :, their], maps[:, :, queries]
        new = torch.zeros_like(own)
        new[..., where.text] = (
            old[..., there.text] @ plan.mapping + own[..., where.text] * plan.weight
        )
        for mine, theirs in zip(where.image, there.image, strict=True):
            new[..., mine] = plan.beta * old[..., theirs] + (1 - plan.beta) * own[..., mine]
        same = len(where.others) == len(there.others)
        for i, mine in enumerate(where.others):  # padding: by position where both prompts have it
            if same or mine in there.others:
                theirs = there.others[i] if same else mine
                new[..., mine] = plan.beta * old[..., theirs] + (1 - plan.beta) * own[..., mine]
            else:
                new[..., mine] = own[..., mine]
        maps = maps.clone()
        maps[:, :, queries] = new
        return maps, v


def split(x: Tensor, heads: int, by_head: bool) -> Tensor:
    """(B, H, L, D) of any layout."""
    if x.ndim == 4:
        return x if by_head else x.transpose(1, 2)
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


@torch.inference_mode()
def oracle(
    model: ModelPatcher, prompts: list[list], places: Places,
    plan: Callable[[int, int], Plan | None], latent: Tensor, steps: int, seed: int,
    cfg: float = 1.0, negative: list | None = None, sampler: str = "euler", edit: bool = True,
) -> Tensor:  # fmt: skip
    """Latents (seeds * prompts, …) of a run with the scheduler simple.

    prompts: one conditioning each, the source first. latent: (seeds * prompts, C, …), zeros. With
    ``edit`` off, the same arithmetic without any edit: the floor of rounding.
    """
    explicit = Explicit(places, plan, edit)
    encoded = list(prompts)
    count = len(encoded)
    conds: list[dict] = []

    def wrapper(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        options = kwargs.get("transformer_options") or args[3]
        sigmas, sigma = options["sample_sigmas"], float(options["sigmas"].max())
        explicit.step = sum(float(s) >= sigma * (1 - 1e-5) for s in sigmas[:-1]) - 1
        return executor(x, t, *args, **kwargs)

    class Prompts:
        """Evaluates prompt after prompt over its own rows."""

        def __call__(
            self, executor: Any, model: Any, given: Any, x: Tensor, t: Tensor, options: dict
        ) -> Any:
            out = []
            for number, cond in enumerate(given):
                if number > 0:
                    explicit.edit, keep = False, explicit.edit
                    explicit.index = 0
                    out += executor(model, [cond], x, t, options)
                    explicit.edit = keep
                    continue
                denoised = torch.empty_like(x)
                for first in range(0, len(x), count):
                    for prompt in range(count):
                        row = slice(first + prompt, first + prompt + 1)
                        explicit.prompt, explicit.index = prompt, 0
                        [part] = executor(model, [[conds[prompt]]], x[row], t[row], options)
                        denoised[row] = part
                out.append(denoised)
            return out

    def prepare(executor: Any, guider: Any, *args: Any) -> Tensor:
        for name in [name for name in guider.conds if name.startswith("prompt")]:
            conds.append(guider.conds.pop(name)[0])
        return executor(guider, *args)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "oracle", wrapper)
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "oracle", Prompts())
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "oracle", prepare)
    model.model_options["transformer_options"]["optimized_attention_override"] = explicit
    guider = comfy.samplers.CFGGuider(model)
    given = {"positive": encoded[0], "negative": negative or encoded[0]}
    guider.inner_set_conds({**given, **{f"prompt {i}": c for i, c in enumerate(encoded)}})
    guider.set_cfg(cfg)
    groups = [number for number in range(len(latent) // count) for _ in range(count)]
    noise = comfy.sample.prepare_noise(latent, seed, groups)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
    run = comfy.samplers.ksampler(sampler)
    return guider.sample(noise, latent, run, sigmas, disable_pbar=True, seed=seed)
