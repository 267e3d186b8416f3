"""Direct inversion on the host: the source rows of a run follow a stored inversion.

arXiv:2310.01506: instead of correcting the source's path by optimisation, put it back onto the
inverted path at every step. The source then ends at the very picture that was inverted, whatever
the guidance, and the edits read their attention from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from ....p2p_core.inversion import Inversion
from ..fingerprint import fingerprint

SAME_PROMPT = 1e-2  # relative distance of text encodings
SAME_NOISE = 0.5  # distance of two latents in units of their noise; another noise is at 1.4


class Pinning:
    """Keeps the first row of every group on the inversion's path during one run.

    model: the host's inner model, for its latent scale. sigmas, noise: of the run. Raises
    ValueError if the run's noise levels or its latent are not the inversion's.
    """

    def __init__(
        self, inversion: Inversion, model: Any, sigmas: Sequence[float], noise: Tensor, group: int
    ) -> None:
        self.first, self.sigmas = check_schedule(inversion, sigmas), sigmas
        self.inversion, self.model, self.group = inversion, model, group
        rows = len(noise)
        check_picture_size(inversion, noise)
        if rows != group * len(inversion.latent):
            raise ValueError(
                f"The inversion holds {len(inversion.latent)} pictures, so the sampler needs a "
                f"latent batch of {group * len(inversion.latent)}, but got {rows}. Wire the "
                "latent output of the AttentionController to the sampler."
            )

    def clean(self, like: Tensor) -> Tensor:
        """The inverted pictures in the model's scale, (B, C, h, w)."""
        return self.model.process_latent_in(self.inversion.latent.to(like))

    def on_step(self, step: int, x: Tensor) -> None:
        """Set the source rows of x, (B * group, C, h, w), to their state before a step, in place.

        Edits begin where their source begins, so the whole of x is set where a run begins; but
        not if it goes on with another run's, whose source is on the path already.
        """
        state = self.clean(x) + self.inversion.offsets[self.first + step].to(x)
        if step == 0 and not (self.first and goes_on(x[:: self.group], state, self.sigmas[0])):
            x.copy_(repeat(state, "seed ... -> (seed group) ...", group=self.group))
        else:
            x[:: self.group] = state

    def on_call(self, sigma: float, x: Tensor) -> None:
        """The same between two steps, for samplers that ask the model there."""
        x[:: self.group] = self.clean(x) + self.inversion.offset_at(sigma).to(x)

    def shown(self, denoised: Tensor) -> Tensor:
        """A step's denoised prediction as a preview should show it: the sources are known."""
        rows = denoised.clone()
        rows[:: self.group] = self.clean(denoised)
        return rows

    def exact(self, samples: Tensor) -> Tensor:
        """The run's result in which the inverted pictures stand as they were given.

        Scaling into the model's range and back costs the last bit of a float. samples:
        (B * group, C, h, w), LATENT.
        """
        if self.first + len(self.sigmas) - 1 != self.inversion.steps:
            return samples
        given = self.inversion.latent.to(samples)
        scaled = self.model.process_latent_out(self.model.process_latent_in(given))
        rows = partial(repeat, pattern="seed ... -> (seed group) ...", group=self.group)
        given, scaled = rows(given), rows(scaled)
        return torch.where(samples == scaled, given, samples)


def goes_on(x: Tensor, state: Tensor, sigma: float) -> bool:
    """Whether x is the state but for small errors, rather than one under another noise."""
    return float((x - state).square().mean().sqrt()) < SAME_NOISE * sigma


def check_picture_size(inversion: Inversion, noise: Tensor) -> None:
    """ValueError if a run's latent, (B, C, h, w), has another size than the inverted pictures."""
    expected, got = tuple(inversion.latent.shape[1:]), tuple(noise.shape[1:])
    if got != expected:
        raise ValueError(
            f"The inverted pictures are latents of shape {expected}, but the sampler got {got}. "
            "Wire the inversion's latent, or that of an AttentionController that got it."
        )


def check_inversion(
    inversion: Inversion, model: Any, source: str, cross_attn: Tensor, latent: dict
) -> None:
    """ValueError if an inversion does not belong to the model, source prompt or latent of an edit.

    cross_attn: the source prompt's encoding, (1, T, D).
    """
    if inversion.model is not None and not inversion.model.same(fingerprint(model)):
        raise ValueError(
            "The inversion was made with another model (or other LoRAs) than the one wired to "
            "the AttentionController. Invert the picture again with this model."
        )
    if inversion.prompt is not None and not same_prompt(inversion.prompt, cross_attn):
        raise ValueError(
            f"The edit's source prompt is {source!r}, but the inversion was made under another "
            "prompt. Give P2P DDIM Invert the source prompt of the edit."
        )
    expected, got = tuple(inversion.latent.shape), tuple(latent["samples"].shape)
    if got != expected:
        raise ValueError(
            f"The inversion holds a latent of shape {expected}, but the AttentionController got "
            f"one of {got}. Wire the latent output of the inversion to it."
        )


def same_prompt(prompt: Tensor, cross_attn: Tensor) -> bool:
    """Whether two text encodings, (1 or B, T, D), are the same but for tiling and precision."""
    prompt, cross_attn = prompt.float().cpu(), cross_attn.float().cpu()
    if prompt.shape[-1] != cross_attn.shape[-1]:
        return False
    length = math.lcm(prompt.shape[1], cross_attn.shape[1])
    a, b = (text.repeat(1, length // text.shape[1], 1) for text in (prompt, cross_attn))
    return bool((a - b).norm(dim=(1, 2)).max() <= SAME_PROMPT * b.norm())


def check_schedule(inversion: Inversion, sigmas: Sequence[float]) -> int:
    """At which level of the inversion a run on ``sigmas`` begins; ValueError if it does not fit."""
    first = inversion.find(sigmas)
    if first is not None:
        return first
    own, run = inversion.sigmas.tolist(), list(sigmas)
    raise ValueError(
        f"The sampler's schedule does not match the inversion's: the inversion has {len(own) - 1} "
        f"steps ({_levels(own)}), the sampler {len(run) - 1} ({_levels(run)}). Give both the same "
        "steps, scheduler and denoise (KSampler samples dpm_2 and uni_pc at levels of their own: "
        "use euler), or sample with SamplerCustom and wire the inversion's sigmas output to it."
    )


def _levels(sigmas: Sequence[float]) -> str:
    return "sigmas " + ", ".join(f"{level:.4g}" for level in (*sigmas[:2], sigmas[-2]))
