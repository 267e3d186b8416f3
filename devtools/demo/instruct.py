"""Instructions on a photograph: one workflow each, with the embedded model's variant for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devtools.demo.graphs import OUTPUT_ID, SAMPLER_ID, Panel, Settings, add, sampler_inputs

IMAGE_CFG = 1.5


@dataclass(frozen=True)
class InstructWorkflow:
    """One prompt to queue: the photograph after an instruction."""

    name: str
    photo: str  # file name in the input folder
    instruction: str

    @property
    def panels(self) -> tuple[Panel, ...]:
        return ()

    @property
    def pictures(self) -> list[str]:
        return ["result"]

    def graph(self, settings: Settings) -> dict[str, Any]:
        """Photograph and instruction → conditioning → ordinary sampler → picture."""
        graph: dict[str, Any] = {}
        add(graph, "model", "P2PDemoModel", variant="instructions")
        add(graph, "photo", "LoadImage", image=self.photo)
        for name, text in (("instruction", self.instruction), ("nothing", "")):
            add(graph, name, "CLIPTextEncode", clip=["model", 1], text=text)
        add(
            graph,
            "conditioning",
            "IP2PConditioning",
            model=["model", 0],
            positive=["instruction", 0],
            negative=["nothing", 0],
            vae=["model", 2],
            image=["photo", 0],
            image_cfg=IMAGE_CFG,
        )
        add(
            graph,
            SAMPLER_ID,
            "KSampler",
            model=["conditioning", 0],
            positive=["conditioning", 1],
            negative=["conditioning", 2],
            latent_image=["conditioning", 4],
            **sampler_inputs(settings),
        )
        add(graph, "decode", "VAEDecode", samples=[SAMPLER_ID, 0], vae=["model", 2])
        add(graph, OUTPUT_ID, "SaveImage", images=["decode", 0], filename_prefix="instruction")
        return graph
