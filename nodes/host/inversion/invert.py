"""Inverting pictures as a sampling run of the host: with its progress, preview and cancel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.latent_formats import SD15
from comfy.model_sampling import CONST, EPS, ModelSamplingDiscrete
from comfy.samplers import KSAMPLER
from torch import Tensor

from ....p2p_core.inversion import NEARLY_CLEAN, Inversion, ddim_invert, noise_offsets
from ..fingerprint import fingerprint
from ..patches import guidance_patches
from ..runs import CONTROL, NULL_TEXT, has_run

WHOLE = 0.9999  # denoise above which KSampler runs the whole schedule
KEPT_ON_DEVICE = 64 * 2**20  # bytes of a trajectory


class _SD15Sampling(ModelSamplingDiscrete, EPS):
    """The noise schedule of Stable Diffusion 1.x, for nodes that see no model."""


def scheduler_names() -> list[str]:
    """The host's schedulers, with those that other packs have added by now."""
    return list(comfy.samplers.SCHEDULER_NAMES)


def schedule(
    model: Any | None, scheduler: str, steps: int, denoise: float, sigmas: Tensor | None
) -> Tensor:
    """The noise levels of a run, (N + 1,) descending to 0: those given, or the scheduler's.

    Without a model they are Stable Diffusion 1.x's. Raises ValueError for levels that do not
    descend to 0, and for a denoise that is no share.
    """
    if sigmas is not None:
        return _checked(sigmas.detach().float().cpu())
    if not 0 < denoise <= 1:
        raise ValueError(f"denoise must be a share above 0 and at most 1, got {denoise:g}.")
    sampling = model.get_model_object("model_sampling") if model else _SD15Sampling()
    levels = comfy.samplers.calculate_sigmas(sampling, scheduler, math.floor(steps / denoise)).cpu()
    if not levels.isfinite().all():
        raise ValueError(
            f"The scheduler {scheduler} gives no noise levels for {steps} steps. Use more steps or "
            "another scheduler."
        )
    # As KSampler: the whole schedule keeps the extra step that ddim_uniform may have.
    return levels if denoise > WHOLE else levels[-(steps + 1) :]


def _checked(sigmas: Tensor) -> Tensor:
    falling = bool((sigmas[:-1] > sigmas[1:]).all() and sigmas.isfinite().all())
    if len(sigmas) < 2 or sigmas[-1] != 0 or not falling:
        levels = ", ".join(f"{level:.4g}" for level in sigmas[:4].tolist()) or "none"
        raise ValueError(
            "sigmas must be a schedule that descends to 0, as a scheduler node gives it for "
            f"sampling, got {len(sigmas)} levels ({levels} …). Do not flip it, and for a part of "
            "a schedule take the low_sigmas of SplitSigmas."
        )
    return sigmas


def picture_latent(latent: dict, model: Any | None) -> Tensor:
    """The samples (B, C, h, w) of a LATENT to invert; ValueError if they are no still pictures.

    model: whose latents they must be, None for Stable Diffusion 1.x's.
    """
    samples = latent["samples"]
    if samples.is_nested or samples.ndim != 4:
        raise ValueError(
            "Inversion takes still pictures: expected a latent of shape (batch, channels, height, "
            f"width), got {samples.ndim} dimensions. Use VAEEncode."
        )
    if latent.get("noise_mask") is not None:
        raise ValueError(
            "Inversion takes whole pictures, but this latent has a noise mask. Remove the mask, "
            "and give it to P2P Local Blend Mask to confine the edit."
        )
    channels = (model.get_model_object("latent_format") if model else SD15()).latent_channels
    if samples.shape[1] != channels or not len(samples):
        raise ValueError(
            f"The latent has {len(samples)} pictures of {samples.shape[1]} channels, but the model "
            f"reads {channels} channels. Encode the picture with the VAE of the model's own "
            "checkpoint."
        )
    return samples.detach().clone()


def invert_ddim(
    model: Any, positive: list, latent: dict, sigmas: Tensor, fixed_point_iterations: int
) -> Inversion:
    """DDIM inversion of every picture of a latent under the prompt ``positive``, at cfg 1."""
    check_unpatched(model)
    check_noise_model(model, "P2P DDIM Invert")
    check_plain_guidance(model)
    samples, prompt = picture_latent(latent, model), source_prompt(positive)
    found: dict[str, Any] = {}
    sampler = KSAMPLER(partial(_sample_ddim, found, sigmas.tolist(), fixed_point_iterations))
    start = comfy.sample.sample_custom(
        model,
        torch.zeros_like(samples),
        1.0,
        sampler,
        sigmas.flip(0).clamp_min(NEARLY_CLEAN),
        positive,
        positive,
        samples,
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=0,
    )
    states: Tensor = found["states"]
    _check_numbers(states, sigmas)
    return Inversion(
        latent=samples,
        start=start,
        sigmas=sigmas,
        offsets=_stored(states - states[-1]),
        method="ddim",
        prompt=prompt,
        model=fingerprint(model),
        residual=found["residual"],
    )


