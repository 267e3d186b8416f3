"""An InstructPix2Pix model in miniature, and a stand-in for the autoencoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.model_base
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from host_run import Link, run
from scenes import Scene, Settings, scene
from tiny_model import TinySD15, tiny_unet
from torch import Tensor

INSTRUCTION = "make it a photo of winter"
LATENT_CHANNELS = 4


class TinyInstruct(TinySD15):
    """SD1.5's instruct-pix2pix as the host knows it, with small sizes."""

    def get_model(
        self, state_dict: dict, prefix: str = "", device: Any = None
    ) -> comfy.model_base.BaseModel:
        return comfy.model_base.SD15_instructpix2pix(self, device=device)


def tiny_instruct(seed: int = 1, **changes: Any) -> ModelPatcher:
    return tiny_unet(TinyInstruct, seed, in_channels=2 * LATENT_CHANNELS, **changes)


@cache
def shared_instruct() -> ModelPatcher:
    """The same model for all tests of a process: nodes clone it."""
    return tiny_instruct()


class AveragingVAE:
    """Encodes 8x8 pixels to their mean colour and brightness, unscaled like a VAE's mean."""

    def __init__(self, channels: int = LATENT_CHANNELS) -> None:
        self.channels = channels
        self.seen: list[Tensor] = []

    def encode(self, pixels: Tensor) -> Tensor:
        self.seen.append(pixels)
        means = F.avg_pool2d(pixels.movedim(-1, 1) * 2 - 1, 8) * 4
        return torch.cat([means, means.sum(1, keepdim=True)] * 4, dim=1)[:, : self.channels]


def pictures(batch: int = 1, height: int = 96, width: int = 64, seed: int = 4) -> Tensor:
    """IMAGE (B, H, W, 3), different in every row."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(batch, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    return F.interpolate(cells, size=(height, width), mode="nearest").movedim(1, -1)


SHORT = Settings(steps=4, cfg=7.5, width=64, height=96)


@dataclass
class InstructScene:
    """A graph with the node in place; its outputs are model, positive, negative, uncond, latent."""

    scene: Scene
    node: Link
    inputs: dict[str, Any]

    def dual(self, model: Link | None = None, **inputs: Any) -> Link:
        """The host's own guider for the same equation, with an ordinary sampler; the oracle."""
        graph, settings = self.scene.graph, self.scene.settings
        model = model or self.inputs["model"]
        wired = {
            "cond1": self.node[1], "cond2": self.node[2], "negative": self.node[3],
            "cfg_conds": settings.cfg, "cfg_cond2_negative": self.inputs["image_cfg"], **inputs,
        }  # fmt: skip
        guider = graph.add("DualCFGGuider", model=model, **wired, style="regular")
        return self.guided(guider)

    def guided(self, guider: Link) -> Link:
        """SamplerCustomAdvanced with the scene's settings."""
        graph, settings = self.scene.graph, self.scene.settings
        return graph.add(
            "SamplerCustomAdvanced",
            noise=graph.add("RandomNoise", noise_seed=settings.seed),
            guider=guider,
            sampler=graph.add("KSamplerSelect", sampler_name=settings.sampler_name),
            sigmas=graph.add(
                "BasicScheduler", model=self.scene.model, scheduler=settings.scheduler,
                steps=settings.steps, denoise=settings.denoise,
            ),
            latent_image=self.node[4],
        )  # fmt: skip

    def sample(self, **inputs: Any) -> Link:
        """An ordinary KSampler."""
        wired = {"negative": self.node[2], **inputs}
        return self.scene.sample(
            wired.pop("model", self.node), wired.pop("positive", self.node[1]),
            wired.pop("latent_image", self.node[4]), **wired,
        )  # fmt: skip


def instruct_scene(
    settings: Settings = SHORT,
    model: ModelPatcher | None = None,
    clip: CLIP | None = None,
    **inputs: Any,
) -> InstructScene:
    """Any of the node's inputs can be given, as plain objects or as links."""
    s = scene(settings, model=model or shared_instruct(), clip=clip)
    wired = {
        "model": s.model, "positive": s.text(INSTRUCTION), "negative": s.negative,
        "vae": AveragingVAE(), "image": pictures(), "image_cfg": 1.5, **inputs,
    }  # fmt: skip
    links = {
        name: value if isinstance(value, (Link, float, str)) else s.graph.value(value)
        for name, value in wired.items()
    }
    return InstructScene(s, s.graph.add("IP2PConditioning", **links), links)


def latents(s: InstructScene, link: Link) -> Tensor:
    return run(s.scene.graph, link)["samples"]


@contextmanager
def counted(model: ModelPatcher) -> Iterator[list[int]]:
    """The rows of every call of the UNet."""
    rows: list[int] = []
    unet = model.model.diffusion_model
    hook = unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        hook.remove()
