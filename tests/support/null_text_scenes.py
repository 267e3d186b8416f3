"""Graphs around P2P Null-Text Optimize, and models on which its results are repeatable."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from host_run import Link
from scenes import SOURCE, Scene, Settings
from tiny_model import TinySD15, tiny_unet
from torch import Tensor

SIX_STEPS = Settings(steps=6, cfg=7.5, width=64, height=64)


def picture(batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 4


def invert(s: Scene, latent: Tensor, **inputs: Any) -> Link:
    settings = {"steps": s.settings.steps, "scheduler": s.settings.scheduler}
    wired = {"model": s.model, "positive": s.text(SOURCE), **settings}
    link = s.graph.value({"samples": latent})
    return s.graph.add("P2PDDIMInvert", **{**wired, "latent": link, **inputs})


def optimize(s: Scene, inversion: Link, **inputs: Any) -> Link:
    """Its outputs are model, negative, reconstruction."""
    wired = {
        "model": s.model, "inversion": inversion, "positive": s.text(SOURCE),
        "negative": s.negative, "cfg": s.settings.cfg, "inner_steps": 10,
        "learning_rate": 0.05, "early_stop": 1e-5,
    }  # fmt: skip
    return s.graph.add("P2PNullTextOptimize", **{**wired, **inputs})


def sample(s: Scene, found: Link, latent: Link, **inputs: Any) -> Link:
    """An ordinary KSampler with the optimised model and negative."""
    wired = {"positive": s.text(SOURCE), "negative": found[1], "latent": latent, **inputs}
    return s.sample(found, **wired)


def plain(s: Scene, inversion: Link) -> Link:
    """Guided sampling from the inverted latent, without any correction."""
    return s.graph.add(
        "KSamplerAdvanced", model=s.model, add_noise="disable", noise_seed=0,
        steps=s.settings.steps, cfg=s.settings.cfg, sampler_name="euler", scheduler="normal",
        positive=s.text(SOURCE), negative=s.negative, latent_image=inversion[1],
        start_at_step=0, end_at_step=10000, return_with_leftover_noise="disable",
    )  # fmt: skip


def calm(kind: type[TinySD15] = TinySD15, seed: int = 1, share: float = 0.2) -> ModelPatcher:
    """A model whose guided path does not blow up rounding errors, as a random one's does."""
    model = tiny_unet(kind, seed=seed)
    with torch.no_grad():
        model.model.diffusion_model.out[2].weight.mul_(share)
    return model