def invert_noise(model: Any | None, latent: dict, sigmas: Tensor, seed: int) -> Inversion:
    """Every picture under the one noise that a sampler would draw for it with this seed."""
    if model is not None:
        check_noise_model(model, "P2P Noise Invert")
    samples = picture_latent(latent, model)
    if not (samples.is_meta or samples.isfinite().all()):
        raise ValueError(
            "The latent has values that are no numbers, so there is no picture to invert. Run the "
            "VAE in fp32 (--fp32-vae), and look at the picture with VAEDecode."
        )
    noise: Any = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    format_ = model.get_model_object("latent_format") if model else SD15()
    noise = noise.to(samples.device)
    noisy = format_.process_in(samples) + sigmas[0].item() * noise
    return Inversion(
        latent=samples,
        start=format_.process_out(noisy),
        sigmas=sigmas,
        offsets=_stored(noise_offsets(noise, sigmas.tolist())),
        method="noise",
    )


def check_unpatched(model: Any) -> None:
    """ValueError for a model that a node of this pack has patched."""
    if has_run(model, CONTROL) or has_run(model, NULL_TEXT):
        raise ValueError(
            "Inversion needs the unpatched model, but this one comes from an AttentionController "
            "or a P2P Null-Text Optimize. Wire the checkpoint's model."
        )


def check_noise_model(model: Any, node: str) -> None:
    """ValueError for a flow model, which goes another way from the picture to noise."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, CONST):
        raise ValueError(
            f"{node} needs a model that adds noise to the picture, such as Stable "
            f"Diffusion 1.x, but this one ({type(model.model).__name__}) is a flow model. Load "
            "such a checkpoint, or remove the ModelSampling node."
        )


def check_plain_guidance(model: Any) -> None:
    """ValueError for a model whose predictions another node mixes: an inversion needs its own."""
    if changed := guidance_patches(model):
        raise ValueError(
            f"Another node changes how this model's guidance is computed ({', '.join(changed)}), "
            "but inversion and null embeddings follow the model's own predictions. Wire the model "
            "without it (RescaleCFG, PAG and the like); an AttentionController may have it."
        )


def _check_numbers(states: Tensor, sigmas: Tensor) -> None:
    if not states.isfinite().all():
        good = states.isfinite().flatten(1).all(dim=1)
        level = float(sigmas[int((~good).nonzero().max())])
        raise ValueError(
            f"The inversion has values that are no numbers from noise level {level:.4g} on. Run "
            "the model and the VAE in fp32 (--force-fp32, --fp32-vae), or use fewer steps."
        )


def source_prompt(positive: list) -> Tensor | None:
    """The one text encoding of a conditioning, (1 or B, T, D); None where there are several."""
    if not positive:
        raise ValueError(
            "positive is an empty conditioning. Wire CLIPTextEncode: the source prompt."
        )
    if any(CONTROL.mark in values for _, values in positive):
        raise ValueError(
            "The positive comes from an AttentionController, which holds several prompts. Wire a "
            "CLIPTextEncode of the source prompt."
        )
    return positive[0][0].detach().clone() if len(positive) == 1 else None


def _stored(offsets: Tensor) -> Tensor:
    """Small trajectories stay on their device, large ones go to the CPU."""
    size = offsets.numel() * offsets.element_size()
    return offsets if size <= KEPT_ON_DEVICE else offsets.cpu()


def _sample_ddim(
    found: dict[str, Any],
    sigmas: list[float],
    iterations: int,
    model: Callable,
    x: Tensor,
    _flipped: Tensor,
    extra_args: dict,
    callback: Callable,
    disable: bool = False,
) -> Tensor:
    """A sampler function of the host: from the clean latent up to the noisiest one."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return model(x, x.new_full((len(x),), sigma), **extra_args)

    def on_step(done: int, x: Tensor, denoised: Tensor) -> None:
        callback({"i": done - 1, "x": x, "denoised": denoised})

    found["states"], found["residual"] = ddim_invert(denoise, x, sigmas, iterations, on_step)
    return found["states"][0]
