"""DDIMInvert: the noisy latents of a photograph under its prompt. arXiv:2010.02502."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from .host.families.texts import encode
from .host.inversion.invert import invert_ddim, schedule
from .host.messages import text_on
from .host.wires import lacking, wired
from .inversion_inputs import inversion_outputs, results, schedule_inputs, text_input

NEEDS_PROMPT = (
    "Wire a CLIPTextEncode of what the photograph shows; or wire clip and write that into text."
)


class DDIMInvert(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="P2PDDIMInvert",
            display_name="P2P DDIM Invert",
            category="p2p/inversion",
            description="Runs the sampler backwards from a photograph, at cfg 1, and keeps every "
            "state. Wired to a P2P Attention Controller the photograph comes back exactly while "
            "its words are edited. (DDIM inversion, arXiv:2010.02502; direct inversion, "
            "arXiv:2310.01506)",
            search_aliases=[
                "ddim inversion",
                "inversion",
                "unsample",
                "photo edit",
                "edit photo",
                "direct inversion",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled, unpatched."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="CLIPTextEncode of the edit's source prompt; or wire clip and write "
                    "the prompt into text.",
                ),
                io.Latent.Input("latent", tooltip="The photograph, from VAEEncode."),
                *schedule_inputs(),
                io.Int.Input(
                    "fixed_point_iterations",
                    default=0,
                    min=0,
                    max=20,
                    optional=True,
                    advanced=True,
                    tooltip="Refines every step until it runs back to where it came from; each "
                    "iteration costs one more model call a step. 0: plain DDIM inversion; 1-5 "
                    "reconstruct better without a controller. (AIDI, arXiv:2309.04907)",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Instead of positive: reads the text below."
                ),
                text_input("With positive wired it must say the same."),
            ],
            outputs=inversion_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, text: str | None = None, input_types: Mapping[str, str] | None = None
    ) -> bool:
        wires = wired(cls, input_types)
        has_text = "clip" in wires and ("text" in wires or (text or "").strip())
        if "positive" not in wires and not has_text:
            raise lacking(cls, "positive", NEEDS_PROMPT)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        latent: dict,
        steps: int,
        scheduler: str,
        denoise: float = 1.0,
        sigmas: Tensor | None = None,
        fixed_point_iterations: int = 0,
        positive: list | None = None,
        clip: Any = None,
        text: str = "",
    ) -> io.NodeOutput:
        if positive is None:
            if clip is None or not text.strip():
                raise lacking(cls, "positive", NEEDS_PROMPT)
            positive = encode(clip, text)
        levels = schedule(model, scheduler, steps, denoise, sigmas)
        inversion = invert_ddim(model, positive, latent, levels, fixed_point_iterations)
        inversion = replace(inversion, text=text.strip() or None)
        if inversion.residual is not None:
            found = f"largest residual of a step: {inversion.residual:.1e}"
            logging.info("DDIM inversion, %s", found)
            text_on(cls)(found)
        return io.NodeOutput(*results(inversion))


NODES = [DDIMInvert]
