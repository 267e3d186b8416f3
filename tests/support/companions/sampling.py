"""Other ways through the steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from host_run import Link
from scenes import Scene

from .companion import SENTENCE, Companion
from .guidance import CACHE, node


def in_two_parts(s: Scene, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
    """The first steps by one sampler, the others by the next."""
    settings = s.settings
    half = settings.steps // 2
    for first, last, noise, rest in (
        (0, half, "enable", "enable"), (half, settings.steps, "disable", "disable"),
    ):  # fmt: skip
        latent = s.graph.add(
            "KSamplerAdvanced", model=model, add_noise=noise, noise_seed=settings.seed,
            steps=settings.steps, cfg=settings.cfg, sampler_name=settings.sampler_name,
            scheduler=settings.scheduler, positive=positive, negative=negative,
            latent_image=latent, start_at_step=first, end_at_step=last,
            return_with_leftover_noise=rest,
        )  # fmt: skip
    return latent


def painted(s: Scene, latent: Link) -> Link:
    """A picture to begin with, and a mask around its middle."""
    size = (1, 4, s.settings.height // 8, s.settings.width // 8)
    photo = torch.randn(size, generator=torch.Generator().manual_seed(3))
    box = torch.zeros(1, s.settings.height, s.settings.width)
    box[:, 32:96, 32:96] = 1
    return s.graph.add(
        "SetLatentNoiseMask", samples=s.graph.value({"samples": photo}), mask=s.graph.value(box)
    )


def lcm(s: Scene, model: Link) -> Link:
    return s.graph.add("ModelSamplingDiscrete", model=model, sampling="lcm", zsnr=False)


def settled(**changes: Any) -> dict[str, Any]:
    return {"settings": changes}


COMPANIONS = [
    Companion("a run in two parts", sample=in_two_parts),
    Companion("a masked picture", latent=painted, **settled(denoise=0.7)),
    Companion(
        "a masked picture, DifferentialDiffusion", latent=painted,
        model=partial(node, "DifferentialDiffusion"), **settled(denoise=0.7),
    ),
    Companion(
        "LCM's steps", model=lcm, oracle=False, why="edit: source and edits share their new noise",
        **settled(sampler_name="lcm", cfg=1.5),
    ),
    Companion("no guidance (turbo)", **settled(cfg=1.0, steps=3)),
    Companion(
        "EasyCache", model=partial(node, "EasyCache", **CACHE), expected=SENTENCE,
        **settled(steps=12),
    ),
    Companion(
        "LazyCache", model=partial(node, "LazyCache", **CACHE), expected=SENTENCE,
        **settled(steps=12),
    ),
]  # fmt: skip
