"""Null-text optimisation on the host: gradients through the network, inside a sampling run.

The host loads the model, prepares the conditionings and listens for a cancel. Nodes run in
inference mode, whose tensors cannot take part in a backward pass; see ``gradients.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.conds import CONDCrossAttn
from torch import Tensor
from tqdm.auto import tqdm

from ....p2p_core.inversion import Inversion
from ....p2p_core.null_text import (
    NullEmbeddings,
    OnStep,
    Settings,
    negative_prompt_inversion,
    optimize_null_text,
)
from ..messages import Report
from ..patches import network_patches
from .gradients import checkpointed, differentiable, readable_errors, training_clone
from .inputs import check_inputs
from .run import with_null_text
from .wiring import NullText


def null_text(
    model: Any,
    inversion: Inversion,
    positive: list,
    negative: list,
    settings: Settings,
    checkpointing: bool,
    report: Report,
) -> tuple[Any, list[list], dict]:
    """The outputs of P2P Null-Text Optimize: (model, negative, reconstruction).

    report: shows the user how far it is, and what it cost in the end.
    Raises ValueError for inputs that do not belong together.
    """
    check_inputs(model, inversion, positive, negative, settings)
    if settings.inner_steps == 0:
        negative = positive
    sampler = _Sampler(inversion, settings, checkpointing, report)
    samples = comfy.sample.sample_custom(
        training_clone(model),
        torch.zeros_like(inversion.latent),
        settings.cfg,
        sampler,
        inversion.sigmas,
        positive,
        negative,
        inversion.latent,
        callback=latent_preview.prepare_callback(model, inversion.steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=0,
    )
    assert sampler.found is not None
    table = NullText(
        inversion,
        sampler.found.embeddings.cpu(),
        negative[0][0],
        network_patches(model),
        cfg=settings.cfg if settings.inner_steps else None,
    )
    patched, tagged = with_null_text(model, negative, table)
    return patched, tagged, {"samples": samples}


class _Sampler(comfy.samplers.Sampler):
    """A sampler of the host that optimises on its way; ``found`` is what it leaves."""

    def __init__(
        self, inversion: Inversion, settings: Settings, checkpointing: bool, report: Report
    ) -> None:
        self.inversion, self.settings, self.checkpointing = inversion, settings, checkpointing
        self.report = report
        self.found: NullEmbeddings | None = None

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable,
        noise: Tensor,
        _latent_image: Tensor | None = None,
        _denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """The host's interface: from the inversion's noisiest latent to the reconstruction."""
        levels, options = sigmas.tolist(), extra_args["model_options"]
        unet, started = model_wrap.inner_model.diffusion_model, time.monotonic()
        with tqdm(total=len(levels) - 1, disable=disable_pbar) as bar:
            on_step = partial(_report_step, bar, callback, self.report)
            recomputing = checkpointed(unet, self.checkpointing)
            with differentiable(unet), recomputing, readable_errors(model_wrap.model_patcher):
                self.found = self._optimize(model_wrap, levels, options, noise, on_step)
        _report_cost(self.found, len(noise), time.monotonic() - started, self.report)
        return self.found.x

    def _optimize(
        self, guider: Any, sigmas: list[float], options: dict, like: Tensor, on_step: OnStep
    ) -> NullEmbeddings:
        network = _Network(guider, options)
        clean = guider.inner_model.process_latent_in(self.inversion.latent.to(like))
        pivot = clean + self.inversion.offsets.to(like)
        null = network.embedding(len(clean))
        if self.settings.inner_steps == 0:
            return negative_prompt_inversion(network.cond, pivot, sigmas, null, on_step)
        return optimize_null_text(
            network.cond, network.uncond, pivot, sigmas, null, self.settings, on_step
        )


class _Network:
    """The network under the prompt, and under a null embedding in place of the negative."""

    def __init__(self, guider: Any, options: dict) -> None:
        self.model, self.options = guider.inner_model, options
        self.positive, [self.negative] = guider.conds["positive"], guider.conds["negative"]

    def embedding(self, rows: int) -> Tensor:
        """The negative's own, (rows, T, D) in fp32."""
        null = self.negative["model_conds"]["c_crossattn"].cond.float().clone()
        return comfy.utils.repeat_to_batch_size(null, rows)

    def cond(self, x: Tensor, sigma: float) -> Tensor:
        """The denoised latent under the prompt."""
        return self._denoised(x, sigma, self.positive)

    def uncond(self, x: Tensor, sigma: float, embedding: Tensor) -> Tensor:
        """The denoised latent under a null embedding (B, T, D); has a gradient by it."""
        given = {**self.negative["model_conds"], "c_crossattn": CONDCrossAttn(embedding)}
        return self._denoised(x, sigma, [{**self.negative, "model_conds": given}])

    def _denoised(self, x: Tensor, sigma: float, entries: list[dict]) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        level = x.new_full((len(x),), sigma)
        [out] = comfy.samplers.calc_cond_batch(self.model, [entries], x, level, self.options)
        return out


def _report_step(
    bar: tqdm,
    callback: Callable | None,
    report: Report,
    done: int,
    x: Tensor,
    denoised: Tensor,
    losses: Tensor,
) -> None:
    """After a step: progress with the loss in the console and in the page, there with a preview."""
    loss = f"{float(losses.max()):.1e}"
    bar.set_postfix(loss=loss, refresh=False)
    bar.update()
    report(f"step {done} of {bar.total}, loss {loss}")
    if callback is not None:
        callback(done - 1, denoised, x, bar.total)


def _report_cost(found: NullEmbeddings, pictures: int, seconds: float, report: Report) -> None:
    """What it cost and how near it came; and whether it had to stop."""
    cost = (
        f"{found.predictions} model evaluations and {found.gradients} gradients for each of "
        f"{pictures} pictures, {seconds:.1f} s, loss {float(found.losses.max()):.1e} at its worst "
        f"step and {float(found.losses[-1].max()):.1e} at the last"
    )
    logging.info("Null-text optimisation: %s", cost)
    if found.failed_at is None:
        report(cost)
        return
    stopped = (
        f"Null-text optimisation stopped at step {found.failed_at + 1} of {len(found.losses)}, "
        "where the loss was no number: the later steps use the last embedding that was good. Run "
        "the model in fp32, or lower learning_rate."
    )
    logging.warning(stopped)
    report(stopped)
