"""NoiseInvert: a photograph under one fixed noise. arXiv:2208.01626, figure 12."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .host.inversion.invert import invert_noise, schedule
from .inversion_inputs import inversion_outputs, results, schedule_inputs, text_input


class NoiseInvert(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PNoiseInvert",
            display_name="P2P Noise Invert",
            category="p2p/inversion",
            description="The cheapest photo edit: the photograph under one fixed noise at all "
            "levels, without any model call. With a P2P Local Blend Mask everything outside the "
            "mask comes back exactly; inside, the edit follows the photograph less closely than "
            "with P2P DDIM Invert. (Prompt-to-Prompt, arXiv:2208.01626, figure 12)",
            search_aliases=[
                "inversion",
                "photo edit",
                "edit photo",
                "real image",
                "inpaint by words",
            ],
            inputs=[
                io.Latent.Input("latent", tooltip="The photograph, from VAEEncode."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the noise, as in a sampler.",
                ),
                *schedule_inputs(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Needed for models whose noise levels or latent scale differ from "
                    "Stable Diffusion 1.x's.",
                ),
                text_input(),
            ],
            outputs=inversion_outputs("To a P2P Attention Controller."),
        )

    @classmethod
    def execute(
        cls,
        latent: dict,
        seed: int,
        steps: int,
        scheduler: str,
        denoise: float = 1.0,
        sigmas: Tensor | None = None,
        model: Any = None,
        text: str = "",
    ) -> io.NodeOutput:
        levels = schedule(model, scheduler, steps, denoise, sigmas)
        inversion = invert_noise(model, latent, levels, seed)
        return io.NodeOutput(*results(replace(inversion, text=text.strip() or None)))


NODES = [NoiseInvert]
