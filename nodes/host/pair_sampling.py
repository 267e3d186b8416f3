"""Pairs of pictures for training: every draw under control, source and edit in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...p2p_core.pairs import Captions, Draw, Pairs
from ...p2p_core.schedule import Window
from .control.wiring import control
from .edits import Edit


@dataclass(frozen=True)
class Sampling:
    """What a KSampler is told of every pair; the guidance scale comes with the draw."""

    steps: int
    sampler: str
    scheduler: str


def sample_pairs(
    model: Any,
    vae: Any,
    latent: dict,
    negative: list,
    captions: Captions,
    draws: Sequence[Draw],
    edit_of: Callable[[Draw], Edit],
    sampling: Sampling,
) -> Pairs:
    """One pair for every draw; as many at once as the latent has pictures.

    Those share a draw but for their noise. latent: (B, C, h, w); its whole batch is sampled even
    for fewer draws, so that a pair's numbers do not depend on how many are asked for.
    """
    rows = latent["samples"].shape[0]
    bar = comfy.utils.ProgressBar(-(-len(draws) // rows) * sampling.steps)
    made: list[Tensor] = []
    for first in range(0, len(draws), rows):
        draw = draws[first]
        run = control(model, latent, [edit_of(draw)], 0, record_maps=False)
        samples = _sampled(*run[:3], negative, draw, sampling, lambda *_: bar.update(1))
        pictures = torch.as_tensor(vae.decode(samples))[..., :3].clamp(0, 1).float().cpu()
        made.append(pictures.unflatten(0, (rows, 2))[: len(draws) - first])
    both = torch.cat(made)
    return Pairs(captions, tuple(draws), both[:, 0], both[:, 1])


def sampler_names() -> list[str]:
    """The samplers that the host knows."""
    return list(comfy.samplers.SAMPLER_NAMES)


def with_shares(edit: Edit, draw: Draw) -> Edit:
    """An edit of the whole prompt with a draw's shares of injected attention."""
    prompts = edit.prompt_edit
    cross, self_ = (Window(0.0, share) for share in (draw.cross, draw.self_))
    windows = (cross,) * len(prompts.windows)
    return replace(edit, prompt_edit=replace(prompts, windows=windows, self_window=self_))


def _sampled(
    model: Any,
    positive: list,
    latent: dict,
    negative: list,
    draw: Draw,
    sampling: Sampling,
    on_step: Callable[..., Any],
) -> Tensor:
    """A KSampler's latent (rows, C, h, w)."""
    ratio = latent.get("downscale_ratio_spacial")
    empty = comfy.sample.fix_empty_latent_channels(model, latent["samples"], ratio)
    return comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(empty, draw.seed, latent["batch_index"]),
        sampling.steps,
        draw.cfg,
        sampling.sampler,
        sampling.scheduler,
        positive,
        negative,
        empty,
        noise_mask=latent.get("noise_mask"),
        callback=on_step,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=draw.seed,
    )
