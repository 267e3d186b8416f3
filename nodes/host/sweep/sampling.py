"""Samples edits of one source together, as the host's KSampler does, and decodes them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ....p2p_core.inversion import Inversion
from ..control.wiring import control
from ..edits import Edit

PREVIEW = "JPEG"


@dataclass(frozen=True)
class SamplerSettings:
    """What a KSampler is told, without its seed; mode and blocks: of the attention controller."""

    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float
    mode: str
    blocks: str

    def about(self) -> dict[str, Any]:
        """By name, for a file."""
        return asdict(self)


def sampler_names() -> tuple[list[str], list[str]]:
    """The host's samplers and schedulers."""
    return comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS


class Progress:
    """One bar over all steps of a sweep, with the picture in work as preview."""

    def __init__(self, model: Any, runs: int, steps: int) -> None:
        self.bar, self.done = comfy.utils.ProgressBar(max(runs * steps, 1)), 0
        self.steps = steps
        latent_format = model.model.latent_format
        self.previewer: Any = latent_preview.get_previewer(model.load_device, latent_format)

    def on_step(self, step: int, denoised: Any, _x: Any, total: int) -> None:
        """The host's callback after a step; the preview shows the last of the edits."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        preview = None
        if self.previewer is not None and not denoised.is_nested:
            last = denoised[-1:]
            preview = self.previewer.decode_latent_to_preview_image(PREVIEW, last)
        at = self.done + (step + 1) * self.steps // max(total, 1)
        self.bar.update_absolute(at, None, preview)

    def on_run(self) -> None:
        """After a run."""
        self.done += self.steps
        self.bar.update_absolute(self.done)


def sample_edits(
    model: Any, vae: Any, edits: Sequence[Edit], negative: list, latent: dict,
    inversion: Inversion | None, seed: int, settings: SamplerSettings, progress: Progress,
) -> Tensor:  # fmt: skip
    """[source, edit, edit_2 …] of one seed as pictures, (1 + len(edits), H, W, 3)."""
    options = {"mode": settings.mode, "blocks": settings.blocks, "inversion": inversion}
    controlled, positive, rows, _ = control(model, latent, edits, 0, False, **options)
    samples = _empty_fitted(controlled, rows)
    noise: Any = comfy.sample.prepare_noise(samples, seed, rows["batch_index"])
    made = comfy.sample.sample(
        controlled, noise, settings.steps, settings.cfg, settings.sampler_name,
        settings.scheduler, positive, negative, samples, denoise=settings.denoise,
        noise_mask=rows.get("noise_mask"), callback=progress.on_step,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=seed,
    )  # fmt: skip
    progress.on_run()
    return torch.as_tensor(vae.decode(made))[..., :3].flatten(0, -4).float().cpu()


def _empty_fitted(model: Any, latent: dict) -> Any:
    """An empty latent in the channels and size of the model, as the host's KSampler makes it."""
    given = inspect.signature(comfy.sample.fix_empty_latent_channels).parameters
    ratios = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    known = {name: latent.get(name) for name in ratios if name in given}
    return comfy.sample.fix_empty_latent_channels(model, latent["samples"], **known)
